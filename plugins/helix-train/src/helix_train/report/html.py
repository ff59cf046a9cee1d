"""HTML of which every text is escaped: only what `element` made is taken for markup."""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

from helix_kernel.cli.output import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_VOID = frozenset({"meta", "link", "br", "circle", "line", "path"})
# Neither HTML nor a reader has these; lone halves of a surrogate pair cannot even be written.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, attributes: Mapping[str, object] | None = None, *content: str) -> Markup:
    """Return an element.

    Args:
        name: Its tag.
        attributes: By name; those that are None are left out.
        content: Markup, which stays as it is, or text, which is escaped.
    """
    given = "".join(
        f' {key}="{_escaped(str(value))}"' for key, value in (attributes or {}).items() if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{joined(content)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    """Return markup and escaped text, one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else _escaped(part) for part in parts))


def raw(name: str, content: str) -> Markup:
    """Return an element of our own style or script."""
    return Markup(f"<{name}>{content}</{name}>")


def data(value: Any) -> Markup:
    """Return an element that holds JSON for a script; nothing in it can end the element."""
    text = json.dumps(strict_json(value), separators=(",", ":")).replace("<", "\\u003c")
    return Markup(f'<script type="application/json">{text}</script>')


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> Markup:
    """Return a table that scrolls in itself where the page is too narrow for it.

    Args:
        columns: Their headings.
        rows: The cells of each row, as markup or text; the first one heads its row.
        numbers: How many of the columns, counted from the right, are set as numbers.
    """
    first_number = len(columns) - numbers
    kinds = [{"class": "number"} if at >= first_number else None for at in range(len(columns))]
    heads = [
        element("th", {**(kind or {}), "scope": "col"}, column)
        for kind, column in zip(kinds, columns, strict=True)
    ]
    body = [
        element("tr", None, element("th", {"scope": "row"}, row[0]), *map(_cell, kinds[1:], row[1:]))
        for row in rows
    ]
    head = element("thead", None, element("tr", None, *heads))
    whole = element("table", None, head, element("tbody", None, *body))
    return element("div", {"class": "scroll", "tabindex": 0}, whole)


def _cell(kind: Mapping[str, object] | None, content: str) -> Markup:
    return element("td", kind, content)


def _escaped(text: str) -> str:
    return escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text))
