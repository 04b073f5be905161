"""p(x|z): what a likelihood adds to a DistributionLayer.

Every log p(x|z) here is a normalised density or probability: no constant is dropped, so nats compare across models.
The one approximation is the field's own: a Bernoulli scores a grey value x in [0, 1] by x log p + (1 - x) log(1 - p).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.distribution_layer import DistributionLayer

_UNIT_INTERVAL = ("Bernoulli", "ContinuousBernoulli", "Beta")
_COUNTS = ("Poisson", "NegativeBinomial")
_ONE_HOT = ("OneHotCategorical",)


def bernoulli(event_shape: Sequence[int], kernel_initializer: Any = "glorot_uniform") -> DistributionLayer:
    """The paper's likelihood for MNIST, appendix C.1: independent pixels, p = sigmoid(logits(z)).

    Example:
        >>> bernoulli([28, 28, 1])(tf.zeros([5, 16])).event_shape
        TensorShape([28, 28, 1])
    """
    return DistributionLayer("Bernoulli", event_shape, kernel_initializer=kernel_initializer, name="likelihood")


def normal(event_shape: Sequence[int]) -> DistributionLayer:
    """Independent normals, mean and scale both functions of z, for real-valued observations.

    Example:
        >>> normal([3])(tf.zeros([5, 16])).stddev().shape
        TensorShape([5, 3])
    """
    return DistributionLayer("Normal", event_shape, name="likelihood")


def sigmoid_normal(event_shape: Sequence[int], kernel_initializer: Any = "glorot_uniform") -> DistributionLayer:
    """The paper's likelihood for Frey Face, appendix C.2: the mean a sigmoid, log σ² linear in the features, per pixel.

    Example:
        >>> round(float(sigmoid_normal([3])(tf.zeros([5, 16])).mean()[0, 0]), 2)
        0.5
    """
    return DistributionLayer(
        "Normal",
        event_shape,
        kernel_initializer=kernel_initializer,
        constraints={"loc": "sigmoid", "scale": "log_variance"},
        name="likelihood",
    )


def scales_bytes(layer: DistributionLayer) -> bool:
    """Whether a uint8 observation is a picture, to be divided by 255, and not a count or an indicator."""
    return layer.family.__name__ not in _COUNTS + _ONE_HOT


def scale(layer: DistributionLayer) -> str:
    """What numbers an observation that is given as floats holds, in words.

    Example:
        >>> scale(bernoulli([8]))
        'values in [0, 1]'
        >>> scale(normal([8]))
        'real values, on the scale of the training data (uint8 pictures were divided by 255)'
    """
    family = layer.family.__name__
    if family in _UNIT_INTERVAL:
        return "values in [0, 1]"
    if family in _ONE_HOT:
        return "indicators: a single 1 among zeros"
    return (
        "counts 0, 1, 2, ..."
        if family in _COUNTS
        else "real values, on the scale of the training data (uint8 pictures were divided by 255)"
    )


def check_observations(layer: DistributionLayer, x: tf.Tensor) -> None:
    """Raise ValueError if in-memory observations lie outside the likelihood's support.

    Looks at the data once: a NaN or a 0..255 picture given as float would otherwise train to nonsense in silence.
    """
    if (x.dtype == tf.uint8 and scales_bytes(layer)) or tf.size(x) == 0:
        return
    with tf.device("CPU:0"):  # there the minimum of anything with a NaN is NaN
        low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
    family = layer.family.__name__
    if not np.isfinite([low, high]).all():
        raise ValueError("x holds NaN or infinite values: remove or repair those rows.")
    if family in _UNIT_INTERVAL + _ONE_HOT and (low < 0 or high > 1):
        raise ValueError(
            f"x ranges from {low:g} to {high:g}, but a {family} likelihood scores values in [0, 1]. Pass uint8 images "
            "as they are (the model scales them), divide by the maximum, or choose a likelihood of real values."
        )
    if family in _COUNTS and (low < 0 or np.any(x.numpy() % 1)):
        raise ValueError(f"x ranges from {low:g} to {high:g}, but a {family} likelihood scores counts 0, 1, 2, ...")
