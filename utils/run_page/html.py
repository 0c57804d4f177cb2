"""How does HTML come about in which no name of a file or class can do harm?

Elements are built, never pasted together as text, so whatever they hold is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

Child = Element | str | None


def tag(name: str, *children: Child, **attributes: str | float) -> Element:
    """An element; None among its children is left out.

    Attributes are written as Python allows: `class_="x"`, `stroke_width=2`.

    >>> ElementTree.tostring(tag("p", "a < b", tag("b", "c"), class_="x"), "unicode", "html")
    '<p class="x">a &lt; b<b>c</b></p>'
    """
    element = Element(name)
    for key, value in attributes.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        element.set(key.rstrip("_").replace("_", "-"), printable(text))
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif child is not None and last is None:
            element.text = (element.text or "") + printable(child)
        elif child is not None and last is not None:
            last.tail = (last.tail or "") + printable(child)
    return element


def table(
    head: Sequence[str], rows: Iterable[Sequence[Child]], numbers: bool = True, class_: str = ""
) -> Element:
    """A table that scrolls in its own frame where it is wider than the page.

    numbers: all columns but the first are aligned to the right.
    """
    kinds = "numbers" if numbers else "words"
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", *(tag("th", cell) for cell in head))),
            tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows)),
            class_=f"{kinds} {class_}".strip(),
        ),
        class_="scroll",
    )


def document(title: str, style: str, body: Sequence[Element], reload_seconds: int = 0) -> str:
    """A whole page. reload_seconds: after which a browser fetches it again; 0 for never."""
    reload = tag("meta", http_equiv="refresh", content=str(reload_seconds))
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name_="color-scheme", content="light dark"),
            reload if reload_seconds else None,
            tag("title", title),
            # Else a browser asks the server for an icon.
            tag("link", rel="icon", href="data:,"),
            tag("style", style),
        ),
        tag("body", *body),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{ElementTree.tostring(page, 'unicode', 'html')}\n"


def printable(text: str) -> str:
    """Text without control characters and halves of characters, which no page may hold."""
    if text.isprintable():
        return text
    fine = (c.isprintable() or c in "\n\t" or c.isspace() for c in text)
    return "".join(c if is_fine else ascii(c)[1:-1] for c, is_fine in zip(text, fine, strict=True))
