"""A row: x, and what may come with it; from what users pass to what networks see."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.arguments import found_by, no_array, refuse_masked, refuse_sparse
from tfvae.engine import batches

_PARTS = ("x", "condition", "label")
_LOOKED_AT = 256  # rows, about
_NEAR = 1e-4  # of the largest number: a smaller spread is looked at, float32's steps are 1e-7 of it
_NOISE = 1e-13  # of it, in which float64's own rounding is
_ROUNDED = 0.01  # of a standard deviation, as ``prepare --standardize`` has it


class Batch(NamedTuple):
    """Rows as the networks and distributions see them.

    Attributes:
        x: Observations as floats, ``[B, *event]``.
        condition: What the networks and the prior may see beside, float32 ``[B, *condition]``; None without one.
        label: Classes, int32 ``[B]``, -1 where unknown; None without them.
        given: x as it came, before noise, for a prior that knows rows again.
    """

    x: tf.Tensor
    condition: tf.Tensor | None = None
    label: tf.Tensor | None = None
    given: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class RowShape:
    """What the rows of a model look like.

    Attributes:
        event_shape: Shape of x, one observation.
        condition_shape: Shape of its condition; None where the model has none.
    """

    event_shape: tuple[int, ...]
    condition_shape: tuple[int, ...] | None

    def prepare(self, inputs: Any) -> dict[str, tf.Tensor]:
        """A row's parts by name, as tensors ``[N, ...]`` of the model's shapes; a ValueError says what else came."""
        given = inputs if batches.in_parts(inputs) else {"x": inputs}
        if "x" not in given or not set(given) <= set(_PARTS):
            raise ValueError(
                f"A row has the parts {', '.join(map(str, given))}, expected x and, where wanted, condition, label."
            )
        rows = {"x": self.observations(given["x"])}
        condition = self.condition(given.get("condition"))
        if condition is not None:
            rows["condition"] = condition
        if given.get("label") is not None:
            rows["label"] = _labels(given["label"])
        _check_lengths(rows)
        return rows

    def observations(self, x: Any) -> tf.Tensor:
        """x as a uint8 or float32 tensor ``[N, *event_shape]``, or a ValueError that says what came."""
        mend = "reshape it, or give the likelihood another event_shape"
        x = _shaped("x", _numbers("x", x, "uint8 or a float"), self.event_shape, mend)
        if tf.executing_eagerly() and x.dtype.size > 2 and x.dtype != tf.float32:
            _warn_of_coarse(x)
        return x if x.dtype == tf.uint8 else tf.cast(x, tf.float32)

    def condition(self, condition: Any, count: int | None = None) -> tf.Tensor | None:
        """The condition as float32 ``[B, *condition_shape]``, of ``count`` rows where that is known.

        Raises:
            ValueError: Where one is missing or one too many, or it has another shape.
        """
        if self.condition_shape is None:
            if condition is not None:
                raise ValueError(
                    "This model has no condition, but one came: leave it out, or make the VAE with condition_shape."
                )
            return None
        if condition is None:
            raise ValueError(
                f"This model has a condition of shape {list(self.condition_shape)} for each row, but none came: pass "
                '{"x": x, "condition": condition}, or condition= where there is such an argument.'
            )
        condition = tf.cast(_numbers("condition", condition, "numbers"), tf.float32)
        mend = "reshape it, or change the VAE's condition_shape"
        condition = _shaped("condition", condition, self.condition_shape, mend)
        if None not in (count, condition.shape[0]) and condition.shape[0] != count:
            raise ValueError(f"The condition has {condition.shape[0]} rows, expected {count}: one for each row of z.")
        return condition

    def library(self, library: Any, batch: Sequence[int]) -> tf.Tensor:
        """Totals of rows as float32 ``[..., B, *event_shape[:-1]]``: one for each row of z, or for each of them.

        Raises:
            ValueError: Where they have another shape, or one is negative or not finite.
        """
        library = tf.cast(_numbers("library", library, "numbers"), tf.float32)
        shape = tf.TensorShape([*batch[-1:], *self.event_shape[:-1]])
        rank = shape.rank or 0
        if library.shape.rank not in (0, None) and not library.shape[-rank:].is_compatible_with(shape):
            raise ValueError(
                f"library has shape {tuple(library.shape)}, expected one number, or {tuple(shape)}: the total count of "
                "each row."
            )
        if tf.executing_eagerly() and not bool(tf.reduce_all(tf.math.is_finite(library) & (library >= 0.0))):
            raise ValueError(
                "library holds negative or infinite numbers, or NaN: it is a row's total count, from 0 up."
            )
        return library


def with_condition(x: Any, condition: Any) -> Any:
    """Rows, and their condition where it was given apart."""
    if condition is None:
        return x
    return {**(x if batches.in_parts(x) else {"x": x}), "condition": condition}


def _check_lengths(rows: Mapping[str, tf.Tensor]) -> None:
    """Raise ValueError where the parts have not all the same number of rows, as far as a graph knows them."""
    known = {name: part.shape[0] for name, part in rows.items() if part.shape[0] is not None}
    if len(set(known.values())) > 1:
        counts = ", ".join(f"{name}: {count}" for name, count in known.items())
        raise ValueError(f"The parts of a row must come in equal numbers, received {counts} rows.")


def codes(given: Any) -> tf.Tensor:
    """z as float32 ``[..., B, D]``; what a user gives is finite, a program's own is as it is.

    Raises:
        ValueError: They are no real numbers, or not finite.
    """
    z = tf.cast(found_by(_real, "z", given, "numbers [..., B, latent_dim]"), tf.float32)
    if not tf.is_tensor(given) and not bool(tf.reduce_all(tf.math.is_finite(z))):
        raise ValueError("z holds NaN or infinite values: it is no code of a row.")
    return z


def _real(given: Any) -> tf.Tensor:
    tensor = tf.convert_to_tensor(given)
    if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
        raise TypeError(f"{tensor.dtype.name} is no dtype of real numbers")
    return tensor


def _labels(given: Any) -> tf.Tensor:
    label = _shaped("label", _tensor("label", given), (), "give each row one class, -1 where it is unknown")
    if not label.dtype.is_integer:
        raise ValueError(f"label has dtype {label.dtype.name}, expected whole numbers, -1 where the class is unknown.")
    if label.dtype == tf.uint64:  # which TensorFlow cannot clip
        label = tf.where(label > tf.int32.max, tf.constant(tf.int32.max, tf.int64), tf.cast(label, tf.int64))
    return tf.saturate_cast(label, tf.int32)


def _numbers(name: str, given: Any, expected: str) -> tf.Tensor:
    """The given as a tensor of real numbers: to cast others would lose a part of them, or fail in other words."""
    tensor = _tensor(name, given)
    if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
        raise ValueError(f"{name} has dtype {tensor.dtype.name}, expected {expected}.")
    return tensor


def _tensor(name: str, given: Any) -> tf.Tensor:
    """What the user passed as a tensor, or a ValueError that says why it is none."""
    refuse_sparse(name, given)
    refuse_masked(name, given)
    try:
        if isinstance(given, (list, tuple)) and given and all(isinstance(one, np.ndarray) for one in given):
            given = np.stack(given)  # bytes stay bytes, which TensorFlow makes whole numbers of 32 bits
        return tf.convert_to_tensor(given)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:  # PyTorch's is a RuntimeError
        raise no_array(name, given) from error


def _warn_of_coarse(x: tf.Tensor) -> None:
    """Warn where float32 rounds a column of x ``[N, ...]`` by more than a hundredth of its spread."""
    some = tf.cast(x[:: max(1, len(x) // _LOOKED_AT)], tf.float64).numpy()
    if not some.size:
        return
    with np.errstate(all="ignore"):  # of NaN and infinity, which others tell
        near = some.std(axis=0) < _NEAR * np.abs(some).max(axis=0)
    for place in zip(*np.nonzero(near), strict=True):  # none, of most data
        column = tf.cast(x[(slice(None), *place)], tf.float64).numpy()
        highest, spread = np.abs(column).max(), column.std()
        step = np.spacing(np.float32(highest))
        if spread > _NOISE * highest and 0.5 * step > _ROUNDED * spread:
            where = ", ".join(map(str, place))
            warnings.warn(
                f"x[:, {where}] has numbers up to {highest:.10g} that float32 holds to {step:g}, and their standard "
                f"deviation is {spread:g}: too much of what tells rows apart is lost. Take a number near "
                f"{column.mean():.10g} off before.",
                stacklevel=4,
            )
            return


def _shaped(name: str, tensor: tf.Tensor, shape: Sequence[int], mend: str) -> tf.Tensor:
    """The tensor, once it is ``[N, *shape]``; where a stream does not say, each batch is asked as it comes."""
    expected = tf.TensorShape([None, *shape])
    words = f"expected ({', '.join(['N', *map(str, shape)])}{'' if shape else ','}): {mend}."
    if not tensor.shape.is_compatible_with(expected):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {words}")
    if tensor.shape.rank is not None and tensor.shape[1:].is_fully_defined():
        return tensor
    came = tf.shape(tensor)  # to be filled up with zeros where the batches of a stream differ, if nobody looked
    right = tf.cond(tf.size(came) == len(shape) + 1, lambda: tf.reduce_all(came[1:] == shape), lambda: False)
    with tf.control_dependencies([batches.assertion(right, f"{name} has shape {{}}, {words}", came)]):
        return tf.ensure_shape(tensor, expected)
