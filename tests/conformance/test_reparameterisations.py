"""The 22 families of the paper's section 2.4 against SciPy and closed forms: draws, densities, moments, gradients.

The gradient is that of E[f(z)] through the draw, with an f whose expectation has a closed form and whose gradient has
a finite variance: the mean does for most, not for a Cauchy, which has none.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import distributions as tfd

from tfvae import families

pytestmark = pytest.mark.xla

N, BATCHES = 100_000, 100
LOC, TRIL = np.array([0.5, -1.0]), np.array([[0.6, 0.0], [0.7, 0.3]])
CONCENTRATION, COEFFICIENTS = np.array([2.0, 1.5, 4.0]), np.array([1.0, -2.0, 0.5])
SIMPLEX_MEAN = COEFFICIENTS @ CONCENTRATION / CONCENTRATION.sum()


@dataclasses.dataclass(frozen=True)
class Case:
    """One family.

    Attributes:
        make: Parameters -> distribution, or the name of the family.
        parameters: Where it is tested.
        truth: The same distribution by SciPy.
        gradients: d E[f(z)] / d parameter, of the parameter's shape.
        f: Draws ``[..., *event]`` -> numbers ``[...]``.
        marginals: That of each coordinate by SciPy, for a multivariate family.
    """

    make: str | Callable[..., tfd.Distribution]
    parameters: Mapping[str, Any]
    truth: Any
    gradients: Mapping[str, Any]
    f: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    marginals: tuple[Any, ...] = ()

    def distribution(self, **parameters: Any) -> tfd.Distribution:
        given = {name: np.float32(value) for name, value in self.parameters.items()} | parameters
        return (families.find(self.make) if isinstance(self.make, str) else self.make)(**given)

    def coordinates(self) -> tuple[Any, ...]:
        return self.marginals or (self.truth,)


def squared_norm(z: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(z**2, axis=-1)


def multivariate_student(df: Any, loc: Any, scale_tril: Any) -> tfd.Distribution:
    return tfd.MultivariateStudentTLinearOperator(df, loc, tf.linalg.LinearOperatorLowerTriangular(scale_tril))


def location_scale(family: str, frozen: Any, variance: float) -> Case:
    """By E[z²] = loc² + variance scale², which both parameters move."""
    loc, scale = -0.7, 1.3
    gradients = {"loc": 2 * loc, "scale": 2 * variance * scale}
    return Case(family, {"loc": loc, "scale": scale}, frozen(loc, scale), gradients, tf.square)


CASES = {
    # (i) by the inverse CDF
    "Exponential": Case("Exponential", {"rate": 1.7}, stats.expon(scale=1 / 1.7), {"rate": -1 / 1.7**2}),
    # The harmonic extension of arg(x + i) to the upper half-plane gives E[arctan z] = arctan(loc / (1 + scale)).
    "Cauchy": Case(
        "Cauchy",
        {"loc": 0.8, "scale": 1.3},
        stats.cauchy(0.8, 1.3),
        {"loc": 2.3 / (2.3**2 + 0.8**2), "scale": -0.8 / (2.3**2 + 0.8**2)},
        tf.atan,
    ),
    "Logistic": location_scale("Logistic", stats.logistic, np.pi**2 / 3),
    "Rayleigh": Case("Rayleigh", {"scale": 1.7}, stats.rayleigh(scale=1.7), {"scale": np.sqrt(np.pi / 2)}),
    "Pareto": Case(
        "Pareto",
        {"concentration": 6.0, "scale": 1.5},
        stats.pareto(6.0, scale=1.5),
        {"concentration": -1.5 / 25, "scale": 6 / 5},
    ),
    "Weibull": Case(
        "Weibull",
        {"concentration": 1.6, "scale": 0.8},
        stats.weibull_min(1.6, scale=0.8),
        {
            "concentration": -0.8 * special.gamma(1 + 1 / 1.6) * special.digamma(1 + 1 / 1.6) / 1.6**2,
            "scale": special.gamma(1 + 1 / 1.6),
        },
    ),
    "Reciprocal": Case(
        "Reciprocal",
        {"low": 0.5, "high": 4.0},
        stats.loguniform(0.5, 4.0),
        {
            "low": -1 / np.log(8) + 3.5 / 0.5 / np.log(8) ** 2,
            "high": 1 / np.log(8) - 3.5 / 4 / np.log(8) ** 2,
        },
    ),
    "Gompertz": Case(
        "Gompertz",
        {"concentration": 0.6, "rate": 2.0},
        stats.gompertz(0.6, scale=0.5),
        {
            "concentration": (np.exp(0.6) * special.exp1(0.6) - 1 / 0.6) / 2,
            "rate": -np.exp(0.6) * special.exp1(0.6) / 4,
        },
    ),
    "Gumbel": Case(
        "Gumbel", {"loc": -0.7, "scale": 1.3}, stats.gumbel_r(-0.7, 1.3), {"loc": 1.0, "scale": np.euler_gamma}
    ),
    "Erlang": Case("Erlang", {"num_stages": 3, "rate": 2.0}, stats.gamma(3, scale=0.5), {"rate": -3 / 4}),
    # (ii) by a location and a scale
    "Laplace": location_scale("Laplace", stats.laplace, 2.0),
    "Elliptical (normal)": Case(
        "MultivariateNormalTriL",
        {"loc": LOC, "scale_tril": TRIL},
        stats.multivariate_normal(LOC, TRIL @ TRIL.T),
        {"loc": 2 * LOC, "scale_tril": 2 * TRIL},
        squared_norm,
        tuple(stats.norm(m, np.linalg.norm(row)) for m, row in zip(LOC, TRIL, strict=True)),
    ),
    "Elliptical (Student's t)": Case(
        multivariate_student,
        {"df": 12.0, "loc": LOC, "scale_tril": TRIL},
        stats.multivariate_t(LOC, TRIL @ TRIL.T, 12.0),
        {"df": -2 / 100 * np.sum(TRIL**2), "loc": 2 * LOC, "scale_tril": 2 * TRIL * 12 / 10},
        squared_norm,
        tuple(stats.t(12.0, m, np.linalg.norm(row)) for m, row in zip(LOC, TRIL, strict=True)),
    ),
    "Student's t": Case(
        "StudentT",
        {"df": 12.0, "loc": -0.7, "scale": 1.3},
        stats.t(12.0, -0.7, 1.3),
        {"df": -2 / 100 * 1.3**2, "loc": -1.4, "scale": 2.6 * 12 / 10},
        tf.square,
    ),
    "Uniform": Case(
        "Uniform",
        {"low": -0.5, "high": 2.0},
        stats.uniform(-0.5, 2.5),
        {"low": (2 * -0.5 + 2.0) / 3, "high": (-0.5 + 2 * 2.0) / 3},  # E[z²] = (low² + low high + high²) / 3
        tf.square,
    ),
    "Triangular": Case(
        "Triangular",
        {"low": -1.0, "high": 3.0, "peak": 0.5},
        stats.triang(1.5 / 4, -1.0, 4.0),
        {"low": 1 / 3, "high": 1 / 3, "peak": 1 / 3},
    ),
    "Gaussian": location_scale("Normal", stats.norm, 1.0),
    # (iii) by composition
    "Log-Normal": Case(
        "LogNormal",
        {"loc": 0.3, "scale": 0.5},
        stats.lognorm(0.5, scale=np.exp(0.3)),
        {"loc": np.exp(0.3 + 0.125), "scale": 0.5 * np.exp(0.3 + 0.125)},
    ),
    "Gamma": Case(
        "Gamma",
        {"concentration": 1.4, "rate": 2.0},
        stats.gamma(1.4, scale=0.5),
        {"concentration": 1 / 2, "rate": -1.4 / 4},
    ),
    "Dirichlet": Case(
        "Dirichlet",
        {"concentration": CONCENTRATION},
        stats.dirichlet(CONCENTRATION),
        {"concentration": (COEFFICIENTS - SIMPLEX_MEAN) / CONCENTRATION.sum()},
        lambda z: tf.linalg.matvec(z, tf.constant(COEFFICIENTS, z.dtype)),
        tuple(stats.beta(c, CONCENTRATION.sum() - c) for c in CONCENTRATION),
    ),
    "Beta": Case(
        "Beta",
        {"concentration1": 1.5, "concentration0": 2.5},
        stats.beta(1.5, 2.5),
        {"concentration1": 2.5 / 16, "concentration0": -1.5 / 16},
    ),
    "Chi-Squared": Case("Chi2", {"df": 3.5}, stats.chi2(3.5), {"df": 1.0}),
    # E[log z] = ψ(df1/2) - ψ(df2/2) + log(df2/df1); the mean does not move with df1.
    "F": Case(
        "F",
        {"df1": 5.0, "df2": 9.0},
        stats.f(5, 9),
        {
            "df1": special.polygamma(1, 2.5) / 2 - 1 / 5,
            "df2": 1 / 9 - special.polygamma(1, 4.5) / 2,
        },
        tf.math.log,
    ),
}


# XLA compiles their gradients for as long as those of all the others together.
LONG = ("Beta", "Chi-Squared", "Dirichlet", "Elliptical (Student's t)", "F", "Gamma", "Student's t")


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def test_the_cases_are_the_22_families_of_the_paper():
    assert len({name.split(" (")[0] for name in CASES}) == 22


def assert_draws_follow(case: Case, z: np.ndarray) -> None:
    z = np.reshape(z, [N, -1]).astype(np.float64)
    for column, marginal in zip(z.T, case.coordinates(), strict=True):
        assert stats.kstest(column, marginal.cdf).pvalue > 1e-3


def test_draws_follow_the_distribution(case):
    assert_draws_follow(case, case.distribution().sample(N, seed=[1, 2]).numpy())


def test_log_prob_and_moments_are_exact(case):
    distribution = case.distribution()
    if case.marginals:
        z = case.truth.rvs(101, random_state=np.random.default_rng(0)).astype(np.float32)
    else:
        z = case.truth.ppf(np.linspace(0.001, 0.999, 101)).astype(np.float32)
    # SciPy wants a point of the simplex to sum to one in float64, and its coordinates first.
    points = (z / z.sum(axis=1, keepdims=True, dtype=np.float64)).T if case.make == "Dirichlet" else z
    np.testing.assert_allclose(distribution.log_prob(z), case.truth.logpdf(points), rtol=2e-5, atol=2e-5)
    mean, stddev = zip(*((m.mean(), m.std()) for m in case.coordinates()), strict=True)
    np.testing.assert_allclose(np.atleast_1d(distribution.mean()), mean, rtol=1e-5)
    if case.make != "Gompertz":  # its variance has no closed form
        np.testing.assert_allclose(np.atleast_1d(distribution.stddev()), stddev, rtol=1e-5)


@pytest.mark.parametrize("family", [pytest.param(f, marks=[pytest.mark.slow] if f in LONG else []) for f in CASES])
def test_pathwise_gradients_agree_with_the_closed_form(family):
    """Each within four standard errors, from draws and gradients of one XLA program."""
    case = CASES[family]

    @tf.function(jit_compile=True, autograph=False)
    def run(wide):
        """Draws ``[N / BATCHES, BATCHES, *event]``, and the gradient of the mean of f in each batch."""
        with tf.GradientTape() as tape:
            tape.watch(wide)
            z = case.distribution(**wide).sample(N // BATCHES, seed=[3, 4])
            mean = tf.reduce_mean(case.f(z), axis=0)
        return z, tape.gradient(mean, wide)

    wide = {
        name: tf.constant(np.broadcast_to(np.float32(case.parameters[name]), [BATCHES, *np.shape(gradient)]))
        for name, gradient in case.gradients.items()
    }
    z, gradients = run(wide)
    assert_draws_follow(case, z.numpy())
    for name, expected in case.gradients.items():
        batches = gradients[name].numpy().astype(np.float64)
        assert np.isfinite(batches).all() and np.any(batches != 0)
        error = np.std(batches, axis=0, ddof=1) / np.sqrt(BATCHES)
        assert (error < 0.05 * np.max(np.abs(expected)) + 0.01).all(), name  # else anything would agree
        assert (np.abs(np.mean(batches, axis=0) - expected) <= 4 * error + 1e-6).all(), name
