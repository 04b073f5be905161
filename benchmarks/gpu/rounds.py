"""Carried trainings, epoch by epoch, on whatever JAX sees: the second stage of ``benchmarks.gpu.trainings``.

    python -m benchmarks.gpu.rounds FOLDER RECEIVED [--seconds 480] [--runs NAME ...] [--at-once 8]

Nothing here needs TensorFlow. Each training is a process of its own, several at once: one alone leaves most of a GPU
idle, for its kernels are small, so that NVIDIA's MPS pays. ``RECEIVED/NAME.npz`` is what a training has come to: at its
end, or at that of the last of its stages that was over when the time was.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.gpu import carried

CHECKED = 1000  # numbers of each result of the CPU's first steps that travel, to be compared
_TOLD_EVERY_S = 60.0
_LEAST_S = 60.0  # with less time left none is begun


@dataclasses.dataclass(frozen=True)
class Leg:
    """A program over rows.

    Attributes:
        hlo: See ``carried.Program``.
        inputs: The values of its parameters after the first, which is the rows.
        checked: The first numbers of each result on the CPU.
        returned, updated: See ``carried.Program``.
        variable_of: From a parameter to the variable that it is.
        batch_size: Of the rows.
    """

    hlo: bytes
    inputs: list[np.ndarray]
    checked: list[np.ndarray]
    returned: list[str]
    updated: list[int]
    variable_of: dict[int, int]
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Training:
    """What travels of a run: facts by name, the variables' first values, and its programs by what they are for."""

    facts: dict[str, Any]
    state: list[np.ndarray]
    legs: dict[str, Leg]


def batches(order: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers ``[K, B]``, the last batch filled from the start, and how many rows of each count, ``[K]``.

    Example:
        >>> batches(np.arange(3), 2)
        (array([[0, 1],
               [2, 0]]), array([2, 1], dtype=int32))
    """
    steps = -(-len(order) // size)
    counts = np.full([steps], size, np.int32)
    counts[-1] = len(order) - (steps - 1) * size
    return np.resize(order, [steps, size]), counts


def write(folder: pathlib.Path, training: Training, rows: dict[str, np.ndarray]) -> None:
    """Writes a training as ``NAME.npz``, and each set of rows once, under the checksum of its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"state_{i}": value for i, value in enumerate(training.state)}
    record: dict[str, Any] = {"facts": training.facts, "state": len(training.state), "legs": {}}
    for name, leg in training.legs.items():
        fields = {f.name: getattr(leg, f.name) for f in dataclasses.fields(leg)}
        arrays[f"{name}_hlo"] = np.frombuffer(fields.pop("hlo"), np.uint8)
        fixed = [i for i in range(len(leg.inputs)) if i + 1 not in leg.variable_of]
        arrays |= {f"{name}_input_{i}": leg.inputs[i] for i in fixed}
        arrays |= {f"{name}_checked_{i}": value for i, value in enumerate(leg.checked)}
        fields |= {"inputs": len(leg.inputs), "checked": len(leg.checked), "rows": _keep_rows(folder, rows[name])}
        record["legs"][name] = fields
    np.savez(folder / f"{training.facts['name']}.npz", record=np.array(json.dumps(record)), **arrays)


def _keep_rows(folder: pathlib.Path, rows: np.ndarray) -> str:
    levels = np.round(255 * rows).astype(np.uint8)
    if not np.array_equal(levels.astype(np.float32) / np.float32(255), rows):
        raise ValueError("The rows are no 256 levels of [0, 1]: they cannot travel as bytes.")
    name = f"rows-{hashlib.sha256(levels.tobytes()).hexdigest()[:12]}"
    if not (folder / f"{name}.npz").exists():
        np.savez(folder / f"{name}.npz", rows=levels)
    return name


def read(folder: pathlib.Path, name: str) -> tuple[Training, dict[str, np.ndarray]]:
    """A training, and the rows of each of its programs."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        record = json.loads(str(arrays["record"]))
        state = [arrays[f"state_{i}"] for i in range(record["state"])]
        legs, rows = {}, {}
        for kind, fields in record["legs"].items():
            variable_of = {int(parameter): i for parameter, i in fields["variable_of"].items()}
            inputs = [
                state[variable_of[i + 1]] if i + 1 in variable_of else arrays[f"{kind}_input_{i}"]
                for i in range(fields["inputs"])
            ]
            checked = [arrays[f"{kind}_checked_{i}"] for i in range(fields["checked"])]
            with np.load(folder / f"{fields.pop('rows')}.npz", allow_pickle=False) as kept:
                rows[kind] = kept["rows"].astype(np.float32) / np.float32(255)
            fields |= {"inputs": inputs, "checked": checked, "variable_of": variable_of}
            legs[kind] = Leg(hlo=arrays[f"{kind}_hlo"].tobytes(), **fields)
    return Training(record["facts"], state, legs), rows


class Rounds:
    """One training on the device.

    Args:
        training, rows: See ``read``.
        precision: See ``program.PRECISIONS``.
    """

    def __init__(self, training: Training, rows: dict[str, np.ndarray], precision: str):
        from benchmarks.gpu import program

        self._training, self._put = training, program.on_device
        self.state = [self._put(value) for value in training.state]
        self._rows = {kind: self._put(each) for kind, each in rows.items()}
        self._num_rows = {kind: len(each) for kind, each in rows.items()}
        self._fixed = {
            kind: {i: self._put(value) for i, value in enumerate(leg.inputs, start=1) if i not in leg.variable_of}
            for kind, leg in training.legs.items()
        }
        self._run = {
            kind: program.Executable(carried.Program(leg.hlo, [], [], leg.returned, leg.updated), precision)
            for kind, leg in training.legs.items()
        }

    def _call(self, kind: str, rows: Any, given: dict[int, np.ndarray]) -> list[Any]:
        """All results; the variables are set."""
        leg = self._training.legs[kind]
        own = {parameter: self.state[variable] for parameter, variable in leg.variable_of.items()}
        own |= self._fixed[kind] | {parameter: self._put(value) for parameter, value in given.items()} | {0: rows}
        returned, following = self._run[kind]([own[parameter] for parameter in range(len(own))])
        for parameter, variable in leg.variable_of.items():
            self.state[variable] = following[parameter]
        return [*returned.values(), *(following[parameter] for parameter in leg.updated)]

    def epoch(self, kind: str, order: np.ndarray | None = None) -> dict[str, float]:
        """All batches of the rows in this order, metrics from zero on; gives the metrics' results."""
        leg = self._training.legs[kind]
        for i in self._training.facts["metrics"]:
            self.state[i] = self._put(np.zeros_like(self._training.state[i]))
        order = np.arange(self._num_rows[kind]) if order is None else order
        numbers, counts = batches(order.astype(np.int32), leg.batch_size)
        results = self._call(kind, self._rows[kind], {1: numbers, 2: counts, 3: np.array(len(counts), np.int32)})
        return {name: float(value) for name, value in zip(leg.returned, results, strict=False)}

    def log_marginal(self) -> np.ndarray:
        """The sums of ``log_marginal`` over the samples of each row, ``[3, N]``."""
        facts, leg = self._training.facts, self._training.legs["marginal"]
        chunk = leg.inputs[6].shape[1]  # of the kept weights, [S + 1, chunk, B]
        stop, found = np.array(-(-facts["num_samples"] // chunk), np.int32), []
        for start in range(0, self._num_rows["marginal"], leg.batch_size):
            rows, count = self._batch(start)
            key = np.array([facts["seed"], start], np.int32)
            sums = self._call("marginal", rows, {1: key, 3: stop})[:3]
            found.append(np.stack([np.asarray(each)[:count] for each in sums]))
        return np.concatenate(found, axis=1)

    def _batch(self, start: int) -> tuple[Any, int]:
        """Those that are measured at once, filled where they are the last ones, and how many they are."""
        size = self._training.legs["marginal"].batch_size
        rows = np.asarray(self._rows["marginal"][start : start + size])
        return self._put(np.resize(rows, [size, *rows.shape[1:]])), len(rows)

    def difference(self, kind: str) -> float:
        """The largest difference from the CPU's first numbers, in parts of each result's largest; the state stays."""
        leg, before = self._training.legs[kind], [np.asarray(value) for value in self.state]
        rows = self._batch(0)[0] if kind == "marginal" else self._rows[kind]
        results = self._call(kind, rows, {})
        self.state = [self._put(value) for value in before]
        found = [np.ravel(np.asarray(value))[:CHECKED] for value in results]
        return max(map(carried.difference, found, leg.checked))


def train(folder: pathlib.Path, received: pathlib.Path, name: str, until: float, precision: str) -> None:
    """Trains until its epochs are over, its patience ends or the time does, and measures what there is."""
    training, rows = read(folder, name)
    facts = training.facts
    going = Rounds(training, rows, precision)
    facts["differences"] = {kind: going.difference(kind) for kind in training.legs}
    print(f"{name}: differs from the CPU by {facts['differences']}", flush=True)
    order, num_rows = np.random.default_rng(facts["seed"]), len(rows["train"])
    history: list[dict[str, float]] = []
    best, wait, kept, told = None, 0, None, time.monotonic()
    began = told
    while len(history) < facts["epochs"] and time.monotonic() < until:
        logs = going.epoch("train", order.permutation(num_rows))
        if facts["patience"]:
            logs |= {f"val_{key}": value for key, value in going.epoch("validation").items()}
        history.append(logs)
        if facts["patience"] and len(history) > facts["warm_up"]:  # as Keras's EarlyStopping
            better = best is None or logs["val_elbo"] > best
            best, wait = (logs["val_elbo"], 0) if better else (best, wait + 1)
            if better:
                kept = _weights(going, facts)
            if wait >= facts["patience"]:
                break
        if not facts["patience"] and len(history) in facts["ends"]:
            kept, facts["done"], facts["seconds"] = _weights(going, facts), len(history), time.monotonic() - began
        if time.monotonic() - told > _TOLD_EVERY_S:
            told = time.monotonic()
            print(f"{name}: epoch {len(history)}, {(told - began) / len(history):.3f} s each, {logs}", flush=True)
    if kept is None:
        raise SystemExit(f"{name}: {len(history)} epochs, and no end of a stage: nothing is kept")
    seconds = time.monotonic() - began
    ended = len(history) == facts["epochs"] or wait >= (facts["patience"] or np.inf)
    if facts["patience"]:
        facts |= {"done": len(history), "seconds": seconds}
    for i, value in zip(facts["weights"], kept, strict=True):
        going.state[i] = going._put(value)
    sums = going.log_marginal()
    record = json.dumps({"facts": facts | {"ended": ended}, "history": history})
    arrays = {f"state_{i}": value for i, value in zip(facts["weights"], kept, strict=True)}
    np.savez(received / f"incomplete-{name}", record=np.array(record), sums=sums, **arrays)
    os.replace(received / f"incomplete-{name}.npz", received / f"{name}.npz")
    values = sums[0] + np.log(sums[1] / facts["num_samples"])
    print(
        f"{name}: {facts['done']} epochs of {len(history)} in {seconds:.0f} s, log p(x) {values.mean():.3f}, measured "
        f"in {time.monotonic() - began - seconds:.0f} s, {history[-1]}",
        flush=True,
    )


def _weights(going: Rounds, facts: dict[str, Any]) -> list[np.ndarray]:
    return [np.asarray(going.state[i]) for i in facts["weights"]]


def read_received(path: pathlib.Path) -> tuple[dict[str, Any], dict[int, np.ndarray], np.ndarray, list[dict]]:
    """Facts, the weights by the variable's number, the sums of log p(x) ``[3, N]``, the metrics of each epoch."""
    with np.load(path, allow_pickle=False) as arrays:
        record = json.loads(str(arrays["record"]))
        values = {int(name.removeprefix("state_")): arrays[name] for name in arrays.files if name.startswith("state_")}
        return record["facts"], values, arrays["sums"], record["history"]


def train_all(options: Any, names: list[str]) -> list[str]:
    """Each training as a process, some at once, in this order; gives those that failed or were not begun."""
    command = [sys.executable, "-m", "benchmarks.gpu.rounds", str(options.folder), str(options.received), "--alone"]
    until, waiting, going, failed = time.monotonic() + options.seconds, list(names), {}, []
    while waiting or going:
        while waiting and len(going) < options.at_once and until - time.monotonic() > _LEAST_S:
            name, left = waiting.pop(0), until - time.monotonic()
            more = ["--precision", options.precision, "--seconds", str(left), "--runs", name]
            going[name] = subprocess.Popen([*command, *more])
        for name in [name for name, process in going.items() if process.poll() is not None]:
            failed += [name] * bool(going.pop(name).returncode)
        if not going and until - time.monotonic() <= _LEAST_S:
            return [*failed, *waiting]
        time.sleep(0.2)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("received", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=480.0, help="until training ends (default 480)")
    parser.add_argument("--runs", nargs="+", help="which, the first ones first (default all)")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--precision", choices=["float32", "tf32"], default="float32")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.received.mkdir(parents=True, exist_ok=True)
    names = options.runs or sorted(path.stem for path in options.folder.glob("*.npz") if path.stem[:5] != "rows-")
    if options.alone:
        train(options.folder, options.received, names[0], time.monotonic() + options.seconds, options.precision)
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    began = time.monotonic()
    failed = train_all(options, names)
    print(f"{len(names)} trainings in {time.monotonic() - began:.0f} s; failed or not begun: {failed or 'none'}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
