"""Trains every entry on one device and on two, in a process that has two, and keeps both.

python tests/conformance/replica_worker.py RESULT.npz
"""

import contextlib
import sys

import keras
import numpy as np
import tensorflow as tf

from tests import garbage
from tests.conformance import models


def outcome(name: str, strategy: tf.distribute.Strategy | None) -> dict[str, np.ndarray]:
    """The history and the weights after two epochs of batches of 8: the last batch of an epoch is half full."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        vae, rows = models.made(name)
        # Adam, which divides by the size of the gradient, would not see one that is twice as large.
        vae.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    weights = np.linspace(0.5, 2.0, 12, dtype=np.float32)
    history = vae.fit(rows, batch_size=8, epochs=2, sample_weight=weights, verbose=0).history
    found = {key: np.array(values) for key, values in history.items()}
    return found | {weight.path: weight.numpy() for weight in vae.trainable_variables}


def main(result: str) -> None:
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    strategies = {"one": None, "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
    garbage.seldom()
    found = {
        f"{name}|{devices}|{i}": value
        for name in models.ENTRIES
        for devices, strategy in strategies.items()
        for i, value in enumerate(outcome(name, strategy).values())
    }
    np.savez(result, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
