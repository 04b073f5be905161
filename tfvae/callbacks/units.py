"""Latent units as they live or die: KL of each after every epoch, how many are active, a word when they collapse."""

import os
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least
from tfvae.callbacks import summaries
from tfvae.evaluation import active_units, kl_by_unit

_COLLAPSED = 0.1  # nats of KL in all: less than a coin's toss tells of x


class Units(keras.callbacks.Callback):
    """Puts ``active_units`` and ``kl_of_units`` (nats) of given rows into the history, and warns when units collapse.

    A unit is active where Var_x E_q[z_d] > 0.01 (Burda et al., arXiv 1509.00519, section 5). The posterior has
    collapsed where no unit is active or KL(q(z|x)‖p(z)) is below 0.1 nat: the decoder then ignores z. That is warned of
    once. Pass it before other callbacks that write the history down (CSVLogger, TensorBoard).

    Args:
        x: Rows, as ``fit`` takes them in memory; a thousand are enough.
        log_dir: Where TensorBoard looks: KL of each unit goes there as a histogram, ``kl_by_unit``.
        warm_up: Epochs before collapse is warned of: many models learn the mean of x first.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> vae.compile()
        >>> x = np.eye(8, dtype="float32")
        >>> history = vae.fit(x, epochs=2, verbose=0, callbacks=[Units(x)]).history
        >>> len(history["active_units"]), len(history["kl_of_units"])
        (2, 2)
    """

    def __init__(self, x: Any, log_dir: str | os.PathLike[str] | None = None, warm_up: int = 5):
        super().__init__()
        check_at_least(0, warm_up=warm_up)
        self.kl_by_unit = np.zeros([0])
        self._x, self._warm_up, self._warned = x, warm_up, False
        self._writer = None if log_dir is None else summaries.writer(log_dir)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.kl_by_unit = kl_by_unit(self.model, self._x)
        active, kl = active_units(self.model, self._x), float(self.kl_by_unit.sum())
        if logs is not None:
            logs |= {"active_units": active, "kl_of_units": kl}
        if self._writer is not None:
            with self._writer.as_default():
                tf.summary.histogram("kl_by_unit", self.kl_by_unit, step=epoch)
                self._writer.flush()
        if epoch >= self._warm_up and not self._warned and (active == 0 or kl < _COLLAPSED):
            self._warned = True
            warnings.warn(
                f"The latent units have collapsed: after epoch {epoch + 1} {active} of {self.model.latent_dim} are "
                f"active and KL(q‖p) is {kl:.3g} nats, so the decoder ignores z. Let KL count little at first "
                "(objectives.Weighted with a schedule) or nothing up to some nats (objectives.FreeBits).",
                stacklevel=2,
            )
