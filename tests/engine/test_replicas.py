"""Several devices: two virtual ones, and two processes on loopback, give what one gives for the same batches."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.engine import replica_worker
from tfvae import VAE, likelihoods, networks, posteriors
from tfvae.engine import replicas, scope

pytestmark = pytest.mark.xla

LOOSE = ("loss scale", "batch statistics")  # each replica has statistics of its own, as everywhere in Keras
EXACT = [name for name in replica_worker.CASES if name not in LOOSE]
BETWEEN_WORKERS = ["array", "stream"]


def start(result: pathlib.Path, devices: str, names: list[str], **environment: str) -> subprocess.Popen:
    command = [sys.executable, replica_worker.__file__, str(result), devices, *names]
    root = {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    return subprocess.Popen(command, env=os.environ | root | environment, stderr=subprocess.PIPE, text=True)


def finished(children: list[subprocess.Popen], results: list[pathlib.Path]) -> list[dict[str, np.ndarray]]:
    try:
        for child in children:
            _, errors = child.communicate(timeout=300)
            assert child.returncode == 0, errors[-3000:]
    finally:
        for child in children:
            child.kill()
    return [dict(np.load(result)) for result in results]


@pytest.fixture(scope="session")
def one_and_two(tmp_path_factory) -> list[dict[str, np.ndarray]]:
    """What one device found, and what two did: found once, also where several processes run these tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of this run of all workers
    results = [folder / "one.npz", folder / "two.npz"]
    with (folder / "replicas.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(result.exists() for result in results):
            return [dict(np.load(result)) for result in results]
        names = [EXACT, [*EXACT, *LOOSE]]
        children = [start(*of) for of in zip(results, ("one", "mirrored"), names, strict=True)]
        return finished(children, results)


def part(results: dict[str, np.ndarray], case: str) -> dict[str, np.ndarray]:
    return {name.split("/")[1]: value for name, value in results.items() if name.startswith(f"{case}/")}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in EXACT if name not in ("odd", "fewer rows than replicas")])
def test_two_devices_give_what_one_gives(one_and_two, case):
    one, two = (part(results, case) for results in one_and_two)
    assert_equal(two, one)
    assert not np.array_equal(one["loss"][:1], one["loss"][1:]), "nothing was trained"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["odd", "fewer rows than replicas"])
def test_each_row_counts_once_where_replicas_do_not_divide_the_batch(one_and_two, case):
    """The noise is other noise then; KL knows of none, and the model stays as it is."""
    one, two = (part(results, case) for results in one_and_two)
    for name in ("kl", "val_kl"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", LOOSE)
def test_what_each_replica_keeps_for_itself_trains_too(one_and_two, case):
    two = part(one_and_two[1], case)
    assert np.isfinite(two["loss"]).all() and two["loss"][-1] < two["loss"][0]


@pytest.mark.slow
def test_two_workers_give_what_one_device_gives(tmp_path, one_and_two):
    with socket.socket() as first, socket.socket() as second:
        for opened in (first, second):
            opened.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in (first, second)]
    results = [tmp_path / f"{i}.npz" for i in range(2)]
    roles = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in range(2)]
    children = [
        start(result, "workers", BETWEEN_WORKERS, TF_CONFIG=json.dumps(role))
        for result, role in zip(results, roles, strict=True)
    ]
    for found in finished(children, results):
        for case in BETWEEN_WORKERS:
            assert_equal(part(found, case), part(one_and_two[0], case))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_replicas_draw_the_noise_of_the_whole_batch(jit_compile):
    locs = tf.reshape(tf.range(24.0), [4, 6])
    seed = tf.constant([1, 2])

    def draws(loc, part=None):
        q = posteriors.diagonal_normal(6).family(loc, 1.0)
        if part is None:
            return replicas.sample(q, seed, sample_shape=[3])
        with scope.as_part(part):
            return replicas.sample(q, seed, sample_shape=[3])

    whole = tf.function(draws, jit_compile=jit_compile)(locs)
    for index in range(2):
        mine = tf.function(lambda loc, i=index: draws(loc, scope.Part(tf.constant(i), 2)), jit_compile=jit_compile)(
            locs[2 * index : 2 * index + 2]
        )
        np.testing.assert_allclose(mine, whole[:, 2 * index : 2 * index + 2], rtol=1e-6)


def test_a_distributed_dataset_is_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        parts = networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8])
        vae = VAE(*parts)
        vae.compile(keras.optimizers.Adam())
    batches = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(np.zeros([4, 8], np.float32)))
    with pytest.raises(ValueError, match="pass the dataset of whole batches"):
        vae.fit(batches, verbose=0)


X = np.eye(4, dtype=np.float32)


def small(strategy=None, encoder=None) -> VAE:
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        distributions = posteriors.diagonal_normal(1), likelihoods.bernoulli([4])
        return VAE(encoder or networks.mlp([2]), networks.mlp([2]), *distributions, seed=0)


@pytest.mark.parametrize("made", ["outside of any", "in that of another"])
def test_what_is_called_in_another_strategy_s_scope_is_told(made):
    """And a model of a strategy is compiled, and used, inside of its scope and outside."""
    own, other = (tf.distribute.MirroredStrategy(["CPU:0"]) for _ in range(2))
    model = small(None if made == "outside of any" else own)
    model.compile("sgd", run_eagerly=True)
    with other.scope():
        for method in ("compile", "fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"):
            told = f"^{method} is called in the scope of a MirroredStrategy, but the model was made {made}: make and"
            with pytest.raises(ValueError, match=told):
                getattr(model, method)(*[X] * (method != "compile"))
    loss = model.train_on_batch(X)
    with contextlib.nullcontext() if made == "outside of any" else own.scope():
        assert np.isfinite([loss, model.test_on_batch(X)]).all()


def test_an_optimiser_or_a_network_of_another_strategy_is_told():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        optimizer = keras.optimizers.SGD()
    encoder = keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])
    model = small(strategy)
    for told, compiled in {
        "The optimiser was made outside of the scope of a strategy": lambda: model.compile(keras.optimizers.SGD()),
        "The optimiser was made in the scope of a strategy": lambda: small().compile(optimizer),
        "dense.*/kernel was made outside of the scope of a strategy": small(strategy, encoder).compile,
    }.items():
        with pytest.raises(ValueError, match=f"{told}, and the model .*: make .* within the same `with strategy.scop"):
            compiled()
    with pytest.raises(ValueError, match="call compile"):
        model.fit(X)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gradient_accumulation_steps": 2}, "has gradient_accumulation_steps=2, which"),
        ({"use_ema": True, "ema_overwrite_frequency": 3}, "has ema_overwrite_frequency=3, which"),
        ({"use_ema": True}, None),
        ({"ema_overwrite_frequency": 3}, None),
    ],
    ids=str,
)
def test_what_keras_does_on_one_device_alone_is_told(given, told, monkeypatch):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(**given))
    replicas.check_steps(optimizer)
    two = type("Two", (), {"num_replicas_in_sync": 2})()
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: two)
    with contextlib.nullcontext() if told is None else pytest.raises(ValueError, match=told):
        replicas.check_steps(optimizer)
