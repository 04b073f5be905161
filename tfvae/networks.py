"""Encoders and decoders: plain Keras, tensor to tensor.

Any Keras layer or model can take their place. They end in features; the DistributionLayer after them holds the last
projection, so that a network does not need to know which family it feeds.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfvae.arguments import check_at_least, check_kind, check_name, check_room, checked_shape, found_by
from tfvae.engine import xla

_LAST = {"data_format": "channels_last"}  # as event shapes have it, whatever Keras's default is


def _activation(given: Any) -> Any:
    return found_by(keras.activations.get, "activation", given, "a function, or one that Keras knows, such as 'relu'")


def mlp(hidden: Sequence[int] = (500,), activation: str = "tanh", name: str | None = None) -> keras.Sequential:
    """A multilayer perceptron, ``[B, ...] -> [B, hidden[-1]]``; the paper's networks are ``mlp([500])``.

    Example:
        >>> mlp([500])(np.zeros([5, 28, 28, 1], "float32")).shape
        TensorShape([5, 500])
    """
    check_name(name)
    hidden, activation = checked_shape("hidden", hidden), _activation(activation)
    return keras.Sequential(
        [keras.layers.Flatten(**_LAST), *(keras.layers.Dense(units, activation) for units in hidden)], name=name
    )


def conv_encoder(filters: Sequence[int] = (32, 64), activation: str = "relu") -> keras.Sequential:
    """Strided 3x3 convolutions, ``[B, H, W, C] -> [B, F]``; each halves the image.

    Example:
        >>> conv_encoder([8, 16])(np.zeros([5, 28, 28, 1], "float32")).shape
        TensorShape([5, 784])
    """
    filters, activation = checked_shape("filters", filters), _activation(activation)
    convolutions = [
        keras.layers.Conv2D(f, 3, strides=2, padding="same", activation=activation, **_LAST) for f in filters
    ]
    return keras.Sequential([*convolutions, keras.layers.Flatten(**_LAST)], name="encoder")


@keras.saving.register_keras_serializable("tfvae")
class Conditional(keras.layers.Layer):
    """A network of one input, made one of x or z and its condition, ``[B, ...], [B, ...] -> [B, ...]``.

    Both are flattened and laid side by side. A network that needs the picture's shape, such as ``conv_encoder``, takes
    the condition in some other way: write it as a Keras model of two inputs, as ``docs/howto/model.md`` has it.

    Args:
        network: A Keras layer or model of vectors, not built yet: ``mlp``, or ``conv_decoder`` for z.

    Example:
        >>> Conditional(mlp([500]))([np.zeros([5, 28, 28, 1], "float32"), np.eye(10, dtype="float32")[:5]]).shape
        TensorShape([5, 500])
    """

    def __init__(self, network: keras.layers.Layer, **layer: Any):
        check_name(layer.get("name"))
        super().__init__(**layer)
        check_kind("network", network, keras.layers.Layer, "a Keras layer or model, such as networks.mlp([500])")
        self.network = network

    def build(self, input_shape: Any) -> None:
        self.network.build((None, self._width(input_shape)))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """See the class."""
        flat = [ops.reshape(one, [-1, math.prod(one.shape[1:])]) for one in inputs]
        return self.network(ops.concatenate(flat, axis=-1), training=training)

    def _width(self, shapes: Any) -> int:
        if not all(isinstance(shape, Sequence) for shape in shapes):
            raise ValueError(
                f"networks.Conditional was given one input of shape {tuple(shapes)}, expected two, of which the second "
                "is the condition: pass condition_shape= to the VAE."
            )
        return sum(math.prod(shape[1:]) for shape in shapes)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return self.network.compute_output_shape((input_shape[0][0], self._width(input_shape)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "network": keras.saving.serialize_keras_object(self.network)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Conditional":
        """See Keras."""
        return cls(**{**config, "network": keras.saving.deserialize_keras_object(config["network"])})


@keras.saving.register_keras_serializable("tfvae")
class Masked(keras.layers.Layer):
    """MADE (Germain et al., arXiv 1502.03509), ``[..., D] -> [..., D, num_outputs]``: each output sees earlier units.

    The masks are constants; a context ``[..., C]``, as the features of an encoder, is seen by every output. It computes
    in float32, for what it gives ends in a density.

    Args:
        num_outputs: Numbers for each unit.
        hidden: Units of the hidden layers; none make it linear.
        degrees: One for each of the D units, whole numbers from 1 on: an output sees the units of lower degree. 1, 2,
            ..., D by default. Two degrees make a coupling layer, whose second half sees the first.
        activation: That of the hidden layers.

    Example:
        >>> network = Masked(2, [16])
        >>> z = np.zeros([5, 3], "float32")
        >>> network(z).shape, bool(np.all(network(z + [[0, 0, 1]]) == network(z)))
        (TensorShape([5, 3, 2]), True)
    """

    def __init__(
        self,
        num_outputs: int,
        hidden: Sequence[int] = (),
        degrees: Sequence[int] | None = None,
        activation: Any = "elu",
        **layer: Any,
    ):
        check_name(layer.get("name"))
        super().__init__(**{**layer, "dtype": "float32"})
        check_at_least(1, num_outputs=num_outputs)
        self.num_outputs, self.hidden = int(num_outputs), checked_shape("hidden", hidden)
        self.degrees = None if degrees is None else checked_shape("degrees", degrees)
        self.activation = _activation(activation)

    def build(self, inputs_shape: Sequence[int | None], context_shape: Sequence[int | None] | None = None) -> None:
        """The weights; those of the outputs start near 0."""
        size = int(inputs_shape[-1] or 0)
        if self.degrees is not None and len(self.degrees) != size:
            raise ValueError(f"degrees holds {len(self.degrees)} numbers, expected one for each of the {size} units.")
        for below, above in itertools.pairwise([size, *self.hidden, size * self.num_outputs]):
            check_room(f"A weight of {self.name}", below, above)
        units = np.array(self.degrees or range(1, size + 1))
        # A hidden unit of degree 0 sees the context alone: the outputs of lowest degree see no other.
        lowest = 0 if context_shape is not None or units.max() == 1 else 1
        of_hidden = [lowest + np.arange(n) % max(1, units.max() - lowest) for n in self.hidden]
        of_outputs = np.repeat(units, self.num_outputs)
        self._masks = [below[:, None] <= above for below, above in itertools.pairwise([units, *of_hidden])]
        self._masks.append([units, *of_hidden][-1][:, None] < of_outputs)
        last = len(self._masks) - 1
        self._kernels, self._biases = [], []
        for i, mask in enumerate(self._masks):
            start = "glorot_uniform" if i < last else keras.initializers.RandomNormal(stddev=0.01)
            self._kernels.append(self.add_weight(mask.shape, start, name=f"kernel_{i}"))
            self._biases.append(self.add_weight(mask.shape[1:], "zeros", name=f"bias_{i}"))
        self._context = None
        if context_shape is not None:
            start = "glorot_uniform" if last else keras.initializers.RandomNormal(stddev=0.01)
            self._context = self.add_weight([context_shape[-1], len(self._masks[0][0])], start, name="context")
        self.built = True

    def call(self, inputs: Any, context: Any = None) -> Any:
        """See the class."""
        y = inputs
        for i, (kernel, bias, mask) in enumerate(zip(self._kernels, self._biases, self._masks, strict=True)):
            y = ops.matmul(y, kernel * mask.astype("float32")) + bias
            if i == 0 and self._context is not None:
                y = y + ops.matmul(context, self._context)
            y = self.activation(y) if i < len(self._masks) - 1 else y
        return ops.reshape(y, [*ops.shape(y)[:-1], -1, self.num_outputs])

    def get_config(self) -> dict[str, Any]:
        own = {"num_outputs": self.num_outputs, "hidden": list(self.hidden), "degrees": self.degrees}
        return {**super().get_config(), **own, "activation": keras.activations.serialize(self.activation)}


@keras.saving.register_keras_serializable("tfvae")
class ResizeConv2D(keras.layers.Layer):
    """Doubles a picture by repeating its pixels and convolves it by 3x3, ``[B, H, W, C] -> [B, 2H, 2W, filters]``.

    A transposed convolution of 3x3 by strides of 2 covers some pixels once and others four times, which decoders show
    as a checkerboard; a resized picture has none (Odena et al., doi:10.23915/distill.00003). Both steps are linear, so
    they are computed as one: a transposed convolution by strides of 2, whose 4x4 kernel is the 3x3 one summed over 2x2
    windows. It takes 4 products where 3x3 ones on the larger picture take 9.

    Args:
        filters: Channels of the output.
        activation: Any that Keras knows; none by default.

    Example:
        >>> ResizeConv2D(8, "relu")(np.zeros([5, 7, 7, 16], "float32")).shape
        TensorShape([5, 14, 14, 8])
    """

    convolves = True  # see engine.xla.pays_off

    def __init__(self, filters: int, activation: Any = None, **layer: Any):
        check_name(layer.get("name"))
        super().__init__(**layer)
        (self.filters,) = checked_shape("filters", [filters])
        self.activation = _activation(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight([3, 3, input_shape[-1], self.filters], "glorot_uniform", name="kernel")
        self.bias = self.add_weight([self.filters], "zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        """See the class."""
        kernel = ops.transpose(ops.flip(self.kernel, [0, 1]), [0, 1, 3, 2])
        for axis in ([[0, 1], [0, 0]], [[0, 0], [0, 1]]):
            kernel = ops.pad(kernel, [*axis, [0, 0], [0, 0]]) + ops.pad(
                kernel, [*(a[::-1] for a in axis), [0, 0], [0, 0]]
            )
        y = ops.conv_transpose(inputs, kernel, strides=2, padding="same", data_format="channels_last")
        return self.activation(y + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        sizes = (None if size is None else 2 * size for size in input_shape[1:3])
        return (input_shape[0], *sizes, self.filters)

    def get_config(self) -> dict[str, Any]:
        config = {"filters": self.filters, "activation": keras.activations.serialize(self.activation)}
        return {**super().get_config(), **config}


def conv_decoder(
    event_shape: Sequence[int], filters: Sequence[int] = (64, 32), activation: str = "relu"
) -> keras.Sequential:
    """The encoder's mirror, ``[B, D] -> [B, H, W, filters[-1]]``: each ``ResizeConv2D`` doubles the image.

    Heights and widths that the doublings overshoot are cropped at the bottom and the right.

    Example:
        >>> conv_decoder([28, 28, 1], [16, 8])(np.zeros([5, 20], "float32")).shape
        TensorShape([5, 28, 28, 8])
    """
    event_shape, filters = checked_shape("event_shape", event_shape), checked_shape("filters", filters)
    activation = _activation(activation)
    if not filters:
        raise ValueError("filters is [], expected one size at least, such as [32].")
    if len(event_shape) != 3:
        raise ValueError(f"conv_decoder needs event_shape [H, W, C], received {list(event_shape)}.")
    scale = 2 ** len(filters)
    small = [math.ceil(size / scale) for size in event_shape[:2]]
    excess = [scale * s - size for s, size in zip(small, event_shape[:2], strict=True)]
    layers = [
        keras.layers.Dense(math.prod(small) * filters[0], activation),
        keras.layers.Reshape([*small, filters[0]]),
        *(ResizeConv2D(f, activation) for f in filters),
    ]
    if any(excess):
        layers.append(keras.layers.Cropping2D([(0, size) for size in excess], **_LAST))
    return keras.Sequential(layers, name="decoder")


@keras.saving.register_keras_serializable("tfvae")
class Gated(keras.layers.Layer):
    """(A x + a) · sigmoid(B x + b), ``[..., F] -> [..., units]``, as in the VampPrior's paper (arXiv 1705.07120).

    Example:
        >>> Gated(8)(np.zeros([5, 3], "float32")).shape
        TensorShape([5, 8])
    """

    def __init__(self, units: int, **layer: Any):
        check_name(layer.get("name"))
        super().__init__(**layer)
        check_at_least(1, units=units)
        self.units = int(units)
        self.both = keras.layers.Dense(2 * self.units, kernel_initializer="he_normal", dtype=self.dtype_policy)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.both.build(input_shape)

    def call(self, inputs: Any) -> Any:
        """See the class."""
        return ops.glu(self.both(inputs), axis=-1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tfvae")
class Maxout(keras.layers.Layer):
    """The greatest of ``pieces`` linear maps, ``[..., F] -> [..., units]`` (Goodfellow et al., arXiv 1302.4389).

    Example:
        >>> Maxout(8)(np.zeros([5, 3], "float32")).shape
        TensorShape([5, 8])
    """

    def __init__(self, units: int, pieces: int = 4, **layer: Any):
        check_name(layer.get("name"))
        super().__init__(**layer)
        check_at_least(1, units=units, pieces=pieces)
        self.units, self.pieces = int(units), int(pieces)
        self.all = keras.layers.Dense(self.units * self.pieces, dtype=self.dtype_policy)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.all.build(input_shape)

    def call(self, inputs: Any) -> Any:
        """See the class."""
        y = self.all(inputs)
        return xla.greatest(ops.reshape(y, [*ops.shape(y)[:-1], self.units, self.pieces]))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "pieces": self.pieces}


def gated_mlp(hidden: Sequence[int] = (300, 300), name: str | None = None) -> keras.Sequential:
    """``mlp`` of ``Gated`` layers.

    Example:
        >>> gated_mlp()(np.zeros([5, 28, 28, 1], "float32")).shape
        TensorShape([5, 300])
    """
    layers = [Gated(units) for units in checked_shape("hidden", hidden)]
    return keras.Sequential([keras.layers.Flatten(**_LAST), *layers], name=name)


def maxout_mlp(hidden: Sequence[int] = (400,), pieces: int = 4, name: str | None = None) -> keras.Sequential:
    """``mlp`` of ``Maxout`` layers.

    Example:
        >>> maxout_mlp([400])(np.zeros([5, 28, 28, 1], "float32")).shape
        TensorShape([5, 400])
    """
    layers = [Maxout(units, pieces) for units in checked_shape("hidden", hidden)]
    return keras.Sequential([keras.layers.Flatten(**_LAST), *layers], name=name)
