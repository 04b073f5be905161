"""The trainings of published tables on a GPU where no TensorFlow is installed.

    python -m benchmarks.gpu.trainings carry FOLDER iwae-VAE-1 vamp-mnist-vamp [--data-dir data] [--stages 6]
    python -m benchmarks.gpu.rounds FOLDER RECEIVED [--seconds 480]
    python -m benchmarks.gpu.trainings bring RECEIVED --output runs/iwae

The first stage compiles the train program of each run of ``tfvae reproduce``, that of its validation where training
stops early, and that of ``evaluation.log_marginal``; the second, which needs jax alone, calls them; the third puts the
weights into the models and keeps them where ``tfvae reproduce`` finds them trained and measured. What is trained is
TensorFlow's program, on the rows in an order drawn anew for each epoch.
"""

import argparse
import functools
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.gpu import carried, carry, rounds
from benchmarks.gpu.rounds import Leg, Training
from tfvae import evaluation
from tfvae.engine.batches import Data
from tfvae.evaluation.importance import weight_sums_of
from tfvae.experiments import datasets
from tfvae.experiments.iwae import table1
from tfvae.experiments.planar import table as planar
from tfvae.experiments.renyi import table as renyi
from tfvae.experiments.stages import Run
from tfvae.experiments.vamp import table as vamp

SAMPLES = {"iwae": 5000, "vamp": 5000, "renyi": 5000, "flows": 200}  # of log p(x), as the tables take
_MEASURED_AT_ONCE = 100  # rows: ``log_marginal``'s own batch


def run_of(name: str, data_dir: str) -> Run:
    """The run of ``iwae-ROW``, ``flows-COUNT``, ``vamp-DATASET-PRIOR`` or ``renyi-METHOD-K``, which is of silhouettes.

    Raises:
        ValueError: For a name of another form.
    """
    table, _, rest = name.partition("-")
    if table == "iwae" and rest in table1.ROWS:
        return table1.run_of(rest, *datasets.mnist(f"{data_dir}/mnist"))
    if table == "flows" and rest.isdecimal():
        greys = datasets.mnist(f"{data_dir}/mnist")
        return planar.run_of(int(rest), *(datasets.binary(images, i) for i, images in enumerate(greys)))
    kind, _, last = rest.rpartition("-")
    if table == "vamp" and kind in vamp.DATASETS and last in ("normal", "vamp"):
        return vamp.run_of(kind, last, (500,) if last == "vamp" else (), data_dir)
    if table == "renyi" and kind in renyi.METHODS and last.isdecimal():
        return renyi.silhouettes_run(f"silhouettes-{rest}", kind, int(last), data_dir, 1e-3)
    raise ValueError(f"{name!r} is no run: expected iwae-VAE-1, flows-10, vamp-mnist-normal, renyi-VR-max-50 or alike.")


def variables(vae: Any) -> list[tf.Variable]:
    """All that a training changes, in the order in which every model of the same parts has it."""
    own = [*vae.variables, *vae.optimizer.variables, *(v for metric in vae.metrics for v in metric.variables)]
    return list({id(variable): variable for variable in own}.values())


def names_of(state: list[tf.Variable]) -> list[str]:
    """Their paths without the numbers by which Keras tells the layers of a process apart."""
    return [re.sub(r"_\d+", "", variable.path) for variable in state]


def carry_run(folder: pathlib.Path, name: str, run: Run, stages: int) -> None:
    """Writes what travels of a run."""
    vae, steps = run.build(), -(-len(run.train) // run.plan.batch_size)
    vae.compile(vae.optimizer, steps_per_execution=steps, jit_compile=True)
    vae.optimizer.build(vae.trainable_variables)
    state = variables(vae)
    start, own = [variable.numpy() for variable in state], {id(v): i for i, v in enumerate(state)}
    legs_of = functools.partial(leg, state, start)
    vae.make_train_function()
    rows = {"train": run.train, "marginal": drawn(vae, run.test, run.seed)}
    legs = {"train": legs_of(vae.train_function.program, *epoch_of(vae, run.train, run.plan.batch_size))}
    if run.validation is not None:
        vae.make_test_function()
        rows["validation"] = run.validation
        legs["validation"] = legs_of(vae.test_function.program, *epoch_of(vae, run.validation, run.plan.batch_size))
    num_samples = SAMPLES[name.partition("-")[0]]
    sums = weight_sums_of(vae, num_samples, _MEASURED_AT_ONCE)
    size = min(_MEASURED_AT_ONCE, 1 << (len(run.test) - 1).bit_length())  # as ``map_rows`` fills it
    first = tf.constant(np.resize(rows["marginal"], [size, *run.test.shape[1:]]))
    arguments = [
        vae.prepare(first),
        np.array([run.seed, 0], np.int32),
        np.int32(0),
        np.int32(1),
        *sums.start(size),
    ]
    legs["marginal"] = legs_of(sums.program, arguments, size)
    facts = {
        "name": name,
        "epochs": sum(run.plan.epochs[:stages]),
        "ends": np.cumsum(run.plan.epochs[:stages]).tolist(),
        "patience": run.plan.patience,
        "warm_up": run.plan.warm_up,
        "num_samples": num_samples,
        "seed": run.seed,
        "weights": [own[id(variable)] for variable in vae.weights],
        "metrics": [own[id(variable)] for metric in vae.metrics for variable in metric.variables],
        "names": names_of(state),
    }
    rounds.write(folder, Training(facts, start, legs), rows)


def drawn(vae: Any, rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows as ``log_marginal`` draws them, where the model has noise."""
    starts = range(0, len(rows), _MEASURED_AT_ONCE)
    keys = [tf.constant([seed, start], tf.int32) for start in starts]
    parts = [vae.prepare(tf.constant(rows[start : start + _MEASURED_AT_ONCE])) for start in starts]
    return np.concatenate([vae.drawn(part, key)["x"] for part, key in zip(parts, keys, strict=True)])


def epoch_of(vae: Any, rows: np.ndarray, size: int) -> tuple[list[Any], int]:
    """The arguments of a program over all the rows in batches of ``size``, and that."""
    order, counts = rounds.batches(np.arange(len(rows), dtype=np.int32), size)
    data = Data(vae.prepare(tf.constant(rows)))
    return [data, order, counts, np.int32(min(len(counts), carried.CHECKED_STEPS))], size


def leg(state: list[tf.Variable], start: list[np.ndarray], function: Any, arguments: list[Any], size: int) -> Leg:
    """A program, run once here from the variables' first values, and which of its parameters are variables.

    Raises:
        RuntimeError: If it sets what is none of them.
    """
    for variable, value in zip(state, start, strict=True):
        variable.assign(value)
    found, places = carry.program(function, arguments)
    variable_of = {places[id(v.value)]: i for i, v in enumerate(state) if id(v.value) in places}
    if unknown := set(found.updated) - set(variable_of):
        raise RuntimeError(f"The program sets parameters {sorted(unknown)}, which are no variables of the model.")
    checked = [np.ravel(value)[: rounds.CHECKED] for value in found.outputs]
    return Leg(found.hlo, found.inputs[1:], checked, found.returned, found.updated, variable_of, size)


def carry_runs(options: Any) -> None:
    """The first stage."""
    for name in options.runs:
        run = run_of(name, options.data_dir)
        carry_run(options.folder, name, run, min(options.stages, len(run.plan.epochs)))
        print(f"{name}: {len(run.train)} rows in batches of {run.plan.batch_size}", flush=True)


def bring(options: Any) -> None:
    """The third stage.

    Raises:
        ValueError: If what came is of another model.
    """
    for path in sorted(options.received.glob("*.npz")):
        facts, values, sums, history = rounds.read_received(path)
        name, done = facts["name"], facts["done"]
        run = run_of(name, options.data_dir)
        vae = run.build()
        vae.optimizer.build(vae.trainable_variables)
        state = variables(vae)
        if names_of(state) != facts["names"]:
            raise ValueError(f"{path} is of other variables than {name} has: carry it again.")
        for i, value in values.items():
            state[i].assign(value)
        vae.optimizer.iterations.assign(done * -(-len(run.train) // run.plan.batch_size))
        found = evaluation.MarginalEstimate.of_sums(*sums.astype(np.float64), facts["num_samples"])
        stages = 1 if run.plan.patience else facts["ends"].index(done) + 1
        measured = (facts["num_samples"], found)
        told = run.receive(str(options.output), stages, vae, history[done - 1]["elbo"], facts["seconds"], measured)
        print(f"{name}: {done} epochs{'' if facts['ended'] else ', stopped by the time'}: {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    stages = parser.add_subparsers(required=True)
    first = stages.add_parser("carry", help="compile the programs here")
    first.set_defaults(stage=carry_runs)
    first.add_argument("folder", type=pathlib.Path)
    first.add_argument("runs", nargs="+")
    first.add_argument("--stages", type=int, default=6, help="of the learning rate, where it has stages (default 6)")
    third = stages.add_parser("bring", help="keep what was trained for `tfvae reproduce`")
    third.set_defaults(stage=bring)
    third.add_argument("received", type=pathlib.Path)
    third.add_argument("--output", type=pathlib.Path, required=True)
    for each in (first, third):
        each.add_argument("--data-dir", default="../shared/data")
    options = parser.parse_args()
    options.stage(options)


if __name__ == "__main__":
    main()
