"""The vector of an attribute, where it is known, and what is no attribute."""

import numpy as np
import pytest

from tests import linear_gaussian
from tfvae import evaluation


def test_it_recovers_what_the_attribute_adds_to_z():
    """x = z W + b with z shifted by s where the attribute is: the posterior's mean moves by s W K."""
    rng, shift = np.random.default_rng(0), np.array([1.5, -2.0])
    has = rng.random(4000) < 0.3
    z = rng.normal(size=[4000, 2]) + has[:, None] * shift
    x = (z @ linear_gaussian.W + linear_gaussian.LOC + 0.7 * rng.normal(size=[4000, 4])).astype(np.float32)
    expected = shift @ linear_gaussian.W @ linear_gaussian.KERNEL
    for given in (has, has.astype(int), has.astype(np.float32)):
        np.testing.assert_allclose(evaluation.attribute_vector(linear_gaussian.vae(), x, given), expected, atol=0.15)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ([True] * 5, "attribute is True for every row, expected rows of both kinds"),
        ([0] * 5, "attribute is False for every row"),
        ([True, False], r"attribute has shape \(2,\) and dtype bool, expected True or False for each of 5 rows"),
        ([0, 1, 2, 3, 4], r"attribute has shape \(5,\) and dtype int64.*labels == k"),
    ],
)
def test_what_is_no_attribute_is_told(attribute, message):
    with pytest.raises(ValueError, match=message):
        evaluation.attribute_vector(linear_gaussian.vae(), linear_gaussian.rows(5)[0], attribute)
