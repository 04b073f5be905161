"""``fit`` beside what a user would otherwise pick, the same data, model, optimiser and number of epochs.

    python -m benchmarks.peers --environments .venv-peers [--rounds 5] [--batch-sizes 100 512 2048] [--only fit jax ...]

Each side is a process of its own, kept for all its turns; only one works at a time, one after the other in each round.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks import report
from benchmarks.peers.turns import Side
from benchmarks.training import EPOCHS, HIDDEN, LATENT, PIXELS, ROWS, images

# The name in the table, the environment (None: this one) and the program of each side.
SIDES = {
    "fit": ("`fit`", None, ["keras_mlp", "fit"]),
    "plain": ("plain Keras", None, ["keras_mlp", "plain"]),
    "torch": ("PyTorch, eager", "torch", ["torch_mlp"]),
    "compiled": ("PyTorch, compiled", "torch", ["torch_mlp", "--compiled"]),
    "pythae": ("pythae", "torch", ["pythae_mlp"]),
    "jax": ("JAX, scan over the epoch", "jax", ["jax_mlp"]),
    "products": ("the matrix products alone", None, ["keras_mlp", "products"]),
}


def sides(names: list[str], path: str, batch_size: int, environments: pathlib.Path) -> dict[str, Side]:
    started = {}
    for name in names:
        _, environment, (module, *options) = SIDES[name]
        python = str(environments / environment / "bin" / "python") if environment else sys.executable
        started[name] = Side(python, [f"benchmarks.peers.{module}", path, str(batch_size), *options])
    return started


def compare(names: list[str], path: str, batch_size: int, rounds: int, environments: pathlib.Path) -> dict[str, dict]:
    """Rates, losses and the first turn's seconds of each side at one batch size."""
    with contextlib.ExitStack() as stack:
        running = sides(names, path, batch_size, environments)
        for side in running.values():
            stack.callback(side.close)
        for side in running.values():
            side()  # traces and compiles
        rates = report.interleave(running, rounds)
        return {
            name: {
                "examples_per_second": rates[name],
                "fit_over_it": report.ratio(rates, "fit", name),
                "losses": side.losses,
                "first_turn_s": side.first,
            }
            for name, side in running.items()
        }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=pathlib.Path, default=pathlib.Path(".venv-peers"))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side after the first (default 5)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 512, 2048])
    parser.add_argument("--only", nargs="+", choices=SIDES, default=list(SIDES), help="which sides, fit among them")
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(["fit", *options.only]))
    details, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.npy"
        np.save(path, images())
        for batch_size in options.batch_sizes:
            found = compare(names, path, batch_size, options.rounds, options.environments)
            details[str(batch_size)] = found
            for name, side in found.items():
                loss = f"{side['losses'][-1]:.2f}" if side["losses"] else ""
                ratio = "" if name == "fit" else f"{side['fit_over_it']:.2f}"
                rate = report.spread(side["examples_per_second"])
                rows.append([str(batch_size), SIDES[name][0], rate, ratio, loss, f"{side['first_turn_s']:.1f} s"])
    header = ["batch", "side", "examples/s", "`fit` / it", "last loss (nats)", "first turn"]
    what = f"784-{HIDDEN}-{LATENT}, Bernoulli, Adam, float32, {ROWS:,} rows, turns of {EPOCHS} epochs"
    report.keep("peers", f"`fit` beside its peers: {what}", header, rows, {"pixels": PIXELS, "batch_sizes": details})


if __name__ == "__main__":
    main()
