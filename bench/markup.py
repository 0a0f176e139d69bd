"""HTML and SVG put together so that nothing gets in unescaped."""

from html import escape


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


VOID = frozenset(("br", "col", "meta"))


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """An element.  Children are escaped unless they are `Html`; what is ``None`` is left out.

    ``class_`` and the like lose their last underscore, the others become hyphens.
    """
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """One after the other, escaped unless they are `Html`."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children))


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
