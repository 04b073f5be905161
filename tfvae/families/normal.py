"""Normal families: independent, of a low-rank covariance, and mixtures."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import util as tfp_util

from tfvae.families.random import standard_normal, standard_uniform

_Properties = tfp_util.ParameterProperties
_LOWEST = 1e-5  # of a variance or a scale


class Normal(tfd.Normal):
    """TFP's Normal, drawn by ``standard_normal``.

    Example:
        >>> bool(Normal(1.0, 2.0).sample(seed=(1, 2)) == 1.0 + 2.0 * standard_normal([], seed=(1, 2)))
        True
    """

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        loc, scale = tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.scale)
        shape = tf.concat([[n], tf.broadcast_dynamic_shape(tf.shape(loc), tf.shape(scale))], axis=0)
        return loc + scale * standard_normal(shape, seed, self.dtype)


class MultivariateNormalDiagPlusLowRankCovariance(tfd.MultivariateNormalDiagPlusLowRankCovariance):
    """N(loc, diag(d) + V Vᵀ) with V ``[D, rank]``: more than a diagonal, and less than all D² covariances.

    Example:
        >>> q = MultivariateNormalDiagPlusLowRankCovariance([0.0, 0.0], [1.0, 1.0], [[1.0], [1.0]])
        >>> q.covariance().numpy().tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """

    def __init__(self, loc: Any, cov_diag_factor: Any, cov_perturb_factor: Any, name: str = "LowRankNormal"):
        super().__init__(loc, cov_diag_factor, cov_perturb_factor, name=name)
        self._parameters = {
            "loc": loc,
            "cov_diag_factor": cov_diag_factor,
            "cov_perturb_factor": cov_perturb_factor,
            "name": name,
        }

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        """``num_classes`` is the rank."""
        return {
            "loc": _Properties(event_ndims=1),
            "cov_diag_factor": _Properties(
                event_ndims=1, default_constraining_bijector_fn=lambda: tfb.Softplus(low=_LOWEST)
            ),
            "cov_perturb_factor": _Properties(event_ndims=2, shape_fn=lambda shape: [*shape, num_classes]),
        }


@tfd.RegisterKL(MultivariateNormalDiagPlusLowRankCovariance, tfd.MultivariateNormalDiag)
def _kl_to_diagonal(q: Any, p: Any, name: str | None = None) -> tf.Tensor:
    return _kl_of_low_rank(q, p.loc, p.scale.diag_part())


@tfd.RegisterKL(MultivariateNormalDiagPlusLowRankCovariance, tfd.Independent)
def _kl_to_independent(q: Any, p: Any, name: str | None = None) -> tf.Tensor:
    if not isinstance(p.distribution, tfd.Normal) or p.event_shape.rank != 1:
        raise NotImplementedError(f"No closed form of KL from a low-rank normal to {p.name}.")
    return _kl_of_low_rank(q, p.distribution.loc, p.distribution.scale)


def _kl_of_low_rank(q: Any, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """KL(N(μ, diag(d) + V Vᵀ) ‖ N(loc, diag(scale²))), nats: ½ [Σ d + ‖V‖² + ‖μ‖² - D - log det] in units of scale.

    log det = Σ log d + log det(I + Vᵀ d⁻¹ V), a determinant of the rank's size.
    """
    parameters = q.parameters
    scale = scale + tf.zeros(q.event_shape, scale.dtype)
    mean, d = (parameters["loc"] - loc) / scale, parameters["cov_diag_factor"] / scale**2
    v = parameters["cov_perturb_factor"] / scale[..., tf.newaxis]
    inner = tf.linalg.matmul(v, v / d[..., tf.newaxis], transpose_a=True)
    log_det = tf.reduce_sum(tf.math.log(d), -1) + tf.linalg.logdet(inner + tf.eye(v.shape[-1], dtype=v.dtype))
    return 0.5 * (tf.reduce_sum(d + mean**2 - 1.0, -1) + tf.reduce_sum(v**2, [-2, -1]) - log_det)


@tfd.RegisterKL(tfd.Independent, tfd.MultivariateNormalTriL)
def _kl_to_triangle(q: Any, p: Any, name: str | None = None) -> tf.Tensor:
    """½ [Σ Λ_ii σ_i² + ‖L⁻¹ (μ - m)‖² - D] + Σ log L_ii - Σ log σ_i, nats, for p = N(m, L Lᵀ) and Λ = (L Lᵀ)⁻¹."""
    if not isinstance(q.distribution, tfd.Normal) or q.event_shape.rank != 1:
        raise NotImplementedError(f"No closed form of KL from {q.name} to a normal.")
    mean, scale = q.distribution.loc - p.loc, q.distribution.scale + tf.zeros(q.event_shape, p.dtype)
    whitening = p.scale.solve(tf.eye(q.event_shape[0], dtype=p.dtype))
    white = tf.linalg.matvec(whitening, mean + tf.zeros(q.event_shape, p.dtype))
    precision = tf.reduce_sum(whitening**2, axis=0)
    spread = tf.reduce_sum(precision * scale**2 - 1.0 - 2.0 * tf.math.log(scale), -1)
    return 0.5 * (spread + tf.reduce_sum(white**2, -1)) + p.scale.log_abs_determinant()


@tfd.RegisterKL(tfd.TruncatedNormal, tfd.Uniform)
def _kl_to_uniform(q: Any, p: Any, name: str | None = None) -> tf.Tensor:
    """log volume - H(q) on p's interval, and infinite where q reaches beyond it, nats."""
    is_inside = (p.low <= q.low) & (q.high <= p.high)
    return tf.where(is_inside, tf.math.log(p.high - p.low) - q.entropy(), float("inf"))


class NormalMixture(tfd.MixtureSameFamily):
    """Σ_c π_c N(loc_c, diag(scale_c²)), drawn pathwise: the gradient reaches π through the mixture's conditional CDFs.

    Example:
        >>> mixture = NormalMixture(logits=[0.0, 0.0], loc=[[-1.0], [1.0]], scale=[[0.1], [0.1]])
        >>> mixture.mean().numpy().tolist(), round(float(mixture.prob([0.0])), 4)
        ([0.0], 0.0)
    """

    _chosen: Any = tfd.Categorical

    def __init__(self, logits: Any, loc: Any, scale: Any, name: str = "NormalMixture"):
        parts = tfd.Independent(tfd.Normal(loc, scale), 1)
        # TFP's way to a gradient takes a softmax of batch and event, which on a processor has 5 axes at most; of draws
        # with more axes, which are of observations, none is asked for.
        has_gradient = (parts.batch_shape.rank or 0) < 4
        super().__init__(self._chosen(logits=logits), parts, reparameterize=has_gradient, name=name)
        self._parameters = {"logits": logits, "loc": loc, "scale": scale, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        """``num_classes`` is the number of components."""
        of_each = lambda shape: [*shape[:-1], num_classes, *shape[-1:]]  # noqa: E731
        return {
            "logits": _Properties(event_ndims=1, shape_fn=lambda shape: [*shape[:-1], num_classes]),
            "loc": _Properties(event_ndims=2, shape_fn=of_each),
            "scale": _Properties(
                event_ndims=2, shape_fn=of_each, default_constraining_bijector_fn=lambda: tfb.Softplus(low=_LOWEST)
            ),
        }


class _Systematic(tfd.Categorical):
    """Draws that come as often as they should, but for one: by evenly spaced numbers from a random start."""

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        below = tf.cumsum(self.probs_parameter(), axis=-1)[..., :-1]
        start = standard_uniform(tf.shape(below)[:-1], seed, below.dtype)
        steps = tf.cast(tf.range(n), below.dtype) / tf.cast(n, below.dtype)
        u = tf.math.floormod(tf.reshape(steps, tf.concat([[n], tf.ones_like(tf.shape(start))], 0)) + start, 1.0)
        return tf.reduce_sum(tf.cast(u[..., tf.newaxis] >= below, self.dtype), axis=-1)


class StratifiedNormalMixture(NormalMixture):
    """A ``NormalMixture`` of whose K draws each component has its share: K π_c of them, rounded up or down.

    Each draw by itself is one of the mixture, with its pathwise gradient, so that means over draws stay unbiased, and
    bounds by importance weights stay bounds; what is left out is the noise of which component came how often
    (systematic sampling; in the spirit of Morningstar et al., arXiv 2003.01687, who draw of each component and weigh).
    Draws of a row are not independent of one another: for ranks among draws take the plain mixture.

    Example:
        >>> mixture = StratifiedNormalMixture(logits=[0.0, 0.0], loc=[[-1.0], [1.0]], scale=[[0.1], [0.1]])
        >>> int(tf.reduce_sum(tf.cast(mixture.sample(10, seed=(0, 1)) > 0, tf.int32)))
        5
    """

    _chosen = _Systematic

    def __init__(self, logits: Any, loc: Any, scale: Any, name: str = "StratifiedNormalMixture"):
        super().__init__(logits, loc, scale, name)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return super()._parameter_properties(dtype, num_classes)  # TFP warns of a class that does not say so itself
