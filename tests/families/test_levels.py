"""Levels against log F in float64, sums over all of them, central differences and draws."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from tfvae import VAE, DistributionLayer, evaluation, families, likelihoods, networks, posteriors

N = 100_000
STEPS = 255
LOGISTIC, NORMAL = families.DiscretizedLogistic, families.DiscretizedNormal


def truth(log_cdf, k: int, loc: float, scale: float, steps: int = STEPS) -> float:
    """log [F(x + h) - F(x - h)] of a symmetric F in float64, in the tail where log F has digits."""
    low, high = ((np.array([k - 0.5, k + 0.5]) / steps) - loc) / scale
    if k in (0, steps):
        return float(log_cdf(high if k == 0 else -low))
    if low + high > 0:
        low, high = -high, -low
    return float(log_cdf(high) + np.log(-np.expm1(log_cdf(low) - log_cdf(high))))


CASES = [(LOGISTIC, special.log_expit), (NORMAL, special.log_ndtr)]


@pytest.mark.parametrize(("family", "log_cdf"), CASES)
@pytest.mark.parametrize("loc", [0.3, 0.999, -0.5])
@pytest.mark.parametrize("scale", [5.0, 0.1, 0.004, 0.5 * np.exp(-7)])
def test_probabilities_are_exact_in_both_tails_and_sum_to_1(family, log_cdf, loc, scale):
    loc, scale = np.float32(loc), np.float32(scale)
    log_probs = family(loc, scale).log_prob(np.arange(256, dtype=np.float32) / STEPS).numpy().astype(np.float64)
    assert abs(np.exp(log_probs).sum() - 1) < 2e-5
    for k in (0, 1, 60, 76, 77, 128, 254, 255):
        expected = truth(log_cdf, k, float(loc), float(scale))
        assert abs(log_probs[k] - expected) < 5e-5 * max(1.0, abs(expected)), k


@pytest.mark.parametrize(("family", "log_cdf"), CASES)
def test_gradients_are_those_of_central_differences_under_xla_too(family, log_cdf):
    locs, scales, levels = np.float32([0.2, 0.31, 0.9, 1.4]), np.float32([0.05, 0.6, 0.01, 0.2]), [0, 76, 255, 100]

    @tf.function(jit_compile=True, autograph=False)
    def slopes(loc, scale):
        with tf.GradientTape() as tape:
            tape.watch([loc, scale])
            log_probs = family(loc, scale).log_prob(tf.constant(levels, tf.float32) / STEPS)
        return tape.gradient(log_probs, [loc, scale])

    by_loc, by_scale = slopes(tf.constant(locs), tf.constant(scales))
    for i, (k, loc, scale) in enumerate(zip(levels, locs.tolist(), scales.tolist(), strict=True)):
        step = 1e-5 * scale
        of_loc = (truth(log_cdf, k, loc + step, scale) - truth(log_cdf, k, loc - step, scale)) / (2 * step)
        of_scale = (truth(log_cdf, k, loc, scale + step) - truth(log_cdf, k, loc, scale - step)) / (2 * step)
        np.testing.assert_allclose([by_loc[i], by_scale[i]], [of_loc, of_scale], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", [LOGISTIC, NORMAL])
def test_no_gradient_is_infinite_however_far_x_is(family):
    x, scales = np.arange(256, dtype=np.float32) / STEPS, np.float32([4.6e-4, 0.02, 1.0, 1e4])[:, None]
    loc, scale = tf.constant([[-30.0]] * 4), tf.constant(scales)
    with tf.GradientTape() as tape:
        tape.watch([loc, scale])
        log_probs = family(loc, scale).log_prob(x)
    assert all(np.isfinite(value).all() for value in (log_probs, *tape.gradient(log_probs, [loc, scale])))


@pytest.mark.parametrize("family", [LOGISTIC, NORMAL])
def test_moments_and_draws_are_those_of_the_probabilities(family):
    loc, scale = np.float32([0.02, 0.5, 0.9]), np.float32([0.3, 0.001, 0.1])
    p = family(loc, scale)
    x = np.arange(256)[:, None] / STEPS
    probs = p.prob(x.astype(np.float32)).numpy().astype(np.float64)
    mean = (probs * x).sum(axis=0)
    np.testing.assert_allclose(p.mean(), mean, atol=2e-5)
    np.testing.assert_allclose(p.stddev(), np.sqrt((probs * (x - mean) ** 2).sum(axis=0)), rtol=1e-3)
    levels = np.rint(p.sample(N, seed=[1, 2]).numpy() * STEPS).astype(int)
    for i in range(3):
        assert_drawn(np.bincount(levels[:, i], minlength=256), probs[:, i])


def assert_drawn(counts: np.ndarray, probs: np.ndarray) -> None:
    often = probs * counts.sum() > 5
    assert counts[~often].sum() <= 20 + 2 * probs[~often].sum() * counts.sum()
    expected = probs[often] / probs[often].sum() * counts[often].sum()
    assert often.sum() < 2 or stats.chisquare(counts[often], expected).pvalue > 1e-3


def pixel(num_components: int, channels: int, num_levels: int = 4) -> families.DiscretizedLogisticMixture:
    rng = np.random.default_rng(num_components)
    shapes = {"loc": [channels, num_components], "scale": [channels, num_components]}
    shapes["coefficients"] = [channels * (channels - 1) // 2, num_components]
    values = {name: rng.uniform(0.1, 0.9, shape).astype(np.float32) for name, shape in shapes.items()}
    return families.DiscretizedLogisticMixture(
        rng.normal(size=num_components).astype(np.float32), **values, num_levels=num_levels
    )


def test_a_mixture_is_the_sum_over_components_of_products_over_channels():
    p = pixel(3, 3)
    logits, loc, scale, coefficients = (
        p.parameters[name].numpy().astype(np.float64) for name in ("logits", "loc", "scale", "coefficients")
    )
    pixels = list(itertools.product(range(4), repeat=3))
    probs = p.prob(np.float32(pixels) / 3).numpy()
    assert abs(probs.sum() - 1) < 1e-5
    for (r, g, b), found in zip(pixels[::7], probs[::7], strict=True):
        y = np.array([r, g, b]) / 3 - 0.5
        expected = 0.0
        for k, weight in enumerate(special.softmax(logits)):
            red, green, blue = coefficients[:, k]
            locs = loc[:, k] + [0, red * y[0], green * y[0] + blue * y[1]]
            expected += weight * np.exp(
                sum(truth(special.log_expit, *of, 3) for of in zip((r, g, b), locs, scale[:, k], strict=True))
            )
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    drawn = np.rint(p.sample(N, seed=[3, 4]).numpy() * 3).astype(int)
    assert_drawn(np.bincount(drawn @ [16, 4, 1], minlength=64), probs.astype(np.float64))


def test_one_component_of_one_channel_is_a_discretised_logistic():
    p = pixel(1, 1, 256)
    loc, scale = (p.parameters[name][0, 0] for name in ("loc", "scale"))
    x = np.arange(256, dtype=np.float32)[:, None] / STEPS
    np.testing.assert_allclose(p.log_prob(x), LOGISTIC(loc, scale).log_prob(x[:, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(p.mean(), [LOGISTIC(loc, scale).mean()], rtol=1e-6)


def test_the_mean_of_a_mixture_is_the_mean_of_its_draws_where_no_end_is_near():
    p = families.DiscretizedLogisticMixture(
        [0.3, -0.4], [[0.4, 0.5], [0.5, 0.4]], [[0.02, 0.03], [0.03, 0.02]], [[0.5, -0.5]]
    )
    drawn = p.sample(N, seed=[5, 6]).numpy()
    assert np.all(np.abs(drawn.mean(axis=0) - p.mean()) < 5 * drawn.std(axis=0) / np.sqrt(N))


@pytest.mark.parametrize(
    "likelihood", [likelihoods.discretized_logistic([2, 2, 3]), likelihoods.discretized_logistic_mixture([2, 2, 3], 2)]
)
def test_a_model_of_bytes_has_bits_per_dimension(likelihood):
    vae = VAE(networks.mlp([8]), networks.mlp([8]), posteriors.diagonal_normal(2), likelihood, seed=0)
    vae.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    x = np.random.default_rng(0).integers(90, 110, [64, 2, 2, 3]).astype(np.uint8)
    elbo = vae.fit(x, epochs=20, batch_size=32, verbose=0).history["elbo"]
    assert elbo[-1] > elbo[0] + 5 and evaluation.level_width(vae) == 1.0
    np.testing.assert_allclose(vae.elbo(x, seed=1), vae.elbo(x.astype(np.float32) / STEPS, seed=[0, 1]), rtol=1e-5)
    drawn = STEPS * vae.decode(np.zeros([5, 2], np.float32)).sample(seed=[1, 2]).numpy()
    np.testing.assert_allclose(drawn, np.round(drawn), atol=1e-4)


def test_floats_that_are_no_levels_are_refused():
    vae = VAE(
        networks.mlp([8]), networks.mlp([8]), posteriors.diagonal_normal(2), likelihoods.discretized_logistic([3])
    )
    for x in (np.full([4, 3], 0.3), np.array([[0.0, 1.0, 0.5]]) / STEPS):
        with pytest.raises(
            ValueError, match="holds other than levels, but a DiscretizedLogistic likelihood scores levels"
        ):
            vae.elbo(x.astype(np.float32))
    with pytest.raises(ValueError, match="ranges from 0 to 255"):
        vae.elbo(np.float32([[0, 128, 255]]))
    assert DistributionLayer("DiscretizedNormal", [3]).facts.support.is_level
