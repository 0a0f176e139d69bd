"""Copies the docstrings of the compiled classes into their stubs: ``python -m tools.stub_docs``.

Editors show what a stub says: of a compiled module they see nothing else.  A copy is made of whatever
public classes have from compiled ones; tests/test_stubs.py fails when one differs from its original.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import roletalk

PACKAGE = Path(__file__).resolve().parent.parent / "roletalk"
INDENT = "    "

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# How what the interpreter says of slots begins.
SLOTS = ("Called when the instance", "Implement ", "Initialize self")


def compiled_classes() -> dict[str, dict[str, type]]:
    """By module, the compiled classes that public ones are or derive from."""
    found: dict[str, dict[str, type]] = {}
    for name in roletalk.__all__:
        public = getattr(roletalk, name)
        for each in inspect.getmro(public) if isinstance(public, type) else ():
            package, _, module = each.__module__.partition(".")
            if package == "roletalk" and (PACKAGE / f"{module}.pyi").exists():
                found.setdefault(module, {})[each.__name__] = each
    return found


def documented(tree: ast.Module, classes: dict[str, type]) -> Iterator[tuple[Documented, str]]:
    """What a stub has of `classes`, with the docstring of each, from the last one to the first."""
    for node in reversed(tree.body):
        if not isinstance(node, ast.ClassDef) or node.name not in classes:
            continue
        members = vars(classes[node.name])
        for member in reversed(node.body):
            if not isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            # A setter has no documentation of its own.
            if not any(isinstance(each, ast.Attribute) for each in member.decorator_list):
                # What is inherited is explained where it comes from.
                doc = members[member.name].__doc__ if member.name in members else None
                yield member, _cleaned(doc)
        yield node, _cleaned(members.get("__doc__"))


def _cleaned(doc: object) -> str:
    is_ours = isinstance(doc, str) and not doc.startswith(SLOTS)
    return inspect.cleandoc(doc) if is_ours and isinstance(doc, str) else ""


def with_docs(source: str, classes: dict[str, type]) -> str:
    """`source` of a stub, its docstrings replaced by those of `classes`."""
    lines = source.splitlines()
    for node, doc in documented(ast.parse(source), classes):
        if (ast.get_docstring(node) or "") == doc:
            continue
        first, *rest = node.body
        has_doc = ast.get_docstring(node) is not None
        is_empty = isinstance(first, ast.Expr) and not rest
        new = [] if not doc else _quoted(doc, INDENT + " " * node.col_offset)
        if not new and (not rest or is_empty):
            new = [INDENT + " " * node.col_offset + "..."]
        if isinstance(first, ast.Expr) and (has_doc or is_empty):
            head = lines[first.lineno - 1][: first.col_offset].rstrip()
            lines[first.lineno - 1 : first.end_lineno] = [*([head] if head else []), *new]
        else:
            at = min(
                [first.lineno, *(each.lineno for each in getattr(first, "decorator_list", ()))]
            )
            lines[at - 1 : at - 1] = [*new, ""]
    return "\n".join(lines) + "\n"


def _quoted(doc: str, indent: str) -> list[str]:
    first, *rest = doc.replace("\\", "\\\\").split("\n")
    if not rest and not first.endswith('"'):
        return [f'{indent}"""{first}"""']
    return [
        f'{indent}"""{first}',
        *(indent + line if line else "" for line in rest),
        f'{indent}"""',
    ]


def main(*, write: bool = True) -> list[str]:
    """The stubs whose docstrings differ from those of the compiled classes; writes them anew."""
    changed: list[str] = []
    for module, classes in compiled_classes().items():
        stub = PACKAGE / f"{module}.pyi"
        old = stub.read_text("utf-8")
        new = with_docs(old, classes)
        if new == old:
            continue
        changed.append(stub.name)
        if write:
            stub.write_text(new, "utf-8")
    return changed


if __name__ == "__main__":
    for name in main():
        print(f"wrote {name}", file=sys.stderr)
