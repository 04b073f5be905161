"""The bounds against truth: closed-form KLs, sampled KLs, a float64 reference with finite differences, invariants."""

import dataclasses
import itertools
import pathlib
import re

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from sklearn.datasets import load_digits
from tensorflow_probability import distributions as tfd

from tests import linear_gaussian
from tfvae import VAE, DistributionLayer, networks, objectives, posteriors, priors
from tfvae.divergences import closed_form_kl
from tfvae.objectives import Latent, Terms
from tfvae.priors import Family, StandardNormal

EVERY_OBJECTIVE = [objectives.elbo, objectives.elbo_a, objectives.elbo_b, objectives.importance_weighted]


def small_vae(posterior: str = "Normal", prior: Family | None = None, seed: int = 0, **more) -> VAE:
    keras.utils.set_random_seed(seed)
    return VAE(
        encoder=networks.mlp([6]),
        decoder=networks.mlp([6]),
        posterior=DistributionLayer(posterior, [2]),
        likelihood=DistributionLayer("Bernoulli", [5]),
        prior=prior,
        **more,
    )


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return (load_digits().data / 16.0).astype(np.float32)


@pytest.fixture(scope="module")
def trained(digits) -> VAE:
    keras.utils.set_random_seed(1)
    vae = VAE(
        encoder=networks.mlp([64]),
        decoder=networks.mlp([64]),
        posterior=DistributionLayer("Normal", [4]),
        likelihood=DistributionLayer("Bernoulli", [64]),
        seed=1,
    )
    vae.compile(keras.optimizers.Adam(3e-3))
    vae.fit(digits, epochs=12, verbose=0)
    return vae


# KL(q‖p)


def appendix_b() -> tuple[tfd.Distribution, tfd.Distribution]:
    """The paper's appendix B at mean 0.5, log variance -1."""
    return tfd.Independent(tfd.Normal([0.5], [np.float32(np.exp(-0.5))]), 1), StandardNormal(1)()


def test_kl_of_appendix_b():
    assert float(closed_form_kl(*appendix_b())) == pytest.approx(0.308940, abs=1e-6)


@pytest.mark.parametrize("pair", ["appendix B", "full", "gamma", "dirichlet"])
def test_kl_within_four_standard_errors_of_monte_carlo(pair):
    tril = tf.constant([[0.6, 0.0], [0.7, 0.3]])
    q, p = {
        "appendix B": appendix_b,
        "full": lambda: (tfd.MultivariateNormalTriL([0.5, -1.0], tril), StandardNormal(2)()),
        "gamma": lambda: (
            tfd.Independent(tfd.Gamma([2.0, 0.7], [1.5, 3.0]), 1),
            Family("Gamma", [2], concentration=1.5, rate=1.0)(),
        ),
        "dirichlet": lambda: (
            tfd.Dirichlet([2.0, 1.5, 4.0]),
            Family("Dirichlet", [3], concentration=[1.0, 2.0, 1.0])(),
        ),
    }[pair]()
    z = q.sample(1_000_000, seed=(1, 2))
    mean, error = mean_and_error((q.log_prob(z) - p.log_prob(z)).numpy().astype(np.float64))
    assert error < 3e-3
    assert abs(float(closed_form_kl(q, p)) - mean) < 4 * error


def test_kl_of_a_full_normal_is_its_textbook_formula():
    loc, tril = np.array([0.5, -1.0, 2.0]), np.array([[0.6, 0.0, 0.0], [0.7, 0.3, 0.0], [-0.4, 0.2, 1.5]])
    q = tfd.MultivariateNormalTriL(np.float32(loc), np.float32(tril))
    # KL(N(m, S)‖N(0, I)) = (tr S + m·m - D - log det S) / 2
    covariance = tril @ tril.T
    expected = (np.trace(covariance) + loc @ loc - 3 - np.log(np.linalg.det(covariance))) / 2
    assert float(closed_form_kl(q, StandardNormal(3).distribution())) == pytest.approx(expected, abs=1e-5)
    # The prior's own location and scale count as well.
    prior = Family("Normal", [3], loc=[1.0, 0.0, -1.0], scale=[0.5, 2.0, 1.0])
    inverse, shift = np.diag([4.0, 0.25, 1.0]), np.array([1.0, 0.0, -1.0]) - loc
    expected = (
        np.trace(inverse @ covariance) + shift @ inverse @ shift - 3 - np.log(np.linalg.det(inverse @ covariance))
    ) / 2
    assert float(closed_form_kl(q, prior.distribution())) == pytest.approx(expected, abs=1e-4)


def test_no_closed_form_is_none():
    q = tfd.Independent(tfd.Laplace([[0.0, 0.0]], [[1.0, 2.0]]), 1)
    assert closed_form_kl(q, StandardNormal(2)()) is None


# The bounds as functions of Terms


@pytest.fixture
def terms() -> Terms:
    """Three samples of four rows, every number different."""
    z = tf.random.stateless_normal([3, 4, 2], [0, 1])
    numbers = np.random.default_rng(0).normal(size=[3, 3, 4]).astype(np.float32)
    log_likelihood, log_prior, log_posterior = map(tf.constant, numbers)
    standard = StandardNormal(2)()
    kl = tf.constant([0.1, 0.2, 0.3, 0.4])
    return Terms((Latent(z, standard, standard, log_posterior, log_prior, kl, kl_is_exact=True),), log_likelihood)


def test_formulas(terms):
    likelihood, prior, posterior = (
        v.numpy().astype(np.float64) for v in (terms.log_likelihood, terms.log_prior, terms.log_posterior)
    )
    a = (likelihood + prior - posterior).mean(axis=0)
    b = likelihood.mean(axis=0) - terms.kl.numpy()
    weighted = np.log(np.exp(likelihood + prior - posterior).mean(axis=0))
    expected = dict(zip(EVERY_OBJECTIVE, (b, a, b, weighted), strict=True))
    for objective, bound in expected.items():
        estimate = objective(terms)
        assert estimate.bound.shape == (4,)
        np.testing.assert_allclose(estimate.bound, bound, atol=1e-6, err_msg=objective.__name__)
        np.testing.assert_allclose(estimate.surrogate, bound, atol=1e-6, err_msg=objective.__name__)


def test_an_exact_entropy_has_the_mean_of_estimator_a_and_less_noise_where_q_is_narrow():
    prior = priors.Mixture(2, num_components=2)
    prior.locs.assign([[6.0, 5.0], [-6.0, 5.0]])
    vae = linear_gaussian.vae(prior=prior, wider=0.05)
    terms = vae.terms(linear_gaussian.rows(3)[0], 20_000, tf.constant([1, 2]))
    a = (terms.log_weight).numpy().astype(np.float64)
    entropy = scipy.stats.norm(0, 0.05 * np.sqrt(linear_gaussian.VARIANCE)).entropy().sum()
    ours = entropy + terms.log_joint.numpy().astype(np.float64)
    np.testing.assert_allclose(objectives.elbo_entropy(terms).bound, ours.mean(axis=0), rtol=1e-4)
    error = np.sqrt((a.var(axis=0) + ours.var(axis=0)) / 20_000)
    assert (np.abs(a.mean(axis=0) - ours.mean(axis=0)) < 4 * error).all()
    assert ours.var(axis=0).max() < a.var(axis=0).min()
    of_flow = VAE(
        networks.mlp([4]), networks.mlp([4]), posteriors.planar(2, 1), DistributionLayer("Normal", [4]), seed=0
    )
    with pytest.raises(ValueError, match=r"entropy of the posterior has no closed form: take objectives\.elbo_a"):
        objectives.elbo_entropy(of_flow.terms(linear_gaussian.rows(3)[0], 1, tf.constant([1, 2])))


def test_the_kl_of_tied_units_is_that_of_the_draw_and_not_found_again(monkeypatch):
    vae = VAE(
        networks.mlp([4]), networks.mlp([4]), posteriors.inverse_autoregressive(5, 2, hidden=[4]),
        DistributionLayer("Normal", [4]), seed=0,
    )  # fmt: skip
    terms = vae.terms(linear_gaussian.rows(3)[0], 7, tf.constant([1, 2]))
    expected = np.mean(terms.latents[0].posterior.log_prob(terms.z) - terms.log_prior, axis=0)
    monkeypatch.setattr(networks.Masked, "call", None)  # no network is asked again
    np.testing.assert_allclose(terms.kl_by_unit(), expected[:, None], rtol=1e-3, atol=1e-4)


def test_elbo_chooses_by_the_kl(terms):
    sampled = dataclasses.replace(terms, latents=(dataclasses.replace(terms.latents[0], kl_is_exact=False),))
    np.testing.assert_array_equal(objectives.elbo(terms).bound, objectives.elbo_b(terms).bound)
    np.testing.assert_array_equal(objectives.elbo(sampled).bound, objectives.elbo_a(sampled).bound)
    with pytest.raises(ValueError, match=r"needs a closed-form KL.*Use objectives.elbo_a, or objectives.elbo"):
        objectives.elbo_b(sampled)


def test_importance_weights_do_not_overflow(terms):
    far = dataclasses.replace(terms, log_likelihood=terms.log_likelihood - 5000.0)
    difference = objectives.importance_weighted(far).bound - objectives.importance_weighted(terms).bound
    np.testing.assert_allclose(difference, -5000.0, atol=1e-2)


@pytest.mark.parametrize(
    "objective", [*EVERY_OBJECTIVE, objectives.score_function], ids=lambda objective: objective.__name__
)
def test_an_objective_round_trips(objective):
    config = keras.saving.serialize_keras_object(objective)
    assert keras.saving.deserialize_keras_object(config) is objective


# The model's terms


def test_where_no_closed_form_is_known_the_model_takes_estimator_a():
    vae = small_vae("Laplace")
    x = np.eye(5, dtype=np.float32)
    terms = vae.terms(x, 4, seed=tf.constant([1, 2]))
    assert not terms.kl_is_exact
    np.testing.assert_allclose(
        terms.kl, np.mean(terms.log_posterior.numpy() - terms.log_prior.numpy(), axis=0), atol=1e-6
    )
    np.testing.assert_array_equal(vae.elbo(x, 4, seed=tf.constant([1, 2])), objectives.elbo_a(terms).bound)
    vae.compile(run_eagerly=True)
    assert np.isfinite(vae.fit(x, verbose=0).history["loss"]).all()
    b = small_vae("Laplace", objective=objectives.elbo_b)
    b.compile(run_eagerly=True)
    with pytest.raises(ValueError, match="closed-form KL"):
        b.fit(x, verbose=0)


def test_terms_are_the_densities_they_are_named_after():
    vae = small_vae()
    x = np.random.default_rng(0).uniform(size=[3, 5]).astype(np.float32)
    terms = vae.terms(x, 4, seed=tf.constant([1, 2]))
    q, z = vae.encode(x), terms.z.numpy().astype(np.float64)
    loc, scale = (np.asarray(v, np.float64) for v in (q.distribution.loc, q.distribution.scale))
    logits = np.asarray(vae.likelihood.projection(vae.decoder(terms.z.numpy().reshape(-1, 2))), np.float64)
    logits = logits.reshape(4, 3, 5)
    # log p(x|z) = Σ x log s(l) + (1 - x) log s(-l)
    log_likelihood = np.sum(-x * np.logaddexp(0, -logits) - (1 - x) * np.logaddexp(0, logits), axis=-1)
    log_prior = np.sum(-0.5 * z**2 - 0.5 * np.log(2 * np.pi), axis=-1)
    log_posterior = np.sum(-0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=-1)
    # Appendix B: -KL = ½ Σ (1 + log σ² - μ² - σ²)
    kl = -0.5 * np.sum(1 + np.log(scale**2) - loc**2 - scale**2, axis=-1)
    for name, expected in {
        "log_likelihood": log_likelihood,
        "log_prior": log_prior,
        "log_posterior": log_posterior,
        "kl": kl,
        "log_weight": log_likelihood + log_prior - log_posterior,
    }.items():
        np.testing.assert_allclose(getattr(terms, name), expected, atol=2e-5, err_msg=name)
    # The KL is counted once.
    np.testing.assert_allclose(vae.elbo(x, 4, tf.constant([1, 2])), log_likelihood.mean(axis=0) - kl, atol=2e-5)


def test_estimators_agree_in_mean(trained, digits):
    terms = trained.terms(digits[:20], 1000, seed=tf.constant([3, 4]))
    difference = (terms.log_weight - (terms.log_likelihood - terms.kl)).numpy().astype(np.float64)
    error = difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
    assert (np.abs(difference.mean(axis=0)) < 4 * error).all()
    mean, error = mean_and_error(difference.mean(axis=1))
    assert abs(mean) < 4 * error


def test_the_gradient_of_b_varies_less(trained, digits):
    """Section 2.3 promises less variance of B; the variance that training feels is that of the gradient.

    The bound itself is another matter: where q(z|x) comes close to p(z|x), log w hardly depends on z, so that the value
    of A varies less than that of B on a trained model, and more on an untrained one.
    """
    encoder = trained.encoder.trainable_variables + trained.posterior.trainable_variables

    @tf.function(autograph=False)
    def run(seed):
        with tf.GradientTape(persistent=True) as tape:
            terms = trained.terms(digits[:50], 1, seed=seed)
            bounds = [tf.reduce_mean(f(terms).surrogate) for f in (objectives.elbo_a, objectives.elbo_b)]
        return [tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(bound, encoder)], axis=0) for bound in bounds]

    a, b = np.stack([np.stack(run(tf.constant([i, 3]))) for i in range(150)], axis=1).astype(np.float64)
    assert b.var(axis=0).sum() < 0.9 * a.var(axis=0).sum()


def test_b_varies_less_on_an_untrained_model(digits):
    keras.utils.set_random_seed(1)
    parts = {"posterior": DistributionLayer("Normal", [4]), "likelihood": DistributionLayer("Bernoulli", [64])}
    vae = VAE(encoder=networks.mlp([64]), decoder=networks.mlp([64]), **parts)
    terms = vae.terms(digits[:50], 300, seed=tf.constant([3, 4]))
    a, b = (np.mean(v, axis=1).var() for v in (terms.log_weight, terms.log_likelihood - terms.kl))
    assert b < a


def test_the_importance_weighted_bound_rises_with_k(trained, digits):
    x, total = digits[:200], 256
    terms = trained.terms(x, total, seed=tf.constant([5, 6]))
    bounds = []
    for k in (1, 4, 16, 64):
        groups = [
            objectives.importance_weighted(
                dataclasses.replace(
                    terms,
                    log_likelihood=terms.log_likelihood[start : start + k],
                    latents=(
                        dataclasses.replace(
                            terms.latents[0],
                            log_prior=terms.log_prior[start : start + k],
                            log_posterior=terms.log_posterior[start : start + k],
                        ),
                    ),
                )
            ).bound.numpy()
            for start in range(0, total, k)
        ]
        bounds.append(np.mean(groups, axis=0))
    for lower, higher in itertools.pairwise(bounds):
        mean, error = mean_and_error(higher - lower)
        assert mean > 4 * error
    # One sample makes it estimator A.
    np.testing.assert_allclose(bounds[0], objectives.elbo_a(terms).bound, atol=1e-3)


# The score function, section 2.2


def test_the_surrogate_of_the_score_function(terms):
    estimate = objectives.score_function(terms)
    np.testing.assert_array_equal(estimate.bound, objectives.elbo_a(terms).bound)
    log_weight = terms.log_weight.numpy()
    latent, loc = terms.latents[0], tf.constant([[0.3, -0.2]])
    with tf.GradientTape() as tape:  # log w weighs the score and is not differentiated itself
        tape.watch([loc, latent.z])
        posterior = tfd.Independent(tfd.Normal(loc, 1.0), 1)
        moved = dataclasses.replace(terms, latents=(dataclasses.replace(latent, posterior=posterior),))
        surrogate = objectives.score_function(moved).surrogate
    expected = log_weight * posterior.log_prob(latent.z) + terms.log_likelihood + terms.log_prior
    np.testing.assert_allclose(surrogate, np.mean(expected, axis=0), atol=1e-5)
    gradient, through_z = tape.gradient(surrogate, [loc, latent.z])
    np.testing.assert_allclose(
        gradient[0], np.sum(log_weight[..., None] * (latent.z - loc), axis=(0, 1)) / 3, rtol=1e-5, atol=1e-5
    )
    assert through_z is None and estimate.path_weight == 0.0


def test_the_score_function_has_the_mean_of_the_pathwise_gradient():
    """Within four standard errors in each weight of the encoder; the decoder's gradient is that of A."""
    x = np.random.default_rng(0).uniform(size=[4, 5]).astype(np.float32)
    vaes = [small_vae(seed=3, objective=f, num_samples=500) for f in (objectives.score_function, objectives.elbo_a)]

    @tf.function(autograph=False)
    def run(seed):
        gradients = []
        for vae in vaes:
            with tf.GradientTape() as tape:
                bound = -tf.reduce_mean(vae.loss_of_draw({"x": x}, tf.ones([4]), seed, True, None).rows)
            both = tape.gradient(bound, [*vae.recognition_weights, *vae.generative_weights])
            split = len(vae.recognition_weights)
            gradients.append(
                [tf.concat([tf.reshape(g, [-1]) for g in p], axis=0) for p in (both[:split], both[split:])]
            )
        return gradients

    runs = [run(tf.constant([i, 3])) for i in range(100)]
    score, pathwise = (np.stack([r[i][0] for r in runs]).astype(np.float64) for i in range(2))
    error = np.sqrt((score.var(axis=0, ddof=1) + pathwise.var(axis=0, ddof=1)) / len(runs))
    assert (np.abs(score.mean(axis=0) - pathwise.mean(axis=0)) < 4 * error).all()
    assert np.linalg.norm(pathwise.mean(axis=0)) > 10 * np.linalg.norm(error)  # there is a gradient to be equal to
    for (_, decoder), (_, expected) in runs[:3]:
        np.testing.assert_allclose(decoder, expected, rtol=1e-4, atol=1e-5)


def test_the_score_function_varies_ten_times_as_much(trained, digits):
    x = digits[:50]

    @tf.function(autograph=False)
    def run(seed):
        with tf.GradientTape(persistent=True) as tape:
            terms = trained.terms(x, 1, seed=seed)
            held = trained.terms_at(x, trained.encode(x), tf.stop_gradient(terms.z))  # as a path weight of 0 does
            bounds = [
                tf.reduce_mean(f(t).surrogate)
                for f, t in ((objectives.score_function, held), (objectives.elbo_a, terms))
            ]
        weights = trained.recognition_weights
        return [tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(bound, weights)], axis=0) for bound in bounds]

    score, pathwise = np.stack([np.stack(run(tf.constant([i, 3]))) for i in range(60)], axis=1).astype(np.float64)
    assert score.var(axis=0).sum() > 10 * pathwise.var(axis=0).sum()


def test_the_score_function_trains():
    x = np.random.default_rng(0).uniform(size=[20, 5]).astype(np.float32)
    vae = small_vae(objective=objectives.score_function, num_samples=10)
    vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    history = vae.fit(x, batch_size=10, epochs=20, verbose=0).history
    assert history["elbo"][-1] > history["elbo"][0] + 0.05
    assert not np.isnan(history["loss"]).any()


# Gradients: a float64 reference of the whole model, its central differences, and the model


def reference_bound(weights: list[np.ndarray], x: np.ndarray, noise: np.ndarray, objective) -> float:
    """The mean bound of a VAE with one tanh layer on each side, written out; ``noise`` is ε, ``[K, B, D]``."""
    w1, b1, wq, bq, w2, b2, wp, bp = weights
    raw = np.tanh(x @ w1 + b1) @ wq + bq
    dim = raw.shape[-1] // 2
    loc, scale = raw[:, :dim], np.logaddexp(0, raw[:, dim:]) + np.finfo(np.float32).eps
    z = loc + scale * noise
    logits = np.tanh(z @ w2 + b2) @ wp + bp
    log_likelihood = np.sum(-x * np.logaddexp(0, -logits) - (1 - x) * np.logaddexp(0, logits), axis=-1)
    log_prior = np.sum(-0.5 * z**2 - 0.5 * np.log(2 * np.pi), axis=-1)
    log_posterior = np.sum(-0.5 * noise**2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=-1)
    kl = 0.5 * np.sum(loc**2 + scale**2 - 1 - np.log(scale**2), axis=-1)
    log_weight = log_likelihood + log_prior - log_posterior
    return {
        objectives.elbo_a: lambda: log_weight.mean(),
        objectives.elbo_b: lambda: (log_likelihood.mean(axis=0) - kl).mean(),
        objectives.importance_weighted: lambda: np.log(np.mean(np.exp(log_weight), axis=0)).mean(),
    }[objective]()


@pytest.mark.parametrize(
    "objective", [objectives.elbo_a, objectives.elbo_b, objectives.importance_weighted], ids=lambda f: f.__name__
)
def test_gradients_against_central_differences(objective):
    vae = small_vae(seed=3)
    x = np.random.default_rng(0).uniform(size=[4, 5]).astype(np.float32)
    seed = tf.constant([7, 8])
    with tf.GradientTape() as tape:
        terms = vae.terms(x, 3, seed=seed)
        bound = tf.reduce_mean(objective(terms).surrogate)
    gradients = tape.gradient(bound, vae.trainable_variables)
    q = vae.encode(x).distribution
    noise = ((terms.z - q.loc) / q.scale).numpy().astype(np.float64)
    layers = (vae.encoder.layers[-1], vae.posterior.projection, vae.decoder.layers[-1], vae.likelihood.projection)
    variables = [variable for layer in layers for variable in (layer.kernel, layer.bias)]
    weights = [variable.numpy().astype(np.float64) for variable in variables]
    by_id = dict(zip(map(id, vae.trainable_variables), gradients, strict=True))
    assert float(bound) == pytest.approx(reference_bound(weights, x, noise, objective), abs=1e-4)
    for variable, weight in zip(variables, weights, strict=True):
        numeric = np.zeros_like(weight)
        for index in np.ndindex(*weight.shape):
            kept, values = weight[index], []
            for step in (1e-5, -1e-5):
                weight[index] = kept + step
                values.append(reference_bound(weights, x, noise, objective))
            weight[index] = kept
            numeric[index] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(by_id[id(variable)], numeric, atol=2e-5, rtol=1e-3, err_msg=variable.path)


PAGE = pathlib.Path(__file__).parents[2] / "docs" / "howto" / "objectives.md"
LINES = dict(re.findall(r"^\| ([^|]+) \| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)[1:])


@pytest.mark.parametrize("name", LINES)
def test_each_line_of_the_page_is_an_objective_that_a_model_takes(name):
    shown = {each: getattr(objectives, each) for each in objectives.__all__}
    vae = linear_gaussian.vae(wider=1.5, objective=eval(LINES[name], {"keras": keras, **shown}), num_samples=4)
    x, _ = linear_gaussian.rows(6)
    loss = vae.loss_of_draw(vae.prepare(x), tf.ones([6]), tf.constant([1, 2]), True, tf.constant(3))
    assert np.isfinite(loss.rows).all() and np.isfinite(loss.report["elbo"]).all()


def test_the_table_of_objectives_has_every_one():
    no_objectives = {"Terms", "Latent", "Estimate"}
    page = PAGE.read_text(encoding="utf-8")
    assert len(LINES) == 26
    assert not [name for name in set(objectives.__all__) - no_objectives if not re.search(rf"[`(]{name}[`(]", page)]
