"""FactorVAE's discriminator: a total correlation that is known, its own optimiser, and rows that do not count."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests import linear_gaussian
from tfvae import objectives
from tfvae.objectives import AdversarialTotalCorrelation, Latent, Terms
from tfvae.objectives.adversarial import _shuffled

X, _ = linear_gaussian.rows(13, seed=5)
CORRELATION = 0.8


def correlated(count: int, seed: int) -> np.ndarray:
    """Rows of a normal whose total correlation is -½ log(1 - ρ²)."""
    factor = np.linalg.cholesky([[1.0, CORRELATION], [CORRELATION, 1.0]])
    return np.float32(np.random.default_rng(seed).normal(size=[count, 2]) @ factor.T)


def terms_of(z: tf.Tensor, weights=None, seed=(1, 2)) -> Terms:
    normal, zero = tfd.Independent(tfd.Normal(tf.zeros([2]), 1.0), 1), tf.zeros([1, z.shape[0]])
    latent = Latent(z[tf.newaxis], tfd.Independent(tfd.Normal(z, 1.0), 1), normal, zero, zero, zero[0], True)
    return Terms((latent,), zero, weights, None, tf.convert_to_tensor(seed, tf.int32), True)


def gradients(made: AdversarialTotalCorrelation, terms: Terms) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        loss = -tf.reduce_sum(made(terms).surrogate)
    return [gradient.numpy() for gradient in tape.gradient(loss, made.trainable_variables)]


def test_its_logits_come_to_the_total_correlation():
    made = AdversarialTotalCorrelation(2, gamma=1.0, hidden=[32, 32], learning_rate=2e-3)

    @tf.function(autograph=False)
    def step(z, seed):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(made(terms_of(z, seed=seed)).surrogate)
        made.optimizer.apply(tape.gradient(loss, made.trainable_variables), made.trainable_variables)

    for i in range(500):
        step(tf.constant(correlated(512, i)), tf.constant([i, 3]))
    z = correlated(40_000, 9999)
    exact = -0.5 * np.log(1 - CORRELATION**2)
    assert float(tf.reduce_mean(made.logits(z))) == pytest.approx(exact, abs=0.08)
    # Where it is worth anything, it is log q(z) / q(z_1) q(z_2) at each z too.
    ratio = exact - 0.5 * ((z**2).sum(axis=1) - 2 * CORRELATION * z[:, 0] * z[:, 1]) / (1 - CORRELATION**2)
    ratio += 0.5 * (z**2).sum(axis=1)
    assert np.corrcoef(ratio, made.logits(z))[0, 1] > 0.9
    paid = -made(terms_of(tf.constant(z))).objective.numpy()
    np.testing.assert_allclose(paid, made.logits(z), rtol=1e-5, atol=1e-5)


def test_each_unit_is_shuffled_by_itself_among_the_rows_that_count():
    z = np.arange(24, dtype=np.float32).reshape(8, 3)
    counts = np.array([1, 0, 1, 1, 0, 1, 1, 1], np.float32)
    found, of_found = _shuffled(tf.constant(z), tf.constant(counts), tf.constant([1, 2]))
    np.testing.assert_array_equal(of_found, [1, 1, 1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(np.sort(found[:6], axis=0), z[counts > 0])
    rows = found.numpy()[:6] // 3
    assert (rows[:, 0] != rows[:, 1]).any() and (rows[:, 1] != rows[:, 2]).any()


def test_rows_that_fill_the_batch_teach_it_nothing():
    made = AdversarialTotalCorrelation(2, hidden=[5])
    z, weights = correlated(8, 0), tf.constant([1.0, 1, 1, 1, 1, 0, 0, 0])
    other = np.concatenate([z[:5], 50.0 + z[5:]])
    for one, two in zip(*(gradients(made, terms_of(tf.constant(of), weights)) for of in (z, other)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert any(np.any(gradient) for gradient in gradients(made, terms_of(tf.constant(z), weights)))
    for gradient in gradients(made, terms_of(tf.constant(z), tf.constant([1.0, 0, 1, 0, 0, 0, 0, 0]))):
        np.testing.assert_array_equal(gradient, 0.0)  # no second half


def test_the_model_is_not_moved_by_the_discriminator_s_loss():
    """By hand: the gradient of ELBO - γ logits, at fixed weights of the discriminator."""
    made = AdversarialTotalCorrelation(2, gamma=3.0, hidden=[5], seed=1)
    vae = linear_gaussian.vae(wider=1.5, objective=made, seed=0)
    seed, weights = tf.constant([3, 4]), vae.posterior.trainable_variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(vae.loss_of_draw(vae.prepare(X), tf.ones([13]), seed, True, tf.constant(0)).rows)
    found = tape.gradient(loss, weights)
    with tf.GradientTape() as tape:
        terms = vae.terms(X, 1, seed, training=True)
        by_hand = tf.reduce_sum(3.0 * made.logits(terms.z[0]) - objectives.elbo(terms).bound)
    for one, two in zip(found, tape.gradient(by_hand, weights), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_each_optimiser_moves_its_own_weights_and_a_file_goes_on_exactly(tmp_path):
    vae = linear_gaussian.vae(wider=1.5, objective=AdversarialTotalCorrelation(2, hidden=[5], learning_rate=0.01))
    its, start = vae.objective.trainable_variables, vae.get_weights()
    vae.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    vae.fit(X, batch_size=8, epochs=2, verbose=0)
    moved = {w.path for w, before in zip(vae.weights, start, strict=True) if np.any(w.numpy() != before)}
    assert moved == {w.path for w in its}
    assert int(vae.objective.optimizer.iterations) == int(vae.optimizer.iterations) == 4
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one in (vae, loaded):
        one.fit(X, batch_size=8, verbose=0)
    for one, two in zip(vae.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_another_size_of_z_and_scaled_losses_are_refused():
    with pytest.raises(ValueError, match=r"z has 2 units, but the discriminator was made with latent_dim=3"):
        AdversarialTotalCorrelation(3, hidden=[2])(linear_gaussian.vae().terms(X, 1, tf.constant([1, 2])))
    vae = linear_gaussian.vae(objective=AdversarialTotalCorrelation(2, hidden=[2]))
    vae.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
    with pytest.raises(ValueError, match="an optimiser of its own, which takes no scaled loss"):
        vae.fit(X, verbose=0)
