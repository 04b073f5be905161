"""Bounds and gradients from importance weights w = p(x, z) / q(z|x)."""

import math

import keras
import tensorflow as tf

from tfvae.arguments import check_at_least, check_number
from tfvae.engine import xla
from tfvae.objectives.configured import Configured
from tfvae.objectives.elbo import elbo
from tfvae.objectives.terms import Estimate, Terms

_LEAST_WEIGHT = 1e-30  # a weight below cannot be divided by in float32


@keras.saving.register_keras_serializable("tfvae")
def importance_weighted(terms: Terms) -> Estimate:
    """The importance-weighted bound, log (1/K) Σ w (Burda et al., arXiv 1509.00519, equation 8).

    Example:
        >>> importance_weighted(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    bound = _log_mean_exp(terms.log_weight)
    return Estimate(bound, bound)


@keras.saving.register_keras_serializable("tfvae")
def doubly_reparameterized(terms: Terms) -> Estimate:
    """The importance-weighted bound with the doubly reparameterised gradient, DReG (Tucker et al., arXiv 1810.04152).

    For normalised weights w̃ the decoder learns from Σ w̃ ∇ log w as ever, the encoder from Σ w̃² ∇z ∂ log w / ∂z
    (equation 8): the same mean, without the score term whose noise grows with K. With one sample it is
    ``sticking_the_landing``.

    Example:
        >>> doubly_reparameterized(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    bound = importance_weighted(terms).bound
    log_weight = terms.log_joint - terms.log_posterior_held
    normalised = tf.stop_gradient(tf.nn.softmax(log_weight, axis=0))
    return Estimate(bound, tf.reduce_sum(normalised * log_weight, axis=0), path_weight=normalised)


@keras.saving.register_keras_serializable("tfvae")
def sticking_the_landing(terms: Terms) -> Estimate:
    """The ELBO without the score term in its gradient (Roeder et al., arXiv 1703.09194).

    log q(z|x) is differentiated through z alone: what is left out has mean zero, and the variance of what remains
    vanishes where q(z|x) is the true posterior. For an importance-weighted bound the same would be biased: take
    ``doubly_reparameterized`` there.

    Example:
        >>> sticking_the_landing(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    bound = tf.reduce_mean(terms.log_weight, axis=0)
    return Estimate(bound, tf.reduce_mean(terms.log_joint - terms.log_posterior_held, axis=0))


@keras.saving.register_keras_serializable("tfvae")
class WakePhase(Configured):
    """Reweighted wake-sleep with the wake-phase update of q (Bornschein & Bengio, arXiv 1406.2751, section 2.3).

    The decoder learns from the importance-weighted bound. The encoder does not: it minimises KL(p(z|x)‖q(z|x)), whose
    gradient is -Σ w̃ ∇ log q(z|x) at given z, so that more samples make it better, not noisier.

    Args:
        doubly_reparameterized: Whether the encoder's gradient is Σ (w̃ - w̃²) ∂ log w / ∂z, of the same mean and less
            noise (Tucker et al., arXiv 1810.04152); needs a q(z|x) that is reparameterised.

    Example:
        >>> WakePhase()(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """

    _arguments = ("doubly_reparameterized",)

    def __init__(self, doubly_reparameterized: bool = True):
        self.doubly_reparameterized = bool(doubly_reparameterized)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``WakePhase``."""
        bound = importance_weighted(terms).bound
        normalised = tf.stop_gradient(tf.nn.softmax(terms.log_weight, axis=0))
        if self.doubly_reparameterized:
            gain, path_weight = terms.log_joint - terms.log_posterior_held, 1.0 - normalised
        else:
            gain, path_weight = terms.log_joint + terms.log_posterior_at_held_z, 0.0
        return Estimate(bound, tf.reduce_sum(normalised * gain, axis=0), path_weight=path_weight)


@keras.saving.register_keras_serializable("tfvae")
class Renyi(Configured):
    """The variational Rényi objective, log (1/K Σ w^(1-α)) / (1-α) (Li & Turner, arXiv 1602.02311, section 4).

    α = 1 is the ELBO by estimator A, 0 the importance-weighted bound, -inf the largest log w (VR-max), and α = 1 - n
    what CUBO_n estimates (Dieng et al., arXiv 1611.00328). It falls with α. Below 0 its limit in K lies above log p(x)
    and what K samples give may lie on either side, so it is an objective and no bound: the ELBO is what is reported.

    Args:
        alpha: α, any number or -inf.

    Raises:
        ValueError: For +inf or NaN.

    Example:
        >>> Renyi(0.5)(terms).objective.numpy().tolist()
        [4.0, 4.0]
    """

    _arguments = ("alpha",)

    def __init__(self, alpha: float = 0.5):
        check_number(-math.inf, also="or -inf for VR-max", alpha=alpha)
        self.alpha = float(alpha)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``Renyi``."""
        log_weight = terms.log_weight
        if self.alpha == 1.0:
            value = tf.reduce_mean(log_weight, axis=0)
        elif self.alpha == -math.inf:
            value = xla.greatest(log_weight, axis=0)
        else:
            value = _log_mean_exp((1.0 - self.alpha) * log_weight) / (1.0 - self.alpha)
        return Estimate(elbo(terms).bound, value, objective=value)


@keras.saving.register_keras_serializable("tfvae")
class MultiplyImportanceWeighted(Configured):
    """MIWAE(M, K): the mean of M importance-weighted bounds of K samples each (Rainforth et al., arXiv 1802.04537).

    M·K is the model's ``num_samples``. M = 1 is ``importance_weighted``, K = 1 the ELBO by estimator A.

    Args:
        num_bounds: M; must divide ``num_samples``.

    Example:
        >>> MultiplyImportanceWeighted(num_bounds=1)(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """

    _arguments = ("num_bounds",)

    def __init__(self, num_bounds: int = 8):
        check_at_least(1, num_bounds=num_bounds)
        self.num_bounds = int(num_bounds)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``MultiplyImportanceWeighted``."""
        bound = tf.reduce_mean(_log_mean_exp(_grouped(terms.log_weight, self.num_bounds), axis=1), axis=0)
        return Estimate(bound, bound)


@keras.saving.register_keras_serializable("tfvae")
class PartiallyImportanceWeighted(Configured):
    """PIWAE(M, K): the decoder learns from all M·K samples' bound, the encoder from MIWAE(M, K) (arXiv 1802.04537).

    A tighter bound is better for p and, by its noisier gradient, worse for q: each gets what serves it.

    Args:
        num_bounds: M, of the encoder's; must divide the model's ``num_samples``, M·K.

    Example:
        >>> PartiallyImportanceWeighted(num_bounds=1)(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """

    _arguments = ("num_bounds",)

    def __init__(self, num_bounds: int = 8):
        self.num_bounds = MultiplyImportanceWeighted(num_bounds).num_bounds

    def __call__(self, terms: Terms) -> Estimate:
        """See ``PartiallyImportanceWeighted``."""
        log_weight = tf.stop_gradient(terms.log_weight)
        of_decoder = tf.maximum(tf.nn.softmax(log_weight, axis=0), _LEAST_WEIGHT)
        of_group = tf.nn.softmax(_grouped(log_weight, self.num_bounds), axis=1) / self.num_bounds
        of_encoder = tf.reshape(of_group, tf.shape(log_weight))
        # Through z both factors act, and only of_encoder is left; at given z the encoder moves log q alone.
        gain = of_decoder * (terms.log_joint - terms.log_posterior_held) - of_encoder * terms.log_posterior_at_held_z
        bound = importance_weighted(terms).bound
        return Estimate(bound, tf.reduce_sum(gain, axis=0), path_weight=of_encoder / of_decoder)


@keras.saving.register_keras_serializable("tfvae")
class CombinationImportanceWeighted(Configured):
    """CIWAE: β of the ELBO and 1 - β of the importance-weighted bound (Rainforth et al., arXiv 1802.04537).

    Args:
        beta: β, from 0 to 1; the paper's is 0.05.

    Example:
        >>> CombinationImportanceWeighted(0.5)(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """

    _arguments = ("beta",)

    def __init__(self, beta: float = 0.05):
        check_number(0, beta=beta)
        if beta > 1:
            raise ValueError(
                f"beta is {beta}, expected a number from 0, the importance-weighted bound, to 1, the ELBO."
            )
        self.beta = float(beta)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``CombinationImportanceWeighted``."""
        log_weight = terms.log_weight
        bound = self.beta * tf.reduce_mean(log_weight, axis=0) + (1.0 - self.beta) * _log_mean_exp(log_weight)
        return Estimate(bound, bound)


def _log_mean_exp(log_weight: tf.Tensor, axis: int = 0) -> tf.Tensor:
    return tf.reduce_logsumexp(log_weight, axis) - tf.math.log(tf.cast(tf.shape(log_weight)[axis], log_weight.dtype))


def _grouped(log_weight: tf.Tensor, num_bounds: int) -> tf.Tensor:
    """``[M K, B]`` as ``[M, K, B]``."""
    num_samples = log_weight.shape[0]
    if num_samples % num_bounds:
        raise ValueError(
            f"{num_samples} samples cannot be divided into {num_bounds} bounds: give the VAE num_samples=M*K, a "
            f"multiple of num_bounds, for example {num_bounds * max(1, num_samples // num_bounds)}."
        )
    return tf.reshape(log_weight, [num_bounds, num_samples // num_bounds, *log_weight.shape[1:]])
