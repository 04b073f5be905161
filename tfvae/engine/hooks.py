"""Which callbacks want every batch: a program of many steps calls their hooks once."""

from collections.abc import Iterable
from typing import Any

import keras

_TRAIN = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
_TEST = ("on_test_batch_begin", "on_test_batch_end")
# Of Keras's own with such hooks, those that lose nothing when a program calls them once: they count, show or look.
_CONTENT = (keras.callbacks.ProgbarLogger, keras.callbacks.TerminateOnNaN)


def acting_on_batches(callbacks: Any, testing: bool = False) -> list[str]:
    """Names of the callbacks that do something at each batch, as Keras calls them.

    Example:
        >>> acting_on_batches([keras.callbacks.TerminateOnNaN(), keras.callbacks.ModelCheckpoint("m.keras")])
        []
        >>> acting_on_batches(keras.callbacks.ModelCheckpoint("m.keras", save_freq=10))
        ['ModelCheckpoint']
    """
    given = callbacks if isinstance(callbacks, Iterable) else [callbacks]
    given = getattr(callbacks, "callbacks", given)
    return [type(one).__name__ for one in given if one is not None and _acts(one, _TEST if testing else _TRAIN)]


def _acts(callback: Any, hooks: Iterable[str]) -> bool:
    if isinstance(callback, _CONTENT):
        return False
    if isinstance(callback, keras.callbacks.TensorBoard):
        return callback.update_freq != "epoch" or callback.write_steps_per_second
    if isinstance(callback, (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)):
        return callback.save_freq != "epoch"
    base = keras.callbacks.Callback
    return any(hook in vars(callback) or getattr(type(callback), hook) is not getattr(base, hook) for hook in hooks)
