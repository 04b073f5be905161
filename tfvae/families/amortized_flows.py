"""Flows whose every number is a parameter, so that an encoder gives each row a flow of its own: planar, Sylvester.

Both are a residual step, y = z + A tanh(B z + c). Neither has an inverse in closed form; each is a monotone equation of
one unknown (planar) or a triangle of them (Sylvester), which halving an interval solves. The gradient through the root
is that of the implicit function: one step of Newton's from the root, which changes its value by its rounding alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import util as tfp_util

from tfvae.families.flow import Flow, Step
from tfvae.families.normal import Normal
from tfvae.families.sigmoid import Sigmoid

_Properties = tfp_util.ParameterProperties
_LOWEST_SLOPE = 1e-3  # of a step in its steepest place: below, float32 has no digits for the way back
_HALVINGS = 30
_UNROLLED = 8  # flows that are written one after another; more are a loop, for XLA compiles what it sees
_MOST_REFLECTIONS = 8


class PlanarFlow(Flow):
    """Planar flows (Rezende & Mohamed, arXiv 1505.05770, eq. 10-12): y = z + û tanh(wᵀz + b), one after another.

    û = u + (m - wᵀu) w/‖w‖², with m > -1 a softplus of wᵀu, keeps each invertible (appendix A.1); u = 0 is the
    identity. The density is exact anywhere.

    Args:
        loc, scale: Numbers of the normal z_0, ``[..., D]``.
        u, w: ``[..., F, D]`` for F flows.
        b: ``[..., F]``.
        name: TFP's.

    Example:
        >>> zero = tf.zeros([2, 3])
        >>> flow = PlanarFlow(tf.zeros([3]), tf.ones([3]), u=zero, w=zero + 1.0, b=tf.zeros([2]))
        >>> round(float(flow.log_prob(tf.zeros([3]))), 4)
        -2.7568
    """

    def __init__(self, loc: Any, scale: Any, u: Any, w: Any, b: Any, name: str = "PlanarFlow"):
        u, w, b = (tf.convert_to_tensor(value) for value in (u, w, b))
        steps = (
            [_Planar(u[..., i, :], w[..., i, :], b[..., i]) for i in range(b.shape[-1])]
            if b.shape[-1] <= _UNROLLED
            else [_Looped(_Planar, (u, w, b), [-2, -2, -1])]
        )
        super().__init__(tfd.Independent(Normal(loc, scale), 1), steps, name=name)
        self._parameters = {"loc": loc, "scale": scale, "u": u, "w": w, "b": b, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        """``num_classes`` is the number of flows."""
        of_each = lambda shape: [num_classes, *shape]  # noqa: E731
        return {
            **_of_base(),
            "u": _Properties(event_ndims=2, shape_fn=of_each),
            "w": _Properties(event_ndims=2, shape_fn=of_each),
            "b": _Properties(event_ndims=1, shape_fn=lambda shape: [num_classes]),
        }


class SylvesterFlow(Flow):
    """Householder-Sylvester flows (van den Berg et al., arXiv 1803.05649): y = z + Q R̃ tanh(R Qᵀz + b).

    Q is a product of at most 8 reflections I - 2vvᵀ/‖v‖² (Tomczak & Welling, arXiv 1611.09630), so always orthogonal;
    R and R̃ are upper triangular, and their diagonals lie between -1 and 1, which keeps each flow invertible.

    Args:
        loc, scale: Numbers of the normal z_0, ``[..., D]``.
        triangles: ``[..., F, D, D]`` for F flows: R above the diagonal, R̃ᵀ below it.
        diagonals: Those of R and R̃, ``[..., F, 2, D]``, in (-1, 1).
        b: ``[..., F, D]``.
        reflections: v, ``[..., F, H, D]``.
        name: TFP's.

    Example:
        >>> zeros, matrices = tf.zeros([2]), tf.zeros([1, 2, 2])
        >>> flow = SylvesterFlow(zeros, zeros + 1.0, matrices, matrices, tf.zeros([1, 2]), matrices + 1.0)
        >>> round(float(flow.log_prob(tf.zeros([2]))), 4)
        -1.8379
    """

    def __init__(
        self,
        loc: Any,
        scale: Any,
        triangles: Any,
        diagonals: Any,
        b: Any,
        reflections: Any,
        name: str = "SylvesterFlow",
    ):
        b = tf.convert_to_tensor(b)
        steps = [
            _Sylvester(triangles[..., i, :, :], diagonals[..., i, :, :], b[..., i, :], reflections[..., i, :, :])
            for i in range(b.shape[-2])
        ]
        super().__init__(tfd.Independent(Normal(loc, scale), 1), steps, name=name)
        self._parameters = {
            "loc": loc,
            "scale": scale,
            "triangles": triangles,
            "diagonals": diagonals,
            "b": b,
            "reflections": reflections,
            "name": name,
        }

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        """``num_classes`` is the number of flows."""
        most = (1.0 - _LOWEST_SLOPE) ** 0.5
        return {
            **_of_base(),
            "triangles": _Properties(event_ndims=3, shape_fn=lambda shape: [num_classes, *shape, *shape]),
            "diagonals": _Properties(
                event_ndims=3,
                shape_fn=lambda shape: [num_classes, 2, *shape],
                default_constraining_bijector_fn=lambda: Sigmoid(-most, most),
            ),
            "b": _Properties(event_ndims=2, shape_fn=lambda shape: [num_classes, *shape]),
            "reflections": _Properties(
                event_ndims=3, shape_fn=lambda shape: [num_classes, min(_MOST_REFLECTIONS, *shape), *shape]
            ),
        }


def _of_base() -> dict[str, Any]:
    return {
        "loc": _Properties(event_ndims=1),
        "scale": _Properties(event_ndims=1, default_constraining_bijector_fn=lambda: tfb.Softplus(low=1e-5)),
    }


class _Looped(Step):
    """Many steps of one kind, whose parameters stand along an axis of their own."""

    def __init__(self, kind: Callable[..., Step], parameters: Sequence[tf.Tensor], axes: Sequence[int]):
        self._kind = kind
        self._stacked = tuple(_first(value, axis) for value, axis in zip(parameters, axes, strict=True))

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._through(z, lambda step, z: step.forward(z), is_reverse=False)

    def inverse(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._through(y, lambda step, y: step.inverse(y), is_reverse=True)

    def _through(self, z: tf.Tensor, move: Callable[..., Any], is_reverse: bool) -> tuple[tf.Tensor, tf.Tensor]:
        z = z + tf.zeros_like(self._stacked[0][0])

        def one(state: Any, parameters: Any) -> Any:
            z, log_det = move(self._kind(*parameters), state[0])
            return z, state[1] + log_det

        every = tf.scan(one, self._stacked, (z, tf.zeros_like(z[..., 0])), reverse=is_reverse)
        return tuple(value[0 if is_reverse else -1] for value in every)


def _first(value: tf.Tensor, axis: int) -> tf.Tensor:
    """The axis in front of all others."""
    order = list(range(value.shape.rank))
    order.insert(0, order.pop(axis))
    return tf.transpose(value, order)


class _Planar(Step):
    """One step; everything it needs of u, w and b is found once."""

    def __init__(self, u: tf.Tensor, w: tf.Tensor, b: tf.Tensor):
        self._w, self._b = w, b
        square, product = _dot(w, w), _dot(w, u)
        # m(t) + 1 = softplus of t, moved so that m(0) = 0: then wᵀû = m, and u = 0 is the identity.
        start = tfb.Softplus().inverse(tf.constant(1.0 - _LOWEST_SLOPE, w.dtype))
        m = _LOWEST_SLOPE + tf.nn.softplus(product + start) - 1.0
        along = (m - product) / (square + 1e-8)
        self._u = u + along[..., tf.newaxis] * w
        self._slope = product + along * square  # wᵀû as it is, where w is all but 0 too

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._moved(z, tf.tanh(_dot(self._w, z) + self._b), 1.0)

    def inverse(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # t + wᵀû tanh(t) = wᵀy + b for t = wᵀz + b
        right, one = _dot(self._w, y) + self._b, tf.ones([], y.dtype)
        t = tf.stop_gradient(_root(self._slope, one, tf.zeros_like(right), right))
        residual = t + self._slope * tf.tanh(t) - right
        t -= residual / tf.stop_gradient(1.0 + self._slope * (1.0 - tf.tanh(t) ** 2))
        return self._moved(y, tf.tanh(t), -1.0)

    def _moved(self, z: tf.Tensor, h: tf.Tensor, sign: float) -> tuple[tf.Tensor, tf.Tensor]:
        # 1 + (1 - h²) wᵀû, without the difference of what may be all but equal
        log_det = tf.math.log(h**2 + (1.0 - h**2) * (1.0 + self._slope))
        return z + sign * self._u * h[..., tf.newaxis], log_det


class _Sylvester(Step):
    """One step."""

    def __init__(self, triangles: tf.Tensor, diagonals: tf.Tensor, b: tf.Tensor, reflections: tf.Tensor):
        self._diagonals = diagonals[..., 0, :], diagonals[..., 1, :]
        above = tf.linalg.band_part(triangles, 0, -1), tf.linalg.band_part(tf.linalg.matrix_transpose(triangles), 0, -1)
        self._r, self._r_tilde = (
            tf.linalg.set_diag(matrix, diagonal) for matrix, diagonal in zip(above, self._diagonals, strict=True)
        )
        self._b = b
        lengths = tf.sqrt(tf.maximum(_dot(reflections, reflections), 1e-24))
        unit = reflections / lengths[..., tf.newaxis]
        self._reflections = [unit[..., i, :] for i in range(unit.shape[-2])]

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        turned = self._turned(z, self._reflections)
        h = tf.tanh(tf.linalg.matvec(self._r, turned) + self._b)
        return z + self._turned(tf.linalg.matvec(self._r_tilde, h), self._reflections[::-1]), self._log_det(h)

    def inverse(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        turned = self._turned(y, self._reflections)
        z = tf.stop_gradient(self._solved(turned))
        h = tf.tanh(tf.linalg.matvec(self._r, z) + self._b)
        residual = z + tf.linalg.matvec(self._r_tilde, h) - turned
        jacobian = tf.linalg.matmul(self._r_tilde, (1.0 - h**2)[..., tf.newaxis] * self._r)
        jacobian += tf.eye(tf.shape(z)[-1], dtype=z.dtype)
        z -= tf.linalg.triangular_solve(tf.stop_gradient(jacobian), residual[..., tf.newaxis], lower=False)[..., 0]
        h = tf.tanh(tf.linalg.matvec(self._r, z) + self._b)
        return self._turned(z, self._reflections[::-1]), self._log_det(h)

    def _solved(self, turned: tf.Tensor) -> tf.Tensor:
        """z with z + R̃ tanh(R z + b) = y, from its last number to its first: each depends on those after it."""
        size = turned.shape[-1]
        full = tf.zeros(tf.broadcast_dynamic_shape(tf.shape(turned), tf.shape(self._b)), turned.dtype)
        turned, r, r_tilde = turned + full, *self._diagonals

        def one_number(i: tf.Tensor, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            inside = tf.linalg.matvec(self._r, z) + self._b
            after = tf.cast(tf.range(size) > i, z.dtype)
            right = turned - tf.linalg.matvec(self._r_tilde, tf.tanh(inside) * after)
            found = _root(*(value[..., i] for value in (r_tilde, r, inside, right)))
            return i - 1, z + found[..., tf.newaxis] * tf.one_hot(i, size, dtype=z.dtype)

        return tf.while_loop(lambda i, _: i >= 0, one_number, (tf.constant(size - 1), full), maximum_iterations=size)[1]

    def _log_det(self, h: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.math.log1p((1.0 - h**2) * self._diagonals[0] * self._diagonals[1]), axis=-1)

    @staticmethod
    def _turned(z: tf.Tensor, reflections: list[tf.Tensor]) -> tf.Tensor:
        for v in reflections:
            z -= 2.0 * _dot(v, z)[..., tf.newaxis] * v
        return z


def _dot(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(first * second, axis=-1)


def _root(a: tf.Tensor, r: tf.Tensor, c: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """t with t + a tanh(r t + c) = right, where a r > -1, so that there is one: by halving the interval."""
    reach = tf.abs(a) + tf.zeros_like(right)

    def halved(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        middle = 0.5 * (low + high)
        is_below = middle + a * tf.tanh(r * middle + c) < right
        return tf.where(is_below, middle, low), tf.where(is_below, high, middle)

    low, high = tf.while_loop(lambda *_: True, halved, (right - reach, right + reach), maximum_iterations=_HALVINGS)
    return 0.5 * (low + high)
