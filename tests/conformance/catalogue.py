"""Every family that the project promises, once, with an independent account of it.

A family's parameters are written out here as functions of the raw projection, and its density comes from SciPy (or from
its textbook formula, where SciPy has none), so that the tests compare two derivations and not one with itself.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

Array = np.ndarray
Parameters = Mapping[str, Array]
Constraint = Callable[[Array, Parameters], Array]

SIZE = 3  # of each event: the length of z, or of x
_EPSILON = float(np.finfo(np.float32).eps)  # TFP keeps a scale this far from zero


def real(raw: Array, _: Parameters) -> Array:
    return raw


def above(lowest: float) -> Constraint:
    return lambda raw, _: lowest + _EPSILON + np.logaddexp(0.0, raw)


positive = above(0.0)


def above_low(raw: Array, p: Parameters) -> Array:
    return p["low"] + np.logaddexp(0.0, raw)


def between(raw: Array, p: Parameters) -> Array:
    return p["low"] + (p["high"] - p["low"]) * scipy.special.expit(raw)


def lower_triangle(raw: Array, _: Parameters) -> Array:
    """TFP fills a 3x3 triangle in the order 3 | 5 4 | 2 1 0."""
    matrix = np.zeros([*raw.shape[:-1], 3, 3])
    for (i, j), k in {(0, 0): 3, (1, 0): 5, (1, 1): 4, (2, 0): 2, (2, 1): 1, (2, 2): 0}.items():
        matrix[..., i, j] = np.logaddexp(0.0, raw[..., k]) + _EPSILON if i == j else raw[..., k]
    return matrix


def _rising(raw: Array, _: Parameters) -> Array:
    """Cut points: the first is free, and each of the others lies above the one before it."""
    raw = raw.reshape(*raw.shape[:-1], SIZE, 3)
    return np.cumsum(np.concatenate([raw[..., :1], np.exp(raw[..., 1:])], axis=-1), axis=-1)


def _grades(p: Parameters) -> Array:
    """P(x = k) = sigmoid(c_k - loc) - sigmoid(c_(k-1) - loc) for cut points c."""
    below = scipy.special.expit(p["cutpoints"] - p["loc"][..., None])
    return np.diff(below, axis=-1, prepend=0.0, append=1.0)


def _level_log_prob(frozen: Any, x: Array, loc: Array, scale: Array) -> Array:
    """A density rounded to the levels of 8 bits, of which the ends take all that lies beyond them."""
    low = np.where(x < 1 / 510, -np.inf, (x - 1 / 510 - loc) / scale)
    high = np.where(x > 1 - 1 / 510, np.inf, (x + 1 / 510 - loc) / scale)
    in_left_tail = frozen.cdf(high) - frozen.cdf(low)
    return np.log(np.where(low + high > 0, frozen.sf(low) - frozen.sf(high), in_left_tail))


def _quantized(x: Array, loc: Array, scale: Array, kind: Any = tfd.Logistic) -> Any:
    """TFP's ceiling of a density: of one that is half a step lower it is ours."""
    quantized = tfd.QuantizedDistribution(kind(255 * loc - 0.5, 255 * scale), low=0.0, high=255.0)
    return quantized.log_prob(np.round(255 * x))


def _quantized_pixel(p: Parameters, x: Array) -> Any:
    log_joint = scipy.special.log_softmax(p["logits"], axis=-1)
    for c, (loc, scale) in enumerate(_channels(p, lambda _, c: x[..., c, None])):
        log_joint = log_joint + _quantized(x[..., c, None], loc, scale)
    return tf.reduce_logsumexp(log_joint, axis=-1)


def _level_mean(frozen: Any, loc: Array, scale: Array) -> Array:
    return sum(frozen.sf((j - 0.5) / 255, loc, scale) for j in range(1, 256)) / 255


def _channels(p: Parameters, x: Any) -> Any:
    """The locs of each channel's components, given those before it: ``x(locs, c)`` gives the channel that follows."""
    values: list[Array] = []
    for c in range(SIZE):
        first = c * (c - 1) // 2
        moved = [p["coefficients"][..., first + j, :] * (value - 0.5) for j, value in enumerate(values)]
        locs = p["loc"][..., c, :] + sum(moved)
        yield locs, p["scale"][..., c, :]
        values.append(x(locs, c))


def _pixel_log_prob(x: Array, p: Parameters) -> Array:
    log_joint = scipy.special.log_softmax(p["logits"], axis=-1)
    for c, (loc, scale) in enumerate(_channels(p, lambda _, c: x[..., c, None])):
        log_joint = log_joint + _level_log_prob(scipy.stats.logistic, x[..., c, None], loc, scale)
    return scipy.special.logsumexp(log_joint, axis=-1)


def _pixel_mean(p: Parameters) -> Array:
    weights = scipy.special.softmax(p["logits"], axis=-1)
    of = lambda locs, c: _level_mean(scipy.stats.logistic, locs, p["scale"][..., c, :])  # noqa: E731
    return np.stack([(weights * of(loc, c)).sum(-1) for c, (loc, _) in enumerate(_channels(p, of))], axis=-1)


@dataclasses.dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: Its class in ``tfp.distributions``.
        constraints: Each free parameter, in the order of the projection, and its map from the real line.
        log_prob: ``(x, parameters)`` -> log-density; its last axis is still to be summed if ``scalar``.
        cdf: ``(x, parameters)`` -> probability of each coordinate, for the families of independent coordinates.
        scalar: Whether TFP's family has scalar events, so that the layer makes them independent.
        x: An observation inside the support, for a likelihood.
        mean: ``parameters`` -> E[x], for a likelihood.
        sizes: Raw numbers of each parameter that needs another count than one for each coordinate.
        fixed: What the user gives beside the name: a count, a number of classes.
        tfp: TFP's distribution from ``parameters``, where its class takes others than the layer's.
    """

    name: str
    constraints: Mapping[str, Constraint]
    log_prob: Callable[[Array, Parameters], Array]
    cdf: Callable[[Array, Parameters], Array] | None = None
    scalar: bool = True
    x: tuple[float, ...] = ()
    mean: Callable[[Parameters], Array] | None = None
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tfp: Callable[[Parameters], Any] | None = None

    def parameters(self, raw: Array) -> dict[str, Array]:
        """The parameters in float64, from the raw projection ``[..., n]``."""
        found: dict[str, Array] = {}
        start = 0
        for name, constraint in self.constraints.items():
            size = self.sizes.get(name, SIZE)
            found[name] = constraint(np.asarray(raw[..., start : start + size], np.float64), found)
            start += size
        assert start == raw.shape[-1], f"{self.name} projects {raw.shape[-1]} numbers, the catalogue knows {start}"
        return found


def _scipy(
    name: str, constraints: Mapping[str, Constraint], frozen: Callable[[Parameters], Any], **more: Any
) -> Family:
    """A posterior of independent coordinates that SciPy knows; ``frozen`` gives its distribution."""
    return Family(name, constraints, lambda x, p: frozen(p).logpdf(x), cdf=lambda x, p: frozen(p).cdf(x), **more)


def _discrete(
    name: str, constraints: Mapping[str, Constraint], frozen: Callable[[Parameters], Any], x: tuple[float, ...]
) -> Family:
    return Family(name, constraints, lambda x, p: frozen(p).logpmf(x), x=x, mean=lambda p: frozen(p).mean())


def _rows(log_density: Callable[..., float], x: Array, *parameters: Array) -> Array:
    """A SciPy density of vectors takes one set of parameters: call it row by row."""
    batch = x.shape[:-1]
    full = [np.broadcast_to(p, batch + p.shape[1:]) for p in parameters]
    return np.array([log_density(x[i], *(p[i] for p in full)) for i in np.ndindex(*batch)]).reshape(batch)


def _location_scale(name: str, family: Any) -> Family:
    return _scipy(name, {"loc": real, "scale": positive}, lambda p: family(p["loc"], p["scale"]))


def _kumaraswamy_log_prob(x: Array, p: Parameters) -> Array:
    a, b = p["concentration1"], p["concentration0"]
    return np.log(a) + np.log(b) + (a - 1) * np.log(x) + (b - 1) * np.log1p(-(x**a))


def _kumaraswamy_cdf(x: Array, p: Parameters) -> Array:
    return 1 - (1 - x ** p["concentration1"]) ** p["concentration0"]


def _continuous_bernoulli_log_prob(x: Array, p: Parameters) -> Array:
    """log C(λ) + x log λ + (1 - x) log(1 - λ), C = 2 artanh(1 - 2λ) / (1 - 2λ), λ = sigmoid(logits)."""
    rate = scipy.special.expit(p["logits"])
    normaliser = 2 * np.arctanh(1 - 2 * rate) / (1 - 2 * rate)
    return np.log(normaliser) + x * np.log(rate) + (1 - x) * np.log1p(-rate)


def _continuous_bernoulli_mean(p: Parameters) -> Array:
    rate = scipy.special.expit(p["logits"])
    return rate / (2 * rate - 1) + 1 / (2 * np.arctanh(1 - 2 * rate))


def _exp(raw: Array, _: Parameters) -> Array:
    return np.exp(raw)


def _of_library(log_pmf: Callable[[Array, Array, Parameters], Array]) -> Callable[[Array, Parameters], Array]:
    """log p(x) of counts whose means are shares of the row's own total."""

    def log_prob(x: Array, p: Parameters) -> Array:
        return log_pmf(x, x.sum(-1, keepdims=True) * scipy.special.softmax(p["logits"], axis=-1), p).sum(-1)

    return log_prob


def _mean_of_library(p: Parameters) -> Array:
    """Of a total of 1."""
    return scipy.special.softmax(p["logits"], axis=-1) * scipy.special.expit(-p.get("zero_logits", -np.inf))


def _poisson_log_pmf(x: Array, mean: Array, _: Parameters) -> Array:
    return scipy.stats.poisson(mean).logpmf(x)


def _negative_binomial_log_pmf(x: Array, mean: Array, p: Parameters) -> Array:
    theta = p["total_count"]
    return scipy.stats.nbinom(theta, theta / (theta + mean)).logpmf(x)


def _zero_inflated(log_pmf: Callable[..., Array]) -> Callable[[Array, Array, Parameters], Array]:
    def inflated(x: Array, mean: Array, p: Parameters) -> Array:
        counted = scipy.special.log_expit(-p["zero_logits"]) + log_pmf(x, mean, p)
        return np.where(x == 0, np.logaddexp(scipy.special.log_expit(p["zero_logits"]), counted), counted)

    return inflated


def _tfp_negative_binomial(p: Parameters, log_mean: Array) -> Any:
    return tfd.NegativeBinomial(p["total_count"], logits=log_mean - np.log(p["total_count"]))


POSTERIORS = [
    _location_scale("Normal", scipy.stats.norm),
    _location_scale("Laplace", scipy.stats.laplace),
    _location_scale("Logistic", scipy.stats.logistic),
    _location_scale("Cauchy", scipy.stats.cauchy),
    _location_scale("Gumbel", scipy.stats.gumbel_r),
    _scipy(
        "StudentT",
        {"df": above(1.0), "loc": real, "scale": positive},
        lambda p: scipy.stats.t(p["df"], p["loc"], p["scale"]),
    ),
    _scipy("Exponential", {"rate": positive}, lambda p: scipy.stats.expon(scale=1 / p["rate"])),
    _scipy(
        "Weibull",
        {"concentration": above(0.25), "scale": positive},
        lambda p: scipy.stats.weibull_min(p["concentration"], scale=p["scale"]),
    ),
    _scipy(
        "Pareto",
        {"concentration": above(1.0), "scale": positive},
        lambda p: scipy.stats.pareto(p["concentration"], scale=p["scale"]),
    ),
    _scipy(
        "Gamma",
        {"concentration": above(0.3), "log_rate": real},
        lambda p: scipy.stats.gamma(p["concentration"], scale=np.exp(-p["log_rate"])),
    ),
    _scipy(
        "Beta",
        {"concentration1": above(1.0), "concentration0": above(1.0)},
        lambda p: scipy.stats.beta(p["concentration1"], p["concentration0"]),
    ),
    _scipy("Chi2", {"df": positive}, lambda p: scipy.stats.chi2(p["df"])),
    _scipy(
        "LogNormal",
        {"loc": real, "scale": positive},
        lambda p: scipy.stats.lognorm(p["scale"], scale=np.exp(p["loc"])),
    ),
    Family(
        "VonMises",
        {"loc": real, "concentration": positive},
        lambda x, p: scipy.stats.vonmises(p["concentration"], p["loc"]).logpdf(x),
        # An angle has no first value: SciPy counts the turns into its cdf.
        cdf=lambda x, p: scipy.stats.vonmises(p["concentration"], p["loc"]).cdf(x) % 1.0,
    ),
    _scipy(
        "Uniform",
        {"low": real, "high": above_low},
        lambda p: scipy.stats.uniform(p["low"], p["high"] - p["low"]),
    ),
    _scipy(
        "Triangular",
        {"low": real, "high": above_low, "peak": between},
        lambda p: scipy.stats.triang((p["peak"] - p["low"]) / (p["high"] - p["low"]), p["low"], p["high"] - p["low"]),
    ),
    _scipy(
        "TruncatedNormal",
        {"scale": positive, "low": real, "high": above_low, "loc": between},
        lambda p: scipy.stats.truncnorm(
            (p["low"] - p["loc"]) / p["scale"], (p["high"] - p["loc"]) / p["scale"], p["loc"], p["scale"]
        ),
    ),
    Family(
        "Kumaraswamy",
        {"concentration1": above(1.0), "concentration0": above(1.0)},
        _kumaraswamy_log_prob,
        cdf=_kumaraswamy_cdf,
    ),
    Family(
        "Dirichlet",
        {"concentration": above(0.3)},
        lambda x, p: _rows(lambda row, c: scipy.stats.dirichlet(c).logpdf(row / row.sum()), x, p["concentration"]),
        scalar=False,
    ),
    Family(
        "MultivariateNormalDiag",
        {"loc": real, "scale_diag": positive},
        lambda x, p: scipy.stats.norm(p["loc"], p["scale_diag"]).logpdf(x).sum(axis=-1),
        cdf=lambda x, p: scipy.stats.norm(p["loc"], p["scale_diag"]).cdf(x),
        scalar=False,
    ),
    Family(
        "MultivariateNormalTriL",
        {"loc": real, "scale_tril": lower_triangle},
        lambda x, p: _rows(
            lambda row, loc, tril: scipy.stats.multivariate_normal(loc, tril @ tril.T).logpdf(row),
            x,
            p["loc"],
            p["scale_tril"],
        ),
        # The marginal of coordinate i is N(loc[i], |row i of the Cholesky factor|^2).
        cdf=lambda x, p: scipy.stats.norm(p["loc"], np.linalg.norm(p["scale_tril"], axis=-1)).cdf(x),
        scalar=False,
        sizes={"scale_tril": 6},
    ),
    Family(
        "VonMisesFisher",
        {"concentration": positive, "mean_direction": lambda raw, p: raw / np.linalg.norm(raw, axis=-1, keepdims=True)},
        # On the sphere in three dimensions the normaliser is k / (4 pi sinh k).
        lambda x, p: (
            np.log(p["concentration"] / (4 * np.pi * np.sinh(p["concentration"])))[..., 0]
            + p["concentration"][..., 0] * np.sum(p["mean_direction"] * x, axis=-1)
        ),
        scalar=False,
        sizes={"concentration": 1},
    ),
]

POSTERIORS += [
    Family(
        "MultivariateNormalDiagPlusLowRankCovariance",
        {
            "loc": real,
            "cov_diag_factor": lambda raw, _: 1e-5 + np.logaddexp(0.0, raw),
            "cov_perturb_factor": lambda raw, _: raw.reshape(*raw.shape[:-1], SIZE, 2),
        },
        lambda x, p: _rows(
            lambda row, loc, d, v: scipy.stats.multivariate_normal(loc, np.diag(d) + v @ v.T).logpdf(row),
            x,
            p["loc"],
            p["cov_diag_factor"],
            p["cov_perturb_factor"],
        ),
        cdf=lambda x, p: scipy.stats.norm(
            p["loc"], np.sqrt(p["cov_diag_factor"] + np.sum(p["cov_perturb_factor"] ** 2, axis=-1))
        ).cdf(x),
        scalar=False,
        sizes={"cov_perturb_factor": 2 * SIZE},
        fixed={"rank": 2},
        tfp=lambda p: tfd.MultivariateNormalDiagPlusLowRankCovariance(**p),
    ),
    Family(
        "NormalMixture",
        {
            "logits": real,
            "loc": lambda raw, _: raw.reshape(*raw.shape[:-1], 2, SIZE),
            "scale": lambda raw, _: 1e-5 + np.logaddexp(0.0, raw).reshape(*raw.shape[:-1], 2, SIZE),
        },
        lambda x, p: scipy.special.logsumexp(
            scipy.special.log_softmax(p["logits"], axis=-1)
            + scipy.stats.norm(p["loc"], p["scale"]).logpdf(x[..., None, :]).sum(axis=-1),
            axis=-1,
        ),
        cdf=lambda x, p: np.sum(
            scipy.special.softmax(p["logits"], axis=-1)[..., None]
            * scipy.stats.norm(p["loc"], p["scale"]).cdf(x[..., None, :]),
            axis=-2,
        ),
        scalar=False,
        sizes={"logits": 2, "loc": 2 * SIZE, "scale": 2 * SIZE},
        fixed={"num_components": 2},
        tfp=lambda p: tfd.MixtureSameFamily(
            tfd.Categorical(logits=p["logits"]), tfd.Independent(tfd.Normal(p["loc"], p["scale"]), 1)
        ),
    ),
    Family(
        "PowerSpherical",
        {
            "concentration": above(1.0),
            "mean_direction": lambda raw, p: raw / np.linalg.norm(raw, axis=-1, keepdims=True),
        },
        # (1 + mu.x)^k over its normaliser in three dimensions, 2^(k+1) 2 pi / (k + 1).
        lambda x, p: (
            p["concentration"][..., 0] * np.log1p(np.sum(p["mean_direction"] * x, axis=-1))
            - np.log(2 * np.pi * 2 ** (p["concentration"][..., 0] + 1) / (p["concentration"][..., 0] + 1))
        ),
        scalar=False,
        sizes={"concentration": 1},
        tfp=lambda p: tfd.PowerSpherical(p["mean_direction"], p["concentration"][..., 0]),
    ),
]

LIKELIHOODS = [
    _discrete(
        "Bernoulli",
        {"logits": real},
        lambda p: scipy.stats.bernoulli(scipy.special.expit(p["logits"])),
        x=(0.0, 1.0, 1.0),
    ),
    Family(
        "ContinuousBernoulli",
        {"logits": real},
        _continuous_bernoulli_log_prob,
        x=(0.0, 0.3, 1.0),
        mean=_continuous_bernoulli_mean,
    ),
    dataclasses.replace(_location_scale("Normal", scipy.stats.norm), x=(-2.0, 0.3, 4.0), mean=lambda p: p["loc"]),
    _discrete("Poisson", {"log_rate": real}, lambda p: scipy.stats.poisson(np.exp(p["log_rate"])), x=(0.0, 3.0, 9.0)),
    Family(
        "OneHotCategorical",
        {"logits": real},
        lambda x, p: np.sum(x * scipy.special.log_softmax(p["logits"], axis=-1), axis=-1),
        scalar=False,
        x=(0.0, 1.0, 0.0),
        mean=lambda p: scipy.special.softmax(p["logits"], axis=-1),
    ),
    # SciPy's p is the probability that the count stops, TFP's logits are those of going on.
    _discrete(
        "NegativeBinomial",
        {"total_count": positive, "logits": real},
        lambda p: scipy.stats.nbinom(p["total_count"], scipy.special.expit(-p["logits"])),
        x=(0.0, 3.0, 9.0),
    ),
    # SciPy counts the trials, TFP the failures.
    dataclasses.replace(
        _discrete(
            "Geometric",
            {"logits": real},
            lambda p: scipy.stats.geom(scipy.special.expit(p["logits"]), loc=-1),
            x=(0.0, 3.0, 9.0),
        ),
        tfp=lambda p: tfd.Geometric(logits=p["logits"]),
    ),
    dataclasses.replace(
        _discrete(
            "Binomial",
            {"logits": real},
            lambda p: scipy.stats.binom(9, scipy.special.expit(p["logits"])),
            x=(0.0, 3.0, 9.0),
        ),
        fixed={"total_count": 9},
        tfp=lambda p: tfd.Binomial(np.float64(9.0), logits=p["logits"]),
    ),
    dataclasses.replace(
        _discrete(
            "BetaBinomial",
            {"concentration1": positive, "concentration0": positive},
            lambda p: scipy.stats.betabinom(9, p["concentration1"], p["concentration0"]),
            x=(0.0, 3.0, 9.0),
        ),
        fixed={"total_count": 9},
        tfp=lambda p: tfd.BetaBinomial(np.float64(9.0), p["concentration1"], p["concentration0"]),
    ),
    Family(
        "BagOfWords",
        {"logits": real},
        lambda x, p: _rows(
            lambda row, logits: scipy.stats.multinomial(9, scipy.special.softmax(logits)).logpmf(row), x, p["logits"]
        ),
        scalar=False,
        x=(2.0, 0.0, 7.0),
        mean=lambda p: scipy.special.softmax(p["logits"], axis=-1),
        tfp=lambda p: tfd.Multinomial(np.float64(9.0), logits=p["logits"]),
    ),
    Family(
        "DirichletBagOfWords",
        {"concentration": positive},
        lambda x, p: _rows(
            lambda row, c: scipy.stats.dirichlet_multinomial(c, 9).logpmf(row.astype(int)), x, p["concentration"]
        ),
        scalar=False,
        x=(2.0, 0.0, 7.0),
        mean=lambda p: p["concentration"] / p["concentration"].sum(axis=-1, keepdims=True),
        tfp=lambda p: tfd.DirichletMultinomial(np.float64(9.0), p["concentration"]),
    ),
    *(
        Family(
            f"Library{kind}",
            {"logits": real, **more},
            _of_library(log_pmf),
            scalar=False,
            x=(2.0, 0.0, 7.0),
            mean=_mean_of_library,
            tfp=lambda p, of=of_tfp: tfd.Independent(
                of(p, np.log(9.0) + scipy.special.log_softmax(p["logits"], -1)), 1
            ),
        )
        for kind, more, log_pmf, of_tfp in (
            ("Poisson", {}, _poisson_log_pmf, lambda p, m: tfd.Poisson(log_rate=m)),
            ("NegativeBinomial", {"total_count": _exp}, _negative_binomial_log_pmf, _tfp_negative_binomial),
            (
                "ZeroInflatedPoisson",
                {"zero_logits": real},
                _zero_inflated(_poisson_log_pmf),
                lambda p, m: tfd.Inflated(tfd.Poisson(log_rate=m), inflated_loc_logits=p["zero_logits"] / 2),
            ),
            (
                "ZeroInflatedNegativeBinomial",
                {"total_count": _exp, "zero_logits": real},
                _zero_inflated(_negative_binomial_log_pmf),
                lambda p, m: tfd.Inflated(_tfp_negative_binomial(p, m), inflated_loc_logits=p["zero_logits"] / 2),
            ),
        )
    ),
    Family(
        "ZeroInflatedPoisson",
        {"zero_logits": real, "log_rate": real},
        lambda x, p: np.log(
            np.where(x == 0, scipy.special.expit(p["zero_logits"]), 0.0)
            + scipy.special.expit(-p["zero_logits"]) * scipy.stats.poisson(np.exp(p["log_rate"])).pmf(x)
        ),
        x=(0.0, 3.0, 9.0),
        mean=lambda p: scipy.special.expit(-p["zero_logits"]) * np.exp(p["log_rate"]),
        tfp=lambda p: tfd.Inflated(tfd.Poisson(log_rate=p["log_rate"]), inflated_loc_logits=p["zero_logits"] / 2),
    ),
    Family(
        "Multinomial",
        {"logits": real},
        lambda x, p: _rows(
            lambda row, logits: scipy.stats.multinomial(9, scipy.special.softmax(logits)).logpmf(row), x, p["logits"]
        ),
        scalar=False,
        x=(2.0, 0.0, 7.0),
        mean=lambda p: 9 * scipy.special.softmax(p["logits"], axis=-1),
        fixed={"total_count": 9},
        tfp=lambda p: tfd.Multinomial(np.float64(9.0), logits=p["logits"]),
    ),
    Family(
        "DirichletMultinomial",
        {"concentration": positive},
        lambda x, p: _rows(
            lambda row, c: scipy.stats.dirichlet_multinomial(c, 9).logpmf(row.astype(int)), x, p["concentration"]
        ),
        scalar=False,
        x=(2.0, 0.0, 7.0),
        mean=lambda p: 9 * p["concentration"] / p["concentration"].sum(axis=-1, keepdims=True),
        fixed={"total_count": 9},
        tfp=lambda p: tfd.DirichletMultinomial(np.float64(9.0), p["concentration"]),
    ),
    Family(
        "Categorical",
        {"logits": lambda raw, _: raw.reshape(*raw.shape[:-1], SIZE, 4)},
        lambda x, p: np.take_along_axis(
            scipy.special.log_softmax(p["logits"], axis=-1), x[..., None].astype(int), axis=-1
        )[..., 0],
        x=(0.0, 2.0, 3.0),
        mean=lambda p: scipy.special.softmax(p["logits"], axis=-1) @ np.arange(4.0),
        sizes={"logits": 4 * SIZE},
        fixed={"num_classes": 4},
        tfp=lambda p: tfd.Categorical(logits=p["logits"], dtype=tf.int32),
    ),
    Family(
        "OrderedLogistic",
        {"cutpoints": _rising, "loc": real},
        lambda x, p: np.log(np.take_along_axis(_grades(p), x[..., None].astype(int), axis=-1)[..., 0]),
        x=(0.0, 2.0, 3.0),
        mean=lambda p: _grades(p) @ np.arange(4.0),
        sizes={"cutpoints": 3 * SIZE},
        fixed={"num_classes": 4},
        tfp=lambda p: tfd.OrderedLogistic(p["cutpoints"], p["loc"]),
    ),
    *(
        Family(
            name,
            {"loc": real, "scale": above(0.5 * np.exp(-7.0))},
            lambda x, p, frozen=frozen: _level_log_prob(frozen, x, p["loc"], p["scale"]),
            x=(0.0, 100 / 255, 1.0),
            mean=lambda p, frozen=frozen: _level_mean(frozen, p["loc"], p["scale"]),
            tfp=lambda p, kind=kind: types.SimpleNamespace(
                log_prob=lambda x: _quantized(x, p["loc"], p["scale"], kind)
            ),
        )
        for name, frozen, kind in (
            ("DiscretizedLogistic", scipy.stats.logistic, tfd.Logistic),
            ("DiscretizedNormal", scipy.stats.norm, tfd.Normal),
        )
    ),
    Family(
        "DiscretizedLogisticMixture",
        {
            "logits": real,
            "loc": lambda raw, _: raw.reshape(*raw.shape[:-1], SIZE, 2),
            "scale": lambda raw, _: above(0.5 * np.exp(-7.0))(raw, _).reshape(*raw.shape[:-1], SIZE, 2),
            "coefficients": lambda raw, _: np.tanh(raw).reshape(*raw.shape[:-1], SIZE, 2),
        },
        _pixel_log_prob,
        scalar=False,
        x=(0.0, 100 / 255, 1.0),
        mean=_pixel_mean,
        tfp=lambda p: types.SimpleNamespace(log_prob=lambda x: _quantized_pixel(p, x)),
        sizes={"logits": 2, "loc": 2 * SIZE, "scale": 2 * SIZE, "coefficients": 2 * SIZE},
        fixed={"num_components": 2},
    ),
]
