"""What a VAE must know of a family, one line each; TFP says the rest.

Where do its numbers lie, so that observations can be checked and draws kept inside? Is a uint8 number a picture's
pixel, to be divided by 255, or a count? Which of its parameters depend on others, and how small may each become?
Every module asks this table, and nothing else keeps a list of families.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

Constraint = Callable[[tf.Tensor, Mapping[str, tf.Tensor]], tf.Tensor]

_TINY = float(np.finfo(np.float32).tiny)
_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@dataclasses.dataclass(frozen=True)
class Support:
    """Where the numbers of a family lie.

    Attributes:
        words: What they are, to end the sentence "x holds ...".
        low, high: The least and the greatest of them.
        is_open: Whether the density is 0 or infinite at finite ends, so that these are outside.
        has_pole: Whether the density is infinite at 0, which lies between them and is not one of them.
        is_whole: Whether they are whole numbers.
        is_level: Whether they are levels of 8 bits, whole multiples of 1/255.
        is_picture: Whether uint8 numbers are pixels, to be divided by 255, and not taken as they are.
        total: What the numbers along the last axis sum to, or the fixed parameter that says so.
        at_most: The fixed parameter, or the setting, that none of them exceeds; of a number of classes, one less.
        between: The parameters that none of them lies below and above, "" for an end that no parameter moves; they can
            be held to those that are fixed.
        is_unit: Whether they are a vector of length 1.
        is_log: Whether they are logarithms of what sums to the total.
        is_permutation: Whether they are 0, 1, 2, ... in some order along the last axis.
        is_name: Whether they stand for classes or items, so that their mean is none of them: the likeliest is told.
        lost_dimensions: By how many dimensions the support is smaller than its event.
        instead: What to do about numbers that lie outside.

    Example:
        >>> COUNTS.is_picture, UNIT.inside(tf.constant([0.0, 0.5, 1.0])).numpy().tolist()
        (False, [1.1754943508222875e-38, 0.5, 0.9999999403953552])
    """

    words: str
    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False
    has_pole: bool = False
    is_whole: bool = False
    is_level: bool = False
    is_picture: bool = True
    total: float | str | None = None
    at_most: str | None = None
    between: tuple[str, str] = ("", "")
    is_unit: bool = False
    is_log: bool = False
    is_permutation: bool = False
    is_name: bool = False
    lost_dimensions: int = 0
    instead: str = "Choose a likelihood for the values that x holds."

    @property
    def has_gaps(self) -> bool:
        """Whether there are numbers between two of its numbers that are none of them."""
        return self.is_whole or self.is_level

    def holds(self, low: Any, high: Any) -> Any:
        """Whether numbers between ``low`` and ``high`` lie inside; of tensors, a tensor."""
        if self.is_open:  # a number that float32 holds with fewer digits is 0 to programs
            return (self.low + _TINY <= low) & (high < self.high)
        return (self.low <= low) & (high <= self.high)

    def inside(self, z: tf.Tensor) -> tf.Tensor:
        """Draws z, those that float32 rounds to an open end of the support moved to the nearest number inside."""
        if not self.is_open:
            return z
        return tf.clip_by_value(z, _TINY, z.dtype.max if math.isinf(self.high) else _BELOW_ONE)


SCALE = (
    "Pass uint8 images as they are (the model scales them), divide by the maximum, or choose a likelihood of real "
    "values."
)
_ENDS = (
    "At 0 and 1 its density is 0 or infinite: take ContinuousBernoulli or Bernoulli, which score 0 and 1 too, or move "
    "x inside, as (254 x + 1) / 256."
)

REAL = Support("real values, on the scale of the training data (uint8 pictures were divided by 255)")
NOT_ZERO = dataclasses.replace(
    REAL,
    words="real values other than 0, where its density is infinite",
    has_pole=True,
    instead="Take a Laplace or a StudentT likelihood, which score 0 too.",
)
BETWEEN = dataclasses.replace(
    REAL,
    words="real values between its low and high",
    between=("low", "high"),
    instead="Fix a low and a high that x keeps to, or let them be learned.",
)
FROM_LOC = dataclasses.replace(
    REAL, words="real values above its loc", between=("loc", ""), instead="Fix a loc below x, or let it be learned."
)
# A density of angles repeats itself, so that both ways of writing them will do.
CIRCLE = Support(
    "angles in radians, from -π to π or from 0 to 2π",
    low=-3.1416,  # float32 rounds π up
    high=6.2832,
    is_picture=False,
    instead="Multiply degrees by π / 180; of angles that go on and on, take the remainder by 2π.",
)
POSITIVE = Support(
    "values above 0",
    low=0.0,
    is_open=True,
    instead="Add a small constant to zeros, or take Exponential or HalfNormal, which score 0 too.",
)
BETWEEN_POSITIVE = dataclasses.replace(
    POSITIVE, words="positive values between its low and high", between=BETWEEN.between, instead=BETWEEN.instead
)
FROM_SCALE = dataclasses.replace(
    POSITIVE,
    words="values above its scale",
    between=("scale", ""),
    instead="Fix a scale below x, or let it be learned.",
)
NONNEGATIVE = Support("values of 0 and more", low=0.0, instead="Choose a likelihood of real values.")
UNIT = Support("values above 0 and below 1", low=0.0, high=1.0, is_open=True, instead=_ENDS)
CLOSED_UNIT = Support("values in [0, 1]", low=0.0, high=1.0, instead=SCALE)
BINARY = dataclasses.replace(CLOSED_UNIT, instead=SCALE + " Grey values are scored as probabilities of a 1.")
LEVELS = dataclasses.replace(
    CLOSED_UNIT,
    words="levels of 8 bits, 0, 1/255, ..., 1",
    is_level=True,
    instead="Pass uint8 images as they are, or choose a likelihood of real values for others.",
)
COUNTS = Support(
    "counts 0, 1, 2, ...",
    low=0.0,
    is_whole=True,
    is_picture=False,
    instead="Undo a scaling or a logarithm, or choose a likelihood of real values.",
)
POSITIVE_COUNTS = dataclasses.replace(COUNTS, words="counts 1, 2, 3, ...", low=1.0)
INTEGERS = dataclasses.replace(COUNTS, words="whole numbers", low=-math.inf)
SUCCESSES = dataclasses.replace(COUNTS, words="counts 0, 1, 2, ... up to the total_count", at_most="total_count")
COUNTS_OF_TOTAL = dataclasses.replace(
    COUNTS,
    words="counts 0, 1, 2, ... that sum to the total_count along the last axis",
    total="total_count",
    instead="Choose the total_count of the data, or counts of any total, such as Poisson.",
)
LABELS = dataclasses.replace(
    COUNTS,
    words="classes 0, 1, 2, ... below num_classes",
    at_most="num_classes",
    is_name=True,
    instead="Number the classes from 0, or choose a larger num_classes.",
)
PERMUTATION = dataclasses.replace(
    COUNTS,
    words="permutations of 0, 1, 2, ...",
    is_permutation=True,
    is_name=True,
    instead="Rank the values first.",
)
ONE_HOT = Support(
    "indicators: a single 1 among zeros",
    low=0.0,
    high=1.0,
    is_whole=True,
    is_picture=False,
    total=1.0,
    instead="Encode classes with keras.utils.to_categorical.",
)
SIMPLEX = Support(
    "proportions above 0 that sum to 1 along the last axis",
    low=0.0,
    is_open=True,
    is_picture=False,
    total=1.0,
    lost_dimensions=1,
    instead="Divide each row by its sum, and replace zeros by a small share.",
)
LOG_SIMPLEX = Support(
    "logarithms of proportions that sum to 1 along the last axis",
    high=0.0,
    is_picture=False,
    total=1.0,
    is_log=True,
    lost_dimensions=1,
    instead="Take the logarithm of proportions above 0.",
)
SPHERE = Support(
    "vectors of length 1",
    low=-1.0,
    high=1.0,
    is_picture=False,
    is_unit=True,
    lost_dimensions=1,
    instead="Divide each row by its length.",
)


def _above_low(raw: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return parameters["low"] + tf.nn.softplus(raw)


def _between_low_and_high(raw: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return parameters["low"] + (parameters["high"] - parameters["low"]) * tf.sigmoid(raw)


def _unit_vector(raw: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return tf.math.l2_normalize(raw, axis=-1)


@dataclasses.dataclass(frozen=True)
class Facts:
    """One family.

    Attributes:
        support: Where its numbers lie.
        lowest: Below these values of a parameter a float32 draw leaves the open support (a Beta rounds to 1, a Gamma
            to 0, a Pareto overflows) or its pathwise gradient does, often enough to poison a training run. A fixed
            parameter is not held to them: whoever fixes it, chose it.
        dependent: Parameters whose range depends on others, so that TFP cannot constrain them alone, each with its map
            from the real line and after what it depends on.
        needs: What must be fixed with a fixed parameter, for no free one could be kept on the right side of it.
        other_spelling: The preferred parameter that steps aside when another is fixed: Gamma(rate=1.) leaves no
            log_rate to learn.
        counts: Parameters that are whole numbers from 1 on, which no gradient can learn, so that the user fixes them.
        setting: A whole number that the user gives, of which parameters take their shape: the number of classes.
        is_event_size: Whether the setting is the length of the event's last axis, so that nobody need give it.
        has_mean: Whether the mean exists whatever the parameters, or no mode stands in for it where float32 overflows.
        of_library: Whether its rates are shares of a row's total, its library; see ``families.LibraryPoisson``.
        axes: How few and how many an event has: one at least of a family of vectors, whose last axis is the vector.
        least_size: The shortest that the last axis may be.

    Example:
        >>> FACTS["Beta"].support is UNIT, FACTS["Beta"].lowest["concentration1"], FACTS["Binomial"].counts
        (True, 1.0, ['total_count'])
    """

    support: Support
    lowest: Mapping[str, float] = dataclasses.field(default_factory=dict)
    dependent: Mapping[str, Constraint] = dataclasses.field(default_factory=dict)
    needs: Mapping[str, Sequence[str]] = dataclasses.field(
        default_factory=lambda: {"high": ["low"], "peak": ["low", "high"]}
    )
    other_spelling: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"probs": "logits", "rate": "log_rate"}
    )
    counts: Sequence[str] = ()
    setting: str | None = None
    is_event_size: bool = False
    has_mean: bool = False
    of_library: bool = False
    axes: tuple[float, float] = (0, math.inf)
    least_size: int = 1

    def check_event(self, family: str, event_shape: Sequence[int]) -> None:
        """Raise ValueError where the family, whose name is given, has no such event.

        Example:
            >>> FACTS["Dirichlet"].check_event("Dirichlet", [28, 3])
            >>> FACTS["SphericalUniform"].axes, FACTS["Normal"].axes
            ((1, 1), (0, inf))
        """
        least, most = self.axes
        if not least <= len(event_shape) <= most:
            expected, of = "1 axis" if least == most else "at least 1 axis", "vectors"
        elif event_shape and event_shape[-1] < self.least_size:
            expected, of = f"a last axis of {self.least_size} or more", "vectors that one number cannot be"
        else:
            return
        raise ValueError(
            f"event_shape is {list(event_shape)}, expected {expected} for {family}, a family of {of}: "
            f"DistributionLayer({family!r}, [3]), say."
        )


_VECTORS, _ONE_VECTOR = (1, math.inf), (1, 1)
_REAL, _POSITIVE, _COUNTS = Facts(REAL), Facts(POSITIVE), Facts(COUNTS, has_mean=True)
_CENTRED = Facts(REAL, has_mean=True)
_REAL_VECTORS = Facts(REAL, has_mean=True, axes=_VECTORS)
_WORDS = Facts(COUNTS, has_mean=True, axes=_VECTORS)
_OF_LIBRARY = Facts(COUNTS, has_mean=True, of_library=True, axes=_VECTORS)
_BETA = {"concentration1": 1.0, "concentration0": 1.0}
_NARROWEST = {"scale": 0.5 * math.exp(-7.0)}  # PixelCNN++'s bound, where x runs from -1 to 1

FACTS: dict[str, Facts] = {
    # Real numbers
    "Normal": _CENTRED,
    "Laplace": _CENTRED,
    "Logistic": _CENTRED,
    "Cauchy": _REAL,
    "Gumbel": _CENTRED,
    "StudentT": Facts(REAL, lowest={"df": 1.0}),
    "Moyal": _REAL,
    "JohnsonSU": _REAL,
    "SinhArcsinh": _REAL,
    "LambertWNormal": _REAL,
    "GeneralizedNormal": _REAL,
    "GeneralizedExtremeValue": _REAL,
    "GeneralizedPareto": Facts(FROM_LOC),
    "DoublesidedMaxwell": _REAL,
    "ExponentiallyModifiedGaussian": _REAL,
    "ExpGamma": _REAL,
    "ExpInverseGamma": _REAL,
    "Horseshoe": Facts(NOT_ZERO),
    "HalfCauchy": Facts(FROM_LOC),
    "HalfStudentT": Facts(FROM_LOC, lowest={"df": 1.0}),
    "SigmoidBeta": _REAL,
    "TwoPieceNormal": _REAL,
    "TwoPieceStudentT": _REAL,
    "VonMises": Facts(CIRCLE),
    "Uniform": Facts(BETWEEN, dependent={"high": _above_low}),
    "TruncatedCauchy": Facts(BETWEEN, dependent={"high": _above_low, "loc": _between_low_and_high}),
    "PERT": Facts(BETWEEN, dependent={"high": _above_low, "peak": _between_low_and_high}),
    "Triangular": Facts(BETWEEN, dependent={"high": _above_low, "peak": _between_low_and_high}),
    # It could lie anywhere, but far outside of [low, high] float32 has no digits for what is left of it.
    "TruncatedNormal": Facts(BETWEEN, dependent={"high": _above_low, "loc": _between_low_and_high}),
    "MultivariateNormalDiag": _REAL_VECTORS,
    "MultivariateNormalTriL": _REAL_VECTORS,
    "MultivariateNormalFullCovariance": _REAL_VECTORS,
    "MultivariateNormalDiagPlusLowRankCovariance": Facts(REAL, setting="rank", has_mean=True, axes=_VECTORS),
    "NormalMixture": Facts(REAL, setting="num_components", has_mean=True, axes=_VECTORS),
    "StratifiedNormalMixture": Facts(REAL, setting="num_components", has_mean=True, axes=_VECTORS),
    "PlanarFlow": Facts(REAL, setting="num_flows", axes=_ONE_VECTOR),
    "SylvesterFlow": Facts(REAL, setting="num_flows", axes=_ONE_VECTOR),
    # Positive numbers
    "Exponential": Facts(NONNEGATIVE, has_mean=True),
    "HalfNormal": Facts(NONNEGATIVE, has_mean=True),
    "Gamma": Facts(POSITIVE, lowest={"concentration": 0.3}, has_mean=True),
    "Weibull": Facts(POSITIVE, lowest={"concentration": 0.25}),
    "Pareto": Facts(FROM_SCALE, lowest={"concentration": 1.0}),
    "F": Facts(POSITIVE, lowest={"df1": 1.0, "df2": 2.0}),
    "Reciprocal": Facts(BETWEEN_POSITIVE, dependent={"high": _above_low}),
    "LogNormal": _POSITIVE,
    "LogLogistic": _POSITIVE,
    "Chi": _POSITIVE,
    "Chi2": _POSITIVE,
    "NoncentralChi2": _POSITIVE,
    "InverseGamma": _POSITIVE,
    "InverseGaussian": _POSITIVE,
    "GammaGamma": Facts(POSITIVE, lowest={"mixing_concentration": 1.0}),
    "BetaQuotient": Facts(POSITIVE, lowest={"concentration1_denominator": 1.0}),
    "Rayleigh": _POSITIVE,
    "Gompertz": _POSITIVE,
    "Erlang": Facts(POSITIVE, setting="num_stages"),
    # Numbers between 0 and 1
    "Beta": Facts(UNIT, lowest=_BETA, has_mean=True),
    "Kumaraswamy": Facts(UNIT, lowest=_BETA, has_mean=True),
    "LogitNormal": Facts(UNIT),
    "RelaxedBernoulli": Facts(UNIT),
    "ContinuousBernoulli": Facts(CLOSED_UNIT, has_mean=True),
    "Bernoulli": Facts(BINARY, has_mean=True),
    "ProbitBernoulli": Facts(BINARY, has_mean=True),
    "DiscretizedLogistic": Facts(LEVELS, lowest=_NARROWEST, has_mean=True),
    "DiscretizedNormal": Facts(LEVELS, lowest=_NARROWEST, has_mean=True),
    "DiscretizedLogisticMixture": Facts(
        LEVELS, lowest=_NARROWEST, setting="num_components", has_mean=True, axes=_VECTORS
    ),
    # Whole numbers
    "Poisson": _COUNTS,
    "NegativeBinomial": _COUNTS,
    "ZeroInflatedNegativeBinomial": _COUNTS,
    "ZeroInflatedPoisson": _COUNTS,
    "Zipf": Facts(POSITIVE_COUNTS),
    "Geometric": Facts(COUNTS),
    "Skellam": Facts(INTEGERS),
    "Binomial": Facts(SUCCESSES, counts=["total_count"], has_mean=True),
    "BetaBinomial": Facts(SUCCESSES, counts=["total_count"], has_mean=True),
    "Categorical": Facts(LABELS, setting="num_classes"),
    "OrderedLogistic": Facts(LABELS, setting="num_classes"),
    # Vectors
    "Multinomial": Facts(COUNTS_OF_TOTAL, counts=["total_count"], has_mean=True, axes=_VECTORS),
    "DirichletMultinomial": Facts(COUNTS_OF_TOTAL, counts=["total_count"], has_mean=True, axes=_VECTORS),
    "BagOfWords": _WORDS,
    "DirichletBagOfWords": _WORDS,
    "LibraryPoisson": _OF_LIBRARY,
    "LibraryNegativeBinomial": _OF_LIBRARY,
    "LibraryZeroInflatedPoisson": _OF_LIBRARY,
    "LibraryZeroInflatedNegativeBinomial": _OF_LIBRARY,
    "PlackettLuce": Facts(PERMUTATION, axes=_VECTORS),
    "OneHotCategorical": Facts(ONE_HOT, has_mean=True, axes=_VECTORS),
    "RelaxedOneHotCategorical": Facts(SIMPLEX, lowest={"temperature": 0.3}, axes=_VECTORS),
    "ExpRelaxedOneHotCategorical": Facts(LOG_SIMPLEX, lowest={"temperature": 0.3}, axes=_VECTORS),
    "Dirichlet": Facts(SIMPLEX, lowest={"concentration": 0.3}, has_mean=True, axes=_VECTORS, least_size=2),
    "VonMisesFisher": Facts(SPHERE, dependent={"mean_direction": _unit_vector}, axes=_VECTORS, least_size=2),
    "PowerSpherical": Facts(
        SPHERE, lowest={"concentration": 1.0}, dependent={"mean_direction": _unit_vector}, axes=_VECTORS, least_size=2
    ),
    "SphericalUniform": Facts(SPHERE, setting="dimension", is_event_size=True, axes=_ONE_VECTOR),
}


# TFP makes an object of the base class where a part is no composite tensor, as a flow's network is not.
_WRAPPERS = tuple(kind.__bases__[0] for kind in (tfd.Independent, tfd.BatchBroadcast))


def of(distribution: Any) -> Facts | None:
    """The facts of a distribution, or None for one that is in no table.

    Example:
        >>> of(tfd.Independent(tfd.Gamma([1.0], 1.0), 1)).support.words
        'values above 0'
    """
    while isinstance(distribution, _WRAPPERS):
        distribution = distribution.distribution
    return FACTS.get(type(distribution).__name__)
