"""The generalised extreme value distribution in float32 against SciPy's in float64, whose shape has the other sign."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfvae import DistributionLayer, families

CONCENTRATIONS = [0.0, *(sign * c for c in (1e-8, 1e-6, 1e-4, 1e-2, 0.0299, 0.0301, 0.2, 0.45) for sign in (1, -1))]
X = np.linspace(-3, 9, 25).astype(np.float32)
LOC, SCALE = 0.5, 2.0


def theirs(concentration: float):
    return stats.genextreme(-float(np.float32(concentration)), LOC, SCALE)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_densities_and_moments_are_exact_at_the_limit_and_near_it(concentration):
    p, q = families.GeneralizedExtremeValue(LOC, SCALE, concentration), theirs(concentration)
    np.testing.assert_allclose(p.log_prob(X), q.logpdf(X.astype(np.float64)), rtol=3e-6, atol=2e-6)
    np.testing.assert_allclose(p.cdf(X), q.cdf(X.astype(np.float64)), rtol=1e-5, atol=1e-6)
    # SciPy's own moments lose digits near 0, where Gumbel's and the slopes of these are known.
    if 0 < abs(concentration) < 1e-3:
        q = stats.gumbel_r(LOC, SCALE)
    np.testing.assert_allclose(
        [p.mean(), p.stddev()], [q.mean(), q.std()], rtol=1e-5 + 2 * (abs(concentration) < 1e-3) * abs(concentration)
    )


def test_slopes_are_those_of_differences():
    """At 0 too, where TFP's are of another formula, and near it, where they are noise."""
    concentration = tf.constant(np.array(CONCENTRATIONS, np.float32)[:, None])
    x = X[2:-2]
    with tf.GradientTape() as tape:
        tape.watch(concentration)
        total = tf.reduce_sum(families.GeneralizedExtremeValue(LOC, SCALE, concentration).log_prob(x), axis=1)
        kept = tf.where(tf.math.is_finite(total), total, 0.0)
    slopes = tape.gradient(kept, concentration).numpy()[:, 0]
    for slope, c, is_inside in zip(slopes, CONCENTRATIONS, np.isfinite(total), strict=True):
        up, down = (theirs(c + step).logpdf(x.astype(np.float64)).sum() for step in (1e-3, -1e-3))
        assert np.isfinite(slope)
        if is_inside:
            assert slope == pytest.approx((up - down) / 2e-3, rel=5e-3, abs=0.05)


def test_no_moment_where_there_is_none():
    p = families.GeneralizedExtremeValue(LOC, SCALE, [0.5, 0.99, 1.0, 2.0])
    assert np.isinf(p.stddev()).tolist() == [True] * 4
    assert np.isinf(p.mean()).tolist() == [False, False, True, True]


def test_a_layer_of_features_of_0_has_the_density_of_gumbel():
    layer = DistributionLayer("GeneralizedExtremeValue", [3])
    p = layer(np.zeros([1, 4], np.float32))
    assert p.distribution.concentration.numpy().tolist() == [[0.0] * 3]
    x = np.full([1, 3], -2.0, np.float32)
    gumbel = stats.gumbel_r(p.distribution.loc, p.distribution.scale)
    np.testing.assert_allclose(p.log_prob(x), gumbel.logpdf(x).sum(axis=1), rtol=1e-5)
