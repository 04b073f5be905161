"""p(x|z): what a likelihood adds to a DistributionLayer.

Every log p(x|z) here is a normalised density or probability: no constant is dropped, so nats compare across models.
The one approximation is the field's own: a Bernoulli scores a grey value x in [0, 1] by x log p + (1 - x) log(1 - p).
"""

from collections.abc import Sequence
from typing import Any

from tfvae.arguments import check_kind
from tfvae.distribution_layer import DistributionLayer
from tfvae.mixed_layer import MixedLayer


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


def library_counts(event_shape: Sequence[int], family: str = "NegativeBinomial") -> DistributionLayer:
    """Counts whose means are shares of the row's total, its library ℓ = Σ x along the last axis: scVI's likelihood.

    μ = ℓ softmax(features), and a negative binomial's dispersion is a number for each gene that no feature moves. The
    encoder sees log(1 + x). Bounds are on log p(x | ℓ), and compare with no other likelihood's. ``decode`` and
    ``sample`` take ``library=``; a reconstruction has its row's own.

    Args:
        event_shape: Shape of one observation, genes last.
        family: ``Poisson``, ``NegativeBinomial``, ``ZeroInflatedPoisson`` or ``ZeroInflatedNegativeBinomial``.

    Raises:
        ValueError: For another family.

    Example:
        >>> layer = library_counts([3])
        >>> layer.free, layer(tf.zeros([5, 16])).with_library(6.0).mean()[0].numpy().tolist()
        (['logits'], [2.0, 2.0, 2.0])
    """
    known = ("Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial")
    if family not in known:
        raise ValueError(f"family is {family!r}, expected one of {', '.join(known)}.")
    shared = ["total_count"] if family.endswith("NegativeBinomial") else []
    return DistributionLayer(f"Library{family}", event_shape, shared=shared, name="likelihood")


def sigmoid_normal(event_shape: Sequence[int], kernel_initializer: Any = "glorot_uniform") -> DistributionLayer:
    """The paper's likelihood for Frey Face, appendix C.2: the mean a sigmoid, log σ² linear in the features, per pixel.

    It is of grey values in [0, 1], the range of its mean: x below -0.5 or above 1.5, as floats of 0 to 255 or columns
    that were standardized, is refused.

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


def mixed(parts: Sequence[DistributionLayer]) -> MixedLayer:
    """Rows of a table whose columns have several families: independent given z, so that log p(x|z) is their sum.

    Each part is of the columns after those of the part before it; columns of one family are best one part. The encoder
    sees a class (``Categorical``, ``OrderedLogistic``) as an indicator, a count as log(1 + x), and other numbers as
    they are: bring those to one scale. x is float32, ``[N, D]``.

    Args:
        parts: Layers of events ``[n]``, n columns each; of what may be missing, ``missing(layer)``.

    Raises:
        ValueError: If a part is no layer of a vector.

    Example:
        >>> age_and_height, children = DistributionLayer("Normal", [2]), DistributionLayer("Poisson", [1])
        >>> layer = mixed([missing(age_and_height), children, DistributionLayer("Categorical", [1], num_classes=3)])
        >>> layer(tf.zeros([5, 16])).log_prob([1.0, float("nan"), 2.0, 0.0]).shape
        TensorShape([5])
    """
    return MixedLayer(parts, name="likelihood")


def missing(layer: DistributionLayer | MixedLayer) -> Any:
    """The same likelihood for x of which numbers are missing: NaN in x.

    log p(x) is then that of the numbers that are there, and so is every bound on it (MIWAE's, Mattei & Frellsen, arXiv
    1812.02633, equation 4). The encoder sees zeros for what is missing and, after x along its last axis, a mask: 1 for
    each number that is there. ``VAE.impute`` fills in the rest. That a number is missing must not depend on what it
    would have been, given those that are there (missing at random).

    Args:
        layer: The likelihood, before a model was built of it; the numbers of its family are single ones.

    Raises:
        ValueError: If the layer has weights already, or its family has no number that is surely inside of it.

    Example:
        >>> layer = missing(DistributionLayer("Normal", [2], scale=1.0))
        >>> p = layer.distribution({"loc": tf.zeros([1, 2]), "scale": 1.0})
        >>> p.log_prob([[0.0, float("nan")]]).numpy().round(4)  # log N(0; 0, 1)
        array([-0.9189], dtype=float32)
    """
    check_kind(
        "layer", layer, (DistributionLayer, MixedLayer), 'a likelihood, such as DistributionLayer("Normal", [8])'
    )
    if layer.built:
        raise ValueError("The likelihood has weights already: call missing on it before a model is made of it.")
    if isinstance(layer, MixedLayer):
        return MixedLayer([missing(part) for part in layer.parts], name=layer.name)
    return DistributionLayer(**{**layer.get_config(), "missing": True})
