"""DistributionLayer: features in, a TFP distribution out.

One layer serves q(z|x) and p(x|z) for every family. A family states its own parameters through
``tfd.Distribution.parameter_properties``: the shape of each and the bijector that constrains it. The layer projects
the features once, splits the result into the free parameters and constrains each. It always computes in float32: a
log-density summed over hundreds of pixels has no digits to spare for bfloat16.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.arguments import check_kind, check_name, check_room, checked_shape, found_by
from tfvae.engine import keras_private
from tfvae.families.facts import FACTS, REAL, Facts
from tfvae.families.sigmoid import Sigmoid

# By name, for a likelihood or posterior that is to be parameterised as a paper has it: "log_variance" is log σ² -> σ.
CONSTRAINTS: dict[str, Callable[[], Any]] = {
    "identity": tfb.Identity,
    "sigmoid": Sigmoid,
    "softplus": tfb.Softplus,
    "exp": tfb.Exp,
    "log_variance": lambda: tfb.Chain([tfb.Exp(), tfb.Scale(0.5)]),
}

_SPARE = 0.5  # of the way from end to end, that x may lie beyond what its mean reaches


def _facts(family: type[tfd.Distribution]) -> Facts:
    """Those of the family; without any, none of its parameters needs special care."""
    return FACTS.get(family.__name__, Facts(REAL))


@dataclasses.dataclass(frozen=True)
class Family:
    """What a layer's family is.

    Attributes:
        name: Its class.
        fixed: Its constant parameters: numbers, or nested lists of them.
        shared: Parameters that are learned, but no function of the features.
        constraints: Parameters that are constrained in another way than TFP's.
        missing: Whether numbers that are NaN are missing.

    Example:
        >>> DistributionLayer("Categorical", [2], num_classes=4).describe().fixed
        {'num_classes': 4}
    """

    name: str
    fixed: dict[str, Any]
    shared: list[str]
    constraints: dict[str, str | list[float]]
    missing: bool = False


def _is_range(constraint: Any) -> bool:
    is_pair = isinstance(constraint, Sequence) and not isinstance(constraint, str) and len(constraint) == 2
    return is_pair and all(isinstance(end, int | float) for end in constraint) and constraint[0] < constraint[1]


class _Parameter:
    """One parameter of a family: its shape for an event, and the map from the real line to its support."""

    def __init__(self, family: type[tfd.Distribution], name: str, properties: Any, event_shape: Sequence[int]):
        self.name = name
        self.shape = tuple(int(size) for size in properties.shape_fn(list(event_shape)))
        facts = _facts(family)
        self._dependent = facts.dependent.get(name)
        self._lowest = facts.lowest.get(name, 0.0)
        self.is_count = name in facts.counts
        self._bijector: Any = (
            None if self._dependent or self.is_count else properties.default_constraining_bijector_fn()
        )
        self.raw_shape = (
            tuple(self._bijector.inverse_event_shape(tf.TensorShape(self.shape)).as_list())
            if self._bijector
            else self.shape
        )

    def constrain(self, raw: tf.Tensor, parameters: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if self._dependent:
            return self._dependent(raw, parameters)
        return self._bijector(raw) + self._lowest if self._lowest else self._bijector(raw)

    def constrain_by(self, constraint: Any) -> None:
        """Use one of the named constraints, or a range, in place of TFP's."""
        is_named = isinstance(constraint, str) and constraint in CONSTRAINTS
        if self.raw_shape != self.shape or not (is_named or _is_range(constraint)):
            raise ValueError(
                f"{self.name} cannot be constrained by {constraint!r}: expected one of {', '.join(CONSTRAINTS)}, or "
                "(low, high) with low < high, and a parameter that is constrained number by number."
            )
        if is_named:
            bijector = CONSTRAINTS[constraint]()
        else:
            low, high = (self.constant(end) for end in constraint)
            bijector = Sigmoid(low, high)
        self._dependent, self._lowest, self._bijector = None, 0.0, bijector

    def shared_shape(self, shape: Sequence[int] | None) -> tuple[int, ...]:
        """That of the weight behind the parameter, where one of ``shape`` (None: its own) is shared."""
        if shape is None or tuple(shape) == self.shape:
            return self.raw_shape
        shape = tuple(int(size) for size in shape)
        padded = (1,) * (len(self.shape) - len(shape)) + shape
        fits = len(padded) == len(self.shape) and all(n in (1, m) for n, m in zip(padded, self.shape, strict=True))
        if not fits or self.raw_shape != self.shape:
            raise ValueError(
                f"{self.name} cannot be shared with shape {shape}: expected one that broadcasts to {self.shape}"
                + ("." if self.raw_shape == self.shape else ", and a parameter that is constrained number by number.")
            )
        return shape

    def constant(self, value: Any) -> np.ndarray:
        """The fixed value as float32, if it has the parameter's shape and lies inside its support."""
        value = found_by(lambda given: np.asarray(given, np.float32), self.name, value, "a number or an array of them")
        try:
            full = np.broadcast_to(value, self.shape)
        except ValueError:
            raise ValueError(
                f"{self.name} was fixed with shape {value.shape}, expected a scalar or {self.shape}."
            ) from None
        if self.is_count and not np.all((value >= 1) & (value == np.round(value))):
            raise ValueError(f"{self.name}={value} is no whole number of 1 or more.")
        inside = np.isfinite(value).all() and (
            self._bijector is None or np.isfinite(self._bijector.inverse(tf.constant(full)).numpy()).all()
        )
        if not inside:
            support = type(self._bijector).__name__ if self._bijector else "finite numbers"
            raise ValueError(f"{self.name}={value} lies outside its support (the range of {support}).")
        return value


def _properties(family: type[tfd.Distribution], setting: int | None) -> dict[str, Any]:
    """What TFP says of every tensor parameter of the family, free or not, by name."""
    try:
        properties = family.parameter_properties(dtype=tf.float32, num_classes=setting)
    except NotImplementedError:
        raise ValueError(
            f"{family.__name__} states no parameters: define its class method _parameter_properties, as "
            "tfvae.families.Gompertz does."
        ) from None
    # TFP's map onto the simplex fails under NumPy 2.4; probabilities of a vector can be fixed as logits.
    simplex = {name for name, p in properties.items() if _constraint_of(p) is tfb.SoftmaxCentered}
    return {name: value for name, value in properties.items() if value.is_tensor and name not in simplex}


def _constraint_of(properties: Any) -> Any:
    return properties.default_constraining_bijector_fn


def _parameters(
    family: type[tfd.Distribution], event_shape: Sequence[int], setting: int | None
) -> dict[str, _Parameter]:
    """Every tensor parameter of the family, free or not: in TFP's order, those that depend on others last."""
    properties = _properties(family, setting)
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
        kernel_regularizer: Keras regularizer of the projection's matrix.
        constraints: How free parameters are kept in their range where TFP's own way is not wanted, by parameter:
            identity, sigmoid, softplus, exp, log_variance (the raw number is log σ²), or (low, high), a range that a
            sigmoid keeps it in: q(z|x) whose scale stays within one can never say nothing (δ-VAE).
        shared: Parameters that are learned, but no function of the features: their names, or by name a shape that
            broadcasts to the parameter's, such as () for one number for all of the event. They start where the bias
            initializer puts a free one whose features are zero.
        missing: Whether numbers of x may be missing, which are NaN; see ``likelihoods.missing``.
        **fixed: Parameters that are constants instead of being learned: scalars, or arrays of the parameter's shape;
            and the number that a family's parameters take their shape from: ``num_classes`` of a Categorical or an
            OrderedLogistic, ``rank`` of a low-rank normal, ``num_components`` of a NormalMixture.

    Raises:
        ValueError: For an unknown family, one that no layer builds, an unknown parameter name or a fixed value outside
            its support.

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
        kernel_regularizer: Any = None,
        constraints: Mapping[str, str | Sequence[float]] | None = None,
        shared: Sequence[str] | Mapping[str, Sequence[int]] = (),
        missing: bool = False,
        name: str | None = None,
        trainable: bool = True,
        **fixed: Any,
    ):
        check_name(name)
        super().__init__(name=name, trainable=trainable, dtype="float32")
        self.family = families.find(distribution)
        self.event_shape = checked_shape("event_shape", event_shape)
        check_room("An event", *self.event_shape)
        _facts(self.family).check_event(self.family.__name__, self.event_shape)
        check_kind("constraints", constraints or {}, Mapping, "constraints by parameter, such as {'scale': 'exp'}")
        given = dict(constraints or {})
        self._constraints: dict[str, Any] = {
            key: list(one) if isinstance(one, tuple) else one for key, one in given.items()
        }
        self.setting, fixed = self._taken_setting(fixed)
        number = next(iter(self.setting.values()), None)
        self._split(_parameters(self.family, self.event_shape, number), fixed, shared)
        self.missing = bool(missing)
        self.inside = self._inside() if self.missing else None
        self._arguments = {k: v for k, v in self.setting.items() if k in inspect.signature(self.family).parameters}
        self.projection: keras.layers.Dense | None = None
        self.shared_weights: dict[str, keras.Variable] = {}
        known = "one that Keras knows, such as"
        self._regularizer = found_by(keras.regularizers.get, "kernel_regularizer", kernel_regularizer, f"{known} 'l2'")
        self._initializers = {
            name: found_by(keras.initializers.get, name, given, f"{known} 'zeros'")
            for name, given in (("kernel_initializer", kernel_initializer), ("bias_initializer", bias_initializer))
        }

    def _taken_setting(self, fixed: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
        """The family's setting, by name, and what else is fixed."""
        facts, name, rest = _facts(self.family), self.family.__name__, dict(fixed)
        if facts.setting is None:
            return {}, rest
        value = rest.pop(facts.setting, self.event_shape[-1] if facts.is_event_size else None)
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{name} needs {facts.setting}=, a whole number of 1 or more, received {value}: "
                f"DistributionLayer({name!r}, {list(self.event_shape)}, {facts.setting}=4)."
            )
        return {facts.setting: int(value)}, rest

    @property
    def learned_ends(self) -> list[str]:
        """Parameters beyond which x has no density, and that are learned."""
        ends = () if self.facts is None else self.facts.support.between
        return [end for end in ends if end and end not in self.fixed]

    def _inside(self) -> np.ndarray:
        """A number that the family scores whatever its free parameters, to stand in for one that is missing."""
        name, facts, loose = self.family.__name__, self.facts, self.learned_ends
        if facts is None or loose or not self.event_shape:
            what = "its event has no axis" if not self.event_shape else f"{' and '.join(loose)} may lie anywhere"
            raise ValueError(
                f"{name} cannot leave out what is missing: {what if facts else 'nobody knows what numbers it scores'}. "
                f"Fix {' and '.join(loose) or 'them'}, or choose another family."
            )
        low, high = (
            self.fixed.get(end, default)
            for end, default in zip(facts.support.between, (facts.support.low, facts.support.high), strict=True)
        )
        if facts.support.has_gaps:
            return np.maximum(low, np.float32(0.0))
        if facts.support.has_pole:
            return np.ones([], np.float32)
        if np.isfinite(low).all():
            return np.asarray((low + high) / 2 if np.isfinite(high).all() else low + 1.0, np.float32)
        return np.asarray(high - 1.0 if np.isfinite(high).all() else 0.0, np.float32)

    def _split(
        self,
        parameters: dict[str, _Parameter],
        fixed: Mapping[str, Any],
        shared: Sequence[str] | Mapping[str, Sequence[int]],
    ) -> None:
        """Split the parameters into the fixed, the shared and the free."""
        is_names = isinstance(shared, Sequence) and not isinstance(shared, (str, bytes))
        if not is_names:
            check_kind("shared", shared, Mapping, 'a list of parameters, such as ["scale"], or shapes by name')
        shapes = dict(shared) if isinstance(shared, Mapping) else dict.fromkeys(shared)
        self._check_names(parameters, fixed, shapes)
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self.fixed = {name: parameters[name].constant(value) for name, value in fixed.items()}
        low, high = self.fixed.get("low"), self.fixed.get("high")
        if low is not None and high is not None and not np.all(low < high):
            raise ValueError(f"{self.family.__name__} needs low < high, received low={low} and high={high}.")
        replaced = {_facts(self.family).other_spelling.get(name, name) for name in (*fixed, *shapes)}
        preferred = _properties(self.family, next(iter(self.setting.values()), None))
        self._free = [p for name, p in parameters.items() if preferred[name].is_preferred and name not in replaced]
        counts = [p.name for p in (*self._free, *(parameters[name] for name in shapes)) if p.is_count]
        if counts:
            raise ValueError(
                f"{self.family.__name__} needs a fixed {' and '.join(counts)}, for no gradient learns a whole number: "
                f"DistributionLayer({self.family.__name__!r}, {list(self.event_shape)}, {counts[0]}=10)."
            )
        self._shared = [p for name, p in parameters.items() if name in shapes]
        self._constrain()
        self.shared = {p.name: p.shared_shape(shapes[p.name]) for p in self._shared}

    def _check_names(self, parameters: Mapping[str, Any], fixed: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
        name = self.family.__name__
        unknown = sorted((set(fixed) | set(shared)) - set(parameters))
        if unknown:
            raise ValueError(f"{name} has no parameter {', '.join(unknown)}; it accepts {', '.join(parameters)}.")
        both = sorted(set(fixed) & set(shared))
        if both:
            raise ValueError(f"{name}'s {', '.join(both)} is both fixed and shared: choose one.")
        for given, kind in ((fixed, "fixed"), (shared, "shared")):
            known = given if kind == "fixed" else {**fixed, **shared}
            for one, others in self._needs(kind).items():
                missing = [other for other in others if one in given and other in parameters and other not in known]
                if missing:
                    raise ValueError(f"{name} with a {kind} {one} needs a {kind} {' and '.join(missing)} too.")

    def _needs(self, kind: str) -> Mapping[str, Sequence[str]]:
        facts = _facts(self.family)
        if kind == "shared" and "loc" in facts.dependent:  # a fixed one may lie anywhere
            return {**facts.needs, "loc": ["low", "high"]}
        return facts.needs

    def _constrain(self) -> None:
        """Put the named constraints in the place of TFP's."""
        learned = {parameter.name: parameter for parameter in (*self._free, *self._shared)}
        for name, constraint in self._constraints.items():
            if name not in learned:
                raise ValueError(
                    f"{self.family.__name__} has no free parameter {name} to constrain; free: {', '.join(learned)}."
                )
            learned[name].constrain_by(constraint)

    @property
    def free(self) -> list[str]:
        """Names of the parameters that are functions of the features."""
        return [parameter.name for parameter in self._free]

    @property
    def facts(self) -> Facts | None:
        """What is known of the family; None of one that was registered without facts."""
        return FACTS.get(self.family.__name__)

    @property
    def reach(self) -> tuple[float, float]:
        """Where x can lie if the mean is to reach it: the ends that ``loc`` is held to, and half their distance beyond.

        So much is left for noise: grey values of 0 to 1 with noise of a deviation of 0.1 stay within. Infinite where
        the mean is held to no two ends.

        Example:
            >>> DistributionLayer("Normal", [2], constraints={"loc": "sigmoid"}).reach
            (-0.5, 1.5)
        """
        ends = self._constraints.get("loc")
        low, high = (0.0, 1.0) if ends == "sigmoid" else ends if isinstance(ends, (list, tuple)) else (-np.inf, np.inf)
        is_centred = self.facts is not None and self.facts.has_mean and self.facts.support is REAL
        if not is_centred or not np.isfinite([low, high]).all():
            return -math.inf, math.inf
        spare = _SPARE * (high - low)
        return low - spare, high + spare

    @property
    def of_library(self) -> bool:
        """Whether the likelihood is of counts whose rates are shares of a row's total."""
        return self.facts is not None and self.facts.of_library

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
            check_room(f"The weights of {self.name}", input_shape[-1] or 1, units)
            self.projection = keras.layers.Dense(
                units, dtype="float32", name="projection", kernel_regularizer=self._regularizer, **self._initializers
            )
            self.projection.build((None, input_shape[-1]))
        self._build_shared()
        self.built = True

    def _build_shared(self) -> None:
        self.shared_weights = {
            name: self.add_weight(
                shape=shape, initializer=self._initializers["bias_initializer"], dtype="float32", name=name
            )
            for name, shape in self.shared.items()
        }

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

    def parameters(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """The family's parameters for features ``[..., F]``, by name: free, shared and fixed, each in its range.

        A free one is ``[..., *shape]``; so are all the others where nothing is free, so that the batch is known.

        Example:
            >>> layer = DistributionLayer("Normal", [2], scale=1.0)
            >>> {name: value.shape for name, value in layer.parameters(tf.zeros([5, 16])).items()}
            {'scale': TensorShape([2]), 'loc': TensorShape([5, 2])}
        """
        features = tf.convert_to_tensor(features)
        if not self.built:
            self.build(features.shape)
        rank = features.shape.rank - 1 - len(self._positions)
        parameters = self.constants()
        if self.projection is not None:
            pieces = tf.split(self.projection(features), self._sizes(), axis=-1)
            for parameter, raw in zip(self._free, pieces, strict=True):
                raw = _reshape_event(raw, features, rank, parameter.raw_shape)
                parameters[parameter.name] = parameter.constrain(raw, parameters)
            return parameters
        batch = tf.shape(features)[:rank]
        return {name: tf.broadcast_to(v, tf.concat([batch, tf.shape(v)], axis=0)) for name, v in parameters.items()}

    def constants(self) -> dict[str, tf.Tensor]:
        """The parameters that are no function of the features, fixed and shared, each of its own shape."""
        found = {name: tf.broadcast_to(value, self._shapes[name]) for name, value in self.fixed.items()}
        for parameter in self._shared:
            raw = tf.broadcast_to(self.shared_weights[parameter.name], parameter.raw_shape)
            found[parameter.name] = parameter.constrain(raw, found)
        return found

    def distribution(self, parameters: Mapping[str, tf.Tensor]) -> tfd.Distribution:
        """The family with these parameters, its event of the layer's event shape.

        Example:
            >>> DistributionLayer("Normal", [2]).distribution({"loc": tf.zeros([5, 2]), "scale": 1.0}).event_shape
            TensorShape([2])
        """
        base = self.family(**parameters, **self._arguments)
        wrapped = len(self.event_shape) - base.event_shape.rank
        if wrapped < 0:
            raise ValueError(
                f"event_shape is {list(self.event_shape)}, expected at least {base.event_shape.rank} axis for "
                f"{self.family.__name__}, a family of vectors: DistributionLayer({self.family.__name__!r}, [3]), say."
            )
        if self.missing:
            self._check_cells(base)
            return families.Observed(base, wrapped, self.inside)
        return tfd.Independent(base, wrapped) if wrapped else base

    def _check_cells(self, base: tfd.Distribution) -> None:
        if base.event_shape.rank:
            raise ValueError(
                f"{self.family.__name__} cannot leave out what is missing, for its numbers are not independent of one "
                "another given z: choose a family of single numbers, such as Normal, or Categorical for a class."
            )

    def holes(self, x: tf.Tensor) -> tf.Tensor:
        """Which numbers of x ``[B, *event]`` are missing, and may be, bool.

        Example:
            >>> DistributionLayer("Normal", [2], missing=True).holes(tf.constant([[1.0, np.nan]])).numpy().tolist()
            [[False, True]]
        """
        return x != x if self.missing else tf.zeros_like(x, tf.bool)  # LiteRT has no IsNan

    def seen(self, x: tf.Tensor) -> tf.Tensor:
        """x as an encoder sees it: where numbers may be missing, zeros for those, then 1 for each that is there.

        Counts of a library are seen as log(1 + x), as in scVI.

        Example:
            >>> DistributionLayer("Normal", [2], missing=True).seen(tf.constant([[3.0, np.nan]])).numpy().tolist()
            [[3.0, 0.0, 1.0, 0.0]]
        """
        if self.of_library:
            return tf.math.log1p(x)
        if not self.missing:
            return x
        gone = self.holes(x)
        return tf.concat([tf.where(gone, tf.zeros_like(x), x), 1.0 - tf.cast(gone, x.dtype)], axis=-1)

    @keras_private.in_own_words
    def call(self, features: tf.Tensor) -> tfd.Distribution:
        """See ``DistributionLayer``."""
        return self._of_rows(features, self.parameters(features))

    def with_held(self, features: tf.Tensor) -> tuple[tfd.Distribution, tfd.Distribution]:
        """The distribution, and the same with its parameters held: the latter's log-density has a gradient in z alone.

        Example:
            >>> layer = DistributionLayer("Normal", [2])
            >>> with tf.GradientTape() as tape:
            ...     log_prob = layer.with_held(tf.ones([5, 16]))[1].log_prob(tf.ones([5, 2]))
            >>> tape.gradient(log_prob, layer.projection.kernel) is None
            True
        """
        parameters = self.parameters(features)
        held = {name: tf.stop_gradient(value) for name, value in parameters.items()}
        return self._of_rows(features, parameters), self._of_rows(features, held, is_held=True)

    def _of_rows(
        self, features: tf.Tensor, parameters: Mapping[str, tf.Tensor], is_held: bool = False
    ) -> tfd.Distribution:
        """The distribution; one of no parameters does not know its batch."""
        found = self.distribution(parameters)
        if parameters:
            return found
        return tfd.BatchBroadcast(found, tf.shape(features)[: features.shape.rank - 1 - len(self._positions)])

    def describe(self) -> Family:
        """What the layer is, for a card or a table.

        Example:
            >>> DistributionLayer("Normal", [2], scale=0.5, constraints={"loc": "sigmoid"}).describe()
            Family(name='Normal', fixed={'scale': 0.5}, shared=[], constraints={'loc': 'sigmoid'}, missing=False)
        """
        fixed = {**self.setting, **{name: value.tolist() for name, value in self.fixed.items()}}
        return Family(self.family.__name__, fixed, list(self.shared), dict(self._constraints), self.missing)

    def get_config(self) -> dict[str, Any]:
        return {
            "distribution": self.family.__name__,
            "event_shape": list(self.event_shape),
            **{k: keras.initializers.serialize(v) for k, v in self._initializers.items()},
            "kernel_regularizer": keras.regularizers.serialize(self._regularizer),
            "constraints": dict(self._constraints),
            "shared": {name: list(shape) for name, shape in self.shared.items()},
            **({"missing": True} if self.missing else {}),
            "name": self.name,
            "trainable": self.trainable,
            **self.setting,
            **{name: value.tolist() for name, value in self.fixed.items()},
        }


def _reshape_event(raw: tf.Tensor, features: tf.Tensor, rank: int, shape: Sequence[int]) -> tf.Tensor:
    """``raw [..., n]`` with its event axes unfolded to ``[..., *shape]``, static shapes kept."""
    static = features.shape[:rank].concatenate(list(shape))
    if raw.shape[rank:] == list(shape):
        return raw
    return tf.ensure_shape(tf.reshape(raw, tf.concat([tf.shape(features)[:rank], list(shape)], axis=0)), static)
