"""A step of a flow whose map of each unit is given by a network of the units before it.

One class is what the literature knows by four names. With as many degrees as units it is the step of an inverse
autoregressive flow; inverted, of a masked one; with two degrees it is a coupling layer, RealNVP's where the map is
affine, a neural spline flow's where it is a spline.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfvae import networks
from tfvae.arguments import check_at_least, check_latent_dim, checked_shape, found_by
from tfvae.families.flow import Step
from tfvae.flows.transforms import TRANSFORMS

_UNROLLED = 4  # calls of the network that are written one after another; more are a loop


@keras.saving.register_keras_serializable("tfvae")
class Autoregressive(keras.layers.Layer):
    """y_d = f(z_d; network of lower units and context): forward by one call of the network, back by one a degree.

    Args:
        latent_dim: D.
        transform: f: "gate", "affine" or "spline".
        hidden: Hidden units of the network, a ``networks.Masked``.
        is_coupling: Two degrees, half of the units each, in place of D.
        is_backward: Whether the last unit is the first.
        name: Keras's.

    Example:
        >>> layer = Autoregressive(3, hidden=[16])
        >>> layer.build()
        >>> z = tf.constant([[1.0, 2.0, 3.0]])
        >>> y, log_det = layer.step().forward(z)
        >>> bool(tf.reduce_all(tf.abs(layer.step().inverse(y)[0] - z) < 1e-5)), log_det.shape
        (True, TensorShape([1]))
    """

    def __init__(
        self,
        latent_dim: int,
        transform: str = "affine",
        hidden: Sequence[int] = (320,),
        is_coupling: bool = False,
        is_backward: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name, dtype="float32")
        check_latent_dim(latent_dim)
        found = found_by(TRANSFORMS.__getitem__, "transform", transform, f"one of {', '.join(TRANSFORMS)}")
        self.latent_dim, self.transform, self.hidden = int(latent_dim), transform, checked_shape("hidden", hidden)
        self.is_coupling, self.is_backward = bool(is_coupling), bool(is_backward)
        half = (self.latent_dim + 1) // 2
        degrees = [1 + (d >= half if is_coupling else d) for d in range(self.latent_dim)]
        self.num_degrees = max(degrees)
        self.network = networks.Masked(found.num_outputs, hidden, degrees[::-1] if is_backward else degrees)

    def build(self, context_dim: int | None = None) -> None:
        """Make the weights, for a context of ``context_dim`` numbers where there is one."""
        self.network.build((None, self.latent_dim), None if context_dim is None else (None, context_dim))
        self.built = True

    def step(self, context: tf.Tensor | None = None, is_held: bool = False) -> Step:
        """The map for a context ``[..., C]``; with ``is_held`` no gradient reaches the network's weights."""
        return _Bound(self, context, is_held)

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "transform", "hidden", "is_coupling", "is_backward", "name")
        return {name: getattr(self, name) for name in names}


class _Bound(Step):
    """The map of a layer with its context."""

    def __init__(self, layer: Autoregressive, context: tf.Tensor | None, is_held: bool):
        self._network, self._transform = layer.network, TRANSFORMS[layer.transform]
        self._calls, self._context, self._is_held = layer.num_degrees, context, is_held

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y, log_slopes = self._transform.forward(z, self._raw(z))
        return y, tf.reduce_sum(log_slopes, axis=-1)

    def inverse(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Each call of the network finds the units of one more degree."""
        y = self._broadcast(y)

        def one_degree(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self._transform.inverse(y, self._raw(z))

        z, before = tf.zeros_like(y), self._calls - 1
        if before < _UNROLLED:
            for _ in range(before):
                z, _ = one_degree(z)
        else:
            (z,) = tf.while_loop(lambda _: True, lambda z: (one_degree(z)[0],), (z,), maximum_iterations=before)
        z, log_slopes = one_degree(z)
        return z, tf.reduce_sum(log_slopes, axis=-1)

    def _broadcast(self, y: tf.Tensor) -> tf.Tensor:
        if self._context is None:
            return y
        batch = tf.broadcast_dynamic_shape(tf.shape(y)[:-1], tf.shape(self._context)[:-1])
        static = tf.broadcast_static_shape(y.shape[:-1], self._context.shape[:-1])
        y = tf.broadcast_to(y, tf.concat([batch, tf.shape(y)[-1:]], axis=0))
        return tf.ensure_shape(y, static.concatenate(y.shape[-1:]))

    def _raw(self, z: tf.Tensor) -> tf.Tensor:
        context = [] if self._context is None else [self._context]
        if not self._is_held:
            return self._network(z, *context)
        held = [tf.stop_gradient(weight.value) for weight in self._network.trainable_variables]
        rest = [weight.value for weight in self._network.non_trainable_variables]
        return self._network.stateless_call(held, rest, z, *context)[0]


def stack(count: int, **options: Any) -> list[Autoregressive]:
    """Steps of which every second goes backward, so that in two of them each unit can depend on each other.

    Example:
        >>> [step.is_backward for step in stack(3, latent_dim=2)]
        [False, True, False]
    """
    check_at_least(1, num_flows=count)
    return [Autoregressive(is_backward=bool(i % 2), name=f"flow_{i}", **options) for i in range(count)]
