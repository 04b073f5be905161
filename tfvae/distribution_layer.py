"""DistributionLayer: features in, a TFP distribution out.

One layer serves q(z|x) and p(x|z) for every family. A family states its own parameters through
``tfd.Distribution.parameter_properties``: the shape of each and the bijector that constrains it. The layer projects
the features once, splits the result into the free parameters and constrains each. It always computes in float32: a
log-density summed over hundreds of pixels has no digits to spare for bfloat16.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.families.facts import FACTS, REAL, Facts

# By name, for a likelihood or posterior that is to be parameterised as a paper has it: "log_variance" is log σ² -> σ.
_CONSTRAINTS: dict[str, Callable[[], Any]] = {
    "identity": tfb.Identity,
    "sigmoid": tfb.Sigmoid,
    "softplus": tfb.Softplus,
    "exp": tfb.Exp,
    "log_variance": lambda: tfb.Chain([tfb.Exp(), tfb.Scale(0.5)]),
}


def _facts(family: type[tfd.Distribution]) -> Facts:
    """Those of the family; without any, none of its parameters needs special care."""
    return FACTS.get(family.__name__, Facts(REAL))


class _Parameter:
    """One parameter of a family: its shape for an event, and the map from the real line to its support."""

    def __init__(self, family: type[tfd.Distribution], name: str, properties: Any, event_shape: Sequence[int]):
        self.name = name
        self.shape = tuple(int(size) for size in properties.shape_fn(list(event_shape)))
        facts = _facts(family)
        self._dependent = facts.dependent.get(name)
        self._lowest = facts.lowest.get(name, 0.0)
        self._bijector: Any = None if self._dependent else properties.default_constraining_bijector_fn()
        self.raw_shape = (
            tuple(self._bijector.inverse_event_shape(tf.TensorShape(self.shape)).as_list())
            if self._bijector
            else self.shape
        )

    def constrain(self, raw: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if self._dependent:
            return self._dependent(raw, parameters)
        return self._bijector(raw) + self._lowest if self._lowest else self._bijector(raw)

    def constrain_by(self, name: str) -> None:
        """Use one of the named constraints in place of TFP's."""
        if name not in _CONSTRAINTS or self.raw_shape != self.shape:
            raise ValueError(
                f"{self.name} cannot be constrained by {name!r}: expected one of {', '.join(_CONSTRAINTS)}, and a "
                "parameter that is constrained number by number."
            )
        self._dependent, self._lowest, self._bijector = None, 0.0, _CONSTRAINTS[name]()

    def constant(self, value: Any) -> np.ndarray:
        """The fixed value as float32, if it has the parameter's shape and lies inside its support."""
        value = np.asarray(value, np.float32)
        try:
            full = np.broadcast_to(value, self.shape)
        except ValueError:
            raise ValueError(
                f"{self.name} was fixed with shape {value.shape}, expected a scalar or {self.shape}."
            ) from None
        inside = np.isfinite(value).all() and (
            self._bijector is None or np.isfinite(self._bijector.inverse(tf.constant(full)).numpy()).all()
        )
        if not inside:
            support = type(self._bijector).__name__ if self._bijector else "finite numbers"
            raise ValueError(f"{self.name}={value} lies outside its support (the range of {support}).")
        return value


def _parameters(family: type[tfd.Distribution], event_shape: Sequence[int]) -> dict[str, _Parameter]:
    """Every tensor parameter of the family, free or not: in TFP's order, those that depend on others last."""
    properties = {
        name: value
        for name, value in family.parameter_properties(dtype=tf.float32).items()
        if value.is_tensor and not (name == "probs" and issubclass(family, tfd.OneHotCategorical))
    }
    dependent = list(_facts(family).dependent)
    names = [name for name in properties if name not in dependent] + dependent
    return {name: _Parameter(family, name, properties[name], event_shape) for name in names}


@keras.saving.register_keras_serializable("tfvae")
class DistributionLayer(keras.layers.Layer):
    """Maps features ``[..., F]`` to a ``tfd.Distribution`` with batch shape ``[...]``.

    Features that end in the event's spatial axes, ``[..., H, W, F]`` for an event ``[H, W, C]``, are projected at each
    position by itself, as a 1x1 convolution: this is how a convolutional decoder ends. All others are projected by one
    dense matrix.

    Args:
        distribution: A class of ``tfp.distributions`` or its name, or one of ``families``.
        event_shape: Shape of one event: ``[D]`` for a latent, the shape of one observation for a likelihood.
        kernel_initializer, bias_initializer: Keras initializers of the projection.
        constraints: How free parameters are kept in their range where TFP's own way is not wanted, by parameter:
            identity, sigmoid, softplus, exp or log_variance (the raw number is log σ²).
        **fixed: Parameters that are constants instead of being learned: scalars, or arrays of the parameter's shape.

    Raises:
        ValueError: For an unknown family, an unknown parameter name or a fixed value outside its support.

    Example:
        >>> posterior = DistributionLayer("Normal", [2])
        >>> q = posterior(np.zeros([5, 16], "float32"))
        >>> q.batch_shape, q.event_shape
        (TensorShape([5]), TensorShape([2]))
        >>> DistributionLayer("Normal", [2], scale=1.0)(np.zeros([5, 16], "float32")).stddev().numpy()[0].tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        distribution: str | type,
        event_shape: Sequence[int],
        *,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        constraints: Mapping[str, str] | None = None,
        name: str | None = None,
        trainable: bool = True,
        **fixed: Any,
    ):
        super().__init__(name=name, trainable=trainable, dtype="float32")
        self.family = families.find(distribution)
        self.event_shape = tuple(int(size) for size in event_shape)
        if any(size < 1 for size in self.event_shape):
            raise ValueError(f"event_shape must hold positive sizes, received {self.event_shape}.")
        self._constraints = dict(constraints or {})
        self._fix(_parameters(self.family, self.event_shape), fixed)
        self.projection: keras.layers.Dense | None = None
        self._initializers = {
            "kernel_initializer": keras.initializers.get(kernel_initializer),
            "bias_initializer": keras.initializers.get(bias_initializer),
        }

    def _fix(self, parameters: dict[str, _Parameter], fixed: Mapping[str, Any]) -> None:
        """Split the parameters into the fixed and the free."""
        unknown = sorted(set(fixed) - set(parameters))
        if unknown:
            raise ValueError(
                f"{self.family.__name__} has no parameter {', '.join(unknown)}; it accepts {', '.join(parameters)}."
            )
        for name, others in _facts(self.family).needs.items():
            missing = [other for other in others if name in fixed and other in parameters and other not in fixed]
            if missing:
                raise ValueError(
                    f"{self.family.__name__} with a fixed {name} needs a fixed {' and '.join(missing)} too."
                )
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._constants = {name: parameters[name].constant(value) for name, value in fixed.items()}
        low, high = self._constants.get("low"), self._constants.get("high")
        if low is not None and high is not None and not np.all(low < high):
            raise ValueError(f"{self.family.__name__} needs low < high, received low={low} and high={high}.")
        replaced = {_facts(self.family).other_spelling.get(name, name) for name in fixed}
        preferred = self.family.parameter_properties(dtype=tf.float32)
        self._free = [p for name, p in parameters.items() if preferred[name].is_preferred and name not in replaced]
        free = {parameter.name: parameter for parameter in self._free}
        for name, constraint in self._constraints.items():
            if name not in free:
                raise ValueError(
                    f"{self.family.__name__} has no free parameter {name} to constrain; free: {', '.join(free)}."
                )
            free[name].constrain_by(constraint)

    @property
    def facts(self) -> Facts | None:
        """What is known of the family; None of one that was registered without facts."""
        return FACTS.get(self.family.__name__)

    def build(self, input_shape: Sequence[int | None]) -> None:
        spatial = self.event_shape[:-1]
        self._positions = (
            spatial
            if spatial and len(input_shape) > len(spatial) + 1 and tuple(input_shape[-len(spatial) - 1 : -1]) == spatial
            else ()
        )
        self._check_positions()
        units = sum(self._sizes())
        if units:
            self.projection = keras.layers.Dense(units, dtype="float32", name="projection", **self._initializers)
            self.projection.build((None, input_shape[-1]))
        self.built = True

    def _check_positions(self) -> None:
        for parameter in self._free:
            if self._positions and parameter.raw_shape[: len(self._positions)] != self._positions:
                raise ValueError(
                    f"{self.family.__name__} cannot be projected position by position: its {parameter.name} has shape "
                    f"{parameter.shape}. Flatten the features before this layer."
                )

    def _sizes(self) -> list[int]:
        """Raw numbers needed for each free parameter, at each position."""
        return [math.prod(p.raw_shape[len(self._positions) :]) for p in self._free]

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        """See ``DistributionLayer``."""
        features = tf.convert_to_tensor(features)
        rank = features.shape.rank - 1 - len(self._positions)
        parameters = self._fixed()
        if self.projection is not None:
            pieces = tf.split(self.projection(features), self._sizes(), axis=-1)
            for parameter, raw in zip(self._free, pieces, strict=True):
                raw = _reshape_event(raw, features, rank, parameter.raw_shape)
                parameters[parameter.name] = parameter.constrain(raw, parameters)
        return self._distribution(parameters, tf.shape(features)[:rank])

    def _fixed(self) -> dict[str, tf.Tensor]:
        return {name: tf.broadcast_to(value, self._shapes[name]) for name, value in self._constants.items()}

    def _distribution(self, parameters: Mapping[str, tf.Tensor], batch_shape: Any) -> tfd.Distribution:
        base = self.family(**parameters)
        wrapped = len(self.event_shape) - base.event_shape.rank
        if not self._free and batch_shape is not None:  # nothing depends on the features: say the batch shape
            base = tfd.BatchBroadcast(base, tf.concat([batch_shape, self.event_shape[:wrapped]], axis=0))
        return tfd.Independent(base, wrapped) if wrapped else base

    def get_config(self) -> dict[str, Any]:
        return {
            "distribution": self.family.__name__,
            "event_shape": list(self.event_shape),
            **{k: keras.initializers.serialize(v) for k, v in self._initializers.items()},
            "constraints": dict(self._constraints),
            "name": self.name,
            "trainable": self.trainable,
            **{name: value.tolist() for name, value in self._constants.items()},
        }


def _reshape_event(raw: tf.Tensor, features: tf.Tensor, rank: int, shape: Sequence[int]) -> tf.Tensor:
    """``raw [..., n]`` with its event axes unfolded to ``[..., *shape]``, static shapes kept."""
    static = features.shape[:rank].concatenate(list(shape))
    if raw.shape[rank:] == list(shape):
        return raw
    return tf.ensure_shape(tf.reshape(raw, tf.concat([tf.shape(features)[:rank], list(shape)], axis=0)), static)
