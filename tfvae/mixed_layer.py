"""MixedLayer: features in, a distribution over columns of several families out."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.arguments import check_kind, check_name
from tfvae.distribution_layer import DistributionLayer
from tfvae.engine import keras_private
from tfvae.families import facts


@keras.saving.register_keras_serializable("tfvae")
class MixedLayer(keras.layers.Layer):
    """Maps features ``[..., F]`` to a distribution of rows ``[D]``, of which each part has a family of its own.

    See ``likelihoods.mixed``.

    Args:
        parts: Layers of the first columns, the next, ..., each of an event with one axis.
        name: Keras's.

    Raises:
        ValueError: If a part is no layer of a vector.

    Example:
        >>> layer = MixedLayer([DistributionLayer("Normal", [2]), DistributionLayer("Poisson", [1])])
        >>> layer(tf.zeros([5, 16])).event_shape
        TensorShape([3])
    """

    family = families.Mixed
    facts = None  # each part has its own

    def __init__(self, parts: Sequence[DistributionLayer], name: str | None = None, trainable: bool = True):
        check_name(name)
        super().__init__(name=name, trainable=trainable, dtype="float32")
        check_kind("parts", parts, Sequence, 'a list of layers, such as [DistributionLayer("Normal", [3])]')
        for part in parts:
            if not isinstance(part, DistributionLayer) or len(part.event_shape) != 1:
                shape = f" of shape {list(part.event_shape)}" if isinstance(part, DistributionLayer) else ""
                raise ValueError(
                    f"A part is a {type(part).__name__}{shape}, expected a DistributionLayer of a number of columns, "
                    'such as DistributionLayer("Normal", [3]).'
                )
        if not parts:
            raise ValueError('parts is empty: expected layers, such as [DistributionLayer("Normal", [3])].')
        self.parts = list(parts)
        self.event_shape = (sum(part.event_shape[0] for part in self.parts),)

    @property
    def missing(self) -> bool:
        """Whether numbers of some column may be missing."""
        return any(part.missing for part in self.parts)

    @property
    def of_library(self) -> bool:
        """Whether some columns are counts whose rates are shares of their total in the row."""
        return any(part.of_library for part in self.parts)

    def columns(self, x: tf.Tensor) -> list[tuple[DistributionLayer, tf.Tensor]]:
        """Each part with its columns of x ``[..., D]``."""
        pieces = tf.split(x, [part.event_shape[0] for part in self.parts], axis=-1)
        return list(zip(self.parts, pieces, strict=True))

    def titles(self) -> list[str]:
        """What each part's columns are called, by their numbers from 0.

        Example:
            >>> MixedLayer([DistributionLayer("Normal", [2]), DistributionLayer("Poisson", [1])]).titles()
            ['columns 0 to 1', 'column 2']
        """
        found, first = [], 0
        for part in self.parts:
            last = first + part.event_shape[0] - 1
            found.append(f"columns {first} to {last}" if last > first else f"column {first}")
            first = last + 1
        return found

    def build(self, input_shape: Sequence[int | None]) -> None:
        for part in self.parts:
            if not part.built:  # as one of a file is
                part.build(input_shape)
        self.built = True

    @keras_private.in_own_words
    def call(self, features: tf.Tensor) -> tfd.Distribution:
        """See ``MixedLayer``."""
        return families.Mixed([part(features) for part in self.parts])

    def holes(self, x: tf.Tensor) -> tf.Tensor:
        """See ``DistributionLayer.holes``."""
        return tf.concat([part.holes(some) for part, some in self.columns(x)], axis=-1)

    def seen(self, x: tf.Tensor) -> tf.Tensor:
        """x as an encoder sees it: a class as an indicator, a count as log(1 + x), and the masks of ``missing``.

        Example:
            >>> layer = MixedLayer([DistributionLayer("Categorical", [1], num_classes=3)])
            >>> layer.seen(tf.constant([[2.0]])).numpy().tolist()
            [[0.0, 0.0, 1.0]]
        """
        return tf.concat([_seen(part, some) for part, some in self.columns(x)], axis=-1)

    def get_config(self) -> dict[str, Any]:
        parts = [keras.saving.serialize_keras_object(part) for part in self.parts]
        return {"parts": parts, "name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MixedLayer":
        parts = [keras.saving.deserialize_keras_object(part) for part in config["parts"]]
        return cls(**{**config, "parts": parts})


def _seen(part: DistributionLayer, x: tf.Tensor) -> tf.Tensor:
    gone = part.holes(x)
    known = tf.where(gone, tf.zeros_like(x), x)
    if part.facts is not None and part.facts.support is facts.LABELS:
        shares = tf.one_hot(tf.cast(known, tf.int32), part.setting["num_classes"])
        shares *= 1.0 - tf.cast(gone, x.dtype)[..., tf.newaxis]
        width = part.event_shape[0] * part.setting["num_classes"]
        known = tf.reshape(shares, tf.concat([tf.shape(x)[:-1], [width]], axis=0))
    elif part.facts is not None and part.facts.support in (facts.COUNTS, facts.POSITIVE_COUNTS):
        known = tf.math.log1p(known)
    return tf.concat([known, 1.0 - tf.cast(gone, x.dtype)], axis=-1) if part.missing else known
