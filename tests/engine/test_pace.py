"""Programs of about a second: a person hears of the training in time, and what is computed does not depend on it."""

import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae import VAE, likelihoods, networks, posteriors
from tfvae.engine import hooks, loop, pace
from tfvae.engine.pace import Pace

pytestmark = pytest.mark.xla

X = (np.random.default_rng(0).random([95, 4]) < 0.5).astype(np.float32)  # ten batches of ten, the last of five


class Clock:
    """Seconds that pass only where a step takes them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr(pace.time, "perf_counter", lambda: self.now)

    def programs(self, paced: Pace, cost: float, steps: int, first: float = 0.0) -> list[float]:
        """How long each program of a group took; the first one has to be compiled as well."""
        taken = []

        def run(start: int, stop: int) -> None:
            taken.append(cost * (stop - start) + (first if start == 0 else 0.0))
            self.now += taken[-1]

        paced.parts(steps, run, lambda stop, result: True)
        assert sum(taken) == pytest.approx(cost * steps + first)
        return taken


@pytest.mark.parametrize("cost", [1e-4, 1e-3, 0.0078, 0.13, 0.3, 0.9])
def test_no_program_takes_more_than_a_second(cost, monkeypatch):
    clock, paced = Clock(monkeypatch), Pace()
    first, second = (clock.programs(paced, cost, 128, compiling) for compiling in (20.0, 0.0))
    assert max(first[1:] + second) <= 1.0
    # And none is short for long: a group of many seconds is few programs.
    assert len(second) <= max(1, cost * 128 / 0.3)
    assert (
        len(set(np.round(first[1:], 6)) | set(np.round(second, 6))) <= 9
    )  # as many lengths as powers of two, and a rest


def test_it_follows_a_machine_that_grows_slow_and_fast_again(monkeypatch):
    clock, paced = Clock(monkeypatch), Pace()
    for cost in (0.005, 0.1, 0.005):
        taken = clock.programs(paced, cost, 128)
        assert max(taken[1:], default=0.0) <= 1.0  # one program of the old length is enough to notice
        assert max(clock.programs(paced, cost, 128)) <= 1.0
        assert cost * min(paced.steps, 128) == pytest.approx(0.75, abs=0.26)


def vae() -> VAE:
    keras.utils.set_random_seed(0)
    return VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([4]), seed=0)


@pytest.fixture
def steps_of_programs(monkeypatch):
    """Sets how many steps the programs run, in turn, whatever the time; the lengths that were run come back."""

    def set_steps(*lengths: int) -> list[int]:
        run: list[int] = []

        class Fixed(Pace):
            steps = property(lambda self: lengths[len(run) % len(lengths)], lambda self, value: None)

            def heed(self, steps, seconds):
                run.append(steps)
                return self.steps

        monkeypatch.setattr(loop, "Pace", Fixed)
        return run

    return set_steps


def numbers(jit: bool, stream: bool) -> list[np.ndarray]:
    model = vae()
    model.compile(keras.optimizers.Adam(0.01), jit_compile=jit)
    data = tf.data.Dataset.from_tensor_slices(X).batch(10) if stream else X
    history = model.fit(data, batch_size=10, epochs=3, validation_data=X[:33], verbose=0).history
    assert model.steps_per_execution == 10
    states = [model.seed_generator.state.numpy(), model.optimizer.iterations.numpy()]
    return [
        *map(np.array, history.values()),
        *model.get_weights(),
        *states,
        np.array(model.evaluate(X, batch_size=10, verbose=0)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("jit", "stream"), [(True, False), (False, False), (False, True)])
def test_what_is_computed_does_not_depend_on_how_long_programs_are(jit, stream, steps_of_programs):
    found = []
    for lengths, seen in (((3, 1, 4), {1, 2, 3, 4}), ((1000,), {10, 4})):
        run = steps_of_programs(*lengths)
        found.append(numbers(jit, stream))
        assert set(run) == seen
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_programs_of_many_lengths_are_one_program(steps_of_programs):
    steps_of_programs(1, 2, 3, 4)
    model = vae()
    model.compile("sgd", jit_compile=False)
    for _ in range(2):
        model.fit(X, batch_size=10, epochs=2, validation_data=X[:33], verbose=0)
    for function in (model.train_function, model.test_function):
        assert function.program.experimental_get_tracing_count() == 1


class Looks(hooks.Looking):
    """What a bar is told."""

    def __init__(self, stop_at: int | None = None):
        super().__init__()
        self.stop_at, self.calls = stop_at, []

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        assert set(logs) == {"loss", "elbo", "log_likelihood", "kl"} and all(type(v) is float for v in logs.values())
        self.calls.append(("end", batch))
        self.model.stop_training = batch == self.stop_at

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(("tested", batch))
        self.model.stop_evaluating = batch == self.stop_at


@pytest.mark.slow
def test_callbacks_that_look_hear_of_each_program(steps_of_programs):
    steps_of_programs(4)
    model, looks = vae(), Looks()
    model.compile("sgd", jit_compile=False)
    model.fit(X, batch_size=10, verbose=0, callbacks=[looks], validation_data=X[:50])
    spans = [("begin", 0), ("end", 3), ("begin", 4), ("end", 7), ("begin", 8), ("end", 9)]
    assert looks.calls[:7] == [*spans, ("tested", 3)]
    looks.calls.clear()
    model.evaluate(X, batch_size=10, verbose=0, callbacks=[looks])
    assert looks.calls == [("tested", 3), ("tested", 7), ("tested", 9)]


@pytest.mark.slow
def test_training_stops_at_the_program_in_which_a_callback_says_so(steps_of_programs):
    steps_of_programs(2)
    model, looks = vae(), Looks(stop_at=3)
    model.compile("sgd", jit_compile=False)
    model.fit(X, batch_size=10, epochs=3, verbose=0, callbacks=[looks])
    assert looks.calls == [("begin", 0), ("end", 1), ("begin", 2), ("end", 3)]
    assert int(model.optimizer.iterations) == 4
    looks.calls.clear()
    model.evaluate(X, batch_size=10, verbose=0, callbacks=[looks])
    assert looks.calls == [("tested", 1), ("tested", 3)]


@pytest.mark.parametrize(("verbose", "said"), [(1, 1), (2, 1), (0, 0)])
def test_compiling_is_said_once_where_anything_is(verbose, said, capfd):
    model = vae()
    model.compile("sgd", jit_compile=False)
    for _ in range(2):
        model.fit(X, epochs=2, validation_data=X, verbose=verbose)
    assert capfd.readouterr().out.count("Compiling ...\n") == said


def test_keras_s_bar_ends_at_the_last_step(capfd):
    model = vae()
    model.compile("sgd", jit_compile=False)
    model.fit(np.tile(X, [20, 1]), batch_size=10, verbose=1)  # 190 steps: a full and a short group
    shown = capfd.readouterr().out
    assert "190/190" in shown and "256/" not in shown


SLOW = """
import signal, time, keras, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has jobs in the background ignore it
from tfvae import VAE, likelihoods, networks, posteriors
from tfvae.engine.hooks import Looking
keras.utils.set_random_seed(0)
wide = [1500, 1500]
vae = VAE(networks.mlp(wide), networks.mlp(wide), posteriors.diagonal_normal(8), likelihoods.bernoulli([784]), seed=0)
class Says(Looking):
    def on_train_batch_end(self, batch, logs=None):
        print(time.time(), batch, flush=True)
vae.compile()
try:
    vae.fit(np.zeros([64 * 128, 784], "float32"), batch_size=128, epochs=1000, verbose=0, callbacks=[Says()])
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_is_answered_and_the_bar_moves():
    """Of a model whose group of steps takes many seconds; a crowded machine may take twice its time."""
    command = [sys.executable, "-c", SLOW]
    root = pathlib.Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            told = [process.stdout.readline().split() for _ in range(12)]
            sent = time.time()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    times = [float(at) for at, _ in told]
    assert np.median(np.diff(times)) < 1.5
    word, answered = rest.splitlines()[-1].split()
    assert word == "interrupted" and float(answered) - sent < 4.0
