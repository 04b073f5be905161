"""KL of each unit against the closed form, and bits per dimension against a uniform density and a uniform mass."""

import numpy as np
import pytest

from tests import linear_gaussian
from tfvae import VAE, DistributionLayer, evaluation, likelihoods, networks, observations, posteriors


@pytest.mark.parametrize("conditional", [False, True])
def test_kl_of_each_unit_is_the_closed_form(conditional):
    vae = linear_gaussian.vae(conditional, wider=1.3, shift=0.4)
    x, c = linear_gaussian.rows(50)
    rows = {"x": x, "condition": c} if conditional else x
    mean = (x - linear_gaussian.Exact(conditional).mean(c)) @ linear_gaussian.KERNEL + 0.4
    variance = 1.3**2 * linear_gaussian.VARIANCE
    exact = 0.5 * (variance + mean**2 - 1 - np.log(variance)).mean(axis=0)
    np.testing.assert_allclose(evaluation.kl_by_unit(vae, rows), exact, rtol=1e-4)


def test_a_uniform_picture_has_eight_bits():
    assert evaluation.bits_per_dimension(0.0, [3, 5], bin_width=1 / 256) == pytest.approx(8.0, abs=1e-12)
    assert evaluation.bits_per_dimension(-15 * np.log(256), [3, 5]) == pytest.approx(8.0, abs=1e-12)
    layer = DistributionLayer("Categorical", [3, 5], num_classes=256, kernel_initializer="zeros")
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), layer, seed=0)
    x = np.random.default_rng(0).integers(0, 256, [4, 3, 5], dtype=np.uint8)
    nats = vae.decode(np.zeros([4, 2])).log_prob(x.astype(np.float32)).numpy()
    bits = evaluation.bits_per_dimension(nats, vae.event_shape, evaluation.level_width(vae))
    np.testing.assert_allclose(bits, 8.0, rtol=1e-6)


@pytest.mark.parametrize("likelihood", [likelihoods.bernoulli([4]), likelihoods.sigmoid_normal([4])])
def test_what_is_no_level_has_no_bits(likelihood):
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    with pytest.raises(ValueError, match=r"scores no 8-bit levels.*Dequantized"):
        evaluation.level_width(vae)


def test_a_density_of_dequantized_levels_has_their_width():
    parts = posteriors.diagonal_normal(2), likelihoods.sigmoid_normal([4])
    vae = VAE(networks.mlp([4]), networks.mlp([4]), *parts, noise=observations.Dequantized(), seed=0)
    assert evaluation.level_width(vae) == 1 / 256
