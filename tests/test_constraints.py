"""``constraints``: the parameterisations of appendix C and their errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import DistributionLayer, divergences, likelihoods

MAPS = {
    "identity": lambda raw: raw,
    "sigmoid": lambda raw: 1 / (1 + np.exp(-raw)),
    "softplus": lambda raw: np.logaddexp(0, raw),
    "exp": np.exp,
    "log_variance": lambda raw: np.exp(raw / 2),
}


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=[6, 4]).astype(np.float32)


def raw_of(layer: DistributionLayer, features: np.ndarray) -> list[np.ndarray]:
    """The projection of the features, for each of two parameters."""
    return np.split(np.asarray(layer.projection(features), np.float64), 2, axis=-1)


@pytest.mark.parametrize("name", ["softplus", "exp", "log_variance"])
def test_a_scale_is_the_named_map_of_its_raw_number(name, features):
    layer = DistributionLayer("Normal", [3], constraints={"scale": name}, kernel_initializer="orthogonal")
    normal = layer(features).distribution
    loc, raw = raw_of(layer, features)
    np.testing.assert_allclose(normal.scale, MAPS[name](raw), rtol=1e-5)
    np.testing.assert_allclose(normal.loc, loc, rtol=1e-6)


@pytest.mark.parametrize("name", ["identity", "sigmoid", "exp"])
def test_a_mean_is_the_named_map_of_its_raw_number(name, features):
    layer = DistributionLayer("Normal", [3], constraints={"loc": name})
    normal, (raw, _) = layer(features).distribution, raw_of(layer, features)
    np.testing.assert_allclose(normal.loc, MAPS[name](raw), rtol=1e-5)


def test_the_gaussian_of_appendix_c(features):
    layer = likelihoods.sigmoid_normal([2, 3])
    p = layer(5 * features)
    mean = p.mean().numpy()
    assert p.event_shape == [2, 3]
    assert ((mean > 0) & (mean < 1)).all()
    loc, log_variance = (raw.reshape(6, 2, 3) for raw in raw_of(layer, 5 * features))
    np.testing.assert_allclose(mean, MAPS["sigmoid"](loc), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(p.variance(), np.exp(log_variance), rtol=1e-4)
    # log N(x; μ, σ²) = -½ Σ (log 2π + log σ² + (x - μ)² / σ²)
    x = np.random.default_rng(1).uniform(size=[6, 2, 3])
    expected = -0.5 * (np.log(2 * np.pi) + log_variance + (x - mean) ** 2 / np.exp(log_variance)).sum(axis=(1, 2))
    np.testing.assert_allclose(p.log_prob(x.astype(np.float32)), expected, rtol=1e-4)


def test_a_constraint_has_a_gradient(features):
    layer = likelihoods.sigmoid_normal([3])
    layer(features)
    with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(layer(features).log_prob(tf.fill([6, 3], 0.3)))
    loc, log_variance = raw_of(layer, features)
    mean, variance = MAPS["sigmoid"](loc), np.exp(log_variance)
    by_loc = (0.3 - mean) / variance * mean * (1 - mean)
    by_log_variance = -0.5 + 0.5 * (0.3 - mean) ** 2 / variance
    expected = np.concatenate([by_loc, by_log_variance], axis=-1).sum(axis=0)
    np.testing.assert_allclose(tape.gradient(log_prob, layer.projection.bias), expected, rtol=1e-4, atol=1e-5)


def test_it_round_trips(features):
    layer = likelihoods.sigmoid_normal([3])
    assert layer.get_config()["constraints"] == {"loc": "sigmoid", "scale": "log_variance"}
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    layer(features), other(features)
    other.set_weights(layer.get_weights())
    x = np.full([6, 3], 0.4, np.float32)
    np.testing.assert_array_equal(other(features).log_prob(x), layer(features).log_prob(x))
    assert other.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("family", "event", "more", "message"),
    [
        ("Normal", [3], {"constraints": {"rate": "exp"}}, "Normal has no free parameter rate to constrain"),
        ("Normal", [3], {"constraints": {"scale": "exp"}, "scale": 1.0}, "no free parameter scale"),
        ("Bernoulli", [3], {"constraints": {"probs": "sigmoid"}}, "no free parameter probs to constrain; free: logits"),
        ("Normal", [3], {"constraints": {"scale": "square"}}, "scale cannot be constrained by 'square': expected one"),
        ("Normal", [3], {"constraints": {"scale": (2.0, 1.0)}}, r"cannot be constrained by \[2.0, 1.0\]: .*low < high"),
        ("Normal", [3], {"constraints": {"scale": (-1.0, 1.0)}}, "scale=-1.0 lies outside its support"),
        ("MultivariateNormalTriL", [3], {"constraints": {"scale_tril": "exp"}}, "constrained number by number"),
    ],
)
def test_errors_name_what_is_wrong(family, event, more, message):
    with pytest.raises(ValueError, match=message):
        DistributionLayer(family, event, **more)


def test_a_scale_within_a_range_holds_the_kl_above_its_floor():
    """δ-VAE (Razavi et al., arXiv 1901.03416): KL(N(μ, σ²)‖N(0, 1)) ≥ ½ (s² - 1 - log s²) a unit where σ ≤ s < 1."""
    low, high = 0.1, 0.8
    layer = DistributionLayer("Normal", [3], constraints={"scale": (low, high)})
    q = layer(100.0 * np.random.default_rng(0).normal(size=[200, 4]).astype(np.float32))
    scale = q.stddev().numpy()
    assert low - 1e-6 <= scale.min() < low + 1e-3 and high - 1e-3 < scale.max() <= high + 1e-6
    kl = divergences.closed_form_kl(q, tfd.Independent(tfd.Normal(tf.zeros([3]), 1.0), 1)).numpy()
    floor = 1.5 * (high**2 - 1 - np.log(high**2))
    assert floor == pytest.approx(0.12943, abs=1e-4) and (kl >= floor - 1e-5).all()
    layer.projection.set_weights([np.zeros([4, 6], np.float32), np.float32([0, 0, 0, 50, 50, 50])])
    nearest = layer(np.ones([1, 4], np.float32))
    kl = divergences.closed_form_kl(nearest, tfd.Independent(tfd.Normal(tf.zeros([3]), 1.0), 1))
    np.testing.assert_allclose(kl, floor, rtol=1e-4)  # it is reached, by q that ignores x


def test_a_range_is_a_sigmoid_and_round_trips(features):
    layer = DistributionLayer("Normal", [3], constraints={"scale": (0.5, 2.0), "loc": [-1, 1]})
    normal, (loc, raw) = layer(features).distribution, raw_of(layer, features)
    np.testing.assert_allclose(normal.scale, 0.5 + 1.5 * MAPS["sigmoid"](raw), rtol=1e-5)
    np.testing.assert_allclose(normal.loc, -1 + 2 * MAPS["sigmoid"](loc), rtol=1e-5, atol=1e-6)
    assert layer.get_config()["constraints"] == {"scale": [0.5, 2.0], "loc": [-1, 1]}
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert other.get_config() == layer.get_config()
