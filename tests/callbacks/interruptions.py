"""Trainings that are stopped anywhere and go on, to be compared with those that are not.

``train`` runs in this process, and may be stopped by a callback; as a program this is one to be killed:

python tests/callbacks/interruptions.py CASE FOLDER RESULT.npz [SECONDS]

It trains, with a rest of so many seconds after each program, and writes the final state. Whoever kills it starts it
again until the result is there. Where TF_CONFIG names several workers, it is one of them.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import VAE, baselines, callbacks, likelihoods, networks, objectives, posteriors
from tfvae.engine import course, hooks

ROWS, PIXELS, BATCH, EPOCHS = 50, 6, 8, 4  # seven batches an epoch, of which the last has two rows
X = np.random.default_rng(0).integers(0, 256, [ROWS, PIXELS], np.uint8)


def dropout() -> keras.Model:
    return keras.Sequential([networks.mlp([8]), keras.layers.Dropout(0.2)])


def shuffled() -> tf.data.Dataset:
    """A shuffle within a shuffle, as of files and of their rows."""
    files = tf.data.Dataset.range(5).shuffle(5, seed=1)
    rows = files.interleave(lambda k: tf.data.Dataset.from_tensor_slices(tf.constant(X)).shard(5, k), cycle_length=2)
    return rows.shuffle(20, seed=2).batch(BATCH)


class Batches(keras.utils.PyDataset):
    """Batches that Keras shuffles."""

    def __len__(self) -> int:
        return -(-ROWS // BATCH)

    def __getitem__(self, index: int) -> np.ndarray:
        return X[index * BATCH : (index + 1) * BATCH]


@dataclasses.dataclass(frozen=True)
class Case:
    """How a training differs from one of an ELBO on an array.

    Attributes:
        data: Gives x.
        steps: ``steps_per_execution``.
        fit: More arguments of ``fit``.
        objective: See ``VAE``.
        trainer: What trains the VAE.
        more: More callbacks.
    """

    data: Callable[[], Any] = lambda: X
    steps: int | None = 3
    fit: dict[str, Any] = dataclasses.field(default_factory=dict)
    objective: Callable[[], Any] = lambda: objectives.elbo_b
    trainer: Callable[[VAE], Any] = lambda vae: vae
    more: Callable[[], list[keras.callbacks.Callback]] = list


CASES = {
    "arrays": Case(),
    "paced": Case(steps=None),
    "endless arrays": Case(fit={"steps_per_epoch": 5}),
    "rows": Case(lambda: tf.data.Dataset.from_tensor_slices(X).shuffle(ROWS, seed=1).batch(BATCH)),
    "stream": Case(shuffled, fit={"validation_data": X[:20]}),
    "endless stream": Case(shuffled, fit={"steps_per_epoch": 5}),
    "PyDataset": Case(Batches),
    "GECO": Case(objective=lambda: objectives.ConstrainedLikelihood(-4.0)),
    "discriminator": Case(objective=lambda: objectives.AdversarialTotalCorrelation(2)),
    "wake-sleep": Case(trainer=baselines.WakeSleep),
    "callbacks": Case(
        fit={"validation_data": X[:20], "validation_freq": 1},
        more=lambda: [
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10.0),
            keras.callbacks.EarlyStopping("val_loss", mode="max", patience=2, restore_best_weights=True),
        ],
    ),
}


def build(case: Case) -> Any:
    keras.utils.set_random_seed(3)
    with tf.distribute.MultiWorkerMirroredStrategy().scope() if "TF_CONFIG" in os.environ else contextlib.nullcontext():
        parts = dropout(), networks.mlp([8]), posteriors.diagonal_normal(2), likelihoods.bernoulli([PIXELS])
        model = case.trainer(VAE(*parts, objective=case.objective(), seed=1))
        model.compile(keras.optimizers.Adam(0.01), steps_per_execution=case.steps, jit_compile=False)
    return model


class Stop(hooks.Looking):
    """Raises at the end of the n-th program, in whichever epoch that is."""

    def __init__(self, programs: int):
        super().__init__()
        self._left = programs

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("stopped")


class Signal(hooks.Looking):
    """Sends this process a signal after its n-th program."""

    def __init__(self, number: int, programs: int):
        super().__init__()
        self._number, self._left = number, programs

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)


class Rest(hooks.Looking):
    """Waits after each program, so that there is time to be killed in."""

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds = seconds

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(self._seconds)


def train(case: Case, *more: keras.callbacks.Callback, epochs: int = EPOCHS) -> Any:
    """The model after ``fit``, whose history it has."""
    model = build(case)
    given = [*case.more(), *more]
    model.fit(case.data(), batch_size=BATCH, epochs=epochs, verbose=0, callbacks=given, **case.fit)
    return model


def outcome(model: Any) -> dict[str, np.ndarray]:
    """All numbers of a trained model, and its history."""
    found = {f"variable {i}": np.asarray(one) for i, one in enumerate(course.variables(model))}
    history = {name: np.array(values) for name, values in model.history.history.items()}
    return found | history | {"epoch": np.array(model.history.epoch)}


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """The names of what is not equal, byte for byte."""
    names = sorted(one.keys() | other.keys())
    return [
        name for name in names if name not in one or name not in other or one[name].tobytes() != other[name].tobytes()
    ]


if __name__ == "__main__":
    name, folder, result, *rest = sys.argv[1:]
    waits = [Rest(float(rest[0]))] if rest else []
    trained = train(CASES[name], callbacks.Checkpoint(folder, steps=2), *waits)
    np.savez(f"{result}.incomplete.npz", **outcome(trained))
    pathlib.Path(f"{result}.incomplete.npz").rename(result)
