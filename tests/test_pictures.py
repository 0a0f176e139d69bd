"""The drawings of docs/pictures: each can be read by a browser, by a screen reader and on a phone."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = sorted((DOCS / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"

# Scaled to the 358 px that a phone's page has, text of 14 px is still 10 px high.
WIDEST = 500
SMALLEST_TEXT = 14  # px
CHARACTER = 0.6  # em, as wide as DejaVu Sans makes one on average; most fonts are narrower


@pytest.fixture(params=PICTURES, ids=lambda path: path.name)
def picture(request: pytest.FixtureRequest) -> ElementTree.Element:
    return ElementTree.parse(request.param).getroot()


def test_it_has_a_title_and_a_description(picture: ElementTree.Element) -> None:
    assert picture.get("role") == "img"
    assert picture.get("aria-labelledby") == "title desc"
    for name in ("title", "desc"):
        assert picture.findtext(f"{SVG}{name}"), name


def test_its_text_fits(picture: ElementTree.Element) -> None:
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    assert width <= WIDEST
    assert picture.get("viewBox") == f"0 0 {width:g} {height:g}"
    for text in picture.iter(f"{SVG}text"):
        content, anchors = text.text or "", (text.get("class") or "").split()
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        long = len(content) * SMALLEST_TEXT * CHARACTER
        left = x - (long if "end" in anchors else long / 2 if "middle" in anchors else 0)
        assert left >= 0, content
        assert left + long <= width, content
        assert SMALLEST_TEXT <= y <= height - 4, content


def test_it_is_readable_in_the_dark(picture: ElementTree.Element) -> None:
    style = picture.findtext(f"{SVG}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    for kind in {line.split("{")[0].strip() for line in light.splitlines() if "#" in line}:
        assert f"{kind} {{" in dark, f"{kind} has the same colours in the dark"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_page_shows_it(path: Path) -> None:
    assert any(f"pictures/{path.name})" in page.read_text("utf-8") for page in DOCS.rglob("*.md"))
