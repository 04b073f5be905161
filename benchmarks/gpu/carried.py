"""What is carried to the other machine: programs with their inputs and the CPU's outputs, as plain files.

``NAME.hlo`` is an XLA module (``HloModuleProto``, which every XLA reads), ``NAME.npz`` its inputs and outputs,
``rows.npz`` the data, and ``manifest.json`` says what belongs to what, with the SHA-256 of each file. Nothing here
needs TensorFlow.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

FORMAT = 1
MANIFEST = "manifest.json"
CHECKED_STEPS = 2  # XLA's convolutions are slow on a CPU, and Adam makes rounding grow from step to step
AGAIN = "carry it again with `python -m benchmarks.gpu carry`"


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function with its variables as further parameters and, where it sets them, further results.

    Args:
        hlo: The serialised ``HloModuleProto``.
        inputs: The value of each parameter, the data first.
        outputs: The value of each result on the CPU.
        returned: Names of the first results, those that the function returns.
        updated: The parameter whose new value each of the other results is.
    """

    hlo: bytes
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    returned: list[str]
    updated: list[int]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model at a batch size.

    Args:
        model: ``"mlp"`` or ``"conv"``.
        event_shape: Of one row.
        steps: K, the batches in one call of the train program.
        batch_size: Rows of one step.
        epsilon, learning_rate: Adam's.
        weights: Parameters of the train program that are the weights: encoder, posterior, decoder, likelihood.
        metrics: Parameters of the train program that are set to zero where an epoch begins: total and count of each.
        train, embed: The programs. Parameters of ``train`` after the data: row numbers ``[K, B]``, counts ``[K]``, and
            how many of the K steps are run, which is fewer in what was carried.
    """

    model: str
    event_shape: list[int]
    steps: int
    batch_size: int
    epsilon: float
    learning_rate: float
    weights: list[int]
    metrics: list[int]
    train: Program
    embed: Program

    @property
    def initial_weights(self) -> list[np.ndarray]:
        """Kernel and bias of each layer in turn, as Keras shapes them."""
        return [self.train.inputs[i] for i in self.weights]

    def calls(self, num_rows: int) -> int:
        """Calls of K steps in an epoch; the rows that do not fill a call are left out, on every side."""
        return num_rows // (self.steps * self.batch_size)


def write(folder: pathlib.Path, rows: np.ndarray, cases: list[Case], machine: dict[str, Any]) -> None:
    """Writes rows ``[N, ...]`` and cases; an input that is the first rows of the data is not written again."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "rows.npz", rows=rows)
    records = []
    for case in cases:
        record = {f.name: getattr(case, f.name) for f in dataclasses.fields(case)}
        for work in ("train", "embed"):
            record[work] = _write_program(folder, f"{case.model}-{case.batch_size}-{work}", getattr(case, work))
        records.append(record)
    programs = [record[work]["name"] for record in records for work in ("train", "embed")]
    names = ["rows.npz", *(f"{name}.{ending}" for name in programs for ending in ("hlo", "npz"))]
    sums = {name: _sha256(folder / name) for name in names}
    manifest = {"format": FORMAT, "machine": machine, "sha256": sums, "cases": records}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _write_program(folder: pathlib.Path, name: str, program: Program) -> dict[str, Any]:
    (folder / f"{name}.hlo").write_bytes(program.hlo)
    arrays: dict[str, Any] = {f"input_{i}": value for i, value in enumerate(program.inputs) if i > 0}
    arrays |= {f"output_{i}": value for i, value in enumerate(program.outputs)}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    sizes = {"inputs": len(program.inputs), "outputs": len(program.outputs), "rows": len(program.inputs[0])}
    return {"name": name, **sizes, "returned": program.returned, "updated": program.updated}


def read(folder: pathlib.Path) -> tuple[np.ndarray, list[Case], dict[str, Any]]:
    """Rows, cases and the machine that made them.

    Raises:
        ValueError: If the folder holds nothing carried, is of another format, or a file is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no readable {MANIFEST} ({error!r}): {AGAIN}.") from error
    if found != FORMAT:
        raise ValueError(f"{folder} is of format {found!r}, expected {FORMAT}: {AGAIN}.")
    for name, expected in manifest["sha256"].items():
        path = folder / name
        came = _sha256(path) if path.is_file() else "no file"
        if came != expected:
            raise ValueError(
                f"{path} has SHA-256 {came}, expected {expected}: it is damaged. Copy it anew, or {AGAIN}."
            )
    with np.load(folder / "rows.npz", allow_pickle=False) as arrays:
        rows = arrays["rows"]
    cases = []
    for record in manifest["cases"]:
        data = rows.reshape(len(rows), *record["event_shape"])
        programs = {work: _read_program(folder, record[work], data) for work in ("train", "embed")}
        cases.append(Case(**{**record, **programs}))
    return rows, cases, manifest["machine"]


def _read_program(folder: pathlib.Path, record: dict[str, Any], data: np.ndarray) -> Program:
    path = folder / record["name"]
    with np.load(path.with_name(f"{path.name}.npz"), allow_pickle=False) as arrays:
        inputs = [data[: record["rows"]], *(arrays[f"input_{i}"] for i in range(1, record["inputs"]))]
        outputs = [arrays[f"output_{i}"] for i in range(record["outputs"])]
    hlo = path.with_name(f"{path.name}.hlo").read_bytes()
    return Program(hlo, inputs, outputs, record["returned"], record["updated"])


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of a result from the CPU's, in parts of that result's largest value.

    Raises:
        ValueError: If it has another shape or another dtype.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(
            f"A result is {found.dtype} {found.shape}, expected {expected.dtype} {expected.shape}: the program is "
            f"another's, {AGAIN}."
        )
    gap = np.max(np.abs(found.astype(np.float64) - expected))
    return float(gap / max(np.max(np.abs(expected)), np.finfo(np.float32).tiny))


def _sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
