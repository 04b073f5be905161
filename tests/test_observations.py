"""What observations mean and which of them a likelihood scores, by the facts of its family alone."""

import contextlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import distributions as tfd

import tfvae
from tfvae import DistributionLayer, families, likelihoods, networks, observations

COUNT_FAMILIES = ["Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial", "Skellam"]


def vae_of(family: str, size: int, **fixed) -> tfvae.VAE:
    parts = networks.mlp([8]), networks.mlp([8]), DistributionLayer("Normal", [2])
    return tfvae.VAE(*parts, DistributionLayer(family, [size], **fixed), seed=0)


@pytest.mark.parametrize("family", COUNT_FAMILIES)
def test_uint8_counts_are_the_same_counts_as_floats(family):
    x = np.random.default_rng(0).poisson(4, size=[40, 6]).astype(np.uint8)
    vae, seed = vae_of(family, 6), tf.constant([0, 1])
    np.testing.assert_array_equal(vae.elbo(x, seed=seed), vae.elbo(x.astype(np.float32), seed=seed))
    assert np.max(vae.elbo(x, seed=seed)) < -5  # six counts about 4 cannot cost less than a nat each


@pytest.mark.slow
def test_a_zero_inflated_count_model_trains_alike_on_bytes_and_floats():
    x = np.random.default_rng(0).poisson(4, size=[400, 6]).astype(np.uint8)
    elbos = []
    for kind in ("uint8", "float32"):
        keras.utils.set_random_seed(0)
        vae = vae_of("ZeroInflatedNegativeBinomial", 6)
        vae.compile(jit_compile=False)
        elbos.append(vae.fit(x.astype(kind), epochs=2, verbose=0).history["elbo"])
    np.testing.assert_array_equal(*elbos)


def test_pictures_are_divided_by_255():
    x = np.arange(16, dtype=np.uint8).reshape(2, 8) * 17
    vae, seed = vae_of("Bernoulli", 8), tf.constant([0, 1])
    np.testing.assert_allclose(vae.elbo(x, seed=seed), vae.elbo(x / np.float32(255), seed=seed), rtol=1e-6)


def test_a_family_without_facts_takes_no_bytes():
    @families.register
    class Unheard(tfd.Normal):
        pass

    try:
        vae = vae_of("Unheard", 3)
        assert np.isfinite(vae.elbo(np.ones([2, 3], np.float32))).all()
        with pytest.raises(ValueError, match=r"nothing says whether a Unheard likelihood takes pixels or counts"):
            vae.elbo(np.ones([2, 3], np.uint8))
        families.facts.FACTS["Unheard"] = families.Facts(families.facts.COUNTS)
        assert observations.byte_scale(vae.likelihood) == 1.0
    finally:
        families.facts.FACTS.pop("Unheard", None), families.FAMILIES.pop("Unheard")


OUTSIDE = [
    ("Bernoulli", [0.0, 128.0], "ranges from 0 to 128, but a Bernoulli likelihood scores values in"),
    ("Bernoulli", [0.0, np.nan], "NaN or infinite"),
    ("Normal", [0.0, np.inf], "NaN or infinite"),
    ("Poisson", [-1.0, 2.0], "ranges from -1 to 2, but a Poisson likelihood scores counts 0, 1, 2, ... Undo"),
    ("ZeroInflatedNegativeBinomial", [0.5, 2.0], "holds other than whole numbers, but a Zero"),
    ("Zipf", [0.0, 2.0], "scores counts 1, 2, 3"),
    ("Skellam", [-1.5, 2.0], "scores whole numbers"),
    ("Horseshoe", [0.0, 2.0], "holds 0, but a Horseshoe likelihood scores real values other than 0.*Laplace"),
    ("Beta", [0.0, 0.5], "values above 0 and below 1.*take ContinuousBernoulli or Bernoulli"),
    ("Beta", [0.5, 1.0], "values above 0 and below 1"),
    ("Gamma", [0.0, 0.5], "values above 0. Add a small constant"),
    ("Exponential", [-0.1, 0.5], "values of 0 and more"),
    ("OneHotCategorical", [0.5, 0.5], "holds other than whole numbers.*to_categorical"),
    ("OneHotCategorical", [1.0, 1.0], "is off by 1"),
    ("Dirichlet", [0.5, 0.6], "is off by 0.1.*Divide each row by its sum"),
    ("VonMisesFisher", [0.5, 0.5], "is off by 0.29.*vectors of length 1"),
    ("Gamma", [1e-40, 1.0], "ranges from .* to 1, but a Gamma likelihood scores values above 0. Add a small"),
]
INSIDE = [
    ("Bernoulli", [0.0, 1.0]),
    ("Bernoulli", [0.25, 0.5]),
    ("Normal", [-1e30, 300.0]),
    ("Poisson", [0.0, 1e6]),
    ("Skellam", [-3.0, 2.0]),
    ("Beta", [1e-6, 1 - 1e-6]),
    ("ContinuousBernoulli", [0.0, 1.0]),
    ("Exponential", [0.0, 3.0]),
    ("Gamma", [1e-6, 300.0]),
    ("Horseshoe", [-2.0, 1e-6]),
    ("OneHotCategorical", [0.0, 1.0]),
    ("Dirichlet", [0.3, 0.7]),
    ("VonMisesFisher", [0.6, 0.8]),
]
GOOD = dict(INSIDE) | {"ZeroInflatedNegativeBinomial": [0.0, 2.0], "Zipf": [1.0, 5.0]}


@pytest.mark.parametrize(("family", "x", "message"), OUTSIDE)
def test_what_lies_outside_is_refused_and_mended(family, x, message):
    layer = DistributionLayer(family, [2])
    with pytest.raises(ValueError, match=message):
        observations.check(layer, tf.constant([x, x], tf.float32))


@pytest.mark.parametrize(("family", "x"), INSIDE)
def test_what_lies_inside_passes(family, x):
    layer = DistributionLayer(family, [2])
    observations.check(layer, tf.constant([x, x[::-1]], tf.float32))
    observations.check(layer, tf.zeros([0, 2]))


def test_bytes_are_judged_as_the_model_scales_them():
    pixels = np.array([[0, 255], [7, 9]], np.uint8)
    observations.check(DistributionLayer("Bernoulli", [2]), tf.constant(pixels))
    observations.check(DistributionLayer("Poisson", [2]), tf.constant(pixels))
    with pytest.raises(ValueError, match="ranges from 0 to 1, but a Beta likelihood"):
        observations.check(DistributionLayer("Beta", [2]), tf.constant(pixels))
    observations.check(DistributionLayer("Beta", [2]), tf.constant(np.clip(pixels, 1, 254)))


def test_bytes_of_0_and_1_are_asked_about():
    pixels = tf.constant(np.array([[0, 1], [1, 1]], np.uint8))
    with pytest.raises(ValueError, match=r"nothing but 0 and 1.*astype\('float32'\)"):
        observations.check(DistributionLayer("Bernoulli", [2]), pixels)
    observations.check(DistributionLayer("Poisson", [2]), pixels)
    observations.check(DistributionLayer("Bernoulli", [2]), tf.zeros_like(pixels))


@pytest.mark.parametrize(("family", "x", "message"), [OUTSIDE[k] for k in (1, 4, 7, 12)])
def test_a_program_finds_what_memory_shows(family, x, message):
    """Measured batch by batch inside a program, judged once from the elementwise maximum."""
    layer, good = DistributionLayer(family, [2]), GOOD[family]
    measured = tf.function(lambda x: observations.extent(layer, x), jit_compile=True)
    extents = np.stack([measured(tf.constant([row], tf.float32)) for row in (good, x, good)])
    assert observations.complaint(layer, extents[0]) is None
    assert re.search(message, observations.complaint(layer, np.max(extents, axis=0)))


def test_binarising_needs_a_family_of_0_and_1():
    with pytest.raises(ValueError, match="which a Beta likelihood does not score"):
        tfvae.VAE(
            networks.mlp([4]), networks.mlp([4]), DistributionLayer("Normal", [2]), DistributionLayer("Beta", [3]),
            noise=observations.Binarized(),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "fixed", "good", "bad"),
    [
        ("Binomial", {"total_count": [3.0, 5.0]}, [[3.0, 5.0]], [[4.0, 4.0]]),
        ("BetaBinomial", {"total_count": 3}, [[0.0, 3.0]], [[0.0, 4.0]]),
        ("Multinomial", {"total_count": 3}, [[1.0, 2.0]], [[1.0, 1.0]]),
        ("DirichletMultinomial", {"total_count": 3}, [[0.0, 3.0]], [[3.0, 3.0]]),
        ("Categorical", {"num_classes": 4}, [[0.0, 3.0]], [[0.0, 4.0]]),
        ("OrderedLogistic", {"num_classes": 4}, [[0.0, 3.0]], [[0.5, 1.0]]),
    ],
)
def test_what_the_user_fixed_bounds_the_observations(family, fixed, good, bad):
    layer = DistributionLayer(family, [2], **fixed)
    observations.check(layer, tf.constant(good))
    with pytest.raises(ValueError, match=f"but a {family} likelihood scores"):
        observations.check(layer, tf.constant(bad))
    assert observations.byte_scale(layer) == 1.0


# Noise


def test_dequantised_levels_fill_their_cells_evenly():
    levels = np.repeat(np.arange(256), 400)
    x = observations.Dequantized()(tf.constant(levels[None] / 255, tf.float32), tf.constant([1, 2])).numpy()[0] * 256
    within = x - levels
    assert within.min() >= 0 and within.max() < 1
    assert stats.kstest(within, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("noise", [observations.Binarized(), observations.Dequantized()])
def test_noise_is_saved_with_its_model_and_new_for_each_seed(noise):
    config = keras.saving.serialize_keras_object(noise)
    again = keras.saving.deserialize_keras_object(config)
    x = tf.fill([3, 50], 0.5)
    first, other = (again(x, tf.constant([0, seed])).numpy() for seed in (1, 2))
    np.testing.assert_array_equal(first, noise(x, tf.constant([0, 1])))
    assert np.any(first != other)


@pytest.mark.parametrize("family", ["Bernoulli", "Poisson", "OneHotCategorical"])
def test_dequantised_levels_need_a_density(family):
    with pytest.raises(ValueError, match=f"but a {family} likelihood scores whole ones or levels"):
        observations.Dequantized().check(DistributionLayer(family, [3]))


def test_a_uniform_density_of_dequantised_levels_is_a_bit_for_each():
    """log p(b) = log p((b + u) / 256) - D log 256 exactly where the density is flat."""
    layer = DistributionLayer("Uniform", [4], low=0.0, high=1.0)
    x = observations.Dequantized()(tf.constant([[0.0, 0.2, 0.8, 1.0]]), tf.constant([3, 4]))
    assert float(layer(tf.zeros([1, 2])).log_prob(x)[0]) - 4 * np.log(256) == pytest.approx(-4 * np.log(256))


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf"), 1.5, -0.25])
def test_what_lies_in_the_last_of_many_blocks_is_seen_in_memory_as_in_a_program(wrong):
    layer = DistributionLayer("Bernoulli", [784])
    x = np.random.default_rng(0).random([1000, 784], np.float32)
    if wrong is not None:
        x[-1, -1] = wrong
    problem = observations.complaint(layer, observations.extent(layer, tf.constant(x)).numpy().tolist())
    assert (problem is None) == (wrong is None)
    with pytest.raises(ValueError, match="^" + re.escape(problem)) if problem else contextlib.nullcontext():
        observations.check(layer, tf.constant(x))


def test_a_single_grey_among_black_and_white_bytes_answers_what_white_is():
    x = np.random.default_rng(0).integers(0, 2, [1000, 784], np.uint8)
    layer = DistributionLayer("Bernoulli", [784])
    with pytest.raises(ValueError, match="nothing but 0 and 1"):
        observations.check(layer, tf.constant(x))
    x[-1, -1] = 2
    observations.check(layer, tf.constant(x))


@pytest.mark.parametrize("fixed", [{}, {"low": -2.0, "high": 3.0}, {"loc": 2.0}, {"scale": 2.0}, {"total_count": 3.0}])
def test_examples_lie_in_the_support_of_every_family(fixed):
    judged = 0
    for name, known in families.facts.FACTS.items():
        setting = {} if known.setting in (None, "dimension") else {known.setting: 4}
        try:
            layer = DistributionLayer(name, [4], **setting, **fixed)
        except (ValueError, NotImplementedError):  # it has no such parameter
            continue
        x, judged = observations.examples(layer, 8), judged + 1
        assert x.any() and x.shape == (8, 4) and x.dtype == np.float32
        assert observations.complaint(layer, observations.extent(layer, tf.constant(x)).numpy()) is None, (name, fixed)
    assert judged > (0 if fixed else 60)


@pytest.mark.parametrize("family", ["Bernoulli", "Poisson", "Beta", "Normal", "Exponential"])
@pytest.mark.parametrize("value", [-0.0, 0.5, 1.0, 1.0000001, -1.0, np.inf, np.nan, 2.0**24])
def test_a_glance_leaves_no_complaint_out(family, value):
    """What a stream is judged by, one pass over values that fit, beside all that there is to know of them."""
    layer = DistributionLayer(family, [2])
    good = np.ones([4, 2], np.float32) if family == "Poisson" else np.full([4, 2], 0.25, np.float32)
    bad = good.copy()
    bad[2, 1] = value
    for x in (bad, np.array([[0, 1]], np.uint8), np.array([[0, 9]], np.uint8), np.zeros([0, 2], np.float32)):
        x = tf.constant(x)
        short, whole = (measure(layer, x).numpy() for measure in (observations.measured, observations.extent))
        assert observations.complaint(layer, short) == observations.complaint(layer, whole)
    both = np.maximum(*(observations.measured(layer, tf.constant(x)).numpy() for x in (good, bad)))
    assert (observations.complaint(layer, both) is None) == (
        observations.complaint(layer, observations.extent(layer, tf.constant(bad)).numpy()) is None
    )


@pytest.mark.parametrize(
    ("low", "high", "wrong"),
    [(0.0, 1.0, None), (-0.4, 1.4, None), (0.0, 255.0, "0 to 255"), (-1.0, 1.0, "-1 to 1"), (-0.4, 2.8, "-0.4 to 2.8")],
)
@pytest.mark.parametrize("missing", [False, True])
def test_what_a_mean_between_two_ends_cannot_reach_is_refused(low, high, wrong, missing):
    """Grey values with some noise pass; floats of 0 to 255, of -1 to 1 and standardized ones do not."""
    layer = likelihoods.sigmoid_normal([2])
    layer = likelihoods.missing(layer) if missing else layer
    x = np.float32([[low, high], [0.5, np.nan if missing else 0.5]])
    program = tf.function(lambda x: observations.measured(layer, x))
    said = observations.complaint(layer, program(x).numpy())
    if wrong is None:
        observations.check(layer, tf.constant(x))
        assert said is None
        return
    message = f"x ranges from {wrong}, but the mean of this Normal.*from -0.5 to 1.5.*Pass uint8 images as they are"
    assert re.match(message, said)
    with pytest.raises(ValueError, match=message):
        observations.check(layer, tf.constant(x))


def test_a_mean_is_held_to_the_users_own_ends_and_heavy_tails_to_none():
    held = DistributionLayer("Laplace", [2], constraints={"loc": (100.0, 200.0)})
    assert held.reach == (50.0, 250.0)
    observations.check(held, tf.constant(observations.examples(held, 5)))
    for x in (tf.constant([[40.0, 100.0]]), tf.constant([[40, 100]], tf.uint8)):
        with pytest.raises(ValueError, match="from 50 to 250"):
            observations.check(held, x)
    for layer in (
        DistributionLayer("StudentT", [2], constraints={"loc": (0.0, 1.0)}),
        DistributionLayer("Normal", [2], constraints={"loc": "softplus"}),
    ):
        observations.check(layer, tf.constant([[-50.0, 300.0]]))
