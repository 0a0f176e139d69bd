"""What users and their editors are told: signatures, docstrings in stubs, the types of figures.

What type checkers make of it is checked by `make types`, with the code in tests/typing.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import pytest

import roletalk
from roletalk.stats import Counters
from tools import stub_docs

DEFAULT = "<the peer's request_timeout>"


def test_docstrings_in_stubs_are_those_of_the_compiled_classes() -> None:
    assert not stub_docs.main(write=False), "run python -m tools.stub_docs"


def test_every_public_method_of_compiled_classes_has_a_docstring_in_its_stub() -> None:
    public = {"Context", "RequestContext", "StreamContext", "Stream", "ReadableStream"}
    public |= {"WritableStream", "DestinationCore"}
    attributes = {"unit", "raw", "role", "event", "kind", "reply", "name", "peer"}  # cdef ones
    inner = {"current_units", "add_unit", "remove_unit"}
    documented: set[str] = set()
    for module, classes in stub_docs.compiled_classes().items():
        source = (stub_docs.PACKAGE / f"{module}.pyi").read_text("utf-8")
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef) or node.name not in classes.keys() & public:
                continue
            for member in node.body:
                if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    is_setter = any(
                        isinstance(each, ast.Attribute) for each in member.decorator_list
                    )
                    if not is_setter and ast.get_docstring(member):
                        documented.add(f"{node.name}.{member.name}")
                    elif not is_setter and not member.name.startswith("_"):
                        assert member.name in attributes | inner, f"{node.name}.{member.name}"
    assert {"Context.data", "Context.decode", "DestinationCore.request"} < documented


def test_what_differs_is_replaced(tmp_path: Path) -> None:
    stub = "class Context:\n    def decode(self) -> int: ...\n    @property\n    def data(self) -> int:\n"
    stub += '        """Old.\n\n        More.\n        """\n    def other(self) -> int: ...\n'

    class Context:
        """New: "quoted"."""

        @property
        def data(self) -> int:
            """Data."""
            return 1

        def decode(self) -> int:
            r"""A \ and
            a second line.
            """
            return 1

    once = stub_docs.with_docs(stub, {"Context": Context})
    assert once.splitlines() == [
        "class Context:",
        '    """New: "quoted"."""',
        "",
        "    def decode(self) -> int:",
        '        """A \\\\ and',
        "        a second line.",
        '        """',
        "    @property",
        "    def data(self) -> int:",
        '        """Data."""',
        "    def other(self) -> int: ...",
    ]
    assert stub_docs.with_docs(once, {"Context": Context}) == once


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (
            roletalk.Destination.request,
            f"(self, event, data=None, *, timeout={DEFAULT}, unit=None, ignore_unit_close=False)",
        ),
        (roletalk.Destination.send, "(self, event, data=None, *, unit=None)"),
        (
            roletalk.Destination.readable,
            f"(self, event, data=None, *, timeout={DEFAULT}, unit=None)",
        ),
        (roletalk.Destination.broadcast, "(self, event, data=None)"),
        (roletalk.Context.decode, "(self, type)"),
        (roletalk.RequestContext.reject, "(self, text='rejected')"),
        (roletalk.ReadableContext.accept, "(self, data=None)"),
        (roletalk.ReadableStream.read, "(self, n=-1)"),
        (roletalk.WritableStream.write, "(self, data)"),
    ],
)
def test_signatures_of_compiled_methods(function: Callable[..., Any], signature: str) -> None:
    assert str(inspect.signature(function)) == signature
    doc = inspect.getdoc(function)
    assert doc
    assert not doc.startswith(f"{function.__name__}(")  # `help` shows the signature by itself


def test_the_singleton_takes_what_a_peer_takes() -> None:
    assert inspect.signature(roletalk.singleton) == inspect.signature(roletalk.Peer)


def test_stats_have_the_keys_of_their_type() -> None:
    peer = roletalk.Peer()
    assert peer.counted().keys() == Counters.__annotations__.keys()
    assert peer.stats().keys() == roletalk.Stats.__annotations__.keys()
    types = get_type_hints(roletalk.Stats)
    for key, value in peer.stats().items():
        assert type(value) is (get_origin(types[key]) or types[key]), key


def test_nothing_needs_typing_extensions_at_run_time() -> None:
    sources = [*stub_docs.PACKAGE.glob("*.py"), *stub_docs.PACKAGE.glob("*.pyx")]
    assert not [path.name for path in sources if "typing_extensions" in path.read_text("utf-8")]
