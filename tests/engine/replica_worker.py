"""Trains small models in a process whose devices are set up for it, and keeps what came out.

python tests/engine/replica_worker.py RESULT.npz {one,mirrored,workers} CASE ...
"""

import contextlib
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests import garbage
from tfvae import VAE, baselines, likelihoods, networks, observations, posteriors

ROWS, PIXELS = 50, 8
X = np.random.default_rng(0).integers(0, 256, [ROWS, PIXELS], np.uint8)
STILL = {"optimizer": "sgd", "rate": 0.0}  # a model that stays as it is

# What differs from a VAE with one sample, trained on an array by Adam, without XLA, in batches of 12 (the last: 2).
CASES: dict[str, dict[str, Any]] = {
    "array": {"jit_compile": True},
    "stream": {"stream": True},
    "samples": {"num_samples": 3, "optimizer": "clipped", "jit_compile": True},
    "binarised": {"binarize": True},
    "penalties": {"penalties": True},
    # By XLA, which runs a step's operations in their order: without it, about one process in eight on a crowded machine
    # dreamed something else in one step.
    "wake sleep": {"trainer": baselines.WakeSleep, "batch_size": 10, "jit_compile": True},
    "full vb": {"trainer": lambda vae: baselines.FullVB(vae, ROWS)},
    "odd": {"batch_size": 7, **STILL},
    "fewer rows than replicas": {"batch_size": 1, **STILL},
    "batch statistics": {"normalised": True},
    "loss scale": {"policy": "mixed_float16"},
}


def optimizer(name: str, rate: float) -> keras.optimizers.Optimizer:
    if name == "sgd":
        return keras.optimizers.SGD(rate)
    return keras.optimizers.Adam(rate, global_clipnorm=0.05 if name == "clipped" else None)


def model(case: dict[str, Any]) -> keras.Model:
    keras.utils.set_random_seed(0)
    encoder = networks.mlp([16])
    if case.get("normalised"):
        encoder = keras.Sequential([networks.mlp([16]), keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)])
    if case.get("penalties"):
        encoder = keras.layers.Dense(16, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))
    layers = posteriors.diagonal_normal(3), likelihoods.bernoulli([PIXELS])
    vae = VAE(
        encoder,
        networks.mlp([16]),
        *layers,
        num_samples=case.get("num_samples", 1),
        seed=1,
        noise=observations.Binarized() if "binarize" in case else None,
    )
    trained = case["trainer"](vae) if "trainer" in case else vae
    adam = optimizer(case.get("optimizer", "adam"), case.get("rate", 0.01))
    trained.compile(adam, jit_compile=case.get("jit_compile", False))
    return trained


def outcome(case: dict[str, Any], strategy: tf.distribute.Strategy | None) -> dict[str, np.ndarray]:
    """The history, the weights after it, and what the trained model says of the data."""
    keras.config.set_dtype_policy(case.get("policy", "float32"))
    with strategy.scope() if strategy else contextlib.nullcontext():
        trained = model(case)
    size = case.get("batch_size", 12)
    data = tf.data.Dataset.from_tensor_slices(X).shuffle(ROWS, seed=3).batch(size) if case.get("stream") else X
    history = trained.fit(data, batch_size=size, epochs=2, validation_data=X[:20], verbose=0).history
    found = {name: np.array(values) for name, values in history.items()}
    found |= {f"weight {i}": weight for i, weight in enumerate(trained.get_weights())}
    found["evaluate"] = np.array(trained.evaluate(data, batch_size=size, verbose=0))
    found["embed"] = getattr(trained, "vae", trained).embed(X)
    return found


def main(result: str, devices: str, *names: str) -> None:
    strategy = None
    if devices == "mirrored":
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif devices == "workers":  # TF_CONFIG says which and where
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    garbage.seldom()
    found = {name: outcome(CASES[name], strategy) for name in names}
    np.savez(result, **{f"{name}/{key}": value for name, values in found.items() for key, value in values.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
