"""Terms of several latents, written out by hand: sums over them, in values and in gradients."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests import linear_gaussian
from tfvae import divergences, objectives
from tfvae.objectives import Latent, Terms

K, B = 5, 4


def normal(loc, scale) -> tfd.Distribution:
    return tfd.Independent(tfd.Normal(tf.constant(loc, tf.float32), tf.constant(scale, tf.float32)), 1)


def latent(dim: int, seed: int) -> tuple[Latent, dict[str, np.ndarray]]:
    """A latent, and SciPy's account of it in float64."""
    rng = np.random.default_rng(seed)
    q_loc, q_scale = rng.normal(size=[B, dim]), rng.uniform(0.5, 2, size=[B, dim])
    p_loc, p_scale = rng.normal(size=[dim]), rng.uniform(0.5, 2, size=[dim])
    q, p = normal(q_loc, q_scale), normal(p_loc, p_scale)
    z = np.float32(q_loc + q_scale * rng.normal(size=[K, B, dim]))
    by_unit = np.log(p_scale / q_scale) + (q_scale**2 + (q_loc - p_loc) ** 2) / (2 * p_scale**2) - 0.5
    truth = {
        "log_posterior": scipy.stats.norm(q_loc, q_scale).logpdf(z).sum(axis=-1),
        "log_prior": scipy.stats.norm(p_loc, p_scale).logpdf(z).sum(axis=-1),
        "kl": by_unit.sum(axis=-1),
        "kl_by_unit": by_unit,
    }
    made = Latent(
        z=tf.constant(z),
        posterior=q,
        prior=p,
        log_posterior=q.log_prob(z),
        log_prior=p.log_prob(z),
        kl=divergences.closed_form_kl(q, p),
        kl_is_exact=True,
        held=q,
    )
    return made, truth


@pytest.fixture
def two() -> tuple[Terms, dict[str, np.ndarray]]:
    (top, of_top), (bottom, of_bottom) = latent(2, 1), latent(3, 2)
    log_likelihood = np.random.default_rng(3).normal(size=[K, B])
    truth = {name: of_top[name] + of_bottom[name] for name in ("log_posterior", "log_prior", "kl")}
    truth["kl_by_unit"] = np.concatenate([of_top["kl_by_unit"], of_bottom["kl_by_unit"]], axis=-1)
    truth["log_likelihood"] = log_likelihood
    return Terms((top, bottom), tf.constant(log_likelihood, tf.float32)), truth


def test_sums_over_two_latents_are_scipy_s(two):
    terms, truth = two
    truth["log_joint"] = truth["log_likelihood"] + truth["log_prior"]
    truth["log_weight"] = truth["log_joint"] - truth["log_posterior"]
    truth["log_posterior_held"] = truth["log_posterior_at_held_z"] = truth["log_posterior"]
    for name, expected in truth.items():
        found = terms.kl_by_unit() if name == "kl_by_unit" else getattr(terms, name)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=name)
    assert isinstance(terms.z, tuple) and [z.shape[-1] for z in terms.z] == [2, 3]
    one = dataclasses.replace(terms, latents=terms.latents[:1])
    assert one.z is terms.latents[0].z
    assert terms.kl_by_unit().shape == (B, 5)


def test_a_sampled_kl_among_them_makes_the_sum_sampled(two):
    terms, truth = two
    for changed in range(2):
        latents = [dataclasses.replace(one, kl_is_exact=i != changed) for i, one in enumerate(terms.latents)]
        sampled = dataclasses.replace(terms, latents=tuple(latents))
        assert not sampled.kl_is_exact
        a = (truth["log_likelihood"] + truth["log_prior"] - truth["log_posterior"]).mean(axis=0)
        np.testing.assert_allclose(objectives.elbo(sampled).bound, a, atol=1e-4)
    assert terms.kl_is_exact
    np.testing.assert_allclose(
        objectives.elbo(terms).bound, truth["log_likelihood"].mean(axis=0) - truth["kl"], atol=1e-4
    )


def test_objectives_of_two_latents(two):
    terms, truth = two
    log_weight = truth["log_likelihood"] + truth["log_prior"] - truth["log_posterior"]
    mean = truth["log_likelihood"].mean(axis=0)
    iwae = np.log(np.mean(np.exp(log_weight), axis=0))
    floor = np.maximum(0.4, truth["kl_by_unit"].mean(axis=0))
    assert 0 < np.sum(floor > 0.4) < 5  # some units are below it, some above
    for objective, expected in {
        objectives.importance_weighted: iwae,
        objectives.doubly_reparameterized: iwae,
        objectives.sticking_the_landing: log_weight.mean(axis=0),
        objectives.score_function: log_weight.mean(axis=0),
    }.items():
        np.testing.assert_allclose(objective(terms).bound, expected, atol=1e-4)
    for objective, expected in {
        objectives.Weighted(3.0): mean - 3.0 * truth["kl"],
        objectives.FreeBits(0.4): mean - floor.sum(),
    }.items():
        estimate = objective(terms)
        np.testing.assert_allclose(estimate.objective, expected, atol=1e-4)
        np.testing.assert_allclose(estimate.bound, mean - truth["kl"], atol=1e-4)


def test_where_a_gradient_may_go():
    """held: through z alone; at held z: through the parameters alone."""
    loc, z = tf.constant([[0.3, -1.0]]), tf.constant([[[0.5, 0.5]], [[2.0, 0.0]]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([loc, z])
        q, held = normal([[0.0, 0.0]], 2.0), tfd.Independent(tfd.Normal(tf.stop_gradient(loc), 2.0), 1)
        q = tfd.Independent(tfd.Normal(loc, 2.0), 1)
        one = Latent(z, q, q, q.log_prob(z), q.log_prob(z), tf.zeros([1]), True, held)
        by_z, by_parameters = one.log_posterior_held, one.log_posterior_at_held_z
    score = (z - loc) / 4.0
    assert tape.gradient(by_z, loc) is None and tape.gradient(by_parameters, z) is None
    np.testing.assert_allclose(tape.gradient(by_z, z), -score, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(by_parameters, loc), tf.reduce_sum(score, axis=0), rtol=1e-6)
    np.testing.assert_allclose(by_z, by_parameters, rtol=1e-6)
    with pytest.raises(ValueError, match=r"no q.*with held parameters: its posterior layer must offer `held`"):
        _ = dataclasses.replace(one, held=None).log_posterior_held


def test_units_that_are_tied_are_one_unit():
    q = tfd.MultivariateNormalTriL(tf.zeros([B, 2]), tf.linalg.cholesky([[1.0, 0.6], [0.6, 1.0]]))
    p = normal([0.0, 0.0], [1.0, 1.0])
    kl = divergences.kl_by_unit(q, p, q.sample(3, seed=1))
    # KL(N(0, S)‖N(0, I)) = -log det S / 2
    np.testing.assert_allclose(kl, np.full([B, 1], -0.5 * np.log(1 - 0.36)), rtol=1e-5)


def test_log_weights_are_the_terms_and_log_joint_scipy_s():
    x, _ = linear_gaussian.rows(6)
    vae = linear_gaussian.vae(wider=1.2, shift=0.3)
    seed = tf.constant([1, 2])
    terms = vae.terms(x, 4, seed)
    weights = vae.log_weights(x, 4, seed)
    assert weights.shape == (4, 6)
    np.testing.assert_array_equal(weights, terms.log_weight)
    np.testing.assert_array_equal(weights, vae.log_weights(x, 4, seed, posterior=vae.encode(x)))
    z = terms.z.numpy().astype(np.float64)
    loc = (x - linear_gaussian.LOC) @ linear_gaussian.KERNEL + 0.3
    log_q = scipy.stats.norm(loc, 1.2 * np.sqrt(linear_gaussian.VARIANCE)).logpdf(z).sum(axis=-1)
    log_joint = linear_gaussian.Exact(False).log_joint(x, z)
    np.testing.assert_allclose(weights, log_joint - log_q, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(vae.log_joint(x, terms.z), log_joint, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(vae.log_joint(x, terms.z[0]), log_joint[0], rtol=1e-5, atol=1e-4)
    assert np.any(vae.log_weights(x, 4, tf.constant([1, 3])) != weights)
