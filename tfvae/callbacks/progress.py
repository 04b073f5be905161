"""What a person watches while a VAE trains."""

from typing import Any

from tqdm import tqdm

from tfvae.engine import hooks

_COMPILING = "compiling ..."


class ProgressBar(hooks.Looking):
    """One line for the whole training: epochs done, time left, and the ELBO in nats of the last epoch.

    It moves within an epoch too, with each program, and says so while the first one is compiled.

    Keras's own bar prints a line for each epoch, which hides a long training rather than shows it. Pass
    ``verbose=0`` to ``fit`` beside it.

    Example:
        >>> ProgressBar().label
        'training'
    """

    def __init__(self, label: str = "training"):
        super().__init__()
        self.label = label
        self._bar: Any = None
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._bar = tqdm(total=self.params["epochs"], desc=self.label, unit="epoch")
        self._bar.set_postfix_str(_COMPILING)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch
        if self._bar.n == 0:  # epochs of before say nothing of how long the others take
            self._bar.n = self._bar.initial = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._bar.postfix == _COMPILING:
            self._bar.set_postfix_str("")
        steps = self.params.get("steps")  # None where nobody knows
        if steps and batch + 1 < steps:
            self._bar.update(round(self._epoch + (batch + 1) / steps, 2) - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = {"ELBO": (logs or {}).get("elbo"), "validation": (logs or {}).get("val_elbo")}
        self._bar.set_postfix(
            {name: f"{value:.2f}" for name, value in values.items() if value is not None}, refresh=False
        )
        self._bar.update(epoch + 1 - self._bar.n)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._bar.close()
