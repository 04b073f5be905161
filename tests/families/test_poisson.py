"""Poissons and bags of words against SciPy in float64, where counts are large too; sums to 1, slopes and draws."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from tfvae import DistributionLayer, evaluation, families, networks, posteriors
from tfvae.models.vae import VAE

N = 100_000
COUNTS = np.float32([0, 1, 2, 3, 7, 50, 300, 1e3, 1e4, 1e5, 1e6])


def off(found, truth) -> np.ndarray:
    """Errors, in units of the larger of 1 and the truth."""
    return np.abs(np.asarray(found, np.float64) - truth) / np.maximum(1.0, np.abs(truth))


@pytest.mark.parametrize("log_rate", [-30.0, 0.0, 2.0, 6.9, 11.5, 13.8])
def test_a_poisson_is_exact_where_the_textbooks_form_has_lost_its_digits(log_rate):
    rate = np.exp(np.float64(np.float32(log_rate)))
    truth = stats.poisson(rate).logpmf(COUNTS)
    assert off(families.Poisson(log_rate=log_rate).log_prob(COUNTS), truth).max() < 4e-5
    assert off(families.Poisson(rate=np.float32(rate)).log_prob(COUNTS), truth).max() < 2e-4


@pytest.mark.parametrize("zero", [-60.0, -2.0, 60.0])
@pytest.mark.parametrize("log_rate", [-8.0, 3.0, 9.0])
def test_a_zero_inflated_poisson_is_the_mixture_that_it_is_called(zero, log_rate):
    log_zero, log_rest = special.log_expit(zero), special.log_expit(-zero)
    count = stats.poisson(np.exp(log_rate)).logpmf(COUNTS) + log_rest
    truth = np.where(COUNTS == 0, np.logaddexp(log_zero, count), count)
    p = families.ZeroInflatedPoisson(tf.constant(zero), tf.constant(log_rate))
    assert off(p.log_prob(COUNTS), truth).max() < 4e-5
    if log_rate <= 3:
        x = np.arange(200)
        probs = p.prob(x.astype(np.float32)).numpy().astype(np.float64)
        assert abs(probs.sum() - 1) < 1e-5
        mean = (probs * x).sum()
        np.testing.assert_allclose(p.mean(), mean, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(p.variance(), (probs * (x - mean) ** 2).sum(), rtol=1e-4, atol=1e-9)
        assert_drawn(p.sample(N, seed=[1, 2]).numpy(), probs)


def assert_drawn(draws: np.ndarray, probs: np.ndarray) -> None:
    counts, often = np.bincount(draws.astype(int), minlength=len(probs))[: len(probs)], probs * N > 5
    assert counts[~often].sum() <= 30
    if often.sum() > 1:
        assert stats.chisquare(counts[often], probs[often] / probs[often].sum() * counts[often].sum()).pvalue > 1e-3


def random_bag(seed: int, words: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=words).astype(np.float32)
    return logits, rng.multinomial(total, special.softmax(logits.astype(np.float64))).astype(np.float32)


@pytest.mark.parametrize("total", [0, 1, 30, 10_000, 1_000_000])
def test_a_bag_of_words_is_scipys_multinomial_of_the_rows_own_total(total):
    logits, x = random_bag(total, 40, total)
    truth = stats.multinomial(total, special.softmax(logits.astype(np.float64))).logpmf(x)
    assert off(families.BagOfWords(logits).log_prob(x), truth) < 2e-5


@pytest.mark.parametrize(("total", "size"), [(0, 1.0), (1, 0.02), (30, 50.0), (3000, 1.0), (3000, 1e4)])
def test_a_bag_of_drawn_shares_is_scipys_dirichlet_multinomial(total, size):
    logits, x = random_bag(total, 40, total)
    alpha = (size * special.softmax(logits)).astype(np.float32)
    truth = stats.dirichlet_multinomial(alpha.astype(np.float64), total).logpmf(x.astype(int)) if total else 0.0
    assert off(families.DirichletBagOfWords(alpha).log_prob(x), truth) < 2e-4


def test_a_bag_of_drawn_shares_becomes_a_bag_of_fixed_ones():
    logits, x = random_bag(0, 5, 12)
    alpha = 1e7 * special.softmax(logits)
    np.testing.assert_allclose(
        families.DirichletBagOfWords(alpha).log_prob(x), families.BagOfWords(logits).log_prob(x), atol=1e-4
    )


CASES = [
    (families.BagOfWords, "logits", np.float32([0.3, -1.0, 0.8])),
    (families.DirichletBagOfWords, "concentration", np.float32([0.2, 3.0, 40.0])),
]


@pytest.mark.parametrize(("family", "name", "value"), CASES)
def test_bags_of_one_size_sum_to_1_and_a_draw_is_a_word(family, name, value):
    p = family(value)
    bags = np.float32([bag for bag in itertools.product(range(7), repeat=3) if sum(bag) == 6])
    assert abs(p.prob(bags).numpy().sum() - 1) < 1e-5
    words = np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(p.prob(words), p.mean(), rtol=1e-5)
    assert_drawn(np.argmax(p.sample(N, seed=[3, 4]), axis=-1), p.mean().numpy().astype(np.float64))


def _slopes(log_prob, value: np.ndarray) -> np.ndarray:
    """Central differences in float64."""
    steps = 1e-6 * np.eye(len(value))
    return np.array([(log_prob(value + step) - log_prob(value - step)) / 2e-6 for step in steps])


def test_gradients_are_those_of_central_differences_in_float64():
    x = np.float32([3.0, 0.0, 40.0])
    truths = {
        families.BagOfWords: (CASES[0][2], lambda v: stats.multinomial(43, special.softmax(v)).logpmf(x)),
        families.DirichletBagOfWords: (
            CASES[1][2],
            lambda v: stats.dirichlet_multinomial(v, 43).logpmf(x.astype(int)),
        ),
        families.ZeroInflatedPoisson: (
            np.float32([-0.7, 1.2]),
            lambda v: np.log(special.expit(v[0]) + special.expit(-v[0]) * np.exp(-np.exp(v[1]))),
        ),
        families.Poisson: (np.float32([6.5]), lambda v: stats.poisson(np.exp(v[0])).logpmf(700)),
    }
    for family, (value, log_prob) in truths.items():
        with tf.GradientTape() as tape:
            raw = tf.constant(value)
            tape.watch(raw)
            if family in (families.BagOfWords, families.DirichletBagOfWords):
                found = family(raw).log_prob(x)
            elif family is families.Poisson:
                found = family(log_rate=raw[0]).log_prob(700.0)
            else:
                found = family(raw[0], raw[1]).log_prob(0.0)
        expected = _slopes(log_prob, value.astype(np.float64))
        np.testing.assert_allclose(tape.gradient(found, raw), expected, rtol=1e-3, atol=1e-3, err_msg=family.__name__)


def test_documents_of_any_length_train_and_have_a_perplexity():
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(12, 0.2), 2)
    x = np.stack([rng.multinomial(rng.integers(5, 80), topics[i % 2]) for i in range(200)]).astype(np.uint8)
    keras.utils.set_random_seed(0)
    layer = DistributionLayer("BagOfWords", [12])
    vae = VAE(networks.mlp([16]), networks.mlp([16]), posteriors.diagonal_normal(1), layer, seed=0)
    vae.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    uniform = evaluation.perplexity(families.BagOfWords(np.zeros(12, np.float32)).log_prob(x.astype(np.float32)), x)
    assert uniform == pytest.approx(12, rel=1e-4)
    vae.fit(x, epochs=15, batch_size=50, verbose=0)
    found = evaluation.perplexity(vae.elbo(x, num_samples=5, seed=1), x)
    entropy = -(topics * np.log(np.maximum(topics, 1e-12))).sum(axis=1).mean()
    assert np.exp(entropy) * 0.9 < found < 9
    with pytest.raises(ValueError, match="holds other than whole numbers, but a BagOfWords likelihood scores counts"):
        vae.elbo(x / np.float32(7))
    with pytest.raises(ValueError, match=r"nats of shape \(3,\) for x of shape \(200, 12\)"):
        evaluation.perplexity(np.zeros(3), x)
