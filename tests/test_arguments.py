"""The wrong thing at a constructor or a method: our sentence, with what came, and no other library's."""

import pytest

from tfvae import VAE, DistributionLayer, likelihoods, networks, posteriors


def a_vae(**more) -> VAE:
    return VAE(networks.mlp([2]), networks.mlp([2]), posteriors.diagonal_normal(2), likelihoods.bernoulli([3]), **more)


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda: DistributionLayer("Normal", 2), r"event_shape is 2, expected a list of sizes.*such as \[2\]"),
        (lambda: DistributionLayer("Normal", "ab"), "event_shape is 'ab', expected a list of sizes"),
        (lambda: DistributionLayer("Normal", None), "event_shape is None, expected a list of sizes"),
        (lambda: DistributionLayer("Normal", [2.5]), r"event_shape is \[2.5\], expected a list of sizes"),
        (lambda: likelihoods.bernoulli(784), r"event_shape is 784, expected .*such as \[784\]"),
        (lambda: posteriors.diagonal_normal([2]), r"event_shape is \[\[2\]\], expected a list of sizes"),
        (lambda: posteriors.full_normal(0), r"event_shape must hold positive sizes, received \(0,\)"),
        (lambda: a_vae(condition_shape=3), r"condition_shape is 3, expected a list of sizes"),
        (lambda: a_vae(objective="elbo"), "objective is 'elbo', expected .*objectives.elbo"),
        (lambda: a_vae(noise="binarized"), r"noise is 'binarized', expected .*observations.Binarized\(\)"),
        (lambda: a_vae(weight_prior=3), "weight_prior is 3, expected .*priors.WeightPrior"),
        (lambda: a_vae(num_samples="many"), "num_samples must be a whole number of 1 or more, received 'many'"),
        (lambda: a_vae().sample(-1), "n must be at least 0, received -1"),
        (lambda: a_vae().sample("a"), "n must be a whole number of 0 or more, received 'a'"),
        (lambda: a_vae().embed([[0.0, 1.0, 0.0]], batch_size=0), "batch_size must be at least 1, received 0"),
    ],
)
def test_the_wrong_argument_is_told_in_a_sentence(door, message):
    with pytest.raises(ValueError, match=message):
        door()
