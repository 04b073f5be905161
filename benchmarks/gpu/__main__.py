"""TensorFlow's compiled programs on a GPU where no TensorFlow is installed, beside the same models in JAX and PyTorch.

    python -m benchmarks.gpu carry FOLDER [--rows 60000] [--batch-sizes 100 2048] [--models mlp conv]
    python -m benchmarks.gpu run FOLDER [--rounds 5] [--epochs 5] [--sides ...] [--precisions float32 tf32]

The first stage needs TensorFlow and no GPU, the second jax, optax and, for its sides, PyTorch. All sides start from the
carried weights, take the same bytes and the same number of steps, and leave out the rows that do not fill a call of K
steps; the embeddings of each are compared with TensorFlow's on the CPU, and so is all that the train program sets.
They share a process, as they share the GPU: on a CPU their threads get into each other's way, and ``benchmarks.peers``,
which gives each side a process, is what measures there.
"""

import argparse
import itertools
import os
import pathlib
import sys
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.gpu import carried, sides


def carry(options: Any) -> None:
    from benchmarks import training
    from benchmarks.gpu.carry import case

    rows = np.round(255 * training.images()[: options.rows]).astype(np.uint8)
    cases = []
    for model, batch_size in itertools.product(options.models, options.batch_sizes):
        print(f"{model}, batch {batch_size}: compiling and running", file=sys.stderr, flush=True)
        cases.append(case(model, rows, batch_size))
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
    precisions = options.precisions or (["float32"] if device == "cpu" else list(sides.TOLERANCES))
    wanted = list(dict.fromkeys(["program", *options.sides]))
    skipped = {name: reason for name in wanted if (reason := sides.missing(name, device))}
    title = f"The compiled programs of `tfvae.VAE` on {first.device_kind}, run by jaxlib without TensorFlow"
    where = {"device": first.device_kind, **report.versions("jax", "jaxlib", "optax", "torch")}
    lines, wrong = sides.left_out(skipped), []
    details: list[dict[str, Any]] = []
    record = {"carried_from": origin, "skipped": skipped, "cases": details}
    for precision, case in itertools.product(precisions, cases):
        built = {name: sides.build(name, case, rows, precision, device) for name in wanted if name not in skipped}
        found = sides.compare(built, case, rows, options.rounds, options.epochs)
        lines += sides.table(case, precision, found)
        details.append({"model": case.model, "batch": case.batch_size, "precision": precision, **found})
        wrong += sides.too_different(case, precision, found)
        report.keep("gpu", title, sides.HEADER, lines, record, where)  # each time: a lent machine may go at any
    if wrong:
        raise SystemExit(f"Results differ from the CPU's by more than {sides.TOLERANCES}: {'; '.join(wrong)}")


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
    second.add_argument(
        "--sides", nargs="+", choices=sides.SIDES, default=list(sides.SIDES), help="which, the program among them"
    )
    second.add_argument(
        "--precisions", nargs="+", choices=sides.TOLERANCES, help="default: both; float32 alone on a CPU"
    )
    options = parser.parse_args(arguments)
    options.stage(options)


if __name__ == "__main__":
    main()
