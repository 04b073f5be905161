"""x before the model sees it: what its numbers mean and whether the likelihood can score them.

All of it follows from the facts of the likelihood's family. The numbers are measured in one pass, in memory or inside
a program, and judged from a few numbers afterwards, so that a stream costs no more than an array.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.distribution_layer import DistributionLayer
from tfvae.engine import replicas
from tfvae.mixed_layer import MixedLayer

Layer = DistributionLayer | MixedLayer

_TOLERANCE = 1e-3  # for sums and lengths that were made in float32
_WHOLE = 2.0**24  # from here on float32 leaves whole numbers out
_BLOCK = 1 << 18  # bytes
_BITS_OF_INFINITY = 0x7F800000  # as float32
_REDUCE = tf.reduce_min, tf.reduce_max


def is_picture(layer: Layer) -> bool:
    """Whether a uint8 observation holds pixels, to be divided by 255, and not counts, classes or indicators.

    Example:
        >>> is_picture(DistributionLayer("Bernoulli", [8])), is_picture(DistributionLayer("Poisson", [8]))
        (True, False)
    """
    return layer.facts is not None and layer.facts.support.is_picture


def byte_scale(layer: Layer) -> float:
    """What a uint8 observation is divided by.

    Raises:
        ValueError: For a family of whose numbers nothing is known.

    Example:
        >>> byte_scale(DistributionLayer("Normal", [8]))
        255.0
    """
    if isinstance(layer, MixedLayer):
        raise ValueError(
            "x is uint8, but columns of several families hold numbers of several kinds: pass x as float32, each column "
            "on the scale that its family has."
        )
    if layer.facts is None:
        raise ValueError(
            f"x is uint8, and nothing says whether a {layer.family.__name__} likelihood takes pixels or counts. Pass "
            "x as float32 on the scale that the family has, or register the family with its facts: "
            "families.register(family, families.Facts(families.facts.REAL))."
        )
    return 255.0 if is_picture(layer) else 1.0


def white(layer: Layer) -> float:
    """The number that a picture's white pixel has, of what is scored: 1, or of counts and classes the largest.

    Counts without an end are on the scale of bytes.

    Example:
        >>> white(DistributionLayer("Bernoulli", [8])), white(DistributionLayer("Categorical", [8], num_classes=16))
        (1.0, 15.0)
    """
    if is_picture(layer) or layer.facts is None:
        return 1.0
    support = layer.facts.support
    if (classes := layer.setting.get(support.at_most or "")) is not None:
        return max(1.0, classes - 1.0)
    if (most := layer.fixed.get(support.at_most or "")) is not None:
        return float(np.max(most))
    return support.high if math.isfinite(support.high) else 255.0


def scale(layer: Layer) -> str:
    """What numbers an observation that is given as floats holds, in words.

    Example:
        >>> scale(DistributionLayer("Bernoulli", [8]))
        'values in [0, 1]'
    """
    if isinstance(layer, MixedLayer):
        return "; ".join(f"{title}: {scale(part)}" for title, part in zip(layer.titles(), layer.parts, strict=True))
    words = f"values of the support of {layer.family.__name__}" if layer.facts is None else layer.facts.support.words
    return words + (", NaN where missing" if layer.missing else "")


def parts(layer: Layer, x: tf.Tensor) -> list[tuple[DistributionLayer, tf.Tensor]]:
    """The layers of one family that x is of, each with its columns of x.

    Example:
        >>> layer = DistributionLayer("Normal", [2])
        >>> [part is layer for part, _ in parts(layer, tf.zeros([1, 2]))]
        [True]
    """
    return layer.columns(x) if isinstance(layer, MixedLayer) else [(layer, x)]


def extent(layer: Layer, x: tf.Tensor) -> tf.Tensor:
    """What there is to know of the values of x ``[N, *event]``: float32 ``[-lowest, highest, broken, off, bytes]``.

    Of several batches it is the elementwise maximum. The first two are infinite where x holds a NaN. Bytes of pictures
    are scaled as the model scales them; with them ``bytes`` is 1, else 0. ``broken`` is 1 where the support has whole
    numbers or levels and x has others, or where x is at a pole; ``off`` is how far x is from the sums, lengths, orders
    and fixed ends of the support. Of columns of several families it is one ``extent`` after another. What is missing is
    left out.

    Example:
        >>> extent(DistributionLayer("Poisson", [2]), tf.constant([[3.0, 0.0], [7.5, 1.0]])).numpy().tolist()
        [-0.0, 7.5, 1.0, 0.0, 0.0]
    """
    if isinstance(layer, MixedLayer):
        return tf.concat([extent(part, some) for part, some in parts(layer, x)], axis=0)
    gone = layer.holes(x)
    has_holes = layer.missing and x.dtype.is_floating
    ends = [tf.where(gone, tf.cast(end, x.dtype), x) for end in (np.inf, -np.inf)] if has_holes else [x, x]
    low, high = (tf.cast(reduce(end), tf.float32) for reduce, end in zip(_REDUCE, ends, strict=True))
    if x.dtype.is_floating:
        finite = tf.reduce_all(tf.math.is_finite(x) | gone)
        low, high = tf.where(finite, low, -float("inf")), tf.where(finite, high, float("inf"))
    if has_holes:
        x = tf.where(gone, tf.cast(layer.inside, x.dtype), x)
    pixels = x.dtype == tf.uint8 and is_picture(layer)
    if pixels:
        low, high, x = low / 255.0, high / 255.0, tf.cast(x, tf.float32) / 255.0
    return tf.stack([-low, high, _broken(layer, x), _off(layer, x), float(pixels)])


def glance(layer: Layer, x: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
    """Whether one pass over x ``[N, *event]`` tells that it fits, and if so an ``extent``, with the lowest left open.

    From 0 up, floats lie in the order of their bits; -0, negative ones and NaN, read as unsigned, come after infinity.

    Example:
        >>> [bool(glance(DistributionLayer("Poisson", [1]), tf.constant([[value]]))[0]) for value in (3.0, -1.0, 0.5)]
        [True, False, False]
    """
    if isinstance(layer, MixedLayer) or layer.missing or (layer.facts is not None and layer.facts.support.has_pole):
        return tf.constant(False), []
    pixels, zero_fits = x.dtype == tf.uint8 and is_picture(layer), fits(layer, [0.0, 0.0, 0.0, 0.0, 0.0])
    known, lowest, highest = tf.constant(True), 0.0, tf.constant(-float("inf"))
    if x.dtype == tf.uint8:
        lowest, highest = (tf.cast(reduce(x), tf.float32) / (255.0 if pixels else 1.0) for reduce in _REDUCE)
    elif not is_limited(layer, x.dtype):
        known = tf.reduce_all(tf.math.is_finite(x))
    elif x.dtype == tf.float32:
        first, last = (reduce(tf.bitcast(x, tf.uint32)) for reduce in _REDUCE)
        known, lowest, highest = last < _BITS_OF_INFINITY, tf.bitcast(first, tf.float32), tf.bitcast(last, tf.float32)
    else:
        known = tf.constant(False)
    lowest = 0.0 if zero_fits else lowest  # then its pass over x is not made
    rest = [highest, _broken(layer, x), _off(layer, x), float(pixels)]
    return known & fits(layer, [0.0 - lowest, *rest]), [-float("inf"), *rest]


def measured(layer: Layer, x: tf.Tensor) -> tf.Tensor:
    """An ``extent``, of which the lowest is -inf and so left open where x fits without it.

    Example:
        >>> measured(DistributionLayer("Poisson", [2]), tf.constant([[3.0, 2.0]])).numpy().tolist()
        [-inf, 3.0, 0.0, 0.0, 0.0]
    """
    known, short = glance(layer, x)
    if not short:
        return extent(layer, x)
    return tf.cond(known, lambda: tf.stack(short), lambda: extent(layer, x))


def _broken(layer: Layer, x: tf.Tensor) -> tf.Tensor:
    if layer.facts is None or not x.dtype.is_floating:
        return tf.constant(0.0)
    support = layer.facts.support
    if support.has_pole:
        return tf.cast(tf.reduce_any(x == 0.0), tf.float32)
    if not support.has_gaps:
        return tf.constant(0.0)
    if support.is_level:
        x = 255.0 * tf.cast(x, tf.float32)
        return tf.cast(tf.reduce_any(tf.abs(x - tf.round(x)) > _TOLERANCE), tf.float32)
    return tf.cast(tf.reduce_any(x != tf.round(x)), tf.float32)


def _off(layer: Layer, x: tf.Tensor) -> tf.Tensor:
    if layer.facts is None:
        return tf.constant(0.0)
    support, x = layer.facts.support, tf.cast(x, tf.float32)
    off = [*_off_vectors(layer, support, x), *_beyond(layer, support, x)]
    return tf.reduce_max(tf.stack([0.0, *map(tf.reduce_max, off)]))


def _off_vectors(layer: Layer, support: families.Support, x: tf.Tensor) -> Iterator[tf.Tensor]:
    """How far the lengths, sums and orders along the last axis are from those of the support."""
    if support.is_unit:
        yield tf.abs(tf.norm(x, axis=-1) - 1.0)
    if support.total is not None:
        total = layer.fixed[support.total] if isinstance(support.total, str) else support.total
        yield tf.abs(tf.reduce_sum(tf.exp(x) if support.is_log else x, axis=-1) - total)
    if support.is_permutation:
        yield tf.abs(tf.sort(x, axis=-1) - tf.range(layer.event_shape[-1], dtype=tf.float32))


def _beyond(layer: Layer, support: families.Support, x: tf.Tensor) -> Iterator[tf.Tensor]:
    """How far x is beyond the ends that the user fixed; a step beyond one has no density, so that none is forgiven."""
    (low, high), most = support.between, layer.setting.get(support.at_most or "")
    ends = [(low, -1.0), (high, 1.0), *([(support.at_most, 1.0)] if support.at_most and most is None else [])]
    for end, sign in ends:
        if end in layer.fixed:
            excess = sign * (x - layer.fixed[end])
            yield tf.where(excess > 0, tf.maximum(excess, 2 * _TOLERANCE), 0.0)
    if most is not None:
        yield x - (most - 1)


def complaint(layer: Layer, extent: Sequence[float]) -> str | None:
    """What is wrong with observations of an ``extent``, and how to mend it; None if nothing is.

    Example:
        >>> complaint(DistributionLayer("Poisson", [2]), [2.0, 7.0, 0.0, 0.0, 0.0])[:65]
        'x ranges from -2 to 7, but a Poisson likelihood scores counts 0, '
    """
    if isinstance(layer, MixedLayer):
        named = zip(layer.titles(), layer.parts, np.split(np.asarray(extent), len(layer.parts)), strict=True)
        found = ((title, complaint(part, piece.tolist())) for title, part, piece in named)
        return next((f"In {title}, {problem}" for title, problem in found if problem), None)
    low, high, (broken, off, pixels) = 0.0 - float(extent[0]), float(extent[1]), extent[2:]
    if pixels and 0.5 < 255 * high < 1.5:
        return (
            "x is uint8 and holds nothing but 0 and 1, of which a picture's white is 255. Pass x.astype('float32'), or "
            "prepare arrays with --dtype float32, if 1 is white; x as float32 divided by 255 if it is the darkest grey."
        )
    if low > high:  # no observations, or none whose lowest was asked for
        return None
    if not np.isfinite([low, high]).all():
        if layer.missing:
            return "x holds infinite values: remove or repair those rows. Numbers beyond float32 are infinite here."
        return (
            "x holds NaN or infinite values: remove or repair those rows, or, where NaN is a missing number, make the "
            "likelihood leave it out: likelihoods.missing(layer). Numbers beyond float32 are infinite here."
        )
    if layer.facts is None:
        return None
    if fits(layer, extent):
        return None
    support = layer.facts.support
    if support.is_whole and max(-low, high) >= _WHOLE:
        return (
            f"x ranges from {low:g} to {high:g}, but float32 holds not every whole number from 2^24 = 16,777,216 on: "
            "choose a likelihood of real values, for their logarithm, say."
        )
    others = "0" if support.has_pole else f"other than {'levels' if support.is_level else 'whole numbers'}"
    how = f" and holds {others}" if broken else f" and is off by {off:g}"
    how = "" if math.isfinite(layer.reach[0]) or not support.holds(low, high) else how
    return f"x ranges from {low:g} to {high:g}{how}, but {expected(layer)}"


def fits(layer: Layer, extent: Any) -> Any:
    """Whether the likelihood scores finite observations of an ``extent``; of a tensor, a tensor.

    Example:
        >>> fits(DistributionLayer("Poisson", [2]), [0.0, 7.0, 0.0, 0.0, 0.0])
        True
    """
    if layer.facts is None:
        return True
    support, low, high, (least, most) = layer.facts.support, 0.0 - extent[0], extent[1], layer.reach
    inside = support.holds(low, high) & (least <= low) & (high <= most)
    inside &= (extent[2] == 0.0) & (extent[3] <= _TOLERANCE)
    return inside & (extent[0] < _WHOLE) & (high < _WHOLE) if support.is_whole else inside


def expected(layer: Layer) -> str:
    """What a likelihood with facts scores and what to do about other numbers, to end a sentence.

    Example:
        >>> expected(DistributionLayer("Poisson", [2]))[:47]
        'a Poisson likelihood scores counts 0, 1, 2, ...'
    """
    assert layer.facts is not None
    least, most = layer.reach
    if math.isfinite(least):
        return (
            f"the mean of this {layer.family.__name__} likelihood is held to an interval, and x must lie from "
            f"{least:g} to {most:g}, which leaves half its width for noise. {families.facts.SCALE}"
        )
    words = layer.facts.support.words
    return f"a {layer.family.__name__} likelihood scores {words.removesuffix('.')}. {layer.facts.support.instead}"


def is_limited(layer: Layer, dtype: tf.DType) -> bool:
    """Whether there are finite numbers of a dtype, float32 or a picture's uint8, that the likelihood does not score.

    Example:
        >>> layer = DistributionLayer("Bernoulli", [2])
        >>> is_limited(layer, tf.float32), is_limited(layer, tf.uint8)
        (True, False)
    """
    if isinstance(layer, MixedLayer):
        return any(is_limited(part, dtype) for part in layer.parts)
    if layer.facts is None:
        return False
    support = layer.facts.support
    ends = (0.0, 1.0) if dtype == tf.uint8 else (float("-inf"), float("inf"))
    if support.is_level and dtype == tf.uint8:
        return False
    beyond = not support.holds(*ends) or ends[0] < layer.reach[0] or layer.reach[1] < ends[1]
    return support.has_gaps or support.has_pole or support.is_unit or _has_fixed_ends(layer) or beyond


def _has_fixed_ends(layer: Layer) -> bool:
    return layer.facts is not None and any(end in layer.fixed for end in layer.facts.support.between)


def examples(layer: Layer, num_rows: int, dtype: tf.DType = tf.float32) -> np.ndarray:
    """Observations that the likelihood scores, ``[num_rows, *event]``, by the facts of its family alone.

    Floats, or bytes: of a picture, or the numbers themselves where they are whole. No two rows are alike where that is
    possible, and the same ones come each time. Where numbers may be missing, every other row lacks some.

    Example:
        >>> sorted(set(examples(DistributionLayer("Geometric", [50]), 3).ravel().tolist()))
        [0.0, 1.0]
    """
    if isinstance(layer, MixedLayer):
        return np.concatenate([examples(part, num_rows, dtype) for part in layer.parts], axis=-1)
    u = np.random.default_rng(0).uniform(0.05, 0.95, [num_rows, *layer.event_shape])
    x = u if layer.facts is None else _in_support(layer, layer.facts.support, u)
    least, most = layer.reach
    x = least + (most - least) * (0.25 + 0.5 * u) if math.isfinite(least) else x  # within what the mean reaches
    if dtype == tf.uint8:
        return (np.rint(np.clip(255.0 * x, 1, 254)) if is_picture(layer) else x).astype(np.uint8)
    x = x.astype(np.float32)
    if layer.missing:
        x[1::2][u[1::2] < 0.35] = np.nan
    return x


def scores_bytes(layer: Layer) -> bool:
    """Whether bytes are rows of x beyond doubt: a picture's, numbers from 0 to 1 as bytes, or counts and classes.

    Of real vectors uint8 may be a column that was standardized, which no division by 255 stands for. No byte lies
    between a low of 2 and a high of 3.

    Example:
        >>> [scores_bytes(DistributionLayer(family, [8])) for family in ("Bernoulli", "Poisson", "Normal")]
        [True, True, False]
    """
    if isinstance(layer, MixedLayer) or layer.facts is None:
        return False
    support = layer.facts.support
    is_pixels = support.is_picture and (len(layer.event_shape) == 3 or support.high == 1.0)
    if not (is_pixels or support.is_whole):
        return False
    return bool(fits(layer, extent(layer, tf.constant(examples(layer, 8, tf.uint8)))))


def _in_support(layer: Layer, support: families.Support, u: np.ndarray) -> np.ndarray:
    """Numbers of a support made of numbers between 0 and 1."""
    if support.is_permutation:
        return np.argsort(u, axis=-1)
    if support.is_unit:
        return u / np.linalg.norm(u, axis=-1, keepdims=True)
    if support.total is not None:
        total = layer.fixed[support.total] if isinstance(support.total, str) else support.total
        share = u == u.max(axis=-1, keepdims=True) if support.is_whole else u / u.sum(axis=-1, keepdims=True)
        return np.log(share * total) if support.is_log else share * np.expand_dims(total, -1)
    if support.is_whole:
        most = layer.setting.get(support.at_most or "", 2)
        return np.minimum(max(support.low, 0.0) + (u > 0.3), np.inf if support.low == 1.0 else most - 1)
    if support.is_level:
        return np.rint(255.0 * u) / 255.0
    low, high = (layer.fixed.get(end) for end in support.between)
    if low is not None and high is not None:
        return low + (high - low) * u
    return u if low is high is None else low + u if low is not None else high * u if support.is_open else high - u


def check(layer: Layer, x: tf.Tensor) -> None:
    """Raise ValueError if in-memory observations ``[N, *event]`` lie outside the likelihood's support.

    Looks at the data once: a NaN or a 0..255 picture given as float would otherwise train to nonsense in silence.

    Example:
        >>> check(DistributionLayer("Bernoulli", [2]), tf.constant([[0.0, 0.5]]))
    """
    if tf.size(x) == 0:
        return
    with tf.device("CPU:0"):  # where an array of any size has room
        values = np.asarray(memoryview(tf.identity(x)))  # no copy, as .numpy() makes
        if isinstance(layer, MixedLayer) or layer.missing:
            problem = complaint(layer, extent(layer, x).numpy())
        elif x.dtype == tf.uint8 and is_picture(layer):
            limited = is_limited(layer, x.dtype)
            problem = complaint(layer, extent(layer, x).numpy()) if limited else _complaint_of_bytes(layer, values)
        else:
            problem = complaint(layer, [*_range(values), _broken(layer, x).numpy(), _off(layer, x).numpy(), 0.0])
    if problem is not None:
        raise ValueError(problem)


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """The values in runs of some rows, which a processor's cache holds while they are looked at twice."""
    rows = max(1, _BLOCK // max(1, values[0].nbytes))
    return (values[first : first + rows] for first in range(0, len(values), rows))


def _range(values: np.ndarray) -> tuple[float, float]:
    """``[-lowest, highest]``, infinite where a value is none, as ``extent`` has them."""
    ends = np.max([(-float(block.min()), float(block.max())) for block in _blocks(values)], axis=0)
    return tuple(ends) if np.isfinite(ends).all() else (float("inf"), float("inf"))


def _complaint_of_bytes(layer: Layer, pixels: np.ndarray) -> str | None:
    """``complaint`` of a picture's bytes; where the support has all of [0, 1], the first grey ends the search."""
    assert layer.facts is not None
    if layer.facts.support.holds(0.0, 1.0) and any(block.max() > 1 for block in _blocks(pixels)):
        return None
    low, high = int(pixels.min()), int(pixels.max())
    return complaint(layer, [0.0 - low / 255, high / 255, 0.0, 0.0, 1.0])


class Noise(Protocol):
    """What a model draws of x anew whenever ``fit`` or ``evaluate`` sees a row; serialisable, as Keras asks."""

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """x ``[B, *event]`` of floats with the noise that ``seed``, int32 ``[2]``, fixes."""

    def check(self, likelihood: Layer) -> None:
        """Raise ValueError if the likelihood cannot score what is drawn."""


class _Plain:
    """A class without settings, as Keras serialises it."""

    def get_config(self) -> dict[str, Any]:
        """No settings."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls()


@keras.saving.register_keras_serializable("tfvae")
class Binarized(_Plain):
    """Each pixel is 0 or 1, with its intensity as probability (dynamic binarisation, arXiv 1509.00519, section 5).

    Example:
        >>> sorted(set(Binarized()(tf.fill([1, 100], 0.5), tf.constant([0, 1])).numpy().ravel().tolist()))
        [0.0, 1.0]
    """

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """See ``Noise``."""
        return replicas.sample(families.Bernoulli(probs=x), seed)

    def check(self, likelihood: Layer) -> None:
        """See ``Noise``."""
        if likelihood.facts is None or likelihood.facts.support is not families.facts.BINARY:
            raise ValueError(
                f"Binarized makes pixels of 0 and 1, which a {likelihood.family.__name__} likelihood does not score: "
                "use likelihoods.bernoulli, or leave x as it is."
            )


@keras.saving.register_keras_serializable("tfvae")
class Dequantized(_Plain):
    """Each 8-bit level b becomes (b + u) / 256, u uniform: a density of it bounds the probability of b from below.

    For log p(b) ≥ E log p((b + u) / 256) - D log 256 (Theis et al., arXiv 1511.01844, section 3.1), D pixels, so a
    density in nats becomes a bound on those of the bytes when D log 256 is taken off.

    Example:
        >>> x = Dequantized()(tf.constant([[0.0, 1.0]]), tf.constant([0, 1])).numpy()[0]
        >>> bool(0 <= x[0] < 1 / 256), bool(255 / 256 <= x[1] < 1)
        (True, True)
    """

    def __call__(self, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """See ``Noise``; x are levels divided by 255, as the model divides bytes."""
        u = replicas.sample(tfd.Uniform(tf.zeros_like(x), 1.0), seed)
        return (tf.round(255.0 * x) + tf.minimum(u, 0.9999)) / 256.0

    def check(self, likelihood: Layer) -> None:
        """See ``Noise``."""
        support = likelihood.facts.support if likelihood.facts else None
        if support is None or support.has_gaps or support is families.facts.BINARY:
            raise ValueError(
                f"Dequantized makes real numbers of levels, but a {likelihood.family.__name__} likelihood scores "
                "whole ones or levels themselves: take a likelihood of real numbers, such as likelihoods.normal."
            )
