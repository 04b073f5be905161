"""TensorFlow's compiled programs on a GPU where no TensorFlow is installed, beside the same models in JAX and PyTorch.

    python -m benchmarks.gpu carry FOLDER [--rows 60000] [--batch-sizes 100 2048] [--models mlp conv]
    python -m benchmarks.gpu run FOLDER [--rounds 5] [--epochs 5] [--sides ...] [--precisions float32 tf32]

The first stage needs TensorFlow and no GPU, the second jax, optax and, for its sides, PyTorch. All sides start from the
carried weights, take the same bytes and the same number of steps, and leave out the rows that do not fill a call of K
steps; the embeddings of each are compared with TensorFlow's on the CPU, and so is all that the train program sets.
"""

import argparse
import importlib.util
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.gpu import carried

SIDES = {
    "program": "`tfvae.VAE`'s program",
    "jax": "JAX, scan over K steps",
    "eager": "PyTorch, eager",
    "compiled": "PyTorch, compiled",
    "graphs": "PyTorch, compiled, K steps as one CUDA graph",
}
WORKS = {"train": "K steps a call", "embed": "embed"}
EMBED_PASSES = 20  # over the rows, where training makes one: embedding is that much faster
TOLERANCES = {"float32": 1e-3, "tf32": 5e-2}  # after K steps of Adam, in parts of each result's largest value
Found = dict[str, dict[str, Any]]


class Turns:
    """Turns of one side at one work: called, it works and returns rows a second.

    Args:
        side: A ``ProgramSide`` or what has its ``epoch`` and ``embed``.
        work: Of ``WORKS``.
        rows: Rows of one pass.
        passes: Passes of one turn.
    """

    def __init__(self, side: Any, work: str, rows: int, passes: int):
        self._side, self._work, self._rows, self._passes = side, work, rows, passes
        self.losses: list[float] = []
        self.means = np.zeros([0])
        started = time.perf_counter()
        self._pass()  # traces and compiles
        self.first_pass_s = time.perf_counter() - started

    def __call__(self) -> float:
        started = time.perf_counter()
        for _ in range(self._passes):
            self._pass()
        return self._passes * self._rows / (time.perf_counter() - started)

    def _pass(self) -> None:
        if self._work == "embed":
            self.means = self._side.embed()
        else:
            self.losses.append(self._side.epoch())


def missing(name: str, device: str) -> str | None:
    """Why a side cannot run here, or None."""
    if name in ("program", "jax"):
        needed = "optax" if name == "jax" else "jax"
        return None if importlib.util.find_spec(needed) else f"{needed} is not installed"
    if not importlib.util.find_spec("torch"):
        return "PyTorch is not installed"
    if name == "graphs" and device == "cpu":
        return "no CUDA graphs without a GPU"
    import torch

    return "PyTorch sees no GPU" if device == "cuda" and not torch.cuda.is_available() else None


def build(name: str, case: carried.Case, rows: np.ndarray, precision: str, device: str) -> Any:
    """Imports only what the side needs."""
    if name == "program":
        from benchmarks.gpu.program import ProgramSide

        return ProgramSide(case, rows, precision)
    if name == "jax":
        from benchmarks.gpu.jax_vae import JaxSide

        return JaxSide(case, rows, precision)
    from benchmarks.gpu.torch_vae import TorchSide

    return TorchSide(case, rows, precision, name, device)


def compare(names: list[str], case: carried.Case, rows: np.ndarray, options: Any, precision: str, device: str) -> Found:
    """For each work what is found of each side: rates, losses, seconds of the first pass, difference from the CPU."""
    sides = {name: build(name, case, rows, precision, device) for name in names}
    differences = sides["program"].differences()
    expected = case.embed.outputs[0]
    size = len(expected)
    passes = {"train": options.epochs, "embed": EMBED_PASSES * options.epochs}
    counts = {"train": case.calls(len(rows)) * case.steps * case.batch_size, "embed": len(rows) // size * size}
    found: Found = {}
    for work in WORKS:
        turns = {name: Turns(side, work, counts[work], passes[work]) for name, side in sides.items()}
        rates = report.interleave(turns, options.rounds)
        found[work] = {
            name: {
                "rows_per_second": rates[name],
                "program_over_it": report.ratio(rates, "program", name),
                "losses": turn.losses,
                "first_pass_s": turn.first_pass_s,
                "difference": carried.difference(turn.means, expected) if work == "embed" else None,
            }
            for name, turn in turns.items()
        }
        found[work]["program"]["difference"] = differences[work]
    return found


def table(case: carried.Case, precision: str, found: Found) -> list[list[str]]:
    rows = []
    for work, sides in found.items():
        batch = case.batch_size if work == "train" else len(case.embed.outputs[0])
        for name, side in sides.items():
            rows.append(
                [
                    f"{case.model}, {WORKS[work].replace('K', str(case.steps))}",
                    str(batch),
                    precision,
                    SIDES[name],
                    report.spread(side["rows_per_second"]),
                    "" if name == "program" else f"{side['program_over_it']:.2f}",
                    f"{side['losses'][-1]:.2f}" if side["losses"] else "",
                    "" if side["difference"] is None else f"{side['difference']:.0e}",
                ]
            )
    return rows


def carry(options: Any) -> None:
    from benchmarks import training
    from benchmarks.gpu.carry import case

    rows = np.round(255 * training.images()[: options.rows]).astype(np.uint8)
    cases = [case(model, rows, size) for model in options.models for size in options.batch_sizes]
    carried.write(options.folder, rows, cases, report.machine())
    size = sum(path.stat().st_size for path in options.folder.iterdir())
    print(f"{len(cases)} cases in {options.folder}, {size / 1e6:.0f} MB", file=sys.stderr)


def run(options: Any) -> None:
    # JAX would take three quarters of the GPU's memory at its start, and PyTorch the rest.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    rows, cases, origin = carried.read(options.folder)
    first = jax.local_devices()[0]
    device = "cpu" if first.platform == "cpu" else "cuda"
    precisions = options.precisions or (["float32"] if device == "cpu" else ["float32", "tf32"])
    wanted = list(dict.fromkeys(["program", *options.sides]))
    skipped = {name: reason for name in wanted if (reason := missing(name, device))}
    lines, details, wrong = [], [], []
    for precision in precisions:
        for case in cases:
            found = compare([name for name in wanted if name not in skipped], case, rows, options, precision, device)
            lines += table(case, precision, found)
            details.append({"model": case.model, "batch": case.batch_size, "precision": precision, **found})
            for work, sides in found.items():
                for name, side in sides.items():
                    if not (side["difference"] or 0.0) <= TOLERANCES[precision]:
                        wrong.append(f"{case.model} {work} {name} {precision}: {side['difference']:.1e}")
    lines += [["", "", "", SIDES[name], f"left out: {reason}", "", "", ""] for name, reason in skipped.items()]
    header = ["work", "batch", "precision", "side", "rows/s", "program / it", "last loss (nats)", "largest difference"]
    title = f"The compiled programs of `tfvae.VAE` on {first.device_kind}, run by jaxlib without TensorFlow"
    where = {"device": first.device_kind, **report.versions("jax", "jaxlib", "optax", "torch")}
    report.keep("gpu", title, header, lines, {"carried_from": origin, "skipped": skipped, "cases": details}, where)
    if wrong:
        raise SystemExit(f"Results differ from the CPU's by more than {TOLERANCES}: {'; '.join(wrong)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    stages = parser.add_subparsers(required=True)
    first = stages.add_parser("carry", help="compile the programs here and write them with the CPU's results")
    first.set_defaults(stage=carry)
    first.add_argument("folder", type=pathlib.Path)
    first.add_argument("--rows", type=int, default=60_000, help="of the data (default 60000)")
    first.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 2048])
    first.add_argument("--models", nargs="+", choices=["mlp", "conv"], default=["mlp", "conv"])
    second = stages.add_parser("run", help="run a carried folder on what JAX sees")
    second.set_defaults(stage=run)
    second.add_argument("folder", type=pathlib.Path)
    second.add_argument("--rounds", type=int, default=5, help="turns of each side after the first pass (default 5)")
    second.add_argument("--epochs", type=int, default=5, help="passes of a turn of training (default 5)")
    second.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="which, the program among them")
    second.add_argument("--precisions", nargs="+", choices=TOLERANCES, help="default: both; float32 alone on a CPU")
    options = parser.parse_args(arguments)
    options.stage(options)


if __name__ == "__main__":
    main()
