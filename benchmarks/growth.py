"""How the cost of training grows: examples a second of ``fit`` over latent size, width, batch size and rows.

    python -m benchmarks.growth [--rows 10000 100000 1000000 10000000] [--rounds 3] [--folder DIR]

One of 784-500-20, batch 512, is varied at a time. Beside ``fit`` stand, turn by turn, the matrix products of its steps
alone (``benchmarks.peers.keras.products``): where both fall together, it is the arithmetic that grows. For the rows see
``benchmarks.growth_rows``. The results are two tables and one picture of four plots.
"""

import argparse
import gc
import os
import pathlib
import statistics
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib.pyplot as plt
import numpy as np

from benchmarks import growth_rows, models, report, training
from benchmarks.growth_rows import BATCH
from benchmarks.peers import keras as peer
from benchmarks.sizes import HIDDEN, LATENT, PIXELS

SIZES = {
    "latent size": [2, 8, 32, 128, 512],
    "width": [128, 256, 512, 1024, 2048, 4096],
    "batch size": [16, 64, 256, 1024, 4096, 8192],
}
ROWS = [10**4, 10**5, 10**6, 10**7]
TURN = 30_000  # rows of one turn at 784-500-20, fewer where a row costs more: a second or so


def flops(width: int, latent: int) -> int:
    """Of the matrix products of one row's step: of each layer y = xW, xᵀdy and, but for the first, dy Wᵀ."""
    sizes = [PIXELS * width, width * 2 * latent, latent * width, width * PIXELS]
    return 2 * (3 * sum(sizes) - sizes[0])


def point(images: np.ndarray, rounds: int, width: int, latent: int, batch_size: int) -> dict[str, Any]:
    """Rates of ``fit`` and of the matrix products, and the last loss."""
    rows = int(TURN * min(1.0, flops(HIDDEN, LATENT) / flops(width, latent)))
    x, losses = images[: max(1, rows // batch_size) * batch_size], []
    sides = {
        "fit": training.timed(training.fitted(models.vae("mlp", hidden=width, latent=latent), x, batch_size), losses),
        "products": training.timed(peer.products(x, batch_size, width, latent), []),
    }
    for run in sides.values():
        run()  # traces and compiles
    rates = report.interleave(sides, rounds)
    return {
        "examples_per_second": rates,
        "over_products": report.ratio(rates, "fit", "products"),
        "gflops": statistics.median(rates["fit"]) * flops(width, latent) / 1e9,
        "loss": losses[-1],
    }


def setting(name: str, size: int) -> dict[str, int]:
    """The arguments of ``point`` with one of them varied."""
    names = {"latent size": "latent", "width": "width", "batch size": "batch_size"}
    return {"width": HIDDEN, "latent": LATENT, "batch_size": BATCH, names[name]: size}


def vary(images: np.ndarray, rounds: int) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name, sizes in SIZES.items():
        found[name] = {}
        for size in sizes:
            found[name][size] = point(images, rounds, **setting(name, size))
            gc.collect()  # the last model's programs and weights
            print(f"{name} {size}: {found[name][size]}", file=sys.stderr, flush=True)
    return found


# What is shown


def medians(points: dict[int, Any], side: str | None = None) -> list[float]:
    rates = [point["examples_per_second"] for point in points.values()]
    return [statistics.median(rate[side] if side else rate) for rate in rates]


def plot(varied: dict[str, dict[int, Any]], rows: dict[str, dict[int, Any]], path: pathlib.Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    best = max(medians(varied["batch size"], "products")) * flops(HIDDEN, LATENT)
    for axis, (name, points) in zip(axes.flat, varied.items(), strict=False):
        axis.plot(list(points), medians(points, "fit"), "o-", label="fit")
        axis.plot(list(points), medians(points, "products"), "s--", label="its matrix products alone")
        shapes = [setting(name, size) for size in points]
        linear = [best / flops(shape["width"], shape["latent"]) for shape in shapes]
        axis.plot(list(points), linear, ":", color="grey", label="products at their best rate at 784-500-20")
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="examples/s")
        axis.set_xticks(list(points), [str(size) for size in points])
        axis.xaxis.minorticks_off()
        axis.legend(fontsize=8)
    plot_rows(rows, axes.flat[-1])
    for axis in axes.flat:
        axis.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def plot_rows(rows: dict[str, dict[int, Any]], axis: plt.Axes) -> None:
    peaks = axis.twinx()
    for (side, points), marker in zip(rows.items(), ("o-", "s--"), strict=True):
        axis.plot(list(points), medians(points), marker, color="tab:blue", label=f"from {side}, examples/s")
        values = [point["peak_mb"] for point in points.values()]
        peaks.plot(list(points), values, marker, color="tab:red", label=f"from {side}, peak memory")
    axis.set(xscale="log", xlabel="rows of 784 bytes", ylabel="examples/s", ylim=(0, None))
    peaks.set(ylabel="peak memory of the process, MB", ylim=(0, None))
    axis.legend(handles=[*axis.lines, *peaks.lines], fontsize=8, loc="lower center", ncols=2)


def keep_varied(varied: dict[str, dict[int, Any]]) -> None:
    table = []
    for name, points in varied.items():
        for size, found in points.items():
            rates = found["examples_per_second"]
            shown = [name, str(size), report.spread(rates["fit"]), report.spread(rates["products"])]
            table.append([*shown, f"{found['over_products']:.2f}", f"{found['gflops']:.0f}", f"{found['loss']:.2f}"])
    header = ["varied", "to", "`fit`, examples/s", "its matrix products alone", "ratio", "GFLOP/s of them in `fit`"]
    title = f"How training grows: 784-{HIDDEN}-{LATENT}, batch {BATCH}, one varied at a time, Bernoulli, Adam, float32"
    report.keep("growth", title, [*header, "last loss (nats)"], table, {"varied": varied})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="numbers of rows on disk")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side after the first (default 3)")
    parser.add_argument("--folder", help="where the rows are written; a temporary folder by default")
    options = parser.parse_args(arguments)
    images = training.images()
    rows = growth_rows.train(images, options.rows, options.rounds, options.folder)
    varied = vary(images, options.rounds)
    growth_rows.keep(rows)
    keep_varied(varied)
    plot(varied, rows, report.RESULTS / "growth.png")


if __name__ == "__main__":
    main()
