"""Which releases of what they are built on the extension modules are used with."""

from __future__ import annotations

import pytest
from aiofastnet import __version__ as installed_aiofastnet
from picows.version import __version__ as installed_picows

from roletalk._abi import OLDEST, check_library
from roletalk._build_info import AIOFASTNET as BUILT_AIOFASTNET
from roletalk._build_info import PICOWS as BUILT_PICOWS


@pytest.mark.parametrize(
    ("installed", "built"),
    [
        ("2.3.1", "2.3.1"),
        ("2.3.2", "2.3.1"),
        ("2.3.10", "2.3.9"),
        ("2.3.1", "2.3.5"),
        ("2.3.4.post1", "2.3.1"),
        ("2.9.0", "2.9"),
        (installed_picows, BUILT_PICOWS),
    ],
)
def test_what_fits(installed: str, built: str) -> None:
    check_library("picows", installed, built)


def test_what_is_installed_fits() -> None:
    check_library("aiofastnet", installed_aiofastnet, BUILT_AIOFASTNET)
    with pytest.raises(ImportError, match=r"pip install 'aiofastnet>=1\.2\.0,<"):
        check_library("aiofastnet", "1.1.9", BUILT_AIOFASTNET)


@pytest.mark.parametrize(
    ("installed", "built"),
    [
        ("2.4.0", "2.3.1"),
        ("2.2.9", "2.3.1"),
        ("3.3.1", "2.3.1"),
        ("2.30.1", "2.3.1"),
        ("2.3", "2.3.1"),
        ("2.3.0", "2.3.0"),
        ("1.9.9", "1.9.9"),
    ],
    ids=lambda version: version,
)
def test_what_does_not_fit(installed: str, built: str) -> None:
    with pytest.raises(ImportError) as caught:
        check_library("picows", installed, built)
    text = str(caught.value)
    assert f"against picows {built} " in text
    assert f"installed picows {installed}:" in text
    assert f"pip install 'picows>={OLDEST['picows']},<" in text


def test_a_version_that_cannot_be_read() -> None:
    with pytest.raises(ImportError, match="unknown"):
        check_library("picows", "unknown", "2.3.1")
