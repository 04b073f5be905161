"""Every name of ``tfp.distributions``: built by a DistributionLayer, or refused in our own words."""

from collections.abc import Iterable

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import DistributionLayer, families
from tfvae.families import draws
from tfvae.families.refused import REFUSED

NAMES = sorted(
    name
    for name in dir(tfd)
    if isinstance(getattr(tfd, name), type) and issubclass(getattr(tfd, name), tfd.Distribution)
)
NEEDED = {
    "Binomial": {"total_count": 9},
    "BetaBinomial": {"total_count": 9},
    "Multinomial": {"total_count": 5},
    "DirichletMultinomial": {"total_count": 5},
    "Categorical": {"num_classes": 4},
    "OrderedLogistic": {"num_classes": 4},
    "MultivariateNormalDiagPlusLowRankCovariance": {"rank": 2},
    "NormalMixture": {"num_components": 2},
    "StratifiedNormalMixture": {"num_components": 2},
    "DiscretizedLogisticMixture": {"num_components": 2},
    "Erlang": {"num_stages": 3},
    "PlanarFlow": {"num_flows": 2},
    "SylvesterFlow": {"num_flows": 2},
}
HEAVY = (
    "GeneralizedPareto",
    "GeneralizedExtremeValue",
)  # no mean where the concentration exceeds 1, and no mode in TFP
BUILT = sorted({*families.FAMILIES, *(name for name in NAMES if name not in REFUSED)})
X = np.random.default_rng(0).normal(size=[3, 4]).astype(np.float32)


def test_every_name_is_built_or_refused_and_known():
    assert _ours(families.facts.FACTS) == set(BUILT)
    assert len(BUILT) + len(REFUSED) == len({*NAMES, *_ours(families.FAMILIES)})


def _ours(names: Iterable[str]) -> set[str]:
    """Those of the package; the example of ``families.register`` adds one where it ran in this process before."""
    return set(names) - {"HalfUnit"}


@pytest.mark.parametrize("name", BUILT)
def test_a_built_family_has_draws_densities_gradients_means_and_a_config(name):
    kernel = keras.initializers.GlorotUniform(seed=1)
    layer = DistributionLayer(name, [3], kernel_initializer=kernel, **NEEDED.get(name, {}))
    p = layer(X)
    assert p.batch_shape == [3] and p.event_shape == [3]
    x = layer.facts.support.inside(tf.cast(p.sample(seed=[1, 2]), tf.float32))
    with tf.GradientTape() as tape:
        log_prob = layer(X).log_prob(x)
    assert log_prob.shape == [3] and np.isfinite(log_prob).all()
    assert all(np.isfinite(g).all() for g in tape.gradient(log_prob, layer.trainable_variables))
    assert draws.mean(p).shape == [3, 3] and (name in HEAVY or np.isfinite(draws.mean(p)).all())
    other = DistributionLayer.from_config(layer.get_config())
    other(X)
    other.set_weights(layer.get_weights())
    np.testing.assert_array_equal(other(X).log_prob(x), log_prob)


@pytest.mark.parametrize("name", [name for name in BUILT if families.facts.FACTS[name].has_mean])
def test_a_mean_that_always_exists_asks_for_no_mode(name, monkeypatch):
    layer = DistributionLayer(name, [3], **NEEDED.get(name, {}))
    found = {scale: layer(scale * X) for scale in (1, 20)}
    assert all(np.isfinite(p.mean()).all() for p in found.values())

    def refuse(self, *args, **kwargs):
        raise AssertionError("a mode was computed")

    for kind in (tfd.Independent, layer.family):
        monkeypatch.setattr(kind, "_mode", refuse)
    for p in found.values():
        np.testing.assert_array_equal(draws.mean(p), p.mean())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_name_says_why_and_what_to_take(name):
    for given in (name, getattr(tfd, name)):
        with pytest.raises(ValueError, match=rf"does not build {name}: .*\. Instead, \w+"):
            DistributionLayer(given, [3])


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("Binomial", {}, r"Binomial needs a fixed total_count, for no gradient.*total_count=10"),
        ("Binomial", {"total_count": 2.5}, "no whole number of 1 or more"),
        ("Multinomial", {"shared": ["total_count"]}, "needs a fixed total_count"),
        (
            "Categorical",
            {},
            r"Categorical needs num_classes=, .*received None: DistributionLayer\('Categorical', \[3\]",
        ),
        ("OrderedLogistic", {"num_classes": 2.5}, "a whole number of 1 or more, received 2.5"),
        ("MultivariateNormalDiagPlusLowRankCovariance", {}, "needs rank="),
    ],
)
def test_what_a_family_needs_is_asked_for(name, more, message):
    with pytest.raises(ValueError, match=message):
        DistributionLayer(name, [3], **more)


def test_a_class_without_parameters_is_told_to_state_them():
    class Silent(tfd.Distribution):
        pass

    families.register(Silent)
    try:
        with pytest.raises(ValueError, match="Silent states no parameters: define"):
            DistributionLayer("Silent", [3])
    finally:
        families.FAMILIES.pop("Silent")
