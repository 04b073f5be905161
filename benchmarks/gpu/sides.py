"""The sides of the comparison, the turns that they take, and what is found of each."""

import importlib.util
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
HEADER = ["work", "batch", "precision", "side", "rows/s", "program / it", "last loss (nats)", "largest difference"]
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


def compare(sides: dict[str, Any], case: carried.Case, rows: np.ndarray, rounds: int, epochs: int) -> Found:
    """For each work what is found of each side: rates, losses, seconds of the first pass, difference from the CPU."""
    differences = sides["program"].differences()
    expected = case.embed.outputs[0]
    size = len(expected)
    passes = {"train": epochs, "embed": EMBED_PASSES * epochs}
    counts = {"train": case.calls(len(rows)) * case.steps * case.batch_size, "embed": len(rows) // size * size}
    found: Found = {}
    for work in WORKS:
        turns = {name: Turns(side, work, counts[work], passes[work]) for name, side in sides.items()}
        rates = report.interleave(turns, rounds)
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
    """Lines below ``HEADER``."""
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


def left_out(reasons: dict[str, str]) -> list[list[str]]:
    """A line below ``HEADER`` for each side that cannot run here."""
    return [["", "", "", SIDES[name], f"left out: {reason}", "", "", ""] for name, reason in reasons.items()]


def too_different(case: carried.Case, precision: str, found: Found) -> list[str]:
    """The results that differ from the CPU's by more than rounding can explain."""
    differences = {(work, name): side["difference"] for work, sides in found.items() for name, side in sides.items()}
    return [
        f"{case.model}, batch {case.batch_size}, {work}, {name}, {precision}: {difference:.1e}"
        for (work, name), difference in differences.items()
        if difference is not None and not difference <= TOLERANCES[precision]
    ]
