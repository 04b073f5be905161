"""HTML that is safe by construction: whatever is not ``Html`` already is escaped where it is put in.

Strings of a dataset (keys, labels, file names, reasons) come from strangers. They enter a page through ``element``
alone, as text or as the value of an attribute, and the page itself forbids scripts, foreign styles and anything that
would be fetched.
"""

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

_MAX_TEXT = 2000  # characters of one string: a page is for reading
_VOID = {"meta", "img"}
_BAR_WIDTH, _HISTOGRAM_HEIGHT = 120, 100


class Html(str):
    """Markup that this module made; any other string is text."""


def text(value: Any) -> Html:
    """A value as text: escaped, cut when it is very long, and what cannot be seen or turns the line around spelt out.

    Example:
        >>> text("<b>\\n\\u202e"), text(1.5)
        ('&lt;b&gt;\\\\n\\\\u202e', '1.5')
    """
    plain = str(value)
    if len(plain) > _MAX_TEXT:
        plain = f"{plain[:_MAX_TEXT]}… ({len(plain):,} characters)"
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    return Html(html.escape(shown, quote=True))


def element(tag: str, *children: Any, **attributes: Any) -> Html:
    """An element with its children, each ``Html`` or else text, and attributes (``class_`` is class).

    Example:
        >>> element("p", "1 < 2 ", element("b", "yes"), class_='"')
        '<p class="&quot;">1 &lt; 2 <b>yes</b></p>'
    """
    named = "".join(f' {name.rstrip("_").replace("_", "-")}="{join([value])}"' for name, value in attributes.items())
    return Html(f"<{tag}{named}>" if tag in _VOID else f"<{tag}{named}>{join(children)}</{tag}>")


def join(children: Iterable[Any], between: str = "") -> Html:
    """Children one after another, each ``Html`` or else text."""
    return Html(between.join(child if isinstance(child, Html) else text(child) for child in children))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Html:
    """A table of cells; numbers stand to the right."""
    titles = element("thead", element("tr", *(element("th", cell) for cell in head)))
    lines = (element("tr", *map(_cell, row)) for row in rows)
    return element("table", titles, element("tbody", join(lines, "\n")))


def _cell(value: Any) -> Html:
    if isinstance(value, int):
        return element("td", f"{value:,}", class_="number")
    return element("td", f"{value:.6g}", class_="number") if isinstance(value, float) else element("td", value)


def bar(count: int, largest: int) -> Html:
    """A bar whose length is the share of ``count`` in ``largest``."""
    width = f"{_BAR_WIDTH * count / max(largest, 1):.2f}"
    return element("svg", element("rect", width=width, height=10), width=_BAR_WIDTH, height=10, aria_hidden="true")


def histogram(counts: Sequence[int]) -> Html:
    """A bar for each value that occurs. Its height is the logarithm of ``1 + count``: images are mostly ground."""
    unit = _HISTOGRAM_HEIGHT / math.log1p(max(counts))
    bars = [_column(value, count, unit * math.log1p(count)) for value, count in enumerate(counts) if count]
    box = f"0 0 {len(counts)} {_HISTOGRAM_HEIGHT}"
    return element("svg", *bars, class_="histogram", viewBox=box, preserveAspectRatio="none", role="img")


def _column(value: int, count: int, height: float) -> Html:
    place = {"x": value, "y": f"{_HISTOGRAM_HEIGHT - height:.2f}", "width": 1, "height": f"{height:.2f}"}
    return element("rect", element("title", f"{value}: {count:,}"), **place)


def image(png: bytes, width: int, alt: str) -> Html:
    """A PNG file inside the page, this many pixels wide."""
    source = Html(f"data:image/png;base64,{base64.b64encode(png).decode()}")  # nothing in it to escape, and long
    return element("img", src=source, width=width, alt=alt)


def page(title: str, style: str, body: Sequence[Html]) -> bytes:
    """A page that runs nothing, fetches nothing and knows no style but its own."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", title),
        element("style", Html(style)),
    ]
    whole = element("html", element("head", *head), Html("\n"), element("body", join(body, "\n")), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n".encode()
