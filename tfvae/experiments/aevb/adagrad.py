"""The optimiser of the paper's experiments, which Keras lacks."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("tfvae")
class WarmAdagrad(keras.optimizers.Optimizer):
    """Adagrad as the paper's authors ran it (Duchi et al., 2010; their research code of 2014).

    Squared gradients are summed from the first step on, but no weight moves for the first ``warmup_steps``; after
    them w <- w - learning_rate · g / √(Σ g² + epsilon). So the first updates are already scaled by a hundred
    gradients, where Keras's Adagrad takes a whole learning rate at its first step. ``gradient_scale`` multiplies g: the
    authors sum over the minibatch where ``fit`` takes the mean, which matters beside ``epsilon`` alone.

    Example:
        >>> w = keras.Variable([1.0])
        >>> optimizer = WarmAdagrad(learning_rate=0.1, warmup_steps=1)
        >>> for _ in range(2):
        ...     optimizer.apply([w.value * 0.0 + 2.0], [w])
        >>> round(float(w[0]), 4)  # 1 - 0.1 · 2 / √(4 + 4)
        0.9293
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        warmup_steps: int = 100,
        epsilon: float = 1e-8,
        gradient_scale: float = 1.0,
        name: str = "warm_adagrad",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.warmup_steps, self.epsilon, self.gradient_scale = int(warmup_steps), float(epsilon), float(gradient_scale)

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._sums = self.add_optimizer_variables(variables, "sum_of_squares")

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        ops = keras.ops
        gradient = ops.cast(gradient, variable.dtype) * self.gradient_scale
        total = self._sums[self._get_variable_index(variable)]
        self.assign_add(total, ops.square(gradient))
        moves = ops.cast(self.iterations >= self.warmup_steps, variable.dtype)
        step = ops.cast(learning_rate, variable.dtype) * gradient / ops.sqrt(total + self.epsilon)
        self.assign_sub(variable, moves * step)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "warmup_steps": self.warmup_steps,
            "epsilon": self.epsilon,
            "gradient_scale": self.gradient_scale,
        }
