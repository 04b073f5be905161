"""What every baseline is: another way to train the networks of a VAE."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfvae.training import UnsupervisedModel
from tfvae.vae import VAE


class Trainer(UnsupervisedModel):
    """Trains ``vae`` by a loss of its own; what an observation is, and what a call gives, is the VAE's.

    A subclass names the further arguments of its constructor, kept as attributes, in ``_arguments``.
    """

    _arguments: tuple[str, ...] = ()

    def __init__(self, vae: VAE, seed: int | None, name: str):
        super().__init__(vae.seed if seed is None else seed, name)
        self.vae = vae
        self.built = True

    def observations(self, x: Any) -> tf.Tensor:
        """See ``VAE.observations``."""
        return self.vae.observations(x)

    def check_observations(self, x: tf.Tensor) -> None:
        """See ``VAE.check_observations``."""
        self.vae.check_observations(x)

    def drawn_observations(self, x: tf.Tensor, seeds: Callable[[], tf.Tensor]) -> tf.Tensor:
        """See ``VAE.drawn_observations``."""
        return self.vae.drawn_observations(x, seeds)

    def call(self, x: Any, training: bool = False) -> tf.Tensor:
        """See ``VAE.call``."""
        return self.vae(x, training=training)

    def get_config(self) -> dict[str, Any]:
        vae = keras.saving.serialize_keras_object(self.vae)
        return {"vae": vae} | {name: getattr(self, name) for name in (*self._arguments, "seed", "name")}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Trainer":
        return cls(**{**config, "vae": keras.saving.deserialize_keras_object(config["vae"])})
