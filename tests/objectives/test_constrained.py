"""GECO: the multiplier against its recursion in NumPy, what it comes to, and where it is kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import linear_gaussian
from tfvae import objectives
from tfvae.objectives import ConstrainedLikelihood

X, _ = linear_gaussian.rows(10, seed=4)


def model(objective, **more):
    return linear_gaussian.vae(wider=1.5, shift=0.4, objective=objective, seed=0, **more)


def test_with_a_multiplier_of_one_it_is_the_elbo_less_the_target():
    terms = linear_gaussian.vae(wider=1.5).terms(X, 3, tf.constant([1, 2]))
    found = ConstrainedLikelihood(-3.0)(terms)
    np.testing.assert_allclose(found.objective, objectives.elbo(terms).bound + 3.0, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.bound, objectives.elbo(terms).bound)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_multiplier_follows_its_recursion_within_a_program(jit_compile):
    """10 rows in batches of 4, so that the last has 2: what fills it does not count. No weight of the model moves."""
    target, rate, smoothing = -3.0, 0.1, 0.8
    vae = model(ConstrainedLikelihood(target, rate, smoothing), num_samples=2)
    vae.compile(keras.optimizers.SGD(0.0), steps_per_execution=6, jit_compile=jit_compile)
    x = X * np.linspace(0.2, 3.0, 10, dtype=np.float32)[:, np.newaxis]
    seen = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["log_likelihood"])

    vae.fit(x[:4], batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[Keep()])
    vae.fit(x[:2], batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[Keep()])
    multiplier, total, weight = 1.0, 0.0, 0.0
    for log_likelihood in seen:
        total = smoothing * total + (1 - smoothing) * (target - log_likelihood)
        weight = smoothing * weight + 1 - smoothing
        multiplier *= np.exp(rate * np.clip(total / weight, -1.0, 1.0))
    assert abs(total / weight) > 0.01
    assert float(vae.objective.multiplier) == pytest.approx(multiplier, rel=1e-5)
    before = float(vae.objective.multiplier)
    vae.evaluate(x, verbose=0)
    vae.elbo(x)
    assert float(vae.objective.multiplier) == before


def test_the_rows_that_fill_a_batch_do_not_count_and_an_empty_batch_changes_nothing():
    few, filled, none = (ConstrainedLikelihood(-3.0, 0.1) for _ in range(3))
    vae = linear_gaussian.vae(wider=1.5)
    seed = tf.constant([1, 2])
    few(vae.terms(X[:4], 1, seed, training=True, weights=tf.ones([4])))
    x = np.concatenate([X[:4], 100.0 * X[:2]])
    weights = tf.constant([1.0, 1, 1, 1, 0, 0])
    filled(vae.terms(x, 1, seed, training=True, weights=weights))
    none(vae.terms(x, 1, seed, training=True, weights=0.0 * weights))
    assert float(few.multiplier) != 1.0
    assert float(none.multiplier) == 1.0 and float(none._weight) == 0.0
    assert float(filled.multiplier) == pytest.approx(float(few.multiplier), rel=0.02)  # by other noise


def test_it_comes_to_its_target_and_q_to_the_one_of_least_kl():
    """Of a decoder that stays: q ∝ p(z) p(x|z)^λ has the least KL of all with that E log p(x|z), and is normal here."""
    vae = model(ConstrainedLikelihood(-6.0, smoothing=0.9), num_samples=8)
    vae.likelihood.trainable = False
    vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    history = vae.fit(X, epochs=800, verbose=0).history
    assert np.mean(history["log_likelihood"][-100:]) == pytest.approx(-6.0, abs=0.1)
    multiplier = float(vae.objective.multiplier)
    assert 1.1 < multiplier < 3.0
    precision = 1.0 + multiplier * (linear_gaussian.W**2).sum(axis=1) / linear_gaussian.SCALE**2
    np.testing.assert_allclose(vae.encode(X).stddev().numpy().mean(axis=0), precision**-0.5, rtol=0.05)


@pytest.mark.slow
def test_a_file_goes_on_exactly_where_it_stood(tmp_path):
    vae = model(ConstrainedLikelihood(-4.5))
    vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    vae.fit(X, batch_size=4, epochs=2, verbose=0)
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.objective.multiplier) == float(vae.objective.multiplier) != 1.0
    np.testing.assert_array_equal(*(one.fit(X, batch_size=5, verbose=0).history["loss"] for one in (vae, loaded)))
    np.testing.assert_array_equal(loaded.objective.multiplier, vae.objective.multiplier)


def test_numbers_out_of_range_are_refused():
    for bad in ({"target": float("nan")}, {"target": 1.0, "smoothing": 1.0}, {"target": 1.0, "rate": -1.0}):
        with pytest.raises(ValueError, match="expected"):
            ConstrainedLikelihood(**bad)
