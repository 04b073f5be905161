"""Counts of a library against SciPy in float64; what they have in common with bags of words; draws, moments, slopes."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import distributions as tfd

from tfvae import DistributionLayer, families, likelihoods

RNG = np.random.default_rng(0)
G = 40
LOGITS = RNG.normal(scale=1.5, size=G).astype(np.float32)
SHARES = special.softmax(LOGITS.astype(np.float64))
ZERO = RNG.normal(scale=3.0, size=G).astype(np.float32)


def drawn(total: int) -> np.ndarray:
    return np.random.default_rng(total).multinomial(total, SHARES).astype(np.float32)


def inflated(x: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
    counted = special.log_expit(-ZERO.astype(np.float64)) + log_prob
    return np.where(x == 0, np.logaddexp(special.log_expit(ZERO.astype(np.float64)), counted), counted)


@pytest.mark.parametrize("theta", [1e-2, 1.0, 30.0, 1e4, 1e7])
@pytest.mark.parametrize("total", [0, 1, 700, 100_000])
def test_log_p_is_scipys_at_the_rows_own_total_or_at_one_that_is_given(theta, total):
    x, thetas = drawn(total), np.full(G, theta, np.float32)
    for library in (None, 5.0, 3e4):
        mean = max(x.sum() if library is None else library, 1e-30) * SHARES
        counts = {
            "Poisson": stats.poisson(mean).logpmf(x),
            "NegativeBinomial": stats.nbinom(theta, theta / (theta + mean)).logpmf(x),
        }
        for kind, truth in counts.items():
            own = {"total_count": thetas} if kind == "NegativeBinomial" else {}
            plain = getattr(families, f"Library{kind}")(logits=LOGITS, library=library, **own)
            more = getattr(families, f"LibraryZeroInflated{kind}")(
                logits=LOGITS, zero_logits=ZERO, library=library, **own
            )
            for p, expected in ((plain, truth.sum()), (more, inflated(x, truth).sum())):
                assert abs(float(p.log_prob(x)) - expected) < 2e-4 * max(1.0, abs(expected)), (kind, library)


def test_poissons_of_the_rows_total_are_a_bag_of_words_and_a_poisson_of_its_total():
    for total in (1, 30, 5000):
        x = drawn(total)
        bag = float(families.BagOfWords(LOGITS).log_prob(x)) + stats.poisson(total).logpmf(total)
        np.testing.assert_allclose(families.LibraryPoisson(LOGITS).log_prob(x), bag, rtol=2e-5)


def test_a_large_dispersion_is_a_poissons():
    x = drawn(3000)
    many = families.LibraryNegativeBinomial(LOGITS, np.full(G, 1e7, np.float32)).log_prob(x)
    np.testing.assert_allclose(many, families.LibraryPoisson(LOGITS).log_prob(x), atol=2e-2)


@pytest.mark.parametrize("kind", ["Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial"])
def test_draws_have_the_mean_the_variance_and_the_probabilities(kind):
    logits, n = np.float32([0.5, -0.5, 0.0]), 100_000
    more = {"total_count": np.float32([0.7, 2.0, 40.0])} if kind.endswith("NegativeBinomial") else {}
    more |= {"zero_logits": np.float32([0.0, -2.0, 1.0])} if kind.startswith("Zero") else {}
    p = getattr(families, f"Library{kind}")(logits=logits, library=12.0, **more)
    x = p.sample(n, seed=[1, 2]).numpy()
    assert (np.abs(x.mean(0) - p.mean()) < 5 * x.std(0) / np.sqrt(n)).all()
    np.testing.assert_allclose(x.var(0), p.variance(), rtol=0.06)
    k = np.arange(400, dtype=np.float32)
    for g in range(3):
        one = {name: value[g : g + 1] for name, value in more.items()}
        alone = getattr(families, f"Library{kind}")(
            logits=np.zeros(1, np.float32), library=12.0 * special.softmax(logits)[g], **one
        )
        probs = alone.prob(k[:, None]).numpy().astype(np.float64)
        assert abs(probs.sum() - 1) < 1e-4
        np.testing.assert_allclose((probs * k).sum(), p.mean()[g], rtol=1e-3)
        often = probs * n > 10
        counts = np.bincount(x[:, g].astype(int), minlength=400)[:400]
        assert stats.chisquare(counts[often], probs[often] / probs[often].sum() * counts[often].sum()).pvalue > 1e-4


def test_slopes_are_those_of_central_differences_in_float64():
    x = np.float32([3.0, 0.0, 40.0])
    given = np.float32([0.3, -1.0, 0.8, 0.5, 3.0, 20.0, -1.0, 0.2, -3.0])

    def truth(v):
        mean, theta, zero = x.sum() * special.softmax(v[:3]), v[3:6], v[6:]
        counted = special.log_expit(-zero) + stats.nbinom(theta, theta / (theta + mean)).logpmf(x)
        return np.where(x == 0, np.logaddexp(special.log_expit(zero), counted), counted).sum()

    steps = 1e-6 * np.eye(9)
    expected = [(truth(given.astype(np.float64) + s) - truth(given.astype(np.float64) - s)) / 2e-6 for s in steps]
    with tf.GradientTape() as tape:
        raw = tf.constant(given)
        tape.watch(raw)
        log_prob = families.LibraryZeroInflatedNegativeBinomial(raw[:3], raw[3:6], raw[6:]).log_prob(x)
    np.testing.assert_allclose(tape.gradient(log_prob, raw), expected, rtol=2e-3, atol=1e-3)


def test_columns_of_a_library_in_a_mixed_row_have_their_own_total():
    layer = likelihoods.mixed([DistributionLayer("Normal", [1]), likelihoods.library_counts([3])])
    p, x = layer(tf.zeros([2, 4])), tf.constant([[9.0, 3.0, 0.0, 0.0], [9.0, 1.0, 2.0, 3.0]])
    assert layer.of_library
    np.testing.assert_allclose(families.with_library_of(p, x).mean()[:, 1:], [[1.0] * 3, [2.0] * 3], rtol=1e-6)
    np.testing.assert_allclose(families.with_library_of(p, x).log_prob(x), p.log_prob(x), rtol=1e-6)


@pytest.mark.parametrize("kind", ["Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial"])
def test_a_layer_of_each_kind_has_its_parameters_and_a_density(kind):
    layer = likelihoods.library_counts([3], kind)
    free = ["logits", "zero_logits"] if kind.startswith("Zero") else ["logits"]
    assert layer.free == free and list(layer.shared) == ["total_count"] * kind.endswith("NegativeBinomial")
    p = layer(tf.zeros([2, 4]))
    assert p.batch_shape == [2] and np.isfinite(p.log_prob([3.0, 0.0, 1.0])).all()


@pytest.mark.parametrize("name", ["BagOfWords", "DirichletBagOfWords"])
def test_bags_are_drawn_of_as_many_words_as_rows_have(name):
    bag = families.find(name)(np.float32([0.5, 1.0, 2.0]))
    x = tf.constant([[7.0, 0.0, 3.0], [0.0, 0.0, 0.0], [0.0, 40.0, 60.0]])
    n, share = x.numpy().sum(1), bag.mean().numpy()
    drawn = families.with_total_of(
        families.Mixed([tfd.Sample(tfd.Normal(tf.zeros([3]), 1.0), 1), bag]), tf.pad(x, [[0, 0], [1, 0]])
    )
    counts = drawn.sample(4000, seed=[1, 2]).numpy()[..., 1:]
    assert (counts.sum(-1) == n).all()
    spread = 1.0 if name == "BagOfWords" else (n + 3.5) / (1.0 + 3.5)  # Σα = 3.5
    variance = (n * spread)[:, None] * share * (1 - share)
    assert (np.abs(counts.mean(0) - n[:, None] * share) <= 4 * np.sqrt(variance / 4000)).all()
    np.testing.assert_allclose(counts.var(0), variance, rtol=0.15)
    assert families.is_given_total(drawn.parts[1]) is False and families.is_given_total(bag)


def test_what_is_no_family_of_a_library_is_told():
    with pytest.raises(ValueError, match="family is 'Normal', expected one of Poisson, NegativeBinomial"):
        likelihoods.library_counts([3], "Normal")
    with pytest.raises(ValueError, match="cannot leave out what is missing"):
        likelihoods.missing(likelihoods.library_counts([3], "Poisson"))(tf.zeros([1, 2]))
