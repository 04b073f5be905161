"""Pictures of a model while it learns, the same ones again and again, so that they compare."""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least, check_path, check_whole
from tfvae.callbacks import summaries

_SHOWN = 100  # rows and samples


class Pictures(keras.callbacks.Callback):
    """Draws reconstructions, samples and traversals of latent units as a model trains: PNG files, or in TensorBoard.

    Rows, noise and units (the first ten) are the same each time, so that one picture compares with the next. Files are
    called ``reconstructions_0010.png`` after epoch 10, and are whole or not there.

    Args:
        x: Rows as ``fit`` takes them in memory; the first 48 are reconstructed and the first is traversed.
        folder: Where the PNG files go; it is made.
        log_dir: Where TensorBoard looks; the pictures go there as image summaries.
        every: Epochs from one drawing to the next.
        seed: Fixes the samples.
        image_shape: ``[H, W]`` or ``[H, W, C]`` of observations that are vectors.

    Raises:
        ValueError: Without a folder and a log_dir; at the start of ``fit``, if the model is no VAE or observations are
            no pictures.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors
        >>> parts = networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8, 8])
        >>> vae = VAE(*parts)
        >>> vae.compile()
        >>> x = np.zeros([10, 8, 8], "uint8")
        >>> _ = vae.fit(x, epochs=2, verbose=0, callbacks=[Pictures(x, "pictures", every=2)])
        >>> sorted(os.listdir("pictures"))
        ['reconstructions_0002.png', 'samples_0002.png', 'traversals_0002.png']
    """

    def __init__(
        self,
        x: Any,
        folder: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        every: int = 1,
        seed: int = 0,
        image_shape: Any = None,
    ):
        super().__init__()
        if folder is None and log_dir is None:
            raise ValueError("Pictures have no place: name a folder for PNG files, TensorBoard's log_dir, or both.")
        check_at_least(1, every=every)
        if folder is not None:
            check_path(folder=folder)
        if log_dir is not None:
            check_path(log_dir=log_dir)
        check_whole(seed=seed)
        self._folder, self._every, self._seed, self._image_shape = folder, every, seed, image_shape
        self._x = x
        self._writer = None if log_dir is None else summaries.writer(log_dir)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._drawn()  # says at once, and not after hours, that observations are no pictures

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if (epoch + 1) % self._every:
            return
        for name, picture in self._drawn().items():
            levels = np.round(picture * 255).astype(np.uint8)
            if self._folder is not None:
                self._write(os.path.join(self._folder, f"{name}_{epoch + 1:04d}.png"), levels)
            if self._writer is not None:
                with self._writer.as_default():
                    tf.summary.image(name, levels[None], step=epoch)
                    self._writer.flush()

    def _write(self, path: str, levels: np.ndarray) -> None:
        from tfvae.plots import style

        with style.replacing(path) as file:
            file.write(tf.io.encode_png(levels).numpy())

    def _drawn(self) -> dict[str, np.ndarray]:
        """The pictures, ``[H, W, C]`` in [0, 1], by name."""
        from tfvae.plots import latent, pictures  # here alone: who draws nothing needs no matplotlib

        vae, shape = self.model, self._image_shape
        rows = pictures.first_rows(self._x, _SHOWN)
        reconstructions = pictures.reconstruction_grid(vae, rows, image_shape=shape)  # refuses what is no VAE
        condition = None
        if vae.condition_shape is not None:
            given = np.asarray(rows["condition"])
            condition = np.resize(given, [_SHOWN, *given.shape[1:]])
        drawn = vae.sample(_SHOWN, seed=self._seed, condition=condition)
        return {
            "reconstructions": reconstructions,
            "samples": pictures.grid(pictures.as_images(vae, drawn, shape), 10),
            "traversals": latent.traversal_grid(vae, rows, np.arange(vae.latent_dim)[:10], image_shape=shape),
        }
