"""What the reference shows, and what the sources say of it: signatures, annotations, docstrings.

Signatures stand in ``roletalk/*.pyi`` where the module is compiled, and in its ``.py`` otherwise; they
are read from there, and docstrings from the classes as they are at run time.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ROOT / "docs/reference"
BLOCK: Final = re.compile(r"^```\{reference\} ([\w.]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Definition = ast.FunctionDef | ast.AsyncFunctionDef
PROPERTIES: Final = frozenset({"property", "cached_property"})


@dataclass(frozen=True)
class Member:
    """A class, function, method, property or attribute of the public API."""

    full_name: str  # roletalk.Peer.listen
    role: str  # of Sphinx's Python domain: class, method, property ...
    signatures: tuple[str, ...]  # from the name on
    options: tuple[str, ...]  # of the directive: ":async:"
    doc: str


@cache
def tree(module: str) -> ast.Module:
    base = ROOT / Path(*module.split("."))
    for path in (base.with_suffix(".pyi"), base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return ast.parse(path.read_text("utf-8"))
    raise LookupError(f"no source of {module}")


@cache
def public_names(package: str) -> dict[str, str]:
    """What classes are called in the modules that they are from -> their public names.

    The bases that only have compiled code go by the names of the classes that users see.
    """
    found: dict[str, str] = {}
    module = __import__(package, fromlist=["__all__"])
    for name in module.__all__:
        value = getattr(module, name)
        if not is_class(value):
            continue
        found[value.__name__] = name
        for base in value.__mro__[1:]:
            if base.__name__ == f"{name}Core":
                found[base.__name__] = name
    return found


def text_of(node: ast.expr) -> str:
    """An annotation or a default, with public names."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return repr(node.value)
    text = ast.unparse(node)
    text = re.sub(r"\bssl_module\.", "ssl.", text)
    text = text.replace("UNSET", "...")
    text = re.sub(r"\bNode\b", "Peer | str", text)
    names = public_names("roletalk")
    return re.sub(r"(?<![.\w'])\w+\b(?!')", lambda name: names.get(name[0], name[0]), text)


def signature(definition: Definition, *, is_method: bool) -> str:
    arguments = definition.args
    text = []
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults += arguments.defaults
    is_static = any(text_of(each) == "staticmethod" for each in definition.decorator_list)
    for number, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        if number or not is_method or is_static:
            text.append(parameter(argument, default))
        if arguments.posonlyargs and number == len(arguments.posonlyargs) - 1:
            text.append("/")
    if arguments.vararg:
        text.append("*" + parameter(arguments.vararg, None))
    elif arguments.kwonlyargs:
        text.append("*")
    text += map(parameter, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        text.append("**" + parameter(arguments.kwarg, None))
    returns = ""
    if definition.returns is not None and definition.name != "__init__":
        # That it is a coroutine is for type checkers, which report one that nobody awaits.
        awaited = re.sub(
            r"^Coroutine\[Any, Any, (.+)\]$", r"Awaitable[\1]", text_of(definition.returns)
        )
        returns = f" -> {awaited}"
    # A method's own `self` may have been all that stood before it.
    shown = text[1:] if text[:1] == ["/"] else text
    return f"({', '.join(shown)}){returns}"


def parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation is not None:
        text += f": {text_of(argument.annotation)}"
    if default is not None:
        text += f" = {text_of(default)}" if argument.annotation else f"={text_of(default)}"
    return text


def docstring(of: Any) -> str:
    """Without the signature that Cython puts before it."""
    doc = inspect.getdoc(of) or ""
    return re.sub(r"\A\w+(\(.*|: \S+)(\n\s*|\Z)", "", doc)


def class_definition(kind: type) -> ast.ClassDef | None:
    if not kind.__module__.startswith("roletalk"):
        return None
    for node in tree(kind.__module__).body:
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
            return node
    return None


def definitions(body: list[ast.stmt], name: str) -> list[Definition]:
    """Those of `name`: one, or its overloads without what they share."""
    found = [
        node
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name
    ]
    overloads = [node for node in found if "overload" in decorators(node)]
    return overloads or [node for node in found if not any(map(is_setter, decorators(node)))]


def decorators(definition: Definition) -> list[str]:
    return [ast.unparse(each) for each in definition.decorator_list]


def is_setter(decorator: str) -> bool:
    return decorator.endswith(".setter")


def attribute(body: list[ast.stmt], name: str) -> tuple[str, str] | None:
    """The annotation of an attribute, and the string that stands below it."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, (ast.Name, ast.Attribute))
            and ast.unparse(node.target) in (name, f"self.{name}")
        ):
            below = after.value if isinstance(after, ast.Expr) else None
            doc = below.value if isinstance(below, ast.Constant) else ""
            annotation = re.sub(r"^Final(?:\[(.*)\])?$", r"\1", text_of(node.annotation))
            return annotation, inspect.cleandoc(str(doc))
        if isinstance(node, ast.Assign) and f"self.{name}" in map(ast.unparse, node.targets):
            return "", ""
    return None


def describe_class(package: str, name: str) -> Member:
    kind = getattr(__import__(package, fromlist=[name]), name)
    signatures: tuple[str, ...] = (name,)
    constructor = kind.__dict__.get("__init__")
    node = class_definition(kind)
    # Where users make them, the constructor counts; most are made by the library.
    is_made_by_users = constructor is not None and (
        issubclass(kind, Exception) or name == "Peer" or package != "roletalk"
    )
    if node is not None and is_made_by_users:
        signatures = tuple(
            name + signature(each, is_method=True) for each in definitions(node.body, "__init__")
        )
    role = "exception" if issubclass(kind, Exception) else "class"
    return Member(
        f"{package}.{name}", role, signatures or (name,), (), inspect.cleandoc(kind.__doc__ or "")
    )


def describe_function(package: str, name: str) -> Member:
    function = getattr(__import__(package, fromlist=[name]), name)
    found = definitions(tree(inspect.unwrap(function).__module__).body, name)
    signatures = tuple(name + signature(each, is_method=False) for each in found)
    is_async = any(isinstance(each, ast.AsyncFunctionDef) for each in found)
    options = (":async:",) if is_async else ()
    doc = docstring(function)
    return Member(f"{package}.{name}", "function", signatures, options, doc)


def describe_alias(package: str, name: str) -> Member:
    """A name of a type that is no class: what it stands for, and the string below it."""
    for path in sorted((ROOT / Path(*package.split("."))).glob("*.py")):
        body = ast.parse(path.read_text("utf-8")).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value:
                below = after.value if isinstance(after, ast.Expr) else None
                doc = str(below.value) if isinstance(below, ast.Constant) else ""
                value = (f":value: {text_of(node.value)}",)
                return Member(f"{package}.{name}", "data", (name,), value, inspect.cleandoc(doc))
    raise LookupError(f"{package}.{name} is nowhere in the sources")


def describe_member(package: str, class_name: str, name: str, doc: str = "") -> Member:
    """`doc` is said where the sources say nothing: attributes of compiled classes have no docstrings."""
    kind = getattr(__import__(package, fromlist=[class_name]), class_name)
    full_name = f"{package}.{class_name}.{name}"
    # The bases of a TypedDict are none of its classes at run time.
    for each in (*kind.__mro__, *getattr(kind, "__orig_bases__", ())):
        node = class_definition(each)
        if node is None:
            continue
        found = definitions(node.body, name)
        if found:
            own = docstring(inspect.getattr_static(kind, name)) or ast.get_docstring(found[0])
            return describe_definitions(full_name, class_name, found, own or doc)
        initial = definitions(node.body, "__init__")
        bodies = [node.body, *(each.body for each in initial)]
        for body in bodies:
            declared = attribute(body, name)
            if declared:
                annotation, below = declared
                static = inspect.getattr_static(kind, name, None)
                own = docstring(static) if inspect.isdatadescriptor(static) else ""
                options = (f":type: {annotation}",) if annotation else ()
                shown = f"{class_name}.{name}"
                return Member(full_name, "attribute", (shown,), options, own or below or doc)
        if issubclass(kind, enum.Enum) and name in kind.__members__:
            value = (f":value: {kind[name].value!r}",)
            return Member(full_name, "attribute", (f"{class_name}.{name}",), value, doc)
    raise LookupError(f"{full_name} is nowhere in the sources")


def describe_definitions(
    full_name: str, class_name: str, found: list[Definition], doc: str
) -> Member:
    name = full_name.rpartition(".")[2]
    shown = f"{class_name}.{name}"
    first = found[0]
    if PROPERTIES & set(decorators(first)):
        options = (f":type: {text_of(first.returns)}",) if first.returns else ()
        return Member(full_name, "property", (shown,), options, doc)
    signatures = tuple(shown + signature(each, is_method=True) for each in found)
    options = (":async:",) if isinstance(first, ast.AsyncFunctionDef) else ()
    return Member(full_name, "method", signatures, options, doc)


def split(name: str) -> tuple[str, str]:
    """The package and the name in it: roletalk is left out."""
    package, _, last = name.rpartition(".")
    return f"roletalk.{package}" if package else "roletalk", last


def is_class(value: object) -> bool:
    # To Python 3.10 ``Callable[...]`` is one as well.
    return inspect.isclass(value) and not isinstance(value, GenericAlias)


def members(block: re.Match[str]) -> Iterator[Member]:
    package, name = split(block[1])
    if not block[2].strip():
        value = lookup(package, name)
        if is_class(value):
            yield describe_class(package, name)
        elif inspect.isfunction(value):
            yield describe_function(package, name)
        else:
            yield describe_alias(package, name)
        return
    for each, arguments, doc in listed(block[2]):
        member = describe_member(package, name, each, doc)
        if arguments:
            # In place of overloads that tell a reader less than they tell a type checker.
            member = replace(member, signatures=(f"{name}.{each}{arguments}",))
        yield member


def listed(body: str) -> Iterator[tuple[str, str, str]]:
    """The names in a block, each with the arguments and the text that stand with it."""
    for line in body.splitlines():
        alone = re.fullmatch(r"(\w+)(\(.*\)(?: -> [^:]+)?)?(?:: (.+))?", line)
        if alone:
            yield alone[1], alone[2] or "", alone[3] or ""
        else:
            yield from ((each, "", "") for each in line.split())


def documented() -> list[str]:
    """The full names of all that the reference shows, in order, as often as it does."""
    names = []
    for page in sorted(PAGES.glob("*.md")):
        for block in BLOCK.finditer(page.read_text("utf-8")):
            package, name = split(block[1])
            whole = f"{package}.{name}"
            names += [f"{whole}.{each}" for each, _, _ in listed(block[2])] or [whole]
    return names


def lookup(package: str, name: str) -> Any:
    return getattr(__import__(package, fromlist=[name]), name)
