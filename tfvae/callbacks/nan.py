"""A training that turns NaN is stopped, and told where."""

from typing import Any

import keras

from tfvae.arguments import check_kind
from tfvae.engine import faults
from tfvae.engine.model import UnsupervisedModel


class StopAtNaN(keras.callbacks.Callback):
    """Stops a training whose loss or weights turn NaN or infinite, with the step and the first layer that made it so.

    ``fit`` then raises FloatingPointError, and the model is as it was before that step: unlike after Keras's
    TerminateOnNaN, its weights are numbers. Programs still run many steps: what each starts from is kept, and where one
    goes wrong its steps run again, one by one and at last layer by layer. That copy of the weights, the optimiser's
    included, is all that it costs.

    Raises:
        ValueError: At the start of ``fit``, if the model is none that tfvae trains.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.normal([3]))
        >>> vae.compile(keras.optimizers.SGD(1e30))
        >>> x = np.eye(3, dtype="float32")
        >>> try:
        ...     vae.fit(x, epochs=10, verbose=0, callbacks=[StopAtNaN()])
        ... except FloatingPointError as error:
        ...     str(error).startswith("At step ")
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._plain: Any = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        expected = "a tfvae.VAE or one of tfvae.baselines: others have keras.callbacks.TerminateOnNaN"
        check_kind("The model that is trained", self.model, UnsupervisedModel, expected)
        self._plain = self.model.train_function
        watched = faults.watched(self.model, self._plain)

        def train(iterator: Any) -> Any:
            try:
                return watched(iterator)
            except FloatingPointError:
                self.on_train_end()  # which Keras leaves out when fit raises
                raise

        self.model.train_function = train

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.model.train_function = self._plain
