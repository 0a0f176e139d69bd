"""A pytest plugin that makes sure which build of roletalk the tests run on.

`pytest -p tools.pytest_built --built=release` refuses to start unless the roletalk it imports is
that build, whole, and of this checkout; on `wheel`, unless it is an installed one, with no sources
beside the tests that could be imported instead.  Tests that a build cannot pass are skipped on it.
Importing it before any test module does also settles that they all get this one.
"""

import gc
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest
from aiofastnet import __version__ as installed

from tools.sanitized import is_sanitized

SOURCES = Path(__file__).resolve().parent.parent / "roletalk"
PACKAGES = {
    "release": SOURCES,
    **{
        variant: SOURCES.parent / "build" / variant / "lib" / "roletalk"
        for variant in ("debug", "sanitize")
    },
}
WHEEL = "wheel"
# What a test is marked with that a build cannot pass, and why.
SKIPPED = {
    "sanitize": ("footprint", "the sanitizers take memory of their own, and keep more"),
    WHEEL: ("checkout", "it reads the sources"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--built", choices=(*PACKAGES, WHEEL), default="release")


def installed_package() -> Path:
    found = find_spec("roletalk")
    if found is None or found.origin is None:
        raise pytest.UsageError("roletalk is not installed")
    if SOURCES.exists():
        raise pytest.UsageError(f"{SOURCES} is there: copy the tests to where it is not")
    return Path(found.origin).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    variant: str = config.getoption("built")
    if variant == WHEEL:
        package = installed_package()
        # Each compiled module has its stub beside it, and nothing else has one.
        wanted = {stub.stem for stub in package.glob("*.pyi")}
    else:
        package = PACKAGES[variant]
        wanted = {source.stem for source in SOURCES.glob("*.pyx")}
    built = {
        file.name.split(".", 1)[0]
        for file in package.iterdir()
        if file.name.endswith(EXTENSION_SUFFIXES[0])
    }
    if built != wanted:
        missing, stale = sorted(wanted - built), sorted(built - wanted)
        raise pytest.UsageError(f"the {variant} build lacks {missing} and has {stale} left over")
    for name in sorted(wanted):
        found = import_module(f"roletalk.{name}").__file__
        if found is None or Path(found).resolve().parent != package:
            raise pytest.UsageError(f"roletalk.{name} comes from {found}, not from {package}")
    if import_module("roletalk._debug").is_debug_build() == (variant in ("release", WHEEL)):
        raise pytest.UsageError(f"{package} does not hold the {variant} build")
    if (variant == "sanitize") != is_sanitized():
        raise pytest.UsageError("AddressSanitizer goes with the build named sanitize")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marker, reason = SKIPPED.get(config.getoption("built"), ("", ""))
    for item in items:
        if marker and item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_header(config: pytest.Config) -> str:
    variant: str = config.getoption("built")
    built_info = import_module("roletalk._build_info")
    built_against, file = built_info.AIOFASTNET, built_info.__file__
    return (
        f"roletalk: {variant} build in {Path(str(file)).parent},"
        f" aiofastnet {installed} (built against {built_against})"
    )


def pytest_collection_finish() -> None:
    # On the debug build the garbage is collected around every test.  What the imports made, most of
    # the heap, stays anyhow; looking through it each time would take most of the run.
    gc.collect()
    gc.freeze()
