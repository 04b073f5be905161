"""Mixed precision as a whole: the networks compute in half, and no density, KL or stored number does.

bfloat16 has three digits. So a log-density is compared with its closed form in float64, from the features as the
networks gave them, to five digits; and x is chosen from numbers that bfloat16 cannot hold.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from sklearn.datasets import load_digits

import tfvae
from tfvae import baselines, evaluation, networks, objectives

ROWS, SIZE, LATENT, SAMPLES = 12, 64, 3, 4
HALVES = ("mixed_bfloat16", "mixed_float16")
SEED = [3, 4]
FEATURES = [0.5, -1.25]


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def make_vae(precision: str, likelihood: str = "Normal", **more: Any) -> tfvae.VAE:
    """The same initial weights under each policy."""
    keras.utils.set_random_seed(0)
    with policy(precision):
        return tfvae.VAE(
            **{"encoder": networks.mlp([16]), "decoder": networks.mlp([16]), "seed": 0, **more},
            posterior=tfvae.DistributionLayer("Normal", [LATENT]),
            likelihood=tfvae.DistributionLayer(likelihood, [SIZE]),
        )


def sharp(vae: tfvae.VAE) -> tfvae.VAE:
    """p(x|z) close around 1, where x is: a digit of x that is lost costs nats."""
    vae.likelihood.projection.bias.assign(tf.concat([tf.ones([SIZE]), tf.fill([SIZE], -3.0)], axis=0))
    return vae


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Near 1, where bfloat16 has nothing between 0.996 and 1."""
    return (1 - 1e-3 * np.random.default_rng(0).uniform(0.2, 1.8, size=[ROWS, SIZE])).astype(np.float32)


def loc_and_scale(layer: tfvae.DistributionLayer, features: Any) -> list[np.ndarray]:
    """In float64, of the numbers that the features are."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in layer.projection.weights)
    raw = tf.cast(features, tf.float64).numpy() @ kernel + bias
    loc, raw_scale = np.split(raw, 2, axis=-1)
    return [loc, np.logaddexp(0.0, raw_scale)]


@pytest.mark.parametrize("given", ["float", "uint8"])
@pytest.mark.parametrize("precision", HALVES)
def test_the_terms_are_exact_for_the_features_as_they_are(precision, given, x):
    vae = sharp(make_vae(precision))
    if given == "uint8":
        x = np.random.default_rng(1).integers(0, 256, size=x.shape, dtype=np.uint8)
    exact_x = x / 255.0 if given == "uint8" else x.astype(np.float64)
    half = tf.as_dtype(precision.removeprefix("mixed_"))
    terms = vae.terms(x, SAMPLES, seed=tf.constant(SEED))

    features = vae.encoder(tf.constant(exact_x, tf.float32))
    assert features.dtype == half
    loc, scale = loc_and_scale(vae.posterior, features)
    np.testing.assert_allclose(terms.kl, np.sum((loc**2 + scale**2 - 1) / 2 - np.log(scale), axis=-1), rtol=2e-5)
    z = terms.z.numpy().astype(np.float64)
    q = scipy.stats.norm(loc, scale)
    np.testing.assert_allclose(terms.log_posterior, q.logpdf(z).sum(axis=-1), rtol=2e-5, atol=1e-4)
    np.testing.assert_allclose(terms.log_prior, scipy.stats.norm.logpdf(z).sum(axis=-1), rtol=2e-5)

    features = vae.decoder(tf.reshape(terms.z, [-1, LATENT]))
    assert features.dtype == half
    parameters = loc_and_scale(vae.likelihood, tf.reshape(features, [SAMPLES, ROWS, -1]))
    log_likelihood = scipy.stats.norm(*parameters).logpdf(exact_x).sum(axis=-1)
    np.testing.assert_allclose(terms.log_likelihood, log_likelihood, rtol=2e-5, atol=1e-3)
    rounded = scipy.stats.norm(*parameters).logpdf(tf.cast(exact_x, half).numpy().astype(np.float64)).sum(axis=-1)
    if precision == "mixed_bfloat16":
        assert np.abs(rounded - log_likelihood).max() > 0.05  # so that this test can tell


@pytest.mark.parametrize("precision", HALVES)
def test_whatever_leaves_a_model_is_float32(precision, x):
    vae = make_vae(precision)
    vae.compile(jit_compile=False)
    seed = tf.constant(SEED)
    terms = vae.terms(x, SAMPLES, seed)
    bounds = [objectives.elbo(terms), objectives.importance_weighted(terms)]
    moments = [value for d in (vae.encode(x), vae.decode(terms.z)) for value in (d.mean(), d.stddev(), d.sample(1))]
    names = ("z", "log_likelihood", "log_prior", "log_posterior", "kl", "log_weight", "weights")
    numbers = [getattr(terms, name) for name in names]
    numbers += [part for bound in bounds for part in (bound.bound, bound.surrogate)]
    numbers += [*moments, vae(x), vae.elbo(x), vae.penalty()]
    assert {value.dtype for value in numbers} == {tf.float32}
    arrays = [vae.embed(x), vae.reconstruct(x), vae.predict(x, verbose=0), vae.sample(2, seed=0)]
    arrays += [evaluation.log_marginal(vae, x, num_samples=5).log_marginal]
    assert {value.dtype for value in arrays} == {np.dtype("float32")}
    vae.fit(x, verbose=0)
    variables = [*vae.variables, *vae.optimizer.variables]
    assert {str(v.dtype) for v in variables} == {"float32", "int64"}  # the integers count steps and draws
    assert {str(v.dtype) for v in vae.trainable_variables} == {"float32"}


def with_constant_features(precision: str) -> tfvae.VAE:
    """Features that are numbers of half too: XLA and Grappler may keep more digits between layers than half has."""
    constant = {"kernel_initializer": "zeros", "bias_initializer": keras.initializers.Constant(FEATURES)}
    with policy(precision):
        encoder, decoder = (keras.layers.Dense(len(FEATURES), **constant) for _ in range(2))
    return sharp(make_vae(precision, encoder=encoder, decoder=decoder))


def closed_form(vae: tfvae.VAE, x: np.ndarray) -> tuple[np.ndarray, float]:
    """log p(x|z) of each row, whatever z, and the KL, in nats, of the model with constant features."""
    loc, scale = loc_and_scale(vae.posterior, [FEATURES])
    log_likelihood = scipy.stats.norm(*loc_and_scale(vae.likelihood, [FEATURES])).logpdf(x.astype(np.float64))
    return log_likelihood.sum(axis=-1), float(np.sum((loc**2 + scale**2 - 1) / 2 - np.log(scale)))


@pytest.mark.parametrize("precision", HALVES)
def test_what_fit_and_evaluate_report_is_exact(precision, x):
    vae = with_constant_features(precision)
    log_likelihood, kl = closed_form(vae, x)
    vae.compile(keras.optimizers.SGD(0.0))
    fitted = vae.fit(x, batch_size=5, verbose=0).history
    evaluated = vae.evaluate(x, batch_size=5, return_dict=True, verbose=0)
    for report in ({name: value for name, (value,) in fitted.items()}, evaluated):
        assert report["log_likelihood"] == pytest.approx(log_likelihood.mean(), rel=1e-5)
        assert report["kl"] == pytest.approx(kl, rel=1e-5)
        assert report["loss"] == pytest.approx(kl - log_likelihood.mean(), rel=1e-5)


@pytest.mark.parametrize("precision", HALVES)
def test_an_export_scores_exactly_and_gives_float32(precision, x, tmp_path):
    vae = with_constant_features(precision)
    signatures = tf.saved_model.load(tfvae.export(vae, tmp_path / "model")).signatures
    noise = np.random.default_rng(2).normal(size=[ROWS, SAMPLES, LATENT]).astype(np.float32)
    embedded = signatures["embed"](x=tf.constant(x))
    scored = signatures["score"](x=tf.constant(x), noise=tf.constant(noise))
    assert {value.dtype for value in (*embedded.values(), *scored.values())} == {tf.float32}
    loc, scale = loc_and_scale(vae.posterior, [FEATURES])
    np.testing.assert_allclose(embedded["embedding"], np.tile(loc, [ROWS, 1]), rtol=1e-5)
    np.testing.assert_allclose(embedded["embedding_stddev"], np.tile(scale, [ROWS, 1]), rtol=1e-5)
    log_likelihood, kl = closed_form(vae, x)
    np.testing.assert_allclose(scored["elbo"], log_likelihood - kl, rtol=1e-5)


def test_the_model_itself_rounds_nothing():
    """A call of the model, which Keras would cast to half, gives a layer of float32 the x that came."""
    seen = []

    class Look(keras.layers.Layer):
        def call(self, x):
            seen.append(x)
            return x

    x = np.full([2, SIZE], 1 - 1e-3, np.float32)
    vae = make_vae("mixed_bfloat16", encoder=Look(dtype="float32"))
    for run in (vae, vae.encode, lambda x: vae.terms(x).kl):
        run(x)
        np.testing.assert_array_equal(seen[-1], x)


def digits() -> np.ndarray:
    return (load_digits().images[:600].reshape(-1, SIZE) / 16).astype(np.float32)


@pytest.fixture(scope="module")
def in_float32() -> float:
    return trained("float32")[1]


def trained(precision: str, **more: Any) -> tuple[tfvae.VAE, float]:
    vae = make_vae(precision, "Bernoulli", **more)
    vae.compile(keras.optimizers.Adam(3e-3))
    history = vae.fit(digits(), epochs=40, verbose=0).history["loss"]
    return vae, history[-1]


@pytest.mark.parametrize("precision", HALVES)
def test_fit_reaches_the_loss_of_float32(precision, in_float32):
    vae, loss = trained(precision)
    assert in_float32 < 30  # from 44 nats at first
    assert loss == pytest.approx(in_float32, rel=2e-3)
    assert isinstance(vae.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")


# float16 and its loss scale


def test_small_gradients_survive_float16():
    """Gradients of 1e-10, which float16 holds as zero, move the weights as in float32."""

    def objective(terms: objectives.Terms) -> objectives.Estimate:
        estimate = objectives.elbo(terms)
        return objectives.Estimate(estimate.bound, 1e-8 * estimate.surrogate)

    def move(precision: str, optimizer: keras.optimizers.Optimizer) -> np.ndarray:
        vae = make_vae(precision, "Bernoulli", objective=objective)
        vae.compile(optimizer, jit_compile=False)
        before = vae.encoder.weights[0].numpy()
        vae.fit(digits()[:100], batch_size=100, shuffle=False, verbose=0)
        return vae.encoder.weights[0].numpy() - before

    sgd = functools.partial(keras.optimizers.SGD, 1e6)
    expected = move("float32", sgd())
    largest = np.abs(expected).max()
    assert largest > 1e-3
    unscaled = move("mixed_float16", keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=1.0))
    assert np.abs(unscaled - expected).max() > 0.5 * largest
    np.testing.assert_allclose(move("mixed_float16", sgd()), expected, atol=0.05 * largest)


@pytest.mark.parametrize("dtype", [None, "mixed_float16"])
def test_float16_in_one_layer_is_enough_to_scale_the_loss(dtype):
    keras.utils.set_random_seed(0)
    vae = make_vae("float32", decoder=keras.layers.Dense(4, "tanh", dtype=dtype))
    own = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=8.0)
    for optimizer in ("adam", keras.optimizers.Adam(), own):
        vae.compile(optimizer)
        assert isinstance(vae.optimizer, keras.optimizers.LossScaleOptimizer) == bool(dtype or optimizer is own)
    assert vae.optimizer is own


def test_a_loss_scale_is_found_and_survives_saving(x, tmp_path):
    vae = make_vae("mixed_float16")
    too_large = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**40)
    vae.compile(too_large, jit_compile=False)
    before = vae.get_weights()
    vae.fit(x, batch_size=4, steps_per_epoch=3, verbose=0)
    assert float(vae.optimizer.dynamic_scale) == 2.0**37 and int(vae.optimizer.iterations) == 0
    for weight, same in zip(vae.trainable_variables, before, strict=False):
        np.testing.assert_array_equal(weight, same)  # no step is better than one that is not a number
    vae.fit(x, batch_size=4, steps_per_epoch=40, verbose=0)
    found = float(vae.optimizer.dynamic_scale)
    assert found < 2.0**30 and int(vae.optimizer.iterations) > 10

    vae.save(tmp_path / "vae.keras")
    loaded = keras.models.load_model(tmp_path / "vae.keras")
    assert len(loaded.optimizer.variables) == len(vae.optimizer.variables)
    for model in (vae, loaded):
        model.fit(x, batch_size=4, epochs=2, verbose=0)
        assert float(model.optimizer.dynamic_scale) == found
        assert len(model.optimizer.variables) == len(vae.optimizer.variables)
    for weight, same in zip(loaded.get_weights(), vae.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same)


# The other parts of the package


def test_penalties_of_half_and_whole_layers_add_up(x):
    histories = []
    for factor in (0.0, 0.1):
        keras.utils.set_random_seed(1)
        regularizer = keras.regularizers.L2(factor)
        with policy("mixed_bfloat16"):
            encoder = keras.layers.Dense(8, activity_regularizer=regularizer)
            decoder = keras.layers.Dense(8, kernel_regularizer=regularizer)
        vae = make_vae("mixed_bfloat16", encoder=encoder, decoder=decoder)
        vae.compile(keras.optimizers.SGD(0.0), jit_compile=False)
        histories.append(vae.fit(x, batch_size=ROWS, verbose=0).history)
    features = encoder(x).numpy().astype(np.float64)
    expected = 0.1 * (np.sum(features**2) / ROWS + np.sum(np.square(decoder.kernel)))
    assert histories[1]["elbo"] == pytest.approx(histories[0]["elbo"], rel=1e-6)
    assert histories[1]["loss"][0] - histories[0]["loss"][0] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize(
    "make",
    [baselines.WakeSleep, lambda vae: baselines.FullVB(vae, ROWS), lambda vae: baselines.MonteCarloEM(vae, ROWS)],
    ids=["wake-sleep", "full VB", "MCEM"],
)
def test_the_baselines_train(make, precision, x):
    histories = []
    for name in ("float32", precision):
        model = make(make_vae(name))
        model.compile(keras.optimizers.SGD(1e-5), jit_compile=False)  # the first steps only find float16's scale
        histories.append(model.fit(x, batch_size=4, epochs=2, verbose=0).history)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    assert int(model.optimizer.iterations) > 0
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=0.03, err_msg=name)
