"""TensorFlow's own LiteRT interpreter."""

import contextlib
import warnings
from typing import Any

import tensorflow as tf


def opened(content: bytes) -> Any:
    """An interpreter of a LiteRT file, without TensorFlow's notice that it moves to a package of its own.

    Raises:
        ValueError: If it is no such file, or this TensorFlow has no interpreter.

    Example:
        >>> double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        >>> tf.saved_model.save(tf.Module(), "double", signatures={"double": double.get_concrete_function()})
        >>> converter = tf.lite.TFLiteConverter.from_saved_model("double", signature_keys=["double"])
        >>> run = opened(converter.convert()).get_signature_runner("double")
        >>> run(x=tf.constant([1.0, 2.0, 3.0]))["y"].tolist()
        [2.0, 4.0, 6.0]
    """
    with warnings.catch_warnings(), contextlib.suppress(AttributeError):
        warnings.simplefilter("ignore", UserWarning)
        return tf.lite.Interpreter(model_content=content)
    raise ValueError("this TensorFlow has no tf.lite.Interpreter: install TensorFlow 2.20 or 2.21.")
