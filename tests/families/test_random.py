"""Normal and uniform noise: its law, its tails, its seeds."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfvae import families

N = 100_000


def step_of(dtype: tf.DType) -> float:
    """From one uniform number to the next."""
    return {tf.float64: 2.0**-52, tf.float32: 2.0**-23, tf.bfloat16: 2.0**-7}[dtype]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_seed_fixes_the_normals(jit_compile):
    draw = tf.function(lambda seed: families.standard_normal([N], seed), jit_compile=jit_compile)
    first = draw(tf.constant([7, 8])).numpy()
    np.testing.assert_array_equal(draw(tf.constant([7, 8])), first)
    assert stats.kstest(first, stats.norm.cdf).pvalue > 1e-3
    assert families.standard_normal([2], 3, tf.float64).dtype == tf.float64


@pytest.mark.parametrize("shape", [[7], [2, 300, 20]])
def test_the_normals_are_the_same_in_eager_mode_in_xla_and_in_any_shape(shape):
    eager = families.standard_normal(shape, (7, 8))
    draw = tf.function(lambda seed: families.standard_normal(shape, seed), jit_compile=True)
    compiled = draw(tf.constant([7, 8]))  # an argument: a seed that the program knows is folded, by eager kernels
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    np.testing.assert_array_equal(families.standard_normal([tf.size(eager)], (7, 8)), np.ravel(eager))


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32, tf.bfloat16], ids=lambda dtype: dtype.name)
def test_uniform_numbers_are_the_same_everywhere_and_below_1(dtype):
    def draw(seed):
        return families.standard_uniform([N], seed, dtype)

    seed = tf.constant([7, 8])
    eager = draw(seed)
    for jit_compile in (False, True):
        np.testing.assert_array_equal(tf.function(draw, jit_compile=jit_compile)(seed), eager)
    np.testing.assert_array_equal(families.standard_uniform([10, N // 10], seed, dtype), tf.reshape(eager, [10, -1]))
    spread = tf.cast(eager, tf.float64).numpy()
    assert eager.dtype == dtype and spread.min() >= 0 and spread.max() < 1
    assert stats.kstest(spread, stats.uniform.cdf).statistic < step_of(dtype) + 2 / np.sqrt(N)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_normals_have_the_tails_of_a_normal(jit_compile):
    draw = tf.function(lambda: families.standard_normal([50 * N], (1, 2)), jit_compile=jit_compile)
    z = np.sort(draw())
    for tail in (z[z < -4], -z[z > 4]):
        expected = 50 * N * stats.norm.cdf(-4)
        assert abs(len(tail) - expected) < 4 * np.sqrt(expected)
        assert stats.kstest(tail, lambda t: stats.norm.cdf(t) / stats.norm.cdf(-4)).pvalue > 1e-3
    assert np.isfinite(z).all() and len(np.unique(z[:100])) > 80  # of about 270 values below -4


def test_streams_of_neighbouring_seeds_are_independent():
    draws = np.stack([families.standard_normal([N], [1, step]) for step in range(20)])
    assert np.abs(np.corrcoef(draws) - np.eye(20)).max() < 5 / np.sqrt(N)
    first = np.ravel([families.standard_normal([1], [a, b]) for a in range(30) for b in range(30)])
    assert stats.kstest(first, stats.norm.cdf).pvalue > 1e-3


def test_stratified_normals_take_each_stratum_once_in_orders_of_their_own():
    noise = families.random.stratified_normal(100, 5)
    inside = tf.function(lambda: tf.constant(families.random.stratified_normal(100, 5)))
    np.testing.assert_array_equal(inside(), noise)
    ranks = np.argsort(np.argsort(noise, axis=0), axis=0)
    for column, rank in zip(noise.T, ranks.T, strict=True):
        np.testing.assert_allclose(np.sort(column), stats.norm.ppf((np.arange(100) + 0.5) / 100), rtol=0.01)
        np.testing.assert_allclose([column.mean(), (column**2).mean()], [0, 1], atol=1e-6)
        assert stats.kstest(rank, stats.randint(0, 100).cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(ranks.T) - np.eye(5)).max() < 4 / np.sqrt(100)
