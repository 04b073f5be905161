"""Encoders and decoders: plain Keras, tensor to tensor.

Any Keras layer or model can take their place. They end in features; the DistributionLayer after them holds the last
projection, so that a network does not need to know which family it feeds.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfvae.arguments import check_kind, checked_shape, found_by

_LAST = {"data_format": "channels_last"}  # as event shapes have it, whatever Keras's default is


def _activation(given: Any) -> Any:
    return found_by(keras.activations.get, "activation", given, "a function, or one that Keras knows, such as 'relu'")


def mlp(hidden: Sequence[int] = (500,), activation: str = "tanh", name: str | None = None) -> keras.Sequential:
    """A multilayer perceptron, ``[B, ...] -> [B, hidden[-1]]``; the paper's networks are ``mlp([500])``.

    Example:
        >>> mlp([500])(np.zeros([5, 28, 28, 1], "float32")).shape
        TensorShape([5, 500])
    """
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
    the condition in some other way: write it as a Keras model of two inputs.

    Args:
        network: A Keras layer or model of vectors, not built yet: ``mlp``, or ``conv_decoder`` for z.

    Example:
        >>> Conditional(mlp([500]))([np.zeros([5, 28, 28, 1], "float32"), np.eye(10, dtype="float32")[:5]]).shape
        TensorShape([5, 500])
    """

    def __init__(self, network: keras.layers.Layer, **layer: Any):
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
