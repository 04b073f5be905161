"""A figure of the paper with its own curves: ours beside them as a CSV, a picture and a table.

The paper's curves lie in ``reference/``: read off its vector graphics (arXiv 1312.6114 v10), to about 0.2 nat on MNIST
and 3 nats on Frey Face. WS is wake-sleep.
"""

import csv
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from tfvae import tables
from tfvae.experiments.checkpoints import Point
from tfvae.pipelines import extras

with extras.needed("plots"):
    import matplotlib.axes
    import matplotlib.figure

REFERENCE = pathlib.Path(__file__).with_name("reference")
SPLITS = {"test": "-", "train": ":"}  # with the style of their lines
_COLOURS = {"AEVB": "tab:red", "MCEM": "tab:blue", "WS": "tab:green"}

Key = tuple[Any, ...]  # the panel and the method of a curve: ("mnist", 20, "AEVB") in Figure 2
Curves = dict[Key, list[Point]]


@dataclasses.dataclass(frozen=True)
class PaperFigure:
    """One of the paper's figures of curves over samples evaluated.

    Attributes:
        name: Base name of the figure's files.
        panel: What tells its panels apart: the first columns of its CSV, before method, split and samples.
        value: What is plotted, in nats: the last column of its CSV.
        title: Title of a panel, with a place for each of ``panel``.
    """

    name: str
    panel: tuple[str, ...]
    value: str
    title: str

    def paper_curve(self, *key: Any, split: str) -> list[tuple[float, float]]:
        """The paper's curve as (samples, value in nats), in order; empty where the paper has none."""
        wanted = [str(part) for part in (*key, split)]
        with open(REFERENCE / f"{self.name}.csv", newline="", encoding="utf-8") as file:
            rows = [[row[0].lower(), *row[1:]] for row in csv.reader(file)]
        return [(float(row[-2]), float(row[-1])) for row in rows if row[:-2] == wanted]

    def paper_value(self, *key: Any, split: str, samples: float) -> float | None:
        """The paper's value at a number of samples, on a straight line in log samples between two of its points."""
        for (x0, y0), (x1, y1) in itertools.pairwise(self.paper_curve(*key, split=split)):
            if x0 <= samples <= x1:
                share = math.log(samples / x0) / math.log(x1 / x0)
                return y0 + share * (y1 - y0)
        return None

    def write(self, folder: pathlib.Path, curves: Curves) -> None:
        """Write ``name.csv``, a line for each point, and ``name.png`` to ``folder``."""
        write_csv(
            folder / f"{self.name}.csv",
            (*self.panel, "method", "split", "samples", self.value),
            (
                [*key, split, point.samples, round(getattr(point, split), 3)]
                for key, points in curves.items()
                for split in ("train", "test")
                for point in points
            ),
        )
        self._draw(folder / f"{self.name}.png", curves)

    def row(self, key: Key, point: Point, split: str) -> dict[str, Any]:
        """A line of the table: what the paper has at this point, what was reached, the difference, the seconds."""
        paper, ours = self.paper_value(*key, split=split, samples=point.samples), getattr(point, split)
        return {
            **dict(zip((*self.panel, "method"), key, strict=True)),
            "split": split,
            "samples": point.samples,
            "paper": paper,
            "ours": ours,
            "difference": None if paper is None else ours - paper,
            "seconds": point.seconds,
        }

    def _draw(self, path: pathlib.Path, curves: Curves) -> None:
        panels = list(dict.fromkeys(key[:-1] for key in curves))
        columns = min(5, len(panels))
        rows = -(-len(panels) // columns)
        figure = matplotlib.figure.Figure(figsize=(3.2 * columns + 0.6, 3.0 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, axis in itertools.zip_longest(panels, axes):
            if panel is None:
                axis.set_axis_off()
            else:
                self._draw_panel(axis, panel, {key: points for key, points in curves.items() if key[:-1] == panel})
        axes[0].set_ylabel(f"{self.value.replace('_', ' ')} (nats)")
        axes[0].legend(fontsize=7)
        figure.supxlabel("samples evaluated (dots: ours; plain lines: the paper's)", fontsize=9)
        figure.savefig(path, dpi=120)

    def _draw_panel(self, axis: matplotlib.axes.Axes, panel: Key, curves: Curves) -> None:
        """The paper's curves thin, ours with dots."""
        for key, points in curves.items():
            colour = _COLOURS[key[-1]]
            for split, style in SPLITS.items():
                paper = self.paper_curve(*key, split=split)
                axis.plot([x for x, _ in paper], [y for _, y in paper], style, linewidth=1, alpha=0.6, color=colour)
                ours = [getattr(point, split) for point in points]
                label = f"{key[-1]}, {split}"
                axis.plot(
                    [point.samples for point in points],
                    ours,
                    style,
                    marker="o",
                    markersize=3,
                    label=label,
                    color=colour,
                )
        axis.set_xscale("log")
        axis.set_title(self.title.format(*panel), fontsize=10)
        low = min(point.test for points in curves.values() for point in points[1:] or points)
        axis.set_ylim(bottom=low - abs(low) * 0.03)
        axis.grid(alpha=0.3)


def write_csv(path: pathlib.Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a header and the rows."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same columns as a Markdown table; floats are nats, but for ``seconds``.

    Example:
        >>> print(table([{"latent_dim": 3, "samples": 100_000, "paper": None, "ours": -1.0, "seconds": 2.0}]))
        | latent dim | samples | paper | ours | seconds |
        | --- | --- | --- | --- | --- |
        | 3 | 100,000 | - | -1.0 | 2 |
    """
    names = list(rows[0])
    head = [name.replace("_", " ") for name in names]
    return tables.markdown([head, *([_cell(name, row[name]) for name in names] for row in rows)])


_TO_A_HUNDREDTH = {
    *("published", "log_marginal", "log_marginal_error", "standard_error", "elbo", "elbo_error"),
    *("ahead", "ahead_error", "gap", "gap_error"),
}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "seconds":
        return f"{value:.0f}"
    if name in _TO_A_HUNDREDTH:
        return f"{value:.2f}"
    if name in ("samples", "train_size"):
        return f"{value:,}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def check_names(chosen: Sequence[str], known: Iterable[str]) -> None:
    """Raise ValueError unless every name that was chosen is known."""
    known = list(known)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ValueError(f"There is no {', '.join(unknown)}, only {', '.join(known)}.")
