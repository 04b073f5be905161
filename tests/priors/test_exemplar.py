"""The exemplar prior beside NumPy's mixture in float64: which components it has, and which it leaves out for a row."""

import keras
import numpy as np
import pytest
import scipy.integrate
import tensorflow as tf

from tests import linear_gaussian
from tfvae import (
    VAE,
    DistributionLayer,
    evaluation,
    likelihoods,
    networks,
    objectives,
    observations,
    posteriors,
    priors,
)
from tfvae.exporting import card
from tfvae.families.equal_normals import EqualNormals

X, CONDITION = linear_gaussian.rows(40)
Z = np.random.default_rng(3).normal(size=[7, 2]).astype(np.float32)
SEED = tf.constant([1, 2])


def mixture(z: np.ndarray, means: np.ndarray, scale: float) -> np.ndarray:
    """log (1/N) Σ N(z; m, σ² I), ``[..., ]``, in float64."""
    z, means = z.astype(np.float64), means.astype(np.float64)
    squares = np.sum((z[..., None, :] - means) ** 2, axis=-1) / scale**2
    log_n = -0.5 * squares - means.shape[1] * np.log(scale * np.sqrt(2 * np.pi))
    return np.logaddexp.reduce(log_n, axis=-1) - np.log(len(means))


def codes(x: np.ndarray) -> np.ndarray:
    """The exact posterior's means, which are the encoder's of ``linear_gaussian``."""
    return (x.astype(np.float64) - linear_gaussian.LOC) @ linear_gaussian.KERNEL


def with_scale(prior: priors.ExemplarPrior, scale: float) -> priors.ExemplarPrior:
    prior.raw_scale.assign(np.log(np.expm1(scale - 0.01)))
    return prior


def test_its_density_is_the_mixture_at_the_codes_of_all_exemplars():
    prior = with_scale(priors.ExemplarPrior(2, X, num_drawn=3), 0.4)
    vae = linear_gaussian.vae(prior=prior)
    assert float(prior.scale) == pytest.approx(0.4)
    np.testing.assert_allclose(prior().log_prob(Z), mixture(Z, codes(X), 0.4), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(prior.held()().log_prob(Z), prior().log_prob(Z), rtol=1e-6, atol=1e-6)
    held = vae.with_prior(prior.held())
    prior.raw_scale.assign(2.0)
    np.testing.assert_allclose(held.prior().log_prob(Z), mixture(Z, codes(X), 0.4), rtol=1e-5, atol=1e-5)
    assert card._family_text(card._family(prior)) == "ExemplarPrior (of 40 training rows, which the files hold)"
    assert card._family_text(card._family(held.prior)) == "HeldExemplars"
    assert not held.prior.trainable_variables and prior.trainable_variables == [prior.raw_scale]


def test_in_training_a_row_is_without_its_own_component_and_no_other():
    prior = with_scale(priors.ExemplarPrior(2, X), 0.3)
    linear_gaussian.vae(prior=prior)
    rows = np.stack([X[3], X[0] + np.float32(1e-6), X[39]])
    z = codes(rows).astype(np.float32)
    p = prior.in_training(None, SEED, rows=tf.constant(rows))
    others = [np.delete(X, 3, 0), X, X[:39]]
    expected = [mixture(one, codes(rest), 0.3) for one, rest in zip(z, others, strict=True)]
    assert p.batch_shape == [3]
    np.testing.assert_allclose(p.log_prob(np.stack([z, z])), [expected, expected], rtol=1e-5, atol=1e-5)
    assert np.abs(p.log_prob(z) - prior().log_prob(z))[[0, 2]].min() > 0.02
    drawn = tf.function(lambda seed: p.sample(3000, seed=seed), jit_compile=True)(SEED).numpy()
    means = np.stack([codes(rest).mean(0) for rest in others])
    spread = np.stack([codes(rest).var(0) + 0.09 for rest in others])
    assert (np.abs(drawn.mean(0) - means) < 4 * np.sqrt(spread / 3000)).all()
    np.testing.assert_allclose(drawn.var(0), spread, rtol=0.15)


def pictures(exemplars: np.ndarray, **more) -> VAE:
    keras.utils.set_random_seed(1)
    parts = networks.mlp([6]), networks.mlp([6]), posteriors.diagonal_normal(2), likelihoods.bernoulli([5])
    return VAE(*parts, prior=priors.ExemplarPrior(2, exemplars, **more), noise=observations.Binarized(), seed=1)


def test_bytes_are_known_again_whatever_noise_is_drawn_of_them():
    x = np.random.default_rng(0).integers(1, 255, [12, 5], np.uint8)
    x[7] = x[2]  # a copy goes too
    vae = pictures(x)
    batch = vae.batch(vae.with_noise(vae.prepare(x[2:4]), lambda: SEED))
    assert set(np.unique(batch.x)) <= {0.0, 1.0}
    terms = vae.terms(batch, 3, SEED, training=True)
    means, scale = vae.encode(x).mean().numpy(), float(vae.prior.scale)
    for i, rest in enumerate([[2, 7], [3]]):
        expected = mixture(terms.z.numpy()[:, i], np.delete(means, rest, 0), scale)
        np.testing.assert_allclose(terms.log_prior[:, i], expected, rtol=1e-5, atol=1e-5)
    whole = vae.terms(x[2:4], 3, SEED)
    np.testing.assert_allclose(whole.log_prior, mixture(whole.z.numpy(), means, scale), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="The rows are float32 and the exemplars uint8, so that none would be known"):
        vae.terms(x[2:4] / np.float32(255), 3, SEED, training=True)


def test_rows_of_a_table_with_holes_are_exemplars_too():
    table = np.concatenate([X[:9, :2], np.arange(9)[:, None]], axis=1).astype(np.float32)
    table[[1, 4], [0, 1]] = np.nan
    real = likelihoods.missing(DistributionLayer("Normal", [2]))
    parts = networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2)
    columns = likelihoods.mixed([real, DistributionLayer("Poisson", [1])])
    vae = VAE(*parts, columns, prior=priors.ExemplarPrior(2, table), seed=0)
    terms = vae.terms(table[[4, 2]], 2, SEED, training=True)
    means = vae.encode(table).mean().numpy()
    for i, own in enumerate([4, 2]):
        expected = mixture(terms.z.numpy()[:, i], np.delete(means, own, 0), float(vae.prior.scale))
        np.testing.assert_allclose(terms.log_prior[:, i], expected, rtol=1e-5, atol=1e-5)


def test_fit_leaves_out_what_it_is_given(monkeypatch):
    """Through the engine's step, with noise and rows in another order: each row's own is left out, of all exemplars."""
    x = np.random.default_rng(0).integers(1, 255, [12, 5], np.uint8)
    vae, seen = pictures(x), []
    into = vae.prior.in_training

    def watched(*args, **kwargs):
        p = into(*args, **kwargs)
        seen.append(p._left_out.numpy())
        return p

    monkeypatch.setattr(vae.prior, "in_training", watched)
    vae.compile(run_eagerly=True)
    vae.fit(x[[5, 0, 9]], batch_size=3, shuffle=False, verbose=0)
    np.testing.assert_array_equal(seen[0], np.eye(12, dtype=bool)[[5, 0, 9]])


def test_the_exemplars_of_a_step_are_drawn_anew_and_their_mean_density_is_that_of_all():
    prior = with_scale(priors.ExemplarPrior(2, X, num_drawn=5), 0.5)
    linear_gaussian.vae(prior=prior)
    rows = tf.constant(X[:1])
    density = np.stack(
        [np.exp(prior.in_training(None, tf.constant([i, 4]), rows=rows).log_prob(Z[:1])) for i in range(400)]
    )
    exact = np.exp(mixture(Z[:1], codes(X[1:]), 0.5))
    assert density.std() > 0
    assert abs(density.mean() - exact[0]) < 4 * density.std() / 20


def test_many_components_are_summed_in_blocks_and_the_density_integrates_to_1():
    rng = np.random.default_rng(0)
    means = rng.normal(3.0, 1.0, [9000, 3]).astype(np.float32)
    z = rng.normal(3.0, 1.0, [4, 2, 3]).astype(np.float32)
    left_out = rng.random([2, 9000]) < 0.3
    np.testing.assert_allclose(EqualNormals(means, 0.2).log_prob(z), mixture(z, means, 0.2), rtol=2e-5, atol=1e-4)
    found = EqualNormals(means, 0.2, left_out).log_prob(z)
    for i in range(2):
        np.testing.assert_allclose(found[:, i], mixture(z[:, i], means[~left_out[i]], 0.2), rtol=2e-5, atol=1e-4)
    p = EqualNormals(means[:5, :1].astype(np.float64), 0.2, left_out[:1, :5])
    density, _ = scipy.integrate.quad(lambda z: float(p.prob([[z]])[0]), -4.0, 10.0, limit=200)
    assert density == pytest.approx(1.0, abs=1e-8)
    alone = EqualNormals(means[:1], 0.2, [[True]])  # nothing would be left
    np.testing.assert_allclose(alone.log_prob(z[0, :1]), mixture(z[0, :1], means[:1], 0.2), rtol=1e-5)


def test_its_gradient_is_that_of_central_differences():
    rng = np.random.default_rng(0)
    at = [rng.normal(size=[6, 2]), np.array(0.7), rng.normal(size=[3, 2])]
    left_out = np.eye(6, dtype=bool)[:3]

    def value(means, scale, z):
        return tf.reduce_sum(EqualNormals(means, scale, left_out).log_prob(z) * [1.0, -2.0, 3.0])

    gradients = [tf.convert_to_tensor(part) for part in at]
    with tf.GradientTape() as tape:
        tape.watch(gradients)
        total = value(*gradients)
    for i, found in enumerate(tape.gradient(total, gradients)):
        for place in np.ndindex(at[i].shape):
            moved = []
            for sign in (1, -1):
                there = [part.copy() for part in at]
                there[i][place] += sign * 1e-6
                moved.append(float(value(*map(tf.constant, there))))
            assert float(found[place] if place else found) == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=1e-7)


def test_the_kl_is_estimated_and_both_estimates_agree():
    vae = linear_gaussian.vae(wider=1.5, prior=with_scale(priors.ExemplarPrior(2, X), 0.5))
    rows = np.repeat(X[:1], 4000, axis=0)
    terms = vae.terms(rows, 1, SEED, training=True)
    assert not terms.latents[0].kl_is_exact
    bounds = np.stack([objectives.elbo(terms).bound, objectives.elbo_entropy(terms).bound])
    difference = bounds[0] - bounds[1]
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(4000) and difference.std() > 0


@pytest.mark.slow
def test_it_trains_under_xla_is_saved_and_goes_on_the_same(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, [30, 5], np.uint8)
    vae = pictures(x, num_drawn=8)
    vae.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    history = vae.fit(x, batch_size=10, epochs=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] and float(vae.prior.scale) != 1.0
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.prior.exemplars, x)
    np.testing.assert_array_equal(loaded.prior().log_prob(Z), vae.prior().log_prob(Z))
    more = [model.fit(x, batch_size=10, epochs=2, verbose=0).history["loss"] for model in (vae, loaded)]
    assert more[0] == more[1]
    held = vae.with_prior(vae.prior.held())
    held.save(tmp_path / "held.keras")
    again = keras.models.load_model(tmp_path / "held.keras")
    found = [evaluation.log_marginal(one, x, num_samples=10, seed=1).log_marginal for one in (vae, held, again)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_array_equal(found[2], found[1])
    assert not any(np.array_equal(weight, x) for weight in again.weights if weight.shape == x.shape)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_in_half_precision_the_density_is_exact_for_the_codes_as_they_are(precision):
    keras.config.set_dtype_policy(precision)
    try:
        vae = pictures(np.random.default_rng(0).integers(0, 256, [12, 5], np.uint8))
    finally:
        keras.config.set_dtype_policy("float32")
    means = vae.encode(vae.prior.exemplars.numpy()).mean().numpy()
    log_prob = vae.prior().log_prob(Z)
    assert vae.encoder(tf.zeros([1, 5])).dtype != tf.float32 and log_prob.dtype == tf.float32
    np.testing.assert_allclose(log_prob, mixture(Z, means, float(vae.prior.scale)), rtol=1e-5)


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="exemplars is 'all', expected 2 rows or more as fit takes them"):
        priors.ExemplarPrior(2, "all")
    for wrong in (X[:1], X[0]):
        with pytest.raises(ValueError, match=r"exemplars has shape .*, expected 2 rows or more as fit takes them"):
            priors.ExemplarPrior(2, wrong)
    with pytest.raises(ValueError, match="The exemplars are all the same: leaving out a row's own would leave none"):
        priors.ExemplarPrior(2, np.zeros([3, 4]))
    with pytest.raises(ValueError, match="num_drawn must be at least 2, received 1"):
        priors.ExemplarPrior(2, X, num_drawn=1)
    with pytest.raises(ValueError, match="pass it to VAE"):
        priors.ExemplarPrior(2, X)()
    for wrong, words in ((X[:, :3], r"x has shape \(40, 3\)"), (X * np.nan, "x holds")):
        with pytest.raises(ValueError, match=f"The prior's exemplars are no rows of this model: {words}"):
            linear_gaussian.vae(prior=priors.ExemplarPrior(2, wrong + np.eye(40, wrong.shape[1], dtype=np.float32)))
    with pytest.raises(ValueError, match="encodes inputs of its own, but this encoder needs a condition"):
        linear_gaussian.vae(conditional=True, prior=priors.ExemplarPrior(2, X))
    with pytest.raises(ValueError, match="is trained with its model, which tells it which rows to leave out"):
        priors.fit(priors.ExemplarPrior(2, X), linear_gaussian.vae(), X)
