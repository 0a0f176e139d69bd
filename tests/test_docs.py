"""Every code block of the documentation runs, or is what its language allows, and links lead on.

What the pages promise, and how a block says what is to become of it, is in CONTRIBUTING.md.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import roletalk
import roletalk.testing

from .docs.check import check
from .docs.pages import CHECKED, ROOT, RUN, SHOWN, Block, Page, fences, pages, parse
from .docs.running import PageError, run_page

sys.path.append(str(ROOT / "docs/_ext"))
from stubs import BLOCK, documented, members
from stubs import PAGES as PAGES_OF_REFERENCE

PAGES = pages()
NOT_RUN_AT_MOST = 6
# Of classes that are compiled, whose modules below need them.
INTERNAL = {
    "Connection.admit",
    "Connection.has_room_now",
    "Connection.owner",
    "Connection.peer",
    "Connection.stream_tasks",
    "Connection.wait_for_room",
    "Listener.start",
    "Peer.active_roles",
    "Peer.bind",
    "Peer.handshake_timeout",
    "Peer.serves",
}

LINK = re.compile(r"(?<!!)\[(?:[^][]|\[[^]]*\])*\]\(<?([^()\s>]+)>?(?: \"[^\"]*\")?\)")
IMAGE = re.compile(r"!\[[^]]*\]\(([^()\s]+)\)|<img [^>]*src=\"([^\"]+)\"")


def params(found: list[Page]) -> list[object]:
    return [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.runs("sh") else [])
        for page in found
    ]


@pytest.mark.parametrize("page", params([page for page in PAGES if page.runs("python", "sh")]))
def test_the_blocks_run(page: Page, tmp_path: Path) -> None:
    if page.runs("sh") and not shutil.which("bash"):
        pytest.skip("no bash here")
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", params([page for page in PAGES if page.blocks]))
def test_every_block_is_taken(page: Page) -> None:
    """None is of a language that nobody looks at, and none is overlooked by the parser."""
    taken = [block.line - 1 for block in page.blocks if not block.is_hidden]
    assert taken == list(fences(page.text)), "a fence without a language, or one within another"
    for block in page.blocks:
        known = block.language in RUN | CHECKED | SHOWN or block.language.startswith("{")
        assert known, f"{block.where}: nobody knows {block.language!r}"
        if block.is_hidden:
            assert block.language in RUN, f"{block.where}: hidden, and not run"
        if block.language in CHECKED or (block.language == "python" and not block.is_run):
            check(block)


def test_few_blocks_are_not_run() -> None:
    reasons = [f"{block.where}: {block.reason}" for block in blocks() if block.reason]
    assert len(reasons) <= NOT_RUN_AT_MOST, "\n".join(reasons)


def blocks() -> list[Block]:
    return [block for page in PAGES for block in page.blocks]


def prose(page: Page) -> str:
    """The page without its fenced blocks and code spans, which hold no links."""
    text = re.sub(r"^( *)(`{3,})[^\n]*\n.*?^\1\2`*$", "", page.text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", "`code`", text)


def slugs(path: Path) -> set[str]:
    """The anchors of its headings, as GitHub and MyST make them."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+?)#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip()).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


@pytest.mark.parametrize("page", params(list(PAGES)))
def test_links_lead_somewhere(page: Page) -> None:
    images = [first or second for first, second in IMAGE.findall(page.text)]
    for link in LINK.findall(prose(page)) + images:
        if re.match(r"[a-z+]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / unquote(target)).resolve() if target else page.path
        assert path.exists(), f"{page.name}: {link} leads nowhere"
        assert ROOT in path.parents, f"{page.name}: {link} leads out of the repository"
        if anchor and path.suffix == ".md":
            names = documented() if path.parent == PAGES_OF_REFERENCE else ()
            assert anchor in slugs(path) or anchor in names, f"{page.name}: {link}: no such heading"


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:`|\$ )make ([a-z][\w-]+)", page.text)
        assert set(named) <= targets, page.name


def test_the_reference_is_whole() -> None:
    """Every public name stands in it once, with all of its own members, and all are explained."""
    shown = documented()
    assert len(shown) == len(set(shown)), sorted(name for name in shown if shown.count(name) > 1)
    public = [(roletalk, name) for name in roletalk.__all__ if name != "__version__"]
    public += [(roletalk.testing, name) for name in roletalk.testing.__all__]
    names = {f"{module.__name__}.{name}" for module, name in public}
    assert names <= set(shown), names - set(shown)
    for module, name in public:
        value = getattr(module, name)
        for member in vars(value) if inspect.isclass(value) else ():
            if not member.startswith("_") and f"{name}.{member}" not in INTERNAL:
                # Of its own, or of a base that the reference shows or that Python has.
                bases = [each for each in value.__mro__ if hasattr(each, member)]
                assert any(
                    not each.__module__.startswith("roletalk")
                    or f"{module.__name__}.{name if each is value else each.__name__}.{member}"
                    in shown
                    for each in bases
                ), f"{name}.{member}"
    for page in sorted(PAGES_OF_REFERENCE.glob("*.md")):
        for block in BLOCK.finditer(page.read_text("utf-8")):
            for each in members(block):
                assert each.doc or ":value:" in str(each.options), (
                    f"{each.full_name} is unexplained"
                )


BROKEN = {
    "raises": ("```python\nx = 1\n\nx.y\n```\n", ":4: AttributeError"),
    "awaits an exception": ("\n```python\nawait f()\n```\n", ":3: NameError"),
    "does not compile": ("```python\nx = 1\nfor\n```\n", ":3: SyntaxError"),
    "asserts what is wrong": (
        "<!--- invisible-code-block: python\nassert 1 > 2\n--->\n",
        ":2: AssertionError",
    ),
    "fails in sh": ("```sh\necho out\nfalse\necho never\n```\n", ":2: exit status 1:\nout\n"),
    "prints something else": (
        "```python\nprint('one')\n```\n\n```text\ntwo\n```\n",
        ":6: another output than the page says:\none\n",
    ),
}


@pytest.mark.parametrize(("text", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_page_fails(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.docs.running.OUTPUT_SECONDS", 0.1)
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(PageError) as raised:
        run_page(parse(path), tmp_path)
    assert str(raised.value).startswith(f"{path}{says}")


GOOD = """
```python
# shop.py
PRICE = 12
```

```python
import asyncio
import roletalk
import shop

peer = roletalk.Peer(name="shop")

@peer.role("prices").on_request("of")
async def of(ctx):
    print("asked by", ctx.unit.name)
    return shop.PRICE

listener = await peer.listen("127.0.0.1", 0)
asyncio.create_task(peer.serve_forever())
```

```python
async with roletalk.Peer(name="buyer") as buyer, buyer.connect(listener.url):
    prices = buyer.destination("prices")
    await prices.wait_ready(5)
    async for answer in prices.survey("of", timeout=5):
        print(answer.data)
```

It prints:

```text
asked by ...
12
```

```sh
python -c 'import shop; print(shop.PRICE)' > price
sleep 1000 &
```

<!--- invisible-code-block: python
from pathlib import Path
assert Path("price").read_text() == "12\\n"
--->

<!-- not run: it ends the process -->
```python
raise SystemExit
```

```text
nobody prints this
```
"""


@pytest.mark.slow
def test_a_good_page_passes(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(GOOD)
    page = parse(path)
    assert [block.reason for block in page.blocks if block.reason] == ["it ends the process"]
    run_page(page, tmp_path)
    assert "shop" not in sys.modules
