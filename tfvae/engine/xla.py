"""Programs that XLA compiles, and what is written in another way inside them.

XLA fuses a chain of elementwise operations into one pass over memory, so that arithmetic is what counts there; outside
of it a chain costs a pass for each operation, and TensorFlow's own kernels are best.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfvae.engine import scope

_CONVOLUTIONS = tuple(
    getattr(keras.layers, f"{kind}{rank}D{transposed}")
    for kind, ranks, transposed in (
        ("Conv", (1, 2, 3), ""),
        ("Conv", (1, 2, 3), "Transpose"),
        ("DepthwiseConv", (1, 2), ""),
        ("SeparableConv", (1, 2), ""),
    )
    for rank in ranks
)
_NOT_IN_XLA = ("StatelessRandomGamma", "StatelessRandomBinomial", "StatelessRandomPoisson")
_ATANH = (1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0)  # of s + s³/3 + ...: to 2e-8 of its sum for s <= 1/3


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as one XLA program, retraced for each new shape.

    Example:
        >>> compiled(lambda x: x * softplus(x))(tf.constant(0.0)).numpy()
        np.float32(0.0)
    """

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with scope.as_xla():
            return function(*args)

    return as_graph(traced, jit_compile=True)


def compiled_where_possible(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as one XLA program, or as a graph where it draws of what XLA has no kernel for.

    Example:
        >>> draw = compiled_where_possible(lambda seed: tf.random.stateless_gamma([3], seed, alpha=2.0))
        >>> draw(tf.constant([0, 1])).shape
        TensorShape([3])
    """
    by_xla: Any = compiled(function)
    plain = as_graph(function)

    def program(*args: Any) -> Any:
        graph = by_xla.get_concrete_function(*args).graph.as_graph_def()
        bodies = [graph.node, *(one.node_def for one in graph.library.function)]
        lacks = any(node.op.startswith(_NOT_IN_XLA) for body in bodies for node in body)
        return (plain if lacks else by_xla)(*args)

    return program


def as_graph(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``function`` as a graph of its own, traced for each new shape.

    TensorFlow counts tracings by the code that a function was written with, and warns of the fifth: of five models'
    programs too, which are traced once each. A partial object has no code, and is counted by itself.

    Example:
        >>> as_graph(lambda x: 2 * x)(tf.constant(1.0)).numpy()
        np.float32(2.0)
    """
    alone = functools.partial(function)
    alone.__name__ = getattr(function, "__name__", "program")  # type: ignore[attr-defined]  # what a profile calls it
    return tf.function(alone, autograph=False, **options)


def pays_off(model: keras.Model) -> bool:
    """Whether XLA is the faster compiler for a model: not on a CPU with convolutions.

    Of those that run backwards (a gradient, a transposed convolution) it makes plain loops there, 2 to 3 times slower
    than TensorFlow's kernels. A layer of one's own says by an attribute ``convolves`` that it is one.

    Example:
        >>> pays_off(keras.Sequential([keras.layers.Dense(2)]))
        True
    """
    convolves = any(
        isinstance(layer, _CONVOLUTIONS) or getattr(layer, "convolves", False) for layer in model._flatten_layers()
    )
    return not convolves or any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def compiled_where_it_pays(model: keras.Model, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of a model as one program, by XLA where that ``pays_off`` the model.

    Example:
        >>> compiled_where_it_pays(keras.Sequential(), lambda x: 2 * x)(tf.constant(1.0)).numpy()
        np.float32(2.0)
    """
    return compiled(function) if pays_off(model) else as_graph(function)


def softplus(x: tf.Tensor) -> tf.Tensor:
    """log(1 + eˣ).

    The logarithm is what costs, a tenth of a training step at batch 2048. With e = exp(-|x|), log(1 + e) is
    2 atanh(e / (2 + e)), whose series is short because its argument is at most 1/3.

    Example:
        >>> softplus(tf.constant([0.0, 100.0])).numpy()
        array([  0.6931472, 100.       ], dtype=float32)
    """
    return _series(x) if scope.in_xla() and x.dtype == tf.float32 else tf.nn.softplus(x)


@tf.custom_gradient
def _series(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    e = tf.exp(-tf.abs(x))
    s = e / (2.0 + e)
    square, total = s * s, tf.zeros_like(s)
    for coefficient in _ATANH:
        total = total * square + coefficient
    return tf.maximum(x, 0.0) + 2.0 * s * total, lambda upstream: upstream * tf.sigmoid(x)


def greatest(x: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """The greatest along an axis, whose gradient goes to the first of the greatest.

    That of ``tf.reduce_max`` goes to all that equal it, divided by their number. XLA computes x anew for the gradient,
    rounded otherwise now and then on a GPU, so that none is equal, the number 0 and the gradient NaN.

    Example:
        >>> greatest(tf.constant([[1.0, 3.0], [5.0, 4.0]])).numpy()
        array([3., 5.], dtype=float32)
    """

    @tf.custom_gradient
    def chosen(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        place = tf.one_hot(tf.argmax(x, axis), tf.shape(x)[axis], axis=axis, dtype=x.dtype)
        return tf.reduce_max(x, axis), lambda upstream: place * tf.expand_dims(upstream, axis)

    return chosen(x)
