"""One style for every plot: fonts, sizes, colours that the colour-blind tell apart, a resolution for print."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfvae.arguments import check_path, refuse_masked
from tfvae.engine import saving
from tfvae.pipelines import extras, storage

with extras.needed("plots"):
    import matplotlib
    from matplotlib.figure import Figure

PathLike = str | os.PathLike[str]

WIDTH = 6.0  # inches: a column of text
# Petroff, arXiv 2107.02270, section 5: ten colours chosen for people with and without colour blindness.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
PALE = "#c9cdd2"
_DPI = 300
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": False,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


@contextlib.contextmanager
def axes(path: PathLike, height: float, width: float = WIDTH) -> Iterator[Any]:
    """Axes of a figure of so many inches, which is written to the path when the block ends."""
    check_path(path=path)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots()
        _save(figure, path)


def _save(figure: Figure, path: PathLike) -> None:
    kind = os.path.splitext(path)[1].removeprefix(".").lower() or "png"
    if kind not in (known := figure.canvas.get_supported_filetypes()):
        raise ValueError(f"path is {os.fspath(path)}, expected a file that ends in .{', .'.join(sorted(known))}.")
    with replacing(path) as file:
        figure.savefig(file, dpi=_DPI, format=kind, bbox_inches="tight", pad_inches=0.05)


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Any]:
    """A file to write that takes its name when it is whole; its folder is made."""
    check_path(path=path)
    full = os.path.abspath(path)
    if os.path.isdir(full):
        raise ValueError(f"path is {os.fspath(path)}, a folder: name the file to write.")
    with saving.told(path, "written"):
        storage.make_folder(os.path.dirname(full))
    try:
        with storage.replacing(full, os.path.dirname(full)) as file:
            yield file
    except OSError:
        with saving.told(path, "written"):  # by its own name, and not the draft's
            raise


def checked_labels(labels: Any, count: int) -> np.ndarray | None:
    """Labels as an array, one for each row, or None.

    Example:
        >>> checked_labels(["cat", "dog"], 2).tolist()
        ['cat', 'dog']
    """
    if labels is None:
        return None
    refuse_masked("labels", labels)
    found = np.asarray(labels)
    if found.shape != (count,) or found.dtype.kind not in "biufUSO":
        raise ValueError(f"labels have shape {found.shape}, expected one for each of {count} rows: ({count},).")
    if found.dtype.kind == "f" and count and np.isnan(found).all():
        raise ValueError(f"labels are NaN for all {count} rows, expected a class for some: leave labels out.")
    if found.dtype.kind == "O" and not all(isinstance(label, str) for label in found.tolist()):
        odd = next(label for label in found.tolist() if not isinstance(label, str))
        raise ValueError(f"labels hold {odd!r} among others, expected all numbers or all strings.")
    return found


def label_name(label: Any, names: Sequence[str]) -> str:
    """What a legend calls a label: a class's name, where labels are numbers and it has one, else the label itself.

    Example:
        >>> label_name(1, ["cat", "dog"]), label_name(b"cat", ())
        ('dog', 'cat')
    """
    if isinstance(label, int | np.integer) and 0 <= label < len(names):
        return names[int(label)]
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)
