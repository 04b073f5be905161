"""Counts against SciPy, at parameters where float32 has few digits too, and draws against their probabilities."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfvae import DistributionLayer, families

N = 20_000


@pytest.mark.parametrize("logit", [-60.0, -3.0, 0.0, 2.5, 30.0])
def test_geometric_is_exact_where_a_sigmoid_rounds_to_1(logit):
    x = np.array([0.0, 1.0, 7.0], np.float32)
    truth = -np.logaddexp(0, -logit) - x * np.logaddexp(0, logit)
    np.testing.assert_allclose(families.Geometric(logits=logit).log_prob(x), truth, rtol=1e-6, atol=1e-7)
    if abs(logit) < 3:
        probs = 1 / (1 + np.exp(-logit))
        np.testing.assert_allclose(truth, stats.geom(probs, loc=-1).logpmf(x), rtol=1e-5)
        np.testing.assert_allclose(families.Geometric(probs=np.float32(probs)).log_prob(x), truth, rtol=1e-5)


@pytest.mark.parametrize("total", [1.0, 1e3, 1e5, 1e7])
def test_dirichlet_multinomial_is_scipys_and_becomes_a_multinomial(total):
    share, x = np.array([0.2, 0.3, 0.5]), np.array([2.0, 0.0, 5.0])
    alpha = (total * share).astype(np.float32)
    log_prob = families.DirichletMultinomial(7.0, alpha).log_prob(x.astype(np.float32))
    truth = stats.dirichlet_multinomial(alpha.astype(np.float64), 7).logpmf(x.astype(int)) if total < 1e6 else None
    limit = stats.multinomial(7, share).logpmf(x)
    np.testing.assert_allclose(log_prob, limit if truth is None else truth, atol=1e-4)


def test_multinomial_is_scipys():
    logits = np.array([0.3, -1.0, 0.8])
    p = np.exp(logits) / np.exp(logits).sum()
    x = np.array([2.0, 0.0, 5.0])
    log_prob = families.Multinomial(7.0, logits=logits.astype(np.float32)).log_prob(x.astype(np.float32))
    np.testing.assert_allclose(log_prob, stats.multinomial(7, p).logpmf(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "fixed", "frozen"),
    [
        ("Binomial", {"total_count": 6}, lambda p: stats.binom(6, 1 / (1 + np.exp(-p["logits"])))),
        (
            "BetaBinomial",
            {"total_count": 6},
            lambda p: stats.betabinom(6, p["concentration1"], p["concentration0"]),
        ),
        ("Geometric", {}, lambda p: stats.geom(1 / (1 + np.exp(-p["logits"])), loc=-1)),
    ],
)
def test_a_layers_counts_are_scipys_and_drawn_by_their_probabilities(name, fixed, frozen):
    layer = DistributionLayer(name, [1], **fixed)
    features = np.random.default_rng(0).normal(size=[2, 4]).astype(np.float32)
    p = layer(features)
    truth = frozen({k: v.numpy().astype(np.float64) for k, v in layer.parameters(features).items()})
    for x in range(6):
        np.testing.assert_allclose(p.log_prob([float(x)]), truth.logpmf(x)[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(p.mean(), truth.mean(), rtol=1e-4)
    draws = p.sample(N, seed=[1, 2]).numpy()[..., 0]
    for row in range(2):
        pmf = np.array([truth.pmf(x)[row, 0] for x in range(6)])
        pmf = np.append(pmf, max(1 - pmf.sum(), 1e-12))
        counts = np.bincount(np.minimum(draws[:, row].astype(int), 6), minlength=7)
        keep = pmf * N > 5
        if keep.sum() > 1:
            assert stats.chisquare(counts[keep], pmf[keep] / pmf[keep].sum() * counts[keep].sum()).pvalue > 1e-3


@pytest.mark.parametrize(("name", "parameter"), [("Multinomial", "logits"), ("DirichletMultinomial", "concentration")])
def test_a_vector_of_counts_sums_to_its_total_and_has_gradients(name, parameter):
    layer = DistributionLayer(name, [3], total_count=5)
    features = tf.constant(np.random.default_rng(0).normal(size=[2, 4]), tf.float32)
    p = layer(features)
    np.testing.assert_array_equal(tf.reduce_sum(p.sample(100, seed=[1, 2]), axis=-1), 5.0)
    np.testing.assert_allclose(tf.reduce_sum(p.mean(), axis=-1), 5.0, rtol=1e-5)
    x = [[a, b, 5 - a - b] for a in range(6) for b in range(6 - a)]
    total = sum(np.exp(p.log_prob(tf.constant(row, tf.float32))) for row in x)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    values = layer.parameters(features)

    def log_prob(raw):
        return tf.reduce_sum(layer.distribution({**values, parameter: raw}).log_prob(tf.constant([2.0, 0.0, 3.0])))

    with tf.GradientTape() as tape:
        raw = values[parameter]
        tape.watch(raw)
        total = log_prob(raw)
    gradient = tape.gradient(total, raw).numpy()
    for i in range(3):
        step = np.float32(1e-2) * np.eye(3, dtype=np.float32)[i]
        slope = (log_prob(raw + step) - log_prob(raw - step)) / 2e-2
        np.testing.assert_allclose(gradient[:, i].sum(), slope, rtol=2e-2, atol=2e-3)
