"""Sample weights are Keras's: a plain Keras model with the same loss of each row learns the same from them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import linear_gaussian
from tfvae import objectives
from tfvae.engine.model import Loss, UnsupervisedModel

pytestmark = pytest.mark.xla


class Regression(UnsupervisedModel):
    """(x w + b - y)² of each row: what keras.Sequential makes with ``mse``, on rows that hold y themselves."""

    reported = ("error",)

    def __init__(self):
        super().__init__(seed=0, name="regression")
        self.dense = dense()
        self.dense.build([None, 2])
        self.built = True

    def prepare(self, inputs):
        return inputs if isinstance(inputs, dict) else {"x": tf.cast(inputs, tf.float32)}

    def check(self, inputs):
        pass

    def measure(self, inputs):
        return tf.zeros([1])

    def judge(self, measured):
        pass

    def call(self, x):
        return x

    def batch_loss(self, inputs, weights, training):
        x = inputs["x"]
        squares = (self.dense(x[:, :2])[:, 0] - x[:, 2]) ** 2
        return Loss(squares, tf.add_n(self.losses), {"error": tf.sqrt(squares)})


def dense() -> keras.layers.Dense:
    kernel = keras.initializers.Constant([[0.3], [-0.2]])
    return keras.layers.Dense(1, kernel_initializer=kernel, kernel_regularizer=keras.regularizers.L2(0.05))


def plain() -> keras.Model:
    return keras.Sequential([keras.Input([2]), dense()])


ROWS = np.random.default_rng(0).normal(size=[11, 3]).astype(np.float32)
WEIGHTS = np.random.default_rng(1).uniform(0, 3, size=[11]).astype(np.float32)
HELD_OUT = np.random.default_rng(2).normal(size=[7, 3]).astype(np.float32)
HELD_OUT_WEIGHTS = np.random.default_rng(3).uniform(0, 3, size=[7]).astype(np.float32)


def fitted(ours: bool, way: str, weights: np.ndarray, steps: int = 2) -> tuple[keras.Model, dict[str, list[float]]]:
    """The model and its history after three epochs of batches of 4, the last of them short."""
    model = Regression() if ours else plain()
    settings = {"jit_compile": False, "steps_per_execution": steps if ours else 1}
    if ours:
        model.compile(keras.optimizers.SGD(0.1), **settings)
        parts, held = (ROWS, None), (HELD_OUT, None, HELD_OUT_WEIGHTS)
    else:
        model.compile(keras.optimizers.SGD(0.1), "mse", weighted_metrics=[], **settings)
        parts, held = (ROWS[:, :2], ROWS[:, 2:]), (HELD_OUT[:, :2], HELD_OUT[:, 2:], HELD_OUT_WEIGHTS)
    common = {"epochs": 3, "shuffle": False, "verbose": 0}
    if way == "arrays":
        history = model.fit(
            *parts, batch_size=4, sample_weight=weights, validation_data=held, validation_batch_size=3, **common
        )
    elif way == "split":
        history = model.fit(*parts, batch_size=4, sample_weight=weights, validation_split=0.3, **common)
    else:
        streams = []
        for x, y, w in ((*parts, weights), held):
            pieces = (x, w) if ours else (x, y, w)
            stream = tf.data.Dataset.from_tensor_slices(pieces).batch(4 if x is parts[0] else 3)
            streams.append(stream.map(lambda x, w: (x, None, w)) if ours else stream)
        history = model.fit(streams[0], validation_data=streams[1], **common)
    return model, history.history


@pytest.mark.parametrize("way", ["arrays", "dataset", "split"])
@pytest.mark.parametrize("steps", [1, 2])
def test_loss_and_weights_are_those_of_a_plain_keras_model(way, steps):
    ours, history = fitted(True, way, WEIGHTS, steps)
    theirs, expected = fitted(False, way, WEIGHTS)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-5, err_msg=name)
    for found, weight in zip(ours.get_weights(), theirs.get_weights(), strict=False):
        np.testing.assert_allclose(found, weight, rtol=1e-5, atol=1e-6)
    assert np.std(history["loss"]) > 0.003


def test_evaluate_and_train_on_batch_weigh_as_keras_does():
    ours, theirs = Regression(), plain()
    ours.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    theirs.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    x, y = ROWS[:, :2], ROWS[:, 2:]
    for _ in range(2):
        found = ours.evaluate(ROWS, batch_size=4, sample_weight=WEIGHTS, verbose=0, return_dict=True)
        expected = theirs.evaluate(x, y, batch_size=4, sample_weight=WEIGHTS, verbose=0)
        assert found["loss"] == pytest.approx(expected, rel=1e-5)
        # What is reported beside the loss are weighted means, as Keras's weighted metrics are.
        errors = np.abs(ours.dense(x).numpy()[:, 0] - ROWS[:, 2])
        assert found["error"] == pytest.approx(np.average(errors, weights=WEIGHTS), rel=1e-5)
        ours.train_on_batch(ROWS, sample_weight=WEIGHTS)
        theirs.train_on_batch(x, y, sample_weight=WEIGHTS)
        np.testing.assert_allclose(ours.dense.kernel, theirs.get_weights()[0], rtol=1e-5)


def vae_weights_after(x: np.ndarray, weights: np.ndarray | None, rate: float) -> list[np.ndarray]:
    vae = linear_gaussian.vae(wider=1.3, num_samples=1, seed=0)
    vae.compile(keras.optimizers.SGD(rate), jit_compile=False)
    before = vae.get_weights()
    vae.fit(x, batch_size=len(x), sample_weight=weights, shuffle=False, verbose=0)
    return [after - start for after, start in zip(vae.get_weights(), before, strict=True)]


def test_rows_of_weight_zero_are_as_if_left_out_but_for_the_count():
    """The gradient is Σ w ∇L / B, as Keras has it: B counts rows of weight zero too."""
    x, _ = linear_gaussian.rows(8)
    whole = vae_weights_after(np.concatenate([x[:4], 100 + x[4:]]), np.repeat([1.0, 0.0], 4), 0.02)
    other = vae_weights_after(np.concatenate([x[:4], -7 * x[4:]]), np.repeat([1.0, 0.0], 4), 0.02)
    for one, two in zip(whole, other, strict=True):
        np.testing.assert_array_equal(one, two)
    doubled = vae_weights_after(x, np.full(8, 2.0), 0.02)
    twice_the_rate = vae_weights_after(x, None, 0.04)
    for one, two in zip(doubled, twice_the_rate, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    # KL alone knows no noise: the gradient of half the rows, at half the rate.
    kl = [
        step_of_kl(x[:4], None, 0.02),
        step_of_kl(np.concatenate([x[:4], 100 + x[4:]]), np.repeat([1.0, 0.0], 4), 0.04),
    ]
    np.testing.assert_allclose(*kl, rtol=1e-4, atol=1e-6)
    assert np.abs(kl[0]).max() > 1e-3


def step_of_kl(x: np.ndarray, weights: np.ndarray | None, rate: float) -> np.ndarray:
    """How far one step moves the posterior, where nothing but the KL is paid."""
    vae = linear_gaussian.vae(wider=1.3, objective=negative_kl, seed=0)
    vae.compile(keras.optimizers.SGD(rate), jit_compile=False)
    before = vae.posterior.projection.kernel.numpy()
    vae.fit(x, batch_size=len(x), sample_weight=weights, shuffle=False, verbose=0)
    return vae.posterior.projection.kernel.numpy() - before


def negative_kl(terms: objectives.Terms) -> objectives.Estimate:
    return objectives.Estimate(-terms.kl, -terms.kl)


@pytest.mark.parametrize("weights", [np.ones([8, 1]), np.ones([8, 2])])
def test_weights_that_are_not_one_for_each_row_are_refused(weights):
    vae = linear_gaussian.vae()
    vae.compile()
    with pytest.raises(ValueError, match=r"sample_weight has shape \(8, .\), expected one number for each row"):
        vae.fit(linear_gaussian.rows(8)[0], sample_weight=weights, verbose=0)
    with pytest.raises(ValueError, match="equal numbers, received x: 8, sample_weight: 7 rows"):
        vae.fit(linear_gaussian.rows(8)[0], sample_weight=np.ones(7), verbose=0)


def small() -> keras.Model:
    model = linear_gaussian.vae(wider=1.3, seed=0)
    model.compile(run_eagerly=True)
    return model


def of_stream(x, weights, at: int = 6) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trained by a generator of two batches of Keras's ``(x, None, sample_weight)``."""
    model = small()
    parts = ((x[part], None, weights[part]) for part in (slice(at), slice(at, None)))
    return model, model.fit(parts, verbose=0).history


X = np.random.default_rng(0).normal(size=[11, 4]).astype(np.float32)


def test_a_generator_gives_weights_as_arrays_do():
    model, other = of_stream(X, WEIGHTS)[0], small()
    other.fit(X, sample_weight=WEIGHTS, batch_size=6, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.where(np.arange(11) == 8, -1.0, 1.0), "sample_weight holds negative numbers"),
        (np.where(np.arange(11) == 8, np.nan, 1.0), "sample_weight holds NaN"),
        (WEIGHTS[:10], "received x: (5|11), sample_weight: (4|10) rows"),
    ],
)
def test_weights_that_cannot_be_right_are_refused_wherever_they_come_in(weights, sentence):
    for train in (
        of_stream,
        lambda x, w: small().fit(x, sample_weight=w),
        lambda x, w: small().evaluate(x, sample_weight=w),
    ):
        with pytest.raises(ValueError, match=sentence):
            train(X, weights)


def test_weights_that_are_all_zero_or_masked_are_refused():
    for through in (small().fit, small().evaluate):
        with pytest.raises(ValueError, match="0 for every row"):
            through(((X, None, np.zeros(11)) for _ in range(2)), verbose=0)
    _, history = of_stream(X, np.where(np.arange(11) < 6, 0.0, 1.0))  # one batch of which no row counts
    assert history["loss"][0] != 0.0
    with pytest.raises(ValueError, match="0 for every row"):
        small().evaluate(X, sample_weight=np.zeros(11))
    with pytest.raises(ValueError, match="masked array with 1 cell"):
        small().fit(X, sample_weight=np.ma.masked_less(np.arange(11), 1))
