"""Every family as a DistributionLayer: eager, graph, XLA, mixed precision and ``.keras``, against SciPy and TFP."""

import zlib
from collections.abc import Callable

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conformance.catalogue import LIKELIHOODS, POSTERIORS, SIZE, Family
from tfvae import VAE, DistributionLayer, posteriors, priors

pytestmark = pytest.mark.xla

ROWS, WIDTH, SAMPLES = 4, 6, 100
# What the features of a network spread over: tanh units, a first step, and a network that has run away.
SPREADS = (0.5, 1.0, 2.0, 3.0)

# XLA compiles a density or a draw that is a loop or a long series, and its gradient, for two to ten seconds.
LONG = (
    *("Beta", "Chi2", "Dirichlet", "Gamma", "MultivariateNormalDiagPlusLowRankCovariance", "NormalMixture"),
    *("PowerSpherical", "StudentT", "TruncatedNormal", "VonMisesFisher"),
    *("BetaBinomial", "DirichletBagOfWords", "DirichletMultinomial", "DiscretizedLogisticMixture"),
    *("DiscretizedNormal", "LibraryNegativeBinomial", "LibraryZeroInflatedNegativeBinomial"),
)


def compiled_ones(families: list[Family]) -> list:
    """The families as parameters of a test that compiles them: those that take long are slow tests."""
    return [pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.name in LONG else []) for f in families]


every_posterior = pytest.mark.parametrize("family", compiled_ones(POSTERIORS))
every_likelihood = pytest.mark.parametrize("family", compiled_ones(LIKELIHOODS))
every_family = pytest.mark.parametrize(
    "family", [*POSTERIORS, *(f for f in LIKELIHOODS if f.name != "Normal")], ids=lambda family: family.name
)


def features(seed: int, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=spread, size=[ROWS, WIDTH]).astype(np.float32)


def make_layer(family: Family, **fixed) -> DistributionLayer:
    """The layer with weights and biases that depend on the family's name alone."""
    seed = zlib.crc32(family.name.encode()) % 1000
    layer = DistributionLayer(
        family.name,
        [SIZE],
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        bias_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=seed),
        **family.fixed,
        **fixed,
    )
    layer(tf.zeros([1, WIDTH]))
    return layer


def parameters_of(layer: DistributionLayer, family: Family, x: np.ndarray) -> dict[str, np.ndarray]:
    kernel, bias = (np.asarray(v, np.float64) for v in (layer.projection.kernel, layer.projection.bias))
    return family.parameters(x.astype(np.float64) @ kernel + bias)


def scipy_log_prob(family: Family, x: np.ndarray, parameters: dict[str, np.ndarray]) -> np.ndarray:
    log_prob = family.log_prob(np.asarray(x, np.float64), parameters)
    return log_prob.sum(axis=-1) if family.scalar else log_prob


def tfp_log_prob(family: Family, x: np.ndarray, parameters: dict[str, np.ndarray]) -> np.ndarray:
    """The density by TFP's class in float64, built without the layer."""
    integer_events = {"dtype": tf.float64} if family.name in ("Bernoulli", "OneHotCategorical") else {}
    if family.name == "VonMisesFisher":
        parameters = {**parameters, "concentration": parameters["concentration"][..., 0]}
    base = family.tfp(parameters) if family.tfp else getattr(tfd, family.name)(**parameters, **integer_events)
    log_prob = base.log_prob(np.asarray(x, np.float64)).numpy()
    return log_prob.sum(axis=-1) if family.scalar else log_prob


def assert_same_density(actual, expected) -> None:
    assert actual.dtype == tf.float32
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=3e-3)


def compiled(layer: DistributionLayer) -> Callable:
    """One XLA program for the layer's draws, their densities, and the gradients of both."""

    @tf.function(jit_compile=True, autograph=False)
    def program(x, seed):
        sources = [x, *layer.trainable_variables]
        with tf.GradientTape() as of_draws:
            of_draws.watch(x)
            # A copy: of the very draw TFP remembers what it was made from, and finds no gradient in z.
            z = tf.identity(posteriors.draw(layer(x), SAMPLES, seed)[0])
        with tf.GradientTape() as of_density:
            of_density.watch([x, z])
            log_prob = layer(x).log_prob(z)
        to_z, *to_sources = of_density.gradient(log_prob, [z, *sources])
        # Any function of z serves: its gradient can reach the parameters by no other way than through the draw.
        through_z = of_draws.gradient(z, sources, to_z + tf.range(1.0, SIZE + 1.0) * (1 - tf.tanh(z) ** 2))
        return z, log_prob, through_z, to_sources

    return program


@every_posterior
def test_posterior(family: Family):
    layer = make_layer(family)
    program = compiled(layer)
    x = features(3)
    z, log_prob = program(x, tf.constant([1, 2]))[:2]
    parameters = parameters_of(layer, family, x)
    check_draws_under_xla(family, program)
    check_densities(family, layer, x, z, log_prob, parameters)
    if family.cdf is not None:
        check_distribution_of_draws(family.cdf(np.asarray(z, np.float64), parameters))
    eager, log_q = posteriors.draw(layer(x), 3, tf.constant([1, 2]))
    assert eager.shape == (3, ROWS, SIZE)
    np.testing.assert_allclose(log_q, layer(x).log_prob(eager), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(eager, posteriors.draw(layer(x), 3, tf.constant([1, 2]))[0])


def check_draws_under_xla(family: Family, program: Callable) -> None:
    """Draws, densities and gradients are finite whatever the seed and the features; every raw parameter moves z."""
    for seed in range(10):
        for spread in SPREADS:
            z, log_prob, through_z, to_sources = program(features(seed, spread), tf.constant([seed, 7]))
            assert z.shape == (SAMPLES, ROWS, SIZE) and log_prob.shape == (SAMPLES, ROWS)
            for value in (z, log_prob, *through_z, *to_sources):
                assert np.isfinite(value).all(), f"{family.name}: not finite at seed {seed}, spread {spread}"
            assert (np.abs(through_z[2]) > 0).all()


def check_densities(family: Family, layer: DistributionLayer, x, z, log_prob, parameters) -> None:
    """log q(z|x) by XLA, eager and graph mode, TFP by hand and SciPy, at draws from q."""
    # Towards an end of the support the last bit of a float32 parameter decides: compare where there are digits.
    inside = np.all(np.abs(z) < 1e3, axis=(-1, -2))
    if family.name in ("Beta", "Kumaraswamy", "Uniform", "Triangular", "TruncatedNormal", "Pareto"):
        inside &= np.all(np.abs(family.cdf(np.asarray(z, np.float64), parameters) - 0.5) < 0.499, axis=(-1, -2))
    z, log_prob = z[inside], log_prob[inside]
    assert len(z) > SAMPLES / 2
    graph = tf.function(lambda x, z: layer(x).log_prob(z), autograph=False)
    by_scipy, by_tfp = (reference(family, z, parameters) for reference in (scipy_log_prob, tfp_log_prob))
    for value in (log_prob, layer(x).log_prob(z), graph(x, z)):
        assert_same_density(value, by_scipy)
        assert_same_density(value, by_tfp)


def check_distribution_of_draws(cdf: np.ndarray) -> None:
    """The cdf of a draw is uniform, in each row; rows and samples share no noise."""
    for row in range(ROWS):
        assert scipy.stats.kstest(cdf[:, row].ravel(), "uniform").pvalue > 1e-4
    assert len(np.unique(cdf[..., 0].round(9))) > 0.99 * SAMPLES * ROWS


@every_likelihood
def test_likelihood(family: Family):
    layer = make_layer(family)
    x = features(3)
    observed = np.broadcast_to(np.float32(family.x), [ROWS, SIZE])
    parameters = parameters_of(layer, family, x)

    def run(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            p = layer(inputs)
            log_prob = p.log_prob(observed)
            total = tf.reduce_sum(log_prob)
        return log_prob, p.mean(), tape.gradient(total, [inputs, *layer.trainable_variables])

    for way in (run, tf.function(run, autograph=False), tf.function(run, autograph=False, jit_compile=True)):
        log_prob, mean, gradients = way(tf.constant(x))
        assert_same_density(log_prob, scipy_log_prob(family, observed, parameters))
        assert_same_density(log_prob, tfp_log_prob(family, observed, parameters))
        np.testing.assert_allclose(mean, family.mean(parameters), rtol=1e-4, atol=1e-5)
        assert all(np.isfinite(g).all() and np.any(g != 0) for g in gradients)
    for spread in SPREADS:
        log_prob, _, gradients = way(tf.constant(features(4, spread)))
        assert all(np.isfinite(value).all() for value in (log_prob, *gradients))


@every_family
def test_mixed_precision(family: Family):
    layer = make_layer(family)
    half = tf.cast(features(3), tf.bfloat16)
    expected = layer(tf.cast(half, tf.float32))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = make_layer(family)
    finally:
        keras.config.set_dtype_policy("float32")
    actual = mixed(half)
    x = family.x or posteriors.draw(expected, 1, tf.constant([0, 1]))[0][0]
    assert actual.dtype == tf.float32 and actual.log_prob(x).dtype == tf.float32
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    # Sums of the same float32 values may end in another last bit; bfloat16 differs by 4e-3.
    np.testing.assert_allclose(actual.log_prob(x), expected.log_prob(x), rtol=1e-6, atol=1e-6)


def prior_for(family: Family) -> priors.Prior | None:
    if family.name == "Dirichlet":
        return priors.Family("Dirichlet", [SIZE], concentration=[1.0, 2.0, 3.0])
    if family.name == "PowerSpherical":
        return priors.Family("SphericalUniform", [SIZE])
    if family.name == "VonMisesFisher":
        return priors.Family("VonMisesFisher", [SIZE], mean_direction=[0.0, 0.6, 0.8], concentration=1.5)
    return None


@every_family
def test_round_trip_in_a_model(family: Family, tmp_path):
    config = make_layer(family).get_config()
    assert DistributionLayer.from_config(config).get_config() == config
    vae = VAE(
        encoder=keras.layers.Dense(WIDTH, "tanh"),
        decoder=keras.layers.Dense(WIDTH, "tanh"),
        posterior=DistributionLayer("Normal", [SIZE]) if family.x else make_layer(family),
        likelihood=make_layer(family) if family.x else DistributionLayer("Normal", [SIZE]),
        prior=None if family.x else prior_for(family),
    )
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.tile(np.float32(family.x or (0.0, 1.0, 2.0)), [ROWS, 1])
    before, after = (model.terms(x, 3, seed=tf.constant([1, 2])) for model in (vae, loaded))
    for name in ("z", "log_likelihood", "log_prior", "log_posterior", "kl"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-6, atol=1e-6, err_msg=name)
        assert np.isfinite(getattr(before, name)).all(), name
    assert after.kl_is_exact == before.kl_is_exact
    np.testing.assert_array_equal(loaded.embed(x), vae.embed(x))


# What DistributionLayer itself promises


def test_fixed_parameters_are_not_learned_and_survive(tmp_path):
    layer = DistributionLayer("Normal", [2, 3], scale=np.full([2, 3], 0.5))
    q = layer(features(0))
    assert layer.projection.kernel.shape == (WIDTH, 6)
    np.testing.assert_array_equal(q.stddev(), np.full([ROWS, 2, 3], 0.5))
    again = DistributionLayer.from_config(layer.get_config())
    np.testing.assert_array_equal(again(features(0)).stddev(), q.stddev())


@pytest.mark.parametrize(
    ("family", "fixed", "same"),
    [
        ("Gamma", {"rate": 2.0}, {"log_rate": np.log(2.0)}),
        ("Bernoulli", {"probs": 0.25}, {"logits": -np.log(3.0)}),
        ("Poisson", {"rate": 2.0}, {"log_rate": np.log(2.0)}),
        ("OneHotCategorical", {}, {}),
    ],
)
def test_either_spelling_may_be_fixed(family, fixed, same):
    x = tf.constant([[1.0, 0.0]] * ROWS)
    kernel = keras.initializers.GlorotUniform(1)
    first, second = (
        DistributionLayer(family, [2], kernel_initializer=kernel, **given)(features(0)) for given in (fixed, same)
    )
    x = x + 0.5 if family == "Gamma" else x
    np.testing.assert_allclose(first.log_prob(x), second.log_prob(x), rtol=1e-5)


def test_everything_fixed_still_has_the_batch_of_the_features():
    q = DistributionLayer("Normal", [2], loc=1.0, scale=2.0)(features(0))
    assert q.batch_shape == (ROWS,) and q.event_shape == (2,)
    assert q.log_prob(np.zeros([ROWS, 2])).shape == (ROWS,)


def test_leading_axes_and_image_events():
    layer = DistributionLayer("Normal", [4, 5, 2])
    x = np.random.default_rng(0).normal(size=[3, 2, 7]).astype(np.float32)
    p = layer(x)
    assert p.batch_shape == (3, 2) and p.event_shape == (4, 5, 2)
    np.testing.assert_allclose(layer(x[1]).mean(), p.mean()[1], atol=1e-6)


def test_features_of_an_image_are_projected_position_by_position():
    layer = DistributionLayer("Normal", [4, 5, 2])
    x = np.random.default_rng(0).normal(size=[3, 4, 5, 7]).astype(np.float32)
    p = layer(x)
    assert layer.projection.kernel.shape == (7, 4)  # two parameters of two channels
    raw = x @ np.asarray(layer.projection.kernel)
    np.testing.assert_allclose(p.mean(), raw[..., :2], atol=1e-5)
    np.testing.assert_allclose(p.stddev(), np.logaddexp(0, raw[..., 2:]), atol=1e-5)


def test_a_draw_stays_inside_an_open_support():
    narrow = DistributionLayer("LogNormal", [2], loc=-200.0)(features(0))
    assert np.isfinite(posteriors.draw(narrow, 50, tf.constant([0, 1]))[1]).all()
    corner = DistributionLayer("Beta", [2], concentration1=0.01)(features(0))
    z, log_q = (value.numpy() for value in posteriors.draw(corner, 50, tf.constant([0, 1])))
    assert z.min() > 0 and z.max() < 1 and np.isfinite(log_q).all()
    np.testing.assert_array_equal(log_q, corner.log_prob(z))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DistributionLayer("Gaussian", [2]), r"Unknown distribution 'Gaussian'.*such as 'Normal'"),
        (lambda: DistributionLayer(dict, [2]), r"Unknown distribution.*registered"),
        (lambda: DistributionLayer("Normal", [2], stddev=1.0), "Normal has no parameter stddev; it accepts loc, scale"),
        (lambda: DistributionLayer("Normal", [2], scale=-1.0), r"scale=-1.0 lies outside its support"),
        (lambda: DistributionLayer("Normal", [2], loc=np.nan), r"loc=nan lies outside its support"),
        (lambda: DistributionLayer("Normal", [2], loc=[1.0, 2.0, 3.0]), r"loc was fixed with shape \(3,\), expected"),
        (lambda: DistributionLayer("Normal", [0]), r"event_shape must hold positive sizes, received \(0,\)"),
        (lambda: DistributionLayer("Uniform", [2], high=1.0), "fixed high needs a fixed low"),
        (lambda: DistributionLayer("Triangular", [2], peak=1.0), "fixed peak needs a fixed low and high"),
        (lambda: DistributionLayer("Uniform", [2], low=1.0, high=0.5), "needs low < high"),
        (lambda: priors.Family("Normal", [2], loc=0.0), "prior Normal needs a value for: scale"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
