"""Every family for events of every kind: it scores them, one number a row, or is refused in our own words."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.families.test_every_name import BUILT, NEEDED
from tfvae import DistributionLayer, families, priors
from tfvae.families.facts import FACTS, REAL, Facts

EVENTS = [], [1], [3], [2, 3], [2, 2, 3], [2, 2]
X = np.random.default_rng(0).normal(size=[5, 4]).astype(np.float32)
WITHOUT = {
    **{name: [[]] for name in BUILT if FACTS[name].axes[0] == 1},
    **{name: [[], [1]] for name in ("Dirichlet", "PowerSpherical", "VonMisesFisher")},
    **{name: [[], [2, 3], [2, 2, 3], [2, 2]] for name in ("PlanarFlow", "SylvesterFlow", "SphericalUniform")},
}


@pytest.mark.parametrize("name", BUILT)
def test_a_family_without_such_an_event_is_refused_where_the_layer_is_made(name):
    for event_shape in WITHOUT.get(name, []):
        with pytest.raises(ValueError, match=rf"event_shape is \[.*\], expected .*axis.* for {name}, a family of vec"):
            DistributionLayer(name, event_shape, **NEEDED.get(name, {}))
    with pytest.raises(ValueError, match=r"event_shape must hold positive sizes, received \(0,\)"):
        DistributionLayer(name, [0], **NEEDED.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_every_other_event_has_a_density_a_row(name):
    for event_shape in (shape for shape in EVENTS if shape not in WITHOUT.get(name, [])):
        p = DistributionLayer(name, event_shape, **NEEDED.get(name, {}))(X)
        assert p.batch_shape == [5] and p.event_shape == event_shape
        for seed in ([1, 2], 1)[: 1 + (event_shape == [3])]:
            x = FACTS[name].support.inside(tf.cast(p.sample(seed=seed), tf.float32))
            log_prob = p.log_prob(x)
            assert x.shape == [5, *event_shape] and log_prob.shape == [5] and np.isfinite(log_prob).all()


def test_a_prior_is_refused_as_a_layer_is():
    with pytest.raises(
        ValueError, match=r"event_shape is \[1\], expected a last axis of 2 or more for Dirichlet, a fa"
    ):
        priors.Family("Dirichlet", [1], concentration=2.0)
    with pytest.raises(ValueError, match=r"event_shape is \[2, 3\], expected 1 axis for SphericalUniform"):
        priors.Family("SphericalUniform", [2, 3])


@pytest.mark.parametrize("facts", [None, Facts(REAL)])
def test_a_family_of_one_s_own_of_which_nothing_says_so_is_refused_where_it_is_called(facts):
    """Without an axis it would sum over the rows of a batch."""

    class Vectors(tfd.MultivariateNormalDiag):
        @classmethod
        def _parameter_properties(cls, dtype, num_classes=None):
            return super()._parameter_properties(dtype, num_classes)

    families.register(Vectors, facts)
    try:
        layer = DistributionLayer("Vectors", [])
        with pytest.raises(
            ValueError, match=r"event_shape is \[\], expected at least 1 axis for Vectors, a family of v"
        ):
            layer(X)
    finally:
        families.FAMILIES.pop("Vectors")
        FACTS.pop("Vectors", None)
