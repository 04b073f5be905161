"""Serving: ``embed`` in the C++ session beside a bare ``tf.function``, and what an export of a large model costs.

    python -m benchmarks.serving [--rounds 5] [--batch-sizes 1 64 1024] [--parameters 20000000] [--folder DIR]

Both sides take an array and give arrays; the bare function holds the same weights as plain matrices, checks nothing and
was written by hand. The session, which must not meet Python TensorFlow, times itself in a process of its own, turn by
turn with the other side. The export runs in a fresh process too, whose peak memory is its own.
"""

import argparse
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import report

PIXELS, HIDDEN, LATENT = 784, 500, 20
ROWS, MOST_CALLS = 1 << 15, 1000  # of one measurement
# Called as its own command line, the package loads no TensorFlow.
_WITHOUT_TENSORFLOW = (
    "import sys; sys.argv[0] = 'tfvae'; from benchmarks import serving; serving.answer_as_session(sys.argv[1])"
)


def images(rows: int) -> np.ndarray:
    return np.random.default_rng(0).random([rows, PIXELS], np.float32)


def calls(batch_size: int) -> int:
    return min(MOST_CALLS, max(1, ROWS // batch_size))


def seconds(embed: Callable[[np.ndarray], Any], batch_size: int) -> float:
    x = images(batch_size)
    embed(x)
    started = time.perf_counter()
    for _ in range(calls(batch_size)):
        embed(x)
    return time.perf_counter() - started


def model(hidden: int) -> Any:
    import tfvae

    return tfvae.VAE(
        tfvae.networks.mlp([hidden]),
        tfvae.networks.mlp([hidden]),
        tfvae.posteriors.diagonal_normal(LATENT),
        tfvae.likelihoods.bernoulli([PIXELS]),
        seed=0,
    )


def bare(vae: Any) -> Callable[[np.ndarray], list[np.ndarray]]:
    import tensorflow as tf

    weights = [variable.value for layer in (vae.encoder, vae.posterior) for variable in layer.variables]
    kernel, bias, parameters, offset = weights

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32)], autograph=False)
    def embed(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = vae.encoder.layers[-1].activation(x @ kernel + bias) @ parameters + offset
        return features[:, :LATENT], tf.nn.softplus(features[:, LATENT:])

    return lambda x: [value.numpy() for value in embed(tf.convert_to_tensor(x))]


class SessionSide:
    """The C++ session in a child: batch sizes go in, seconds come out."""

    def __init__(self, path: str) -> None:
        command = [sys.executable, "-c", _WITHOUT_TENSORFLOW, path]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, batch_size: int) -> float:
        print(batch_size, file=self._child.stdin, flush=True)
        return float(self._child.stdout.readline())

    def close(self) -> None:
        self._child.stdin.close()
        self._child.wait()


def answer_as_session(path: str) -> None:
    """What the child does."""
    from tfvae.checks.cpp_session import CSession

    with CSession(path) as session:
        for line in sys.stdin:
            print(seconds(lambda x: session.run("embed", {"x": x}), int(line)), flush=True)


def compare_sessions(
    batch_sizes: list[int], rounds: int, folder: pathlib.Path
) -> tuple[list[list[str]], dict[str, Any]]:
    import tfvae
    from tfvae.checks.process import run_in_subprocess

    vae = model(HIDDEN)
    path = tfvae.export(vae, folder / "compared")
    embed, session = bare(vae), SessionSide(path)
    (answer,) = run_in_subprocess(path, [("embed", {"x": images(64)})])
    off = max(np.abs(a - b).max() for a, b in zip(answer.values(), embed(images(64)), strict=True))
    table, details = [], {}
    for batch_size in batch_sizes:
        sides = {
            "session": rate(session.seconds, batch_size),
            "bare": rate(functools.partial(seconds, embed), batch_size),
        }
        for run in sides.values():
            run()
        rates = report.interleave(sides, rounds)
        ratio = report.ratio(rates, "session", "bare")
        shown = [report.spread(rates["session"]), report.spread(rates["bare"]), f"{ratio:.2f}", f"{off:.0e}"]
        table.append([str(batch_size), *shown])
        details[str(batch_size)] = {"rows_per_second": rates, "ratio": ratio}
    session.close()
    return table, {"batch_sizes": details, "largest_difference": float(off)}


def rate(measure: Callable[[int], float], batch_size: int) -> Callable[[], float]:
    return lambda: batch_size * calls(batch_size) / measure(batch_size)


def export_alone(parameters: int, folder: str) -> None:
    """Export a model of about so many parameters and print what it took; runs in a process of its own."""
    import tfvae

    vae = model(parameters // (2 * PIXELS + 3 * LATENT + 2))
    weights = sum(variable.numpy().nbytes for variable in vae.trainable_variables)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = memory("VmRSS")
    started = time.perf_counter()
    path = tfvae.export(vae, os.path.join(folder, "large"))
    took = time.perf_counter() - started
    disk = sum(file.stat().st_size for file in pathlib.Path(path).rglob("*") if file.is_file())
    print(weights, disk, took, before, memory("VmHWM"))


def memory(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at the peak."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def measure_export(parameters: int, folder: pathlib.Path) -> tuple[list[str], dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.serving", "--export", str(parameters), "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    names = ("weights_bytes", "disk_bytes", "seconds", "bytes_before", "peak_bytes")
    found = dict(zip(names, map(float, done.stdout.split()), strict=True))
    weights, more = found["weights_bytes"], found["peak_bytes"] - found["bytes_before"]
    peak, disk = found["peak_bytes"], found["disk_bytes"]
    row = [
        f"{weights / 4e6:.1f} million ({weights / 1e6:.1f} MB)",
        f"{disk / 1e6:.1f} MB ({disk / weights:.3f} of the weights)",
        f"{found['seconds']:.1f}",
        f"{peak / 1e6:,.0f} MB, {more / 1e6:,.0f} MB of it the export's ({more / weights:.1f} of the weights)",
    ]
    return row, found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side after the first (default 5)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--parameters", type=int, default=20_000_000, help="of the model that is exported")
    parser.add_argument("--folder", help="where the models are written; a temporary folder by default")
    parser.add_argument("--export", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.export:
        return export_alone(options.export, options.folder)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        table, details = compare_sessions(options.batch_sizes, options.rounds, pathlib.Path(place))
        row, exported = measure_export(options.parameters, pathlib.Path(place))
    title = f"embed of 784-{HIDDEN}-{LATENT}, float32, arrays to arrays"
    header = ["batch", "C++ session, rows/s", "bare tf.function, rows/s", "ratio", "largest difference"]
    report.keep("serving", title, header, table, details)
    header = ["parameters", "on disk", "seconds", "peak memory"]
    return report.keep("export", "tfvae.export of a large model", header, [row], exported)


if __name__ == "__main__":
    main()
