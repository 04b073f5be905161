"""Bits per dimension beside the nats of the history."""

import keras

from tfvae.evaluation.bits import bits_per_dimension, level_width


class BitsPerDimension(keras.callbacks.Callback):
    """Puts the ELBO into the history as ``bits_per_dimension`` too: an upper bound on the bits of each 8-bit level.

    Pass it before other callbacks that write the history down. See ``evaluation.bits_per_dimension``.

    Raises:
        ValueError: At the start of ``fit``, if what the model's likelihood scores are no levels.

    Example:
        >>> callback = BitsPerDimension()
    """

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._width = level_width(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        for name in ("elbo", "val_elbo"):
            if name in logs:
                bits = bits_per_dimension(logs[name], self.model.event_shape, self._width)
                logs[name.replace("elbo", "bits_per_dimension")] = bits
