"""Objectives with settings: how Keras saves them, and numbers that move from step to step."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfvae.arguments import check_at_least, check_number

Schedule = Callable[[tf.Tensor], tf.Tensor] | float  # Keras's schedules are such functions


class Configured:
    """An objective whose settings are its constructor's arguments, kept as attributes of the same names."""

    _arguments: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """The settings, schedules as Keras serialises them."""
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self._arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def check_schedule(name: str, setting: Schedule) -> None:
    """Raise ValueError for a negative number; what a schedule will say is not known yet."""
    if not callable(setting):
        given: Any = {name: setting}
        check_number(0, also="or a schedule of keras.optimizers.schedules", **given)


def at_step(setting: Schedule, step: tf.Tensor | None) -> tf.Tensor:
    """A setting's value at a step of the optimiser, inside the program: a number, or a schedule of Keras's.

    Example:
        >>> warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, decay_steps=100, end_learning_rate=1.0)
        >>> float(at_step(0.5, tf.constant(50))), float(at_step(warm_up, tf.constant(50)))
        (0.5, 0.5)
    """
    value = setting(tf.constant(0) if step is None else step) if callable(setting) else setting
    return tf.cast(value, tf.float32)


@keras.saving.register_keras_serializable("tfvae")
class Cyclic(keras.optimizers.schedules.LearningRateSchedule):
    """A weight that climbs from 0 to 1 and begins anew, M times in T steps (Fu et al., arXiv 1903.10145).

    Within a cycle it is min(1, τ / R), τ from 0 to 1; after the last it stays 1. For ``objectives.Weighted``.

    Args:
        num_steps: T, steps of the optimiser.
        num_cycles: M.
        ratio: R, the part of a cycle in which it climbs.

    Raises:
        ValueError: For numbers out of range.

    Example:
        >>> [round(float(Cyclic(80)(step)), 2) for step in (0, 5, 10, 15, 20, 80)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 1.0]
    """

    def __init__(self, num_steps: int, num_cycles: int = 4, ratio: float = 0.5):
        check_at_least(1, num_steps=num_steps, num_cycles=num_cycles)
        check_number(0, is_open=True, ratio=ratio)
        if not (num_steps >= num_cycles >= 1 and 0.0 < ratio <= 1.0):
            raise ValueError(
                f"num_steps, num_cycles and ratio are {num_steps}, {num_cycles}, {ratio}: expected a cycle or more, of "
                "a step or more each, and a ratio above 0, 1 at most."
            )
        self.num_steps, self.num_cycles, self.ratio = int(num_steps), int(num_cycles), float(ratio)

    def __call__(self, step: Any) -> tf.Tensor:
        """The weight at a step, from 0 to 1."""
        step = tf.cast(step, tf.float32)
        within = tf.math.floormod(step * (self.num_cycles / self.num_steps), 1.0)
        return tf.where(step < self.num_steps, tf.minimum(1.0, within / self.ratio), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "num_cycles": self.num_cycles, "ratio": self.ratio}
