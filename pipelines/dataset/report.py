"""``report.html``: what a person wants to see of a prepared dataset before training on it.

Counts, values, the first rows and the rejected ones, on one page that needs nothing else. It is made of
``statistics.json``, the commit records and the rejections alone and names neither times nor places, so that it is the
same byte for byte on any runner. See ``pipelines.dataset.html`` for how strings from data are kept from doing harm.
"""

import collections
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import Rejection
from . import html, thumbnails
from .html import Html, element

_FULL_REJECTIONS, _REASONS = 50, 100
_IMAGE_PIXELS = 64  # on the screen; a smaller image is enlarged by a whole factor

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: .5em 0 1.5em; }
th, td { text-align: left; vertical-align: top; padding: .15em .8em .15em 0; border-bottom: 1px solid #ddd; }
td { overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
rect { fill: #3b6ea8; }
svg.histogram { width: 100%; height: 8em; border-bottom: 1px solid #888; }
figure { margin: 0 0 1.5em; }
img { image-rendering: pixelated; max-width: 100%; }
"""


def render(
    name: str, statistics: dict[str, Any], pictures: dict[str, np.ndarray], rejections: Iterable[Rejection]
) -> bytes:
    """The page.

    Args:
        name: The dataset's name.
        statistics: What ``statistics.json`` holds.
        pictures: By split its first rows, ``[N, H, W, 1 or 3]``; nothing where rows are no images.
        rejections: All of them, in the order of the plan; read once, and few are kept.

    Returns:
        HTML, UTF-8.

    Example:
        >>> split = {"rows": 1, "x": {"mean": 0.0, "std": 0.0, "min": 0.0, "max": 0.0}}
        >>> page = render("tiny", {"shape": [2], "dtype": "float32", "splits": {"train": split}}, {}, [])
        >>> b"<h1>tiny</h1>" in page
        True
    """
    splits = statistics["splits"]
    rows = sum(split["rows"] for split in splits.values())
    shape = " × ".join(map(str, statistics["shape"])) or "1"
    body = [
        element("h1", name),
        element("p", f"{rows:,} rows of {shape} {statistics['dtype']} values."),
        *_rows(splits),
        *_values(splits, math.prod(statistics["shape"])),
        *_columns(splits),
        *_pictures(splits, pictures),
        *_rejected(rejections),
    ]
    return html.page(f"{name}: prepared dataset", STYLE, body)


def _rows(splits: dict[str, Any]) -> list[Html]:
    """Rows of each split and of each of its labels, with bars."""
    totals = [split["rows"] for split in splits.values()]
    lines = [["all", *_counts(totals, [max(totals)] * len(totals))]]
    labelled = [split.get("labels", {}) for split in splits.values()]
    largest = [max(counts.values(), default=0) for counts in labelled]
    lines += [[label, *_counts([counts[label] for counts in labelled], largest)] for label in labelled[0]]
    head = ["label", *(cell for split in splits for cell in (split, ""))]
    return [element("h2", "Rows"), html.table(head, lines)]


def _counts(counts: Sequence[int], largest: Sequence[int]) -> list[Any]:
    """Two cells for each split: a number and its bar."""
    pairs = zip(counts, largest, strict=True)
    return [cell for count, most in pairs for cell in (count, html.bar(count, most))]


def _values(splits: dict[str, Any], row_values: int) -> list[Html]:
    """Mean, deviation and range of each split; for bytes the histogram."""
    moments = ("mean", "std", "min", "max")
    lines = [[name, split["rows"] * row_values, *(split["x"][m] for m in moments)] for name, split in splits.items()]
    charts = [
        element("figure", element("figcaption", f"values in {name}, 0 to 255, height by logarithm"), chart)
        for name, split in splits.items()
        if "histogram" in split["x"]
        for chart in [html.histogram(split["x"]["histogram"])]
    ]
    return [element("h2", "Values"), html.table(["split", "values", *moments], lines), *charts]


def _columns(splits: dict[str, Any]) -> list[Html]:
    """The moments of each column, folded away, where they were gathered."""
    found = {name: split["columns"] for name, split in splits.items() if "columns" in split}
    folded = [
        element("details", element("summary", f"columns in {name}"), html.table(["column", *columns], lines))
        for name, columns in found.items()
        for lines in [((i, *moments) for i, moments in enumerate(zip(*columns.values(), strict=True)))]
    ]
    return [element("h2", "Columns"), *folded] if folded else []


def _pictures(splits: dict[str, Any], pictures: dict[str, np.ndarray]) -> list[Html]:
    figures = [_figure(name, splits[name]["x"], x) for name, x in pictures.items() if len(x)]
    return [element("h2", "First rows"), *figures] if figures else []


def _figure(split: str, moments: dict[str, Any], x: np.ndarray) -> Html:
    """A sheet of images; floats are stretched between black and white by the range of their split."""
    black, white = (0, 255) if x.dtype == np.uint8 else thumbnails.scale(moments["min"], moments["max"])
    page = thumbnails.sheet(thumbnails.to_bytes(x, black, white))
    width = page.shape[1] * max(1, _IMAGE_PIXELS // x.shape[2])
    caption = f"{len(x)} rows of {split}; black is {black:.6g}, white is {white:.6g}"
    return element(
        "figure", element("figcaption", caption), html.image(thumbnails.png(page), width, f"rows of {split}")
    )


def _rejected(rejections: Iterable[Rejection]) -> list[Html]:
    """How many rows were rejected for each reason, and the first of them."""
    reasons: collections.Counter[str] = collections.Counter()
    first: list[Rejection] = []
    for rejection in rejections:
        reasons[rejection.reason] += 1
        first += [rejection] if len(first) < _FULL_REJECTIONS else []
    total = reasons.total()
    if not total:
        return [element("h2", "Rejected rows"), element("p", "None.")]
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines: list[list[Any]] = [[count, reason] for reason, count in ordered[:_REASONS]]
    if others := ordered[_REASONS:]:
        lines.append([sum(count for _, count in others), f"{len(others):,} further reasons"])
    return [
        element("h2", "Rejected rows"),
        element("p", f"{total:,} rows were rejected; all of them are in the folder rejected."),
        html.table(["rows", "reason"], lines),
        element("h3", f"The first {len(first)}"),
        html.table(["key", "source", "position", "reason"], ([r.key, r.source, r.position, r.reason] for r in first)),
    ]
