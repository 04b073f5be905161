"""What a person watches while a VAE trains."""

import io
import sys
import time
from typing import Any

from tqdm import tqdm

from tfvae.engine import hooks

_COMPILING = "compiling ..."
_LOG_SECONDS = 10.0
_LINE = "{desc}: {n_fmt}/{total_fmt} epochs, {elapsed} gone, {remaining} left{postfix}"


class ProgressBar(hooks.Looking):
    """One line for the whole training: epochs done, time left, and the ELBO in nats of the last epoch.

    It moves within an epoch too, with each program, and says so while the first one is compiled. In a log, where
    standard error is no terminal, it is a line every ten seconds and one at the end.

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
        self._due: float | None = None  # when the next line of a log is

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        is_seen = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._due = None if is_seen else time.monotonic() + _LOG_SECONDS
        in_log: dict[str, Any] = {} if is_seen else {"file": io.StringIO(), "bar_format": _LINE}
        self._bar = tqdm(total=self.params["epochs"], desc=self.label, unit="epoch", **in_log)
        self._bar.set_postfix_str(_COMPILING)

    def _log(self, at_end: bool = False) -> None:
        """Write a line, where lines are wanted and it is time for one."""
        if self._due is None or not (at_end or time.monotonic() >= self._due):
            return
        self._due = time.monotonic() + _LOG_SECONDS
        print(self._bar, file=sys.stderr, flush=True)

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
            self._log()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = {"ELBO": (logs or {}).get("elbo"), "validation": (logs or {}).get("val_elbo")}
        self._bar.set_postfix(
            {name: f"{value:.2f}" for name, value in values.items() if value is not None}, refresh=False
        )
        self._bar.update(epoch + 1 - self._bar.n)
        self._log()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._log(at_end=True)
        self._bar.close()
