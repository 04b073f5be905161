"""``fit`` beside what a user would otherwise pick, the same data, model, optimiser and number of epochs.

    python -m benchmarks.peers --environments .venv-peers [--models mlp conv] [--rounds 5] [--batch-sizes 100 512]
        [--only fit jax ...]

Each side is a process of its own, kept for all its turns; only one works at a time, one after the other in each round.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks import report
from benchmarks.peers.turns import Side
from benchmarks.sizes import EPOCHS, FILTERS, HIDDEN, LATENT, PIXELS
from benchmarks.training import ROWS, images

# The name in the table, the environment (None: this one) and the program of each side.
SIDES = {
    "fit": ("`fit`", None, ["keras", "fit"]),
    "plain": ("plain Keras", None, ["keras", "plain"]),
    "torch": ("PyTorch, eager", "torch", ["torch"]),
    "compiled": ("PyTorch, compiled", "torch", ["torch", "--compiled"]),
    "pythae": ("pythae", "torch", ["pythae"]),
    "jax": ("JAX, scan over the epoch", "jax", ["jax"]),
    "jax_steps": ("JAX, a program a step", "jax", ["jax", "--steps"]),
    "products": ("the matrix products alone", None, ["keras", "products"]),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is measured of a model, and the name of its results."""

    results: str
    what: str
    rows: int
    batch_sizes: tuple[int, ...]
    sides: tuple[str, ...]


MODELS = {
    "mlp": Comparison(
        "peers", f"784-{HIDDEN}-{LATENT}", ROWS, (100, 512, 2048), tuple(name for name in SIDES if name != "jax_steps")
    ),
    # Its rows make whole batches of 512, and a turn of seconds.
    "conv": Comparison(
        "peers_conv",
        f"3x3 convolutions of {' and '.join(map(str, FILTERS))} filters, {LATENT}-D",
        7168,
        (100, 512),
        # Not a scan in JAX, whose turns would take minutes.
        tuple(name for name in SIDES if name not in ("jax", "products")),
    ),
}


def started(names: list[str], path: str, model: str, batch_size: int, environments: pathlib.Path) -> dict[str, Side]:
    sides = {}
    for name in names:
        _, environment, (module, *options) = SIDES[name]
        python = str(environments / environment / "bin" / "python") if environment else sys.executable
        sides[name] = Side(python, [f"benchmarks.peers.{module}", path, model, str(batch_size), *options])
    return sides


def compare(running: dict[str, Side], rounds: int) -> dict[str, dict]:
    """Rates, losses, the first turn's seconds and the number of parameters of each side."""
    with contextlib.ExitStack() as stack:
        for side in running.values():
            stack.callback(side.close)
        for side in running.values():
            side()  # traces and compiles
        sizes = {name: side.parameters for name, side in running.items() if side.parameters is not None}
        if len(set(sizes.values())) != 1:
            raise RuntimeError(f"The sides train different models: parameters {sizes}, expected one number.")
        rates = report.interleave(running, rounds)
        return {
            name: {
                "examples_per_second": rates[name],
                "fit_over_it": report.ratio(rates, "fit", name),
                "losses": side.losses,
                "first_turn_s": side.first,
                "parameters": side.parameters,
            }
            for name, side in running.items()
        }


def table_rows(batch_size: int, found: dict[str, dict]) -> list[list[str]]:
    rows = []
    for name, side in found.items():
        loss = f"{side['losses'][-1]:.2f}" if side["losses"] else ""
        ratio = "" if name == "fit" else f"{side['fit_over_it']:.2f}"
        rate = report.spread(side["examples_per_second"])
        rows.append([str(batch_size), SIDES[name][0], rate, ratio, loss, f"{side['first_turn_s']:.1f} s"])
    return rows


def measure(model: str, x: np.ndarray, options: argparse.Namespace) -> None:
    """All batch sizes of a model; keeps its table."""
    comparison = MODELS[model]
    names = list(dict.fromkeys(["fit", *(name for name in options.only if name in comparison.sides)]))
    details, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.npy"
        np.save(path, x[: comparison.rows])
        for batch_size in options.batch_sizes or comparison.batch_sizes:
            sides = started(names, path, model, batch_size, options.environments)
            details[str(batch_size)] = found = compare(sides, options.rounds)
            rows += table_rows(batch_size, found)
    header = ["batch", "side", "examples/s", "`fit` / it", "last loss (nats)", "first turn"]
    what = (
        f"{comparison.what}, {found['fit']['parameters']:,} parameters on every side, Bernoulli, Adam, float32, "
        f"{comparison.rows:,} rows, turns of {EPOCHS} epochs"
    )
    title = f"`fit` beside its peers: {what}"
    report.keep(comparison.results, title, header, rows, {"pixels": PIXELS, "batch_sizes": details})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=pathlib.Path, default=pathlib.Path(".venv-peers"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="each has a table of its own")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side after the first (default 5)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: each model's own")
    parser.add_argument("--only", nargs="+", choices=SIDES, default=list(SIDES), help="which sides, fit among them")
    options = parser.parse_args(arguments)
    x = images()
    for model in options.models:
        measure(model, x, options)


if __name__ == "__main__":
    main()
