"""The model as its user sees it: exactness on a linear-Gaussian model, inputs, errors, files."""

import functools
import inspect
import json
import pathlib
import re
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import VAE, DistributionLayer, evaluation, export, networks, objectives, priors
from tfvae.models.vae import _PARTS, _PLAIN
from tfvae.observations import Binarized
from tfvae.priors import Family, Mixture, StandardNormal, VampPrior
from tfvae.priors import fit as fit_prior

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make_vae(posterior: str = "Normal", likelihood: str = "Bernoulli", seed: int | None = 0, **more) -> VAE:
    keras.utils.set_random_seed(0)
    return VAE(
        encoder=networks.mlp([6]),
        decoder=networks.mlp([6]),
        posterior=DistributionLayer(posterior, [2]),
        likelihood=DistributionLayer(likelihood, [5]),
        seed=seed,
        **more,
    )


@pytest.fixture(scope="module")
def vae() -> VAE:
    return make_vae()


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=[7, 5]).astype(np.float32)


def test_every_argument_of_the_constructor_is_kept_by_a_file_and_by_another_prior():
    arguments = set(inspect.signature(VAE.__init__).parameters) - {"self", "gone"}
    vae = make_vae()
    assert set(vae.get_config()) == arguments == {*_PARTS, *_PLAIN}
    other = vae.with_prior(priors.StandardNormal(vae.latent_dim))
    for name in arguments - {"prior"}:
        assert getattr(other, name) is getattr(vae, name)


# A linear-Gaussian model: p(x) = N(b, W W^T + s^2 I) and p(z|x) are known exactly

SCALE = 0.7
LOC = np.array([0.3, -0.2, 0.1, 0.5])


def linear_vae(posterior: str, weights: np.ndarray) -> tuple[VAE, dict[str, np.ndarray]]:
    """A VAE of identity networks with p(x|z) = N(z W + b, s^2 I), and the exact posterior's parameters.

    p(z|x) = N((x - b) W^T S / s^2, S) with S = (I + W W^T / s^2)^-1.
    """
    vae = VAE(
        encoder=keras.layers.Identity(),
        decoder=keras.layers.Identity(),
        posterior=DistributionLayer(posterior, [2]),
        likelihood=DistributionLayer("Normal", [4], scale=SCALE),
    )
    vae.likelihood.projection.set_weights([weights, LOC])
    covariance = np.linalg.inv(np.eye(2) + weights @ weights.T / SCALE**2)
    kernel = weights.T @ covariance / SCALE**2
    return vae, {"covariance": covariance, "kernel": kernel, "bias": -LOC @ kernel}


def inverse_softplus(y: np.ndarray) -> np.ndarray:
    return np.log(np.expm1(y))


def set_posterior(vae: VAE, exact: dict[str, np.ndarray], raw_scale: np.ndarray) -> None:
    """The mean linear in x, the scale the same for every x."""
    kernel = np.concatenate([exact["kernel"], np.zeros([4, len(raw_scale)])], axis=1)
    vae.posterior.projection.set_weights([kernel, np.concatenate([exact["bias"], raw_scale])])


def exact_log_marginal(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return scipy.stats.multivariate_normal(LOC, weights.T @ weights + SCALE**2 * np.eye(4)).logpdf(x)


WEIGHTS = np.array([[1.0, 0.5, -0.3, 0.2], [0.8, -0.4, 0.5, 1.1]])
ORTHOGONAL = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, -1.5]])


@pytest.fixture(scope="module")
def observations() -> np.ndarray:
    return np.random.default_rng(1).normal(size=[6, 4]).astype(np.float32)


@pytest.mark.parametrize(
    ("posterior", "weights"),
    [("MultivariateNormalTriL", WEIGHTS), ("MultivariateNormalDiag", ORTHOGONAL), ("Normal", ORTHOGONAL)],
)
def test_the_bound_touches_log_p_where_the_posterior_is_exact(posterior, weights, observations):
    vae, exact = linear_vae(posterior, weights)
    tril = np.linalg.cholesky(exact["covariance"])
    diagonal = inverse_softplus(np.diag(tril))
    raw = diagonal
    if posterior == "MultivariateNormalTriL":
        # TFP fills a triangle as [[2, -], [1, 0]].
        raw = [diagonal[1], tril[1, 0], diagonal[0]]
    set_posterior(vae, exact, np.array(raw))
    np.testing.assert_allclose(vae.encode(observations).variance()[0], np.diag(exact["covariance"]), atol=1e-6)
    expected = exact_log_marginal(observations, weights)
    # log w is log p(x) whatever the sample: estimator A and the importance-weighted bound have no noise at all.
    terms = vae.terms(observations, 50, seed=tf.constant([1, 2]))
    np.testing.assert_allclose(terms.log_weight, np.tile(expected, [50, 1]), atol=5e-5)
    np.testing.assert_allclose(objectives.importance_weighted(terms).bound, expected, atol=5e-5)
    # Estimator B touches it in the mean.
    terms = vae.terms(observations, 20_000, seed=tf.constant([1, 2]))
    error = np.std(terms.log_likelihood, axis=0) / np.sqrt(20_000)
    assert (np.abs(objectives.elbo_b(terms).bound - expected) < 4 * error).all()
    assert error.max() < 0.02


@pytest.mark.parametrize("wrong", ["scale", "mean", "correlation"])
def test_the_bound_lies_below_log_p_by_the_kl_elsewhere(wrong, observations):
    weights = WEIGHTS if wrong == "correlation" else ORTHOGONAL
    vae, exact = linear_vae("Normal", weights)
    scale = np.sqrt(np.diag(exact["covariance"])) * (1.5 if wrong == "scale" else 1.0)
    if wrong == "mean":
        exact["bias"] = exact["bias"] + 0.3
    set_posterior(vae, exact, inverse_softplus(scale))
    # KL(q‖p(z|x)), both normal, is what the bound lacks.
    precision = np.linalg.inv(exact["covariance"])
    shift = np.full(2, 0.3 if wrong == "mean" else 0.0)
    gap = 0.5 * (
        np.trace(precision @ np.diag(scale**2))
        + shift @ precision @ shift
        - 2
        - np.log(np.linalg.det(precision) * np.prod(scale**2))
    )
    assert gap > 0.04
    terms = vae.terms(observations, 20_000, seed=tf.constant([1, 2]))
    expected = exact_log_marginal(observations, weights) - gap
    for log_bound in (terms.log_weight, terms.log_likelihood - terms.kl):
        error = np.std(log_bound, axis=0) / np.sqrt(20_000)
        assert (np.abs(np.mean(log_bound, axis=0, dtype=np.float64) - expected) < 4 * error).all()


# Shapes and dtypes


def test_shapes(vae, x):
    q, p = vae.encode(x), vae.decode(np.zeros([3, 7, 2], np.float32))
    assert (q.batch_shape, q.event_shape) == ((7,), (2,))
    assert (p.batch_shape, p.event_shape) == ((3, 7), (5,))
    assert vae.prior().event_shape == (2,) and vae.prior().batch_shape == ()
    assert vae.event_shape == (5,) and vae.latent_dim == 2
    terms = vae.terms(x, 4)
    assert terms.z.shape == (4, 7, 2) and terms.kl.shape == (7,)
    assert {v.shape for v in (terms.log_likelihood, terms.log_prior, terms.log_posterior)} == {(4, 7)}
    for value, shape in {
        "elbo": (vae.elbo(x, 3), (7,)),
        "call": (vae(x), (7, 5)),
        "embed": (vae.embed(x), (7, 2)),
        "reconstruct": (vae.reconstruct(x), (7, 5)),
        "predict": (vae.predict(x, verbose=0), (7, 5)),
        "sample": (vae.sample(4), (4, 5)),
    }.values():
        assert value.shape == shape and value.dtype in (np.float32, tf.float32)
    assert all(isinstance(v, np.ndarray) for v in (vae.embed(x), vae.reconstruct(x), vae.sample(1)))
    assert vae.embed(x[:0]).shape == (0, 2) and vae.reconstruct(x[:0]).shape == (0, 5)


def test_call_reconstruct_and_predict_agree(vae, x):
    expected = vae.decode(vae.encode(x).mean()).mean()
    for value in (vae(x), vae.reconstruct(x), vae.predict(x, verbose=0), vae.predict(x, batch_size=2, verbose=0)):
        np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_allclose(
        vae.predict(tf.data.Dataset.from_tensor_slices(x).batch(3), verbose=0), expected, atol=1e-6
    )
    np.testing.assert_allclose(vae.predict_on_batch(x), expected, atol=1e-6)


@pytest.mark.parametrize("ask", ["elbo", "terms", "log_weights"])
@pytest.mark.parametrize(
    ("seed", "words"),
    [(2.5, "seed"), ("a", "seed is 'a'"), ([1, 2, 3], r"seed has shape \(3,\)"), (2**31, "2147483648")],
)
def test_a_seed_that_is_none_is_told(vae, x, ask, seed, words):
    with pytest.raises(ValueError, match=words):
        getattr(vae, ask)(x, 1, seed)


def test_seeds_fix_the_noise(vae, x):
    seed = tf.constant([3, 4])
    np.testing.assert_array_equal(vae.elbo(x, 2, seed), vae.elbo(x, 2, seed))
    assert np.any(vae.elbo(x, 2) != vae.elbo(x, 2))
    np.testing.assert_array_equal(vae.sample(4, seed=1), vae.sample(4, seed=1))
    assert np.any(vae.sample(4, seed=1) != vae.sample(4, seed=2))
    assert np.any(vae.sample(4) != vae.sample(4))
    np.testing.assert_array_equal(make_vae(seed=5).elbo(x), make_vae(seed=5).elbo(x))
    assert np.any(make_vae(seed=5).elbo(x) != make_vae(seed=6).elbo(x))


def test_sample_is_the_likelihoods_mean_at_draws_from_the_prior():
    vae, _ = linear_vae("Normal", WEIGHTS)
    drawn = vae.sample(20_000, seed=3)
    np.testing.assert_allclose(drawn.mean(axis=0), LOC, atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), WEIGHTS.T @ WEIGHTS, atol=0.08)


# Inputs


def test_bytes_are_scaled_pictures():
    vae = make_vae()
    x = np.random.default_rng(0).integers(0, 256, size=[7, 5], dtype=np.uint8)
    scaled = x.astype(np.float32) / 255
    seed = tf.constant([1, 2])
    np.testing.assert_array_equal(vae.elbo(x, 2, seed), vae.elbo(scaled, 2, seed))
    # XLA multiplies by 1 / 255, which may cost the last bit.
    np.testing.assert_allclose(vae.embed(x), vae.embed(scaled), atol=1e-6)
    np.testing.assert_allclose(vae.predict(x, verbose=0), vae.predict(scaled, verbose=0), atol=1e-6)
    histories = []
    for data in (x, scaled):
        model = make_vae()
        model.compile(run_eagerly=True)
        histories.append(model.fit(data, batch_size=3, epochs=2, verbose=0).history)
    assert histories[0] == histories[1]


@pytest.mark.parametrize("likelihood", ["Poisson", "NegativeBinomial", "OneHotCategorical"])
def test_bytes_of_counts_are_counts(likelihood):
    vae = make_vae(likelihood=likelihood)
    x = np.eye(5, dtype=np.uint8) * (1 if likelihood == "OneHotCategorical" else 7)
    seed = tf.constant([1, 2])
    np.testing.assert_array_equal(vae.elbo(x, 2, seed), vae.elbo(x.astype(np.float32), 2, seed))
    np.testing.assert_array_equal(vae.embed(x), vae.embed(x.astype(np.float32)))


def test_other_dtypes_are_floats(vae, x):
    seed = tf.constant([1, 2])
    binary = x > 0.5
    expected = vae.elbo(binary.astype(np.float32), 2, seed)
    for dtype in (np.float64, np.int32, np.int64, np.bool_, np.float16):
        np.testing.assert_array_equal(vae.elbo(binary.astype(dtype), 2, seed), expected)


def test_embedding_a_row_does_not_depend_on_its_neighbours(vae):
    x = np.random.default_rng(0).uniform(size=[23, 5]).astype(np.float32)
    expected = vae.encode(x).mean().numpy()
    order = np.random.default_rng(1).permutation(23)
    np.testing.assert_allclose(vae.embed(x), expected, atol=1e-6)
    np.testing.assert_allclose(vae.embed(x[order]), expected[order], atol=1e-6)
    for batch_size in (1, 4, 5, 22, 23):
        np.testing.assert_allclose(vae.embed(x, batch_size), expected, atol=1e-6)
        np.testing.assert_allclose(vae.reconstruct(x, batch_size), vae(x), atol=1e-6)
    np.testing.assert_allclose(np.concatenate([vae.embed(x[:9]), vae.embed(x[9:])]), expected, atol=1e-6)


@pytest.mark.parametrize("event_shape", [(28, 28, 1), (9, 7, 3)])
def test_convolutional_networks(event_shape):
    keras.utils.set_random_seed(0)
    vae = VAE(
        encoder=networks.conv_encoder([4, 8]),
        decoder=networks.conv_decoder(event_shape, [8, 4]),
        posterior=DistributionLayer("Normal", [3]),
        likelihood=DistributionLayer("Bernoulli", event_shape),
    )
    x = np.random.default_rng(0).integers(0, 256, size=[5, *event_shape], dtype=np.uint8)
    # The last projection is a 1x1 convolution, not a matrix over all pixels.
    assert vae.likelihood.projection.kernel.shape == (4, event_shape[-1])
    assert vae.decode(np.zeros([2, 5, 3])).event_shape == event_shape
    assert vae.reconstruct(x).shape == (5, *event_shape)
    assert vae.terms(x, 2).log_likelihood.shape == (2, 5)
    vae.compile(keras.optimizers.Adam(3e-3), steps_per_execution=2, jit_compile=False)
    losses = vae.fit(x, batch_size=2, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_conv_decoder_needs_an_image():
    with pytest.raises(ValueError, match=r"needs event_shape \[H, W, C\], received \[28, 28\]"):
        networks.conv_decoder([28, 28])


# Errors


def fit(vae: VAE, *args, **kwargs) -> None:
    vae.compile(run_eagerly=True)
    vae.fit(*args, verbose=0, **kwargs)


GOOD = np.full([6, 5], 0.5, np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_vae().elbo(GOOD[:, :4]), r"x has shape \(6, 4\), expected \(N, 5\): reshape it"),
        (lambda: make_vae().embed(GOOD[0]), r"x has shape \(5,\), expected \(N, 5\)"),
        (lambda: fit(make_vae(), GOOD[:, :4]), r"x has shape \(6, 4\), expected \(N, 5\)"),
        (lambda: make_vae().elbo(np.full([2, 5], "a")), "x has dtype string, expected uint8 or a float"),
        (lambda: make_vae().elbo(GOOD + 0j), "x has dtype complex"),
        (lambda: make_vae().decode(np.zeros([3, 4])), r"z has shape \(3, 4\), expected \[..., B, 2\]"),
        (lambda: make_vae().decode(np.zeros([2])), r"z has shape \(2,\), expected \[..., B, 2\]"),
        (
            lambda: fit(make_vae(), GOOD, GOOD),
            r"without targets, received y: call fit\(x\). Labels and conditions",
        ),
        (lambda: fit(make_vae(), GOOD, class_weight={0: 1.0}), "without targets, received class_weight"),
        (
            lambda: fit(make_vae(), GOOD, sample_weight=np.ones([6, 5])),
            r"sample_weight has shape \(6, 5\), expected one",
        ),
        (
            lambda: fit(make_vae(), GOOD, sample_weight=np.ones(5)),
            "in equal numbers, received x: 6, sample_weight: 5",
        ),
        (lambda: fit(make_vae(), (GOOD, GOOD)), "received a tuple of 2: pass only its first part"),
        (lambda: fit(make_vae(), GOOD, validation_data=(GOOD, GOOD)), "received validation_data of 2 parts"),
        (
            lambda: fit(make_vae(), tf.data.Dataset.from_tensor_slices((GOOD, GOOD)).batch(2)),
            r"the dataset gives tuples of 2: map it to its observations",
        ),
        (
            lambda: fit(make_vae(), tf.data.Dataset.from_tensor_slices({"image": GOOD}).batch(2)),
            "A row has the parts image, expected x and, where wanted, condition, label",
        ),
        (
            lambda: fit(make_vae(), tf.data.Dataset.from_tensor_slices(GOOD[:, :4]).batch(2)),
            r"x has shape \(None, 4\), expected \(N, 5\)",
        ),
        (lambda: fit(make_vae(), tf.data.Dataset.from_tensor_slices(GOOD)), r"x has shape \(5,\), expected \(N, 5\)"),
        (lambda: fit(make_vae(), GOOD * np.nan), "NaN or infinite values: remove or repair"),
        (lambda: fit(make_vae(), np.where(np.eye(*GOOD.shape), np.nan, GOOD)), "NaN or infinite values"),
        (lambda: fit(make_vae(), GOOD * 255), r"x ranges from 127.5 to 127.5, but a Bernoulli.*Pass uint8 images"),
        (lambda: fit(make_vae(), GOOD - 1), "scores values in"),
        (lambda: fit(make_vae(likelihood="Poisson"), GOOD), "a Poisson likelihood scores counts"),
        (lambda: fit(make_vae(likelihood="OneHotCategorical"), GOOD * 4), "OneHotCategorical likelihood scores"),
        (lambda: fit(make_vae(), GOOD[:0]), r"x has no rows \(shape \(0, 5\)\)"),
        (lambda: fit(make_vae(), GOOD, validation_split=0.99), "validation_split=0.99 of 6 rows leaves one side empty"),
        (
            lambda: fit(make_vae(), tf.data.Dataset.from_tensors(GOOD), validation_split=0.5),
            "validation_split needs an array in memory",
        ),
        (
            lambda: make_vae(likelihood="Normal", noise=Binarized()),
            "which a Normal likelihood does not score",
        ),
        (lambda: make_vae(prior=tfd.Normal([0.0, 0.0], 1.0)), "The prior is a Normal, expected one of priors"),
        (lambda: make_vae(num_samples=0), "num_samples must be at least 1, received 0"),
        (lambda: make_vae().terms(GOOD, 0), "num_samples must be at least 1, received 0"),
        (lambda: make_vae().elbo(GOOD, num_samples=-1), "num_samples must be at least 1, received -1"),
        (lambda: make_vae("Poisson"), "posterior Poisson has no pathwise gradient. Expected a reparameterised family"),
        (
            lambda: make_vae("Dirichlet"),
            r"Dirichlet has 1 degrees of freedom and the prior 2.*Pass a prior on the same",
        ),
        (lambda: make_vae(prior=StandardNormal(3)), r"The prior's event shape is \[3\], the posterior's is \[2\]"),
        (
            lambda: make_vae(prior=VampPrior(3, [5], num_components=2)),
            r"event shape is \[3\], the posterior's is \[2\]",
        ),
        (lambda: fit_prior(Mixture(3), make_vae(), GOOD), r"event shape is \[3\], the posterior's is \[2\]"),
        (
            lambda: make_vae(objective=objectives.Weighted),
            r"is the class Weighted, expected an object of it: Weighted\(",
        ),
        (
            lambda: make_vae(objective="iwae"),
            "objective is 'iwae', expected a function.*there are .*importance_weighted",
        ),
        (lambda: swapped([9]), r"posterior is of 9 numbers and the likelihood of 2: are they swapped\?"),
        (lambda: swapped([3, 3, 1]), "posterior is of 9 numbers and the likelihood of 2"),
        (lambda: conditional(networks.mlp([4])), r"its encoder two inputs: make it networks.Conditional\(network\)"),
        (lambda: conditional(networks.Conditional(networks.conv_encoder([4]))), r"two inputs, as docs/howto/model\.md"),
        (lambda: make_vae().embed([GOOD[0], GOOD[1][:3]]), "x is a list, which is no array of numbers.*of one shape"),
        (
            lambda: fit(make_vae(), GOOD, sample_weight=np.ones(6, np.longdouble)),
            r"sample_weight is a ndarray of float128, .*: pass \.astype\('float32'\) of it",
        ),
        (
            lambda: make_vae().embed(np.ones([3, 4], np.longdouble)),
            r"of float128, .*: pass \.astype\('float32'\) of it",
        ),
        (lambda: export("runs/digits", "exported"), "vae is 'runs/digits', expected a tfvae.VAE"),
        (lambda: make_vae("Gaussian"), "Unknown distribution 'Gaussian'"),
        (
            lambda: VAE(
                *(keras.layers.Flatten(),) * 2, DistributionLayer("Normal", [2, 2]), DistributionLayer("Normal", [4])
            ),
            r"event_shape must be \[latent_dim\], received \[2, 2\]",
        ),
        (lambda: make_vae().compile(steps_per_execution=0), "steps_per_execution must be at least 1, received 0"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Files


# Dynamic binarisation


class Steep(keras.layers.Layer):
    """Features that make the mean of q(z|x) ten times the first pixel, and its standard deviation 1."""

    def call(self, x):
        return tf.stack([10 * x[:, 0], tf.zeros_like(x[:, 0])], axis=-1)


def binarising_vae() -> tuple[VAE, np.ndarray]:
    """A VAE whose log p(x|z) knows nothing of z and whose KL is 50 x₀²; and its logits."""
    scale = DistributionLayer("Normal", [1], scale=1.0)
    likelihood = DistributionLayer("Bernoulli", [3])
    vae = VAE(Steep(), keras.layers.Identity(), scale, likelihood, noise=Binarized(), seed=4)
    logits = np.array([-1.0, 0.5, 2.0], np.float32)
    vae.posterior.set_weights([np.array([[1.0], [0.0]]), np.zeros([1])])
    vae.likelihood.set_weights([np.zeros([1, 3]), logits])
    vae.compile(keras.optimizers.SGD(0.0))
    return vae, logits


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_dynamic_binarisation_scores_and_encodes_zeros_and_ones(dtype):
    """In expectation a Bernoulli scores draws as it scores their greys; 50 x₀² is 50 with probability x₀."""
    vae, logits = binarising_vae()
    x = np.tile(np.array([[51, 204, 102]], np.uint8), [20_000, 1])
    greys = x[0] / 255.0
    expected = np.sum(greys * logits - np.log1p(np.exp(logits)))
    spread = np.sqrt(np.sum(greys * (1 - greys) * logits**2) / len(x))
    given = x if dtype == np.uint8 else (x / 255.0).astype(dtype)
    found = vae.evaluate(given, batch_size=500, verbose=0, return_dict=True)
    assert abs(found["log_likelihood"] - expected) < 4 * spread
    assert abs(found["kl"] - 50 * greys[0]) < 4 * 50 * np.sqrt(greys[0] * (1 - greys[0]) / len(x))
    single = vae.evaluate(given[:1], verbose=0, return_dict=True)
    assert single["kl"] in (0.0, 50.0), "the encoder sees a pixel of 0 or 1"


def test_dynamic_binarisation_draws_anew_in_each_epoch_and_repeats_by_its_seed():
    x = np.full([6, 3], 0.5, np.float32)
    first, second = (
        binarising_vae()[0].fit(x, batch_size=3, epochs=4, verbose=0).history["log_likelihood"] for _ in range(2)
    )
    assert len(set(first)) == 4
    assert first == second


def test_what_is_asked_of_a_binarising_model_directly_takes_x_as_it_is():
    vae, logits = binarising_vae()
    x = np.array([[0.2, 0.8, 0.4]], np.float32)
    np.testing.assert_allclose(vae.terms(x).log_likelihood[0], x @ logits - np.log1p(np.exp(logits)).sum(), rtol=1e-5)
    np.testing.assert_allclose(vae.embed(x), [[2.0]], rtol=1e-6)


def saved_vae(objective=objectives.importance_weighted) -> VAE:
    """Every argument away from its default, random layers included."""
    keras.utils.set_random_seed(0)
    vae = VAE(
        encoder=keras.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dropout(0.2, seed=3)]),
        decoder=networks.mlp([8]),
        posterior=DistributionLayer("Normal", [2]),
        likelihood=DistributionLayer("Bernoulli", [5]),
        prior=Family("Normal", [2], loc=[0.5, -0.5], scale=2.0),
        objective=objective,
        num_samples=3,
        noise=Binarized(),
        seed=11,
        name="saved",
    )
    vae.compile(keras.optimizers.Adam(1e-2), steps_per_execution=3)
    return vae


FRESH = """
import sys
import numpy as np, keras, tensorflow as tf
from tfvae import VAE
vae = keras.models.load_model(sys.argv[1])
x = np.load(sys.argv[2])
seed = tf.constant([1, 2])
out = dict(
    embedding=vae.embed(x), elbo=vae.elbo(x, 5, seed), prior=vae.prior().log_prob(np.ones([2], "float32")),
    noise=vae.elbo(x), iterations=int(vae.optimizer.iterations),
    description=repr([vae.num_samples, vae.seed, vae.name, vae.objective.__name__, vae.steps_per_execution]),
)
history = vae.fit(x, batch_size=2, epochs=2, verbose=0).history
out.update({f"history_{key}": value for key, value in history.items()})
out.update({f"weight_{i}": w for i, w in enumerate(vae.get_weights())})
np.savez(sys.argv[3], **{key: np.asarray(value) for key, value in out.items()})
"""


@pytest.mark.xla
@pytest.mark.slow
def test_a_saved_model_goes_on_in_a_fresh_process(x, tmp_path):
    vae = saved_vae()
    vae.fit(x, batch_size=2, epochs=2, verbose=0)
    vae.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    arguments = [str(tmp_path / name) for name in ("model.keras", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", FRESH, *arguments], check=True, cwd=ROOT, timeout=240)
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(out["embedding"], vae.embed(x))
    np.testing.assert_allclose(out["elbo"], vae.elbo(x, 5, tf.constant([1, 2])), atol=1e-6)
    assert out["prior"] == vae.prior().log_prob(np.ones([2], np.float32))
    np.testing.assert_allclose(out["noise"], vae.elbo(x), atol=1e-6)
    assert out["iterations"] == 8
    assert str(out["description"]) == "[3, 11, 'saved', 'importance_weighted', 3]"
    # Training goes on as if it had never stopped, bit for bit: optimiser, noise, dropout and shuffles.
    history = vae.fit(x, batch_size=2, epochs=2, verbose=0).history
    for key, value in history.items():
        np.testing.assert_array_equal(out[f"history_{key}"], value, err_msg=key)
    for i, weight in enumerate(vae.get_weights()):
        np.testing.assert_array_equal(out[f"weight_{i}"], weight)


def test_a_file_holds_no_code(tmp_path):
    vae = saved_vae()
    vae.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        config = archive.read("config.json").decode()
    assert not re.search("pickle|__lambda__", config)
    json.loads(config)
    keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    lambdas = saved_vae(objective=lambda terms: objectives.elbo(terms))
    lambdas.save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match="lambda"):
        keras.models.load_model(tmp_path / "lambda.keras")


def test_an_uncompiled_model_and_a_registered_objective_load(x, tmp_path):
    vae = make_vae(objective=doubled)
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.compiled and loaded.objective is doubled
    np.testing.assert_array_equal(loaded.embed(x), vae.embed(x))
    vae.save_weights(tmp_path / "all.weights.h5")
    other = make_vae(seed=1)
    other.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_array_equal(other.embed(x), vae.embed(x))
    np.testing.assert_array_equal(other.elbo(x), vae.elbo(x))


@keras.saving.register_keras_serializable("tests")
def doubled(terms: objectives.Terms) -> objectives.Estimate:
    """A surrogate that is not the bound."""
    bound = objectives.elbo(terms).bound
    return objectives.Estimate(bound, 2.0 * bound)


def test_a_lambda_is_told_once_and_in_our_words(tmp_path):
    vae = make_vae(objective=lambda terms: objectives.elbo(terms))
    with pytest.warns(UserWarning) as told:
        vae.save(tmp_path / "model.keras")
    (one,) = {str(warning.message) for warning in told if warning.category is UserWarning}
    assert one.startswith("A lambda is saved as code, so that") and "loaded only with safe_mode=False" in one


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (1.7e9 + np.arange(60.0), r"x\[:, 1\] has numbers up to 1700000059 that float32 holds to 128"),
        (2**40 + np.arange(60), "that float32 holds to 131072, and their standard deviation is 17.3"),
        (1e5 + 1e-3 * np.arange(60), "Take a number near 100000.0295 off before"),
    ],
    ids=["seconds", "whole", "fractions"],
)
def test_rows_that_float32_does_not_tell_apart_are_warned_of(x, told):
    vae = make_vae(likelihood="Normal")
    rows = np.zeros([60, 5], x.dtype)
    rows[:, 1] = x
    vae.compile()
    for door in (vae.embed, vae.elbo, lambda x: vae.fit(x, verbose=0)):
        with pytest.warns(UserWarning, match=told):
            door(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rows[:, 1] = x - x[30]
        assert np.isfinite(vae.embed(rows)).all()
        rows = np.float64(rows)
        rows[:, 1] = x[0] * (1 + 1e-16 * np.arange(60))  # a constant but for float64's rounding
        vae.embed(rows)
        vae.embed(np.float64(GOOD))


def test_a_table_of_bytes_is_asked_what_they_are():
    class Table:
        """What a DataFrame is to those who do not have pandas."""

        def __init__(self, numbers):
            self.numbers, self.dtypes = numbers, [numbers.dtype] * 5

        def __array__(self, dtype=None, copy=None):
            return self.numbers

    numbers = np.arange(10, dtype=np.uint8).reshape(2, 5)
    table = Table(numbers)
    vae = make_vae(likelihood="Normal")
    for rows in (table, {"x": table}):
        with pytest.raises(ValueError, match="table whose columns are all uint8"):
            vae.embed(rows)
    np.testing.assert_allclose(vae.embed(numbers), vae.embed(numbers / np.float32(255)), rtol=1e-5)
    counts = make_vae(likelihood="Poisson")
    np.testing.assert_array_equal(counts.embed(table), counts.embed(np.float32(numbers)))


def test_the_surrogate_is_differentiated_and_the_bound_reported(x):
    weights, losses = [], []
    for objective in (objectives.elbo, doubled):
        vae = make_vae(objective=objective)
        before = vae.get_weights()
        vae.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        losses.append(vae.fit(x, batch_size=7, verbose=0).history["loss"])
        weights.append([after - start for after, start in zip(vae.get_weights(), before, strict=True)])
    np.testing.assert_allclose(*losses, rtol=1e-6)
    for single, double in zip(*weights, strict=True):
        np.testing.assert_allclose(2 * single, double, atol=1e-6)


@pytest.mark.parametrize(
    ("code", "now"),
    [
        (lambda: make_vae(binarize=True), r"binarize=True is noise=tfvae.observations.Binarized\(\) now"),
        (lambda: priors.Prior("Gamma", [2], concentration=1.0, rate=1.0), r'write priors.Family\("Gamma"'),
    ],
)
def test_code_of_0_1_is_told_what_to_write_now(code, now):
    with pytest.raises(TypeError, match=now):
        code()


def test_a_likelihood_whose_mean_has_no_formula_reconstructs():
    """A LogitNormal's mean is known by quadrature alone: draws of a fixed seed come near it, the same each time."""
    vae = make_vae(likelihood="LogitNormal")
    first, second = (vae.reconstruct(GOOD) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    p = vae.decode(vae.embed(GOOD)).distribution
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    at = p.loc.numpy()[..., None] + p.scale.numpy()[..., None] * nodes
    exact = (weights / (1 + np.exp(-at))).sum(axis=-1) / weights.sum()
    assert np.abs(first - exact).max() < 0.12  # four standard errors of 100 draws
    assert vae.sample(3, seed=0).shape == (3, 5)


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda: VAE(networks.mlp([4]), networks.mlp([4]), "Normal", "Bernoulli"), "posterior is 'Normal', expected"),
        (lambda: VAE("mlp", *[None] * 3), "encoder is 'mlp', expected a Keras layer or model, such"),
        (
            lambda: VAE(networks.mlp(), networks.mlp(), keras.layers.Dense(2), keras.layers.Dense(2)),
            "posterior is a Dense, a layer that says nothing of a family",
        ),
        (lambda: make_vae().compile("adam", "mse"), "received 'mse'. There is no loss to choose"),
        (lambda: make_vae().embed(scipy.sparse.csr_matrix(GOOD)), r"x is a csr_matrix.*pass .toarray\(\) of it"),
        (lambda: make_vae().embed(scipy.sparse.dok_matrix(GOOD)), r"x is a dok_matrix.*pass .toarray\(\) of it"),
        (lambda: fit(make_vae(), scipy.sparse.dok_array(GOOD)), r"x is a dok_array.*pass .toarray\(\) of it"),
        (lambda: make_vae().embed({"x": GOOD, 1: GOOD}), "A row has the parts x, 1, expected x and"),
        (lambda: fit(make_vae(), {0: GOOD}), "A row has the parts 0, expected x and"),
        (lambda: make_vae().embed({None: GOOD}), "A row has the parts None, expected x and"),
        (lambda: fit(make_vae(), tf.data.Dataset.from_tensor_slices({0: GOOD}).batch(2)), "has the parts 0, expected"),
        (lambda: make_vae().embed(tf.ragged.constant([[1.0], [1.0, 0.0]])), "x is a RaggedTensor, expected rows"),
        (lambda: make_vae().embed([[1.0] * 5, [0.0] * 4]), "x is a list, which is no array of numbers"),
        (lambda: make_vae().embed(np.array([["a", 1, 2, 3, None]], object)), "x is a ndarray of object, which"),
        (
            lambda: VAE(keras.layers.Dense(4), networks.mlp([4]), DistributionLayer("Normal", [2]),
                        DistributionLayer("Bernoulli", [4, 4, 1])),
            r"encoder gives features of shape \(1, 4, 4, 4\) for one row, expected \(1, F\).*Flatten",
        ),
        (
            lambda: fit(make_vae(objective=lambda terms: terms.kl), GOOD),
            r"objective returned a \w+Tensor, expected objectives.Estimate",
        ),
        (
            lambda: fit(make_vae(objective=lambda terms: objectives.Estimate(*[tf.reduce_mean(terms.kl)] * 2)), GOOD),
            r"objective's bound has shape \(\), expected \(\w+,\): one number a row",
        ),
    ],
)  # fmt: skip
def test_the_wrong_thing_at_a_public_door_is_told_in_a_sentence(door, message):
    with pytest.raises(ValueError, match=message):
        door()


def test_a_dataset_is_taken_where_an_array_is():
    vae = make_vae()
    dataset = tf.data.Dataset.from_tensor_slices(GOOD).batch(4)
    np.testing.assert_allclose(vae.embed(dataset), vae.embed(GOOD), rtol=1e-6)
    np.testing.assert_allclose(vae.reconstruct(dataset), vae.reconstruct(GOOD), rtol=1e-6)
    seed = tf.constant([0, 1])
    np.testing.assert_array_equal(vae.elbo(dataset, seed=seed), vae.elbo(GOOD, seed=seed))
    first, second = (evaluation.log_marginal(vae, x, 50).log_marginal for x in (dataset, GOOD))
    np.testing.assert_array_equal(first, second)


class Annealed:
    """β as a plain attribute, which a callback moves."""

    def __init__(self, beta):
        self.beta = beta

    def __call__(self, terms):
        beta = self.beta.value if isinstance(self.beta, keras.Variable) else self.beta
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - beta * terms.kl
        return objectives.Estimate(objectives.elbo(terms).bound, gain, objective=gain)


class Anneal(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        objective = self.model.objective
        if isinstance(objective.beta, keras.Variable):
            objective.beta.assign(0.5)
        else:
            objective.beta = 0.5


def test_an_objectives_attribute_that_moves_is_refused_and_a_variable_followed():
    vae = make_vae(objective=Annealed(0.0))
    vae.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match=r"beta of the objective changed after the program was made.*schedule"):
        vae.fit(GOOD, epochs=2, verbose=0, callbacks=[Anneal()])
    vae = make_vae(objective=Annealed(keras.Variable(0.0, trainable=False)))
    vae.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    history = vae.fit(GOOD, epochs=2, verbose=0, callbacks=[Anneal()]).history
    for epoch, beta in enumerate((0.0, 0.5)):
        expected = beta * history["kl"][epoch] - history["log_likelihood"][epoch]
        assert history["loss"][epoch] == pytest.approx(expected, rel=1e-5)


class Tempered:
    """An objective of settings of several kinds."""

    def __init__(self, beta=1.0, levels=(1.0, 2.0), schedule=None):
        self.beta, self.levels, self.schedule = beta, levels, schedule

    def __call__(self, terms):
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - self.beta * self.levels[0] * terms.kl
        return objectives.Estimate(objectives.elbo(terms).bound, gain, objective=gain)


@pytest.mark.parametrize(
    ("how", "setting", "value"),
    [
        ("evaluate", "beta", 50.0),
        ("evaluate", "beta", np.float32(50.0)),
        ("evaluate", "levels", (3.0, 2.0)),
        ("evaluate", "schedule", make_vae),
        ("evaluate", "schedule", None),
        ("test_on_batch", "beta", 50.0),
        ("train_on_batch", "beta", tf.constant(50.0)),
        ("eagerly", "beta", 50.0),
        ("eagerly", "levels", (3.0, 2.0)),
    ],
)
def test_every_setting_that_changes_is_refused_by_every_program_that_has_it(how, setting, value):
    vae = make_vae(objective=Tempered(schedule=Tempered()))
    vae.compile(keras.optimizers.SGD(0.0), jit_compile=False, run_eagerly=how == "eagerly")
    call = functools.partial(vae.evaluate if how == "eagerly" else getattr(vae, how), return_dict=True)
    call(GOOD)
    setattr(vae.objective, setting, value)
    if how == "eagerly":
        found = call(GOOD)
        beta = vae.objective.beta * vae.objective.levels[0]
        assert found["loss"] == pytest.approx(beta * found["kl"] - found["log_likelihood"], rel=1e-5)
        return
    with pytest.raises(ValueError, match=rf"^{setting} of the objective changed after the program was made"):
        call(GOOD)
    vae.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    call(GOOD)


def test_what_an_objective_notes_in_each_trace_is_no_setting():
    class Noting:
        def __init__(self, beta):
            self.beta, self.seen, self.last = beta, [], None

        def __call__(self, terms):
            self.seen.append(terms)
            self.last = terms.kl
            return objectives.Weighted(self.beta)(terms)

    vae = make_vae(objective=Noting(2.0))
    vae.compile("sgd", jit_compile=False)
    vae.fit(GOOD, validation_data=GOOD, epochs=3, verbose=0)
    assert len(vae.objective.seen) >= 2


def test_keras_export_and_h5_say_what_to_write(tmp_path):
    vae = make_vae()
    with pytest.raises(ValueError, match=r"write tfvae.export\(vae, 'x'\)"):
        vae.export("x")
    for name in ("m.h5", "m.hdf5"):
        with pytest.raises(ValueError, match=r"save to a \.keras file"):
            vae.save(tmp_path / name)
    for name in ("", "folder", None):
        with pytest.raises(ValueError, match=rf"^filepath is '{name}', expected .* \.keras; .*tfvae.export"):
            vae.save(name)
    vae.save(tmp_path / "folder", zipped=False)
    assert (tmp_path / "folder" / "config.json").exists()


GIVING = {
    "embed": lambda vae, x, folder: vae.embed(x),
    "embed of a stream": lambda vae, x, folder: vae.embed(tf.data.Dataset.from_tensors(x)),
    "draws": lambda vae, x, folder: vae.draws(x),
    "reconstruct": lambda vae, x, folder: vae.reconstruct(x),
    "sample": lambda vae, x, folder: vae.sample(2),
    "predict": lambda vae, x, folder: vae.predict(x, verbose=0),
    "active_units": lambda vae, x, folder: evaluation.active_units(vae, x),
    "kl_by_unit": lambda vae, x, folder: evaluation.kl_by_unit(vae, x),
    "log_marginal": lambda vae, x, folder: evaluation.log_marginal(vae, x, num_samples=2),
    "priors.fit": lambda vae, x, folder: priors.fit(Mixture(2, 2), vae, x),
    "export": lambda vae, x, folder: export(vae, folder / "export"),
}


@pytest.fixture(scope="module")
def without_numbers() -> VAE:
    vae = make_vae()
    for weight in vae.trainable_variables:
        weight.assign(tf.fill(weight.shape, np.nan))
    return vae


@pytest.mark.parametrize("door", GIVING)
def test_weights_that_are_no_numbers_are_told_by_whatever_gives_some(door, without_numbers, x, tmp_path):
    with pytest.raises(ValueError, match=r"^The weight .* holds NaN or infinity, .*: train it again, .*StopAtNaN"):
        GIVING[door](without_numbers, x, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_of_weights_that_are_no_numbers_is_written_with_a_warning(without_numbers, tmp_path):
    with pytest.warns(UserWarning, match="^The weight .* holds NaN or infinity, which .*model.keras has then too"):
        without_numbers.save(tmp_path / "model.keras")


def test_finite_weights_that_give_no_numbers_are_told(x):
    vae = make_vae(likelihood="Normal")
    for weight in vae.trainable_variables:
        weight.assign(tf.fill(weight.shape, np.float32(3e38)))
    with pytest.raises(
        ValueError, match=r"^14 of 14 numbers .* weights are finite, up to 3e\+38 in .*: look at x there"
    ):
        vae.embed(x)
    with pytest.warns(UserWarning, match="^35 of 35 numbers .* are NaN or infinite. Its weights are finite"):
        vae.reconstruct(x)


def test_a_last_step_that_leaves_no_numbers_is_told(x):
    vae = make_vae(likelihood="Normal")
    vae.compile(keras.optimizers.SGD(3e38), jit_compile=False)
    with pytest.warns(UserWarning, match="^The last step left NaN or infinity in the weight .*StopAtNaN"):
        assert np.isfinite(vae.fit(100 * x, epochs=1, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("rate", [np.nan, np.inf, -0.1])
def test_a_learning_rate_that_is_none_is_told(rate, vae):
    with pytest.raises(ValueError, match=r"^learning_rate is .*, expected "):
        vae.compile(keras.optimizers.Adam(rate))


def test_a_tensor_that_gives_no_numbers_is_told():
    class OnlyOnDevice:  # as PyTorch's that require gradients, or lie on a GPU
        shape, dtype = (2, 3), "torch.float32"

        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

    for door in (make_vae().embed, make_vae().elbo):
        with pytest.raises(ValueError, match=r"x is a OnlyOnDevice of torch\.float32, which is no array of numbers"):
            door(OnlyOnDevice())


def swapped(event_shape: list[int]) -> VAE:
    pixels, z = DistributionLayer("Bernoulli", event_shape), DistributionLayer("Normal", [2])
    return VAE(networks.conv_encoder([4]), networks.mlp([4]), pixels, z)


def conditional(encoder: keras.layers.Layer) -> VAE:
    layers = DistributionLayer("Normal", [2]), DistributionLayer("Bernoulli", [4, 4, 1])
    return VAE(encoder, networks.Conditional(networks.mlp([4])), *layers, condition_shape=[3])


def test_a_list_of_arrays_of_bytes_is_of_bytes():
    x, vae = np.random.default_rng(0).integers(0, 256, [4, 5]).astype(np.uint8), make_vae()
    assert vae.prepare(list(x))["x"].dtype == tf.uint8
    np.testing.assert_array_equal(vae.embed(list(x)), vae.embed(x))


@pytest.mark.parametrize(
    "part", [{"objective": objectives.TotalCorrelation(num_rows=9)}, {"weight_prior": priors.WeightPrior(num_rows=9)}]
)
def test_a_number_of_rows_that_fit_knows_better_is_warned_of(part):
    vae = make_vae(**part)
    vae.compile(jit_compile=False)
    with pytest.warns(UserWarning, match=r"num_rows=9, but fit has 6 rows to train on.*\(num_rows=6\)"):
        vae.fit(GOOD, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae.fit(np.concatenate([GOOD, GOOD])[:9], verbose=0)
        vae.fit(np.concatenate([GOOD, GOOD]), validation_split=0.25, verbose=0)


OF_ARRAYS = ["embed", "draws", "reconstruct", "fit", "evaluate", "predict"]
OF_ARRAYS += ["train_on_batch", "test_on_batch", "predict_on_batch"]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        *((name, lambda vae, x, name=name: getattr(vae, name)(x)) for name in OF_ARRAYS),
        ("sample", lambda vae, x: vae.sample(3)),
        ("What is asked of vae", lambda vae, x: evaluation.log_marginal(vae, x, num_samples=5).mean),
    ],
)
def test_what_runs_programs_of_its_own_says_so_inside_of_another(name, call):
    vae = make_vae()
    vae.compile(jit_compile=False)
    with pytest.raises(ValueError, match=rf"{name} is called inside a tf\.function or Dataset\.map, where x is a symb"):
        tf.function(lambda x: call(vae, x))(GOOD)


@pytest.mark.slow
def test_what_gives_tensors_is_part_of_a_program():
    vae = make_vae()
    inside = tf.function(lambda x: vae.decode(vae.encode(x).mean()).mean())(tf.constant(GOOD))
    np.testing.assert_allclose(inside, vae.reconstruct(GOOD), atol=1e-6)
