"""What every baseline is: another way to train the networks of a VAE."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import objectives
from tfvae.engine import keras_private
from tfvae.engine.model import UnsupervisedModel
from tfvae.models.vae import VAE, warn_of_num_rows


class Trainer(UnsupervisedModel):
    """Trains ``vae`` by a loss of its own; what a row is, and what a call gives, is the VAE's.

    A subclass names the further arguments of its constructor, kept as attributes, in ``_arguments``, and says whether
    the VAE's objective is part of its loss.
    """

    _arguments: tuple[str, ...] = ()
    _has_objective = False

    def __init__(self, vae: VAE, seed: int | None, name: str):
        super().__init__(vae.seed if seed is None else seed, name)
        if not self._has_objective and vae.objective is not objectives.elbo:
            given = getattr(vae.objective, "__name__", type(vae.objective).__name__)
            warnings.warn(
                f"{type(self).__name__} trains by a loss of its own, and the objective of the VAE, {given}, is not "
                "used: leave it out, or train the VAE itself.",
                stacklevel=3,
            )
        self.vae = vae
        self.built = True

    def prepare(self, inputs: Any) -> dict[str, tf.Tensor]:
        """See ``VAE.prepare``."""
        return self.vae.prepare(inputs)

    def check(self, inputs: dict[str, tf.Tensor]) -> None:
        """See ``VAE.check``."""
        self.vae.check(inputs)

    def measure(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """See ``VAE.measure``."""
        return self.vae.measure(inputs)

    def judge(self, measured: np.ndarray) -> None:
        """See ``VAE.judge``."""
        self.vae.judge(measured)

    def set_parts(self) -> Mapping[str, Any]:
        """See ``UnsupervisedModel.set_parts``: those of the VAE, and the model itself."""
        return {**self.vae.set_parts(), type(self).__name__: self}

    def check_num_rows(self, count: int) -> None:
        """See ``UnsupervisedModel.check_num_rows``; this model and the parts that it uses may have been told."""
        for part in (self, self.vae.objective if self._has_objective else None, self.vae.weight_prior):
            warn_of_num_rows(part, count)

    def with_noise(self, inputs: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """See ``VAE.with_noise``; the seed is this model's."""
        return self.vae.with_noise(inputs, lambda: self.next_seed(training))

    @keras_private.in_own_words
    def call(self, x: Any, training: bool = False) -> tf.Tensor:
        """See ``VAE.call``."""
        return self.vae(x, training=training)

    def get_config(self) -> dict[str, Any]:
        vae = keras.saving.serialize_keras_object(self.vae)
        return {"vae": vae} | {name: getattr(self, name) for name in (*self._arguments, "seed", "name")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Trainer":
        return cls(**{**config, "vae": keras.saving.deserialize_keras_object(config["vae"])})
