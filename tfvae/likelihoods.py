"""p(x|z): what a likelihood adds to a DistributionLayer.

Every log p(x|z) here is a normalised density or probability: no constant is dropped, so nats compare across models.
The one approximation is the field's own: a Bernoulli scores a grey value x in [0, 1] by x log p + (1 - x) log(1 - p).
"""

from collections.abc import Sequence
from typing import Any

from tfvae.distribution_layer import DistributionLayer


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


def discretized_logistic(event_shape: Sequence[int]) -> DistributionLayer:
    """Pixels of 256 levels, each with its probability: -log p(x) / (D log 2) is bits per dimension, D numbers a row.

    The loc of each logistic is a sigmoid of the features, its scale a number for each pixel and channel that no
    feature moves, as in Kingma et al. (arXiv 1606.04934, appendix C.5). x is uint8, or levels divided by 255.

    Example:
        >>> layer = discretized_logistic([28, 28, 1])
        >>> layer(tf.zeros([5, 16])).event_shape, layer.free
        (TensorShape([28, 28, 1]), ['loc'])
    """
    return DistributionLayer(
        "DiscretizedLogistic", event_shape, constraints={"loc": "sigmoid"}, shared=["scale"], name="likelihood"
    )


def discretized_logistic_mixture(event_shape: Sequence[int], num_components: int = 10) -> DistributionLayer:
    """Pixels of 256 levels from a mixture, of which each channel is conditioned on those before it (PixelCNN++'s).

    Example:
        >>> discretized_logistic_mixture([8, 8, 3])(tf.zeros([5, 8, 8, 16])).event_shape
        TensorShape([8, 8, 3])
    """
    return DistributionLayer(
        "DiscretizedLogisticMixture", event_shape, num_components=num_components, name="likelihood"
    )


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
