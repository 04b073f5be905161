"""Objectives that look at q(z), the mixture of q(z|x) over the rows, as far as a batch shows it.

Rows that fill a batch do not count. Under ``tf.distribute`` a batch is a replica's own rows, as for all batch
statistics in Keras. The history has the ELBO beside what is maximised.
"""

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import divergences
from tfvae.arguments import check_at_least
from tfvae.engine import replicas
from tfvae.objectives.configured import Configured, check_schedule
from tfvae.objectives.elbo import elbo
from tfvae.objectives.terms import Estimate, Latent, Terms

_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the kernel's widths, as the WAE's authors mix them


@keras.saving.register_keras_serializable("tfvae")
class TotalCorrelation(Configured):
    """The β-TCVAE (Chen et al., arXiv 1802.04942, equations 2 and 4): KL(q‖p) in three parts, each with its weight.

    E log p(x|z) - α I(x; z) - β KL(q(z)‖Π q(z_d)) - γ Σ KL(q(z_d)‖p(z_d)), the last for a prior whose units are
    independent; with α = β = γ = 1 it is the ELBO by estimator A, draw for draw. log q(z) and log q(z_d) are estimated
    from the batch. Stratified, the row that z came from has the weight 1/N and the other rows share the rest, which
    makes the estimates of q unbiased, and exact where the batch is the whole data. (Appendix C.2 of the paper gives one
    arbitrary row another weight; this is its mean over that row.) Otherwise it is minibatch-weighted sampling, log of
    1/(N B) Σ q(z|x_b), which differs from log q by a constant that no gradient sees even where the batch is everything.
    Both look at all pairs of rows: B² D K numbers of memory.

    Args:
        num_rows: N, rows of the training data.
        beta: β, the weight of the total correlation.
        alpha, gamma: The other two weights.
        stratified: Which of the two estimates.

    Raises:
        ValueError: For a weight below 0, fewer than one row, or a q(z|x) whose units are not independent.

    Example:
        >>> TotalCorrelation(num_rows=2, beta=1.0)(terms).objective.numpy().tolist()  # log w
        [4.0, 4.0]
    """

    _arguments = ("num_rows", "beta", "alpha", "gamma", "stratified")

    def __init__(
        self, num_rows: int, beta: float = 6.0, alpha: float = 1.0, gamma: float = 1.0, stratified: bool = True
    ):
        check_at_least(1, most=2**53, num_rows=num_rows)
        for name, weight in {"beta": beta, "alpha": alpha, "gamma": gamma}.items():
            check_schedule(name, weight)
        self.num_rows, self.stratified = int(num_rows), bool(stratified)
        self.beta, self.alpha, self.gamma = beta, alpha, gamma

    def __call__(self, terms: Terms) -> Estimate:
        """See ``TotalCorrelation``."""
        weights = self._log_weights(terms)
        paid = sum(self._paid(latent, weights) for latent in terms.latents)
        gain = tf.reduce_mean(terms.log_likelihood - paid, axis=0)
        return Estimate(elbo(terms).bound, gain, objective=gain)

    def _paid(self, latent: Latent, weights: tf.Tensor) -> tf.Tensor:
        """``[K, B]``: the three parts of log q(z|x) - log p(z), weighted."""
        if not divergences.has_independent_units(latent.posterior):
            raise ValueError(
                "The total correlation needs log q(z_d|x) of each unit, but this posterior ties its units together: "
                "take posteriors.diagonal_normal, or another family with independent units."
            )
        by_unit = latent.posterior.distribution.log_prob(latent.z[:, :, tf.newaxis])  # [K, B, B, D]: z of b given row c
        log_q = tf.reduce_logsumexp(tf.reduce_sum(by_unit, axis=-1) + weights, axis=-1)
        log_marginals = tf.reduce_sum(tf.reduce_logsumexp(by_unit + weights[..., tf.newaxis], axis=-2), axis=-1)
        information = latent.log_posterior - log_q
        return (
            self.alpha * information
            + self.beta * (log_q - log_marginals)
            + self.gamma * (log_marginals - latent.log_prior)
        )

    def _log_weights(self, terms: Terms) -> tf.Tensor:
        """log of what each row counts in q(z) of each z, ``[B, B]``."""
        weights = terms.row_weights
        total, count = tf.reduce_sum(weights), float(self.num_rows)
        if not self.stratified:
            return tf.math.log(weights * tf.ones_like(weights)[:, tf.newaxis] / (count * total))
        others = tf.math.divide_no_nan((1.0 - 1.0 / count) * weights, (total - weights)[:, tf.newaxis])
        return tf.math.log(tf.linalg.set_diag(others, tf.fill(tf.shape(weights), 1.0 / count)))


@keras.saving.register_keras_serializable("tfvae")
class DisentangledInferredPrior(Configured):
    """DIP-VAE (Kumar et al., arXiv 1711.00848, equations 6 and 7): the ELBO less what Cov q(z) differs from I by.

    λ_od Σ_{d≠e} C_de² + λ_d Σ_d (C_dd - 1)², where C is the covariance over the batch of E[z|x] (DIP-VAE I), to which
    DIP-VAE II adds the mean of Var[z|x] on the diagonal.

    Args:
        off_diagonal: λ_od, 0 or more.
        diagonal: λ_d; ten times λ_od for I and λ_od for II by default, as in the paper.
        of_means: Whether C is of the means alone: DIP-VAE I.

    Raises:
        ValueError: For a weight below 0, or a q(z|x) without a mean or variance that TFP knows.

    Example:
        >>> DisentangledInferredPrior(10.0)(terms).objective.numpy().tolist()  # the ELBO is 2, C of equal rows is 0
        [-98.0, -98.0]
    """

    _arguments = ("off_diagonal", "diagonal", "of_means")

    def __init__(self, off_diagonal: float = 10.0, diagonal: float | None = None, of_means: bool = True):
        self.off_diagonal, self.of_means = off_diagonal, bool(of_means)
        self.diagonal = (10.0 * off_diagonal if of_means else off_diagonal) if diagonal is None else diagonal
        check_schedule("off_diagonal", off_diagonal)
        check_schedule("diagonal", self.diagonal)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``DisentangledInferredPrior``."""
        bound = elbo(terms).bound
        gain = bound - sum(self._penalty(terms, latent.posterior) for latent in terms.latents)
        return Estimate(bound, gain, objective=gain)

    def _penalty(self, terms: Terms, posterior: tfd.Distribution) -> tf.Tensor:
        try:
            mean, variance = posterior.mean(), posterior.variance()
        except NotImplementedError as error:
            raise ValueError(
                f"DIP-VAE needs the mean and variance of q(z|x), which TFP does not know for "
                f"{type(posterior).__name__}: take posteriors.diagonal_normal, or another family with both."
            ) from error
        mean -= terms.batch_mean(mean)
        covariance = terms.batch_mean(mean[:, :, tf.newaxis] * mean[:, tf.newaxis])
        on_diagonal = tf.linalg.diag_part(covariance)
        off_diagonal = tf.linalg.set_diag(covariance, tf.zeros_like(on_diagonal))
        if not self.of_means:
            on_diagonal += terms.batch_mean(variance)
        return self.off_diagonal * tf.reduce_sum(off_diagonal**2) + self.diagonal * tf.reduce_sum(
            (on_diagonal - 1.0) ** 2
        )


@keras.saving.register_keras_serializable("tfvae")
class MaximumMeanDiscrepancy(Configured):
    """InfoVAE (Zhao et al., arXiv 1706.02262, equation 6) and the WAE-MMD (Tolstikhin et al., arXiv 1711.01558).

    E log p(x|z) - a KL(q(z|x)‖p(z)) - b MMD²(q(z), p(z)). InfoVAE's α and λ are a = 1 - α and b = α + λ - 1; a = 0 is
    the WAE. MMD² is the unbiased U-statistic over the batch and as many draws of the prior, under the WAE authors'
    kernel Σ_s C_s / (C_s + |z - z'|²), C_s = 2 D s, made for priors of about unit scale. It can be negative.

    Args:
        mmd_weight: b, 0 or more.
        kl_weight: a, 0 or more.

    Raises:
        ValueError: For a weight below 0.

    Example:
        >>> MaximumMeanDiscrepancy(mmd_weight=0.0)(terms).objective.numpy().tolist()  # the ELBO
        [2.0, 2.0]
    """

    _arguments = ("mmd_weight", "kl_weight")

    def __init__(self, mmd_weight: float = 9.0, kl_weight: float = 1.0):
        self.mmd_weight, self.kl_weight = mmd_weight, kl_weight
        check_schedule("mmd_weight", mmd_weight)
        check_schedule("kl_weight", kl_weight)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``MaximumMeanDiscrepancy``."""
        apart = sum(_mmd(terms, latent) for latent in terms.latents)
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - self.kl_weight * terms.kl - self.mmd_weight * apart
        return Estimate(elbo(terms).bound, gain, objective=gain)


def _mmd(terms: Terms, latent: Latent) -> tf.Tensor:
    """MMD² of z and as many draws of the prior, the mean over the K samples of each row."""
    z, weights = latent.z, terms.row_weights
    rows = [] if latent.prior.batch_shape.rank else [tf.shape(z)[1]]
    seed = tf.constant([0, 0]) if terms.seed is None else terms.seed
    drawn = replicas.sample(latent.prior, seed, [z.shape[0]], rows)
    apart = tf.linalg.set_diag(weights * weights[:, tf.newaxis], tf.zeros_like(weights))  # no row beside itself

    def mean(one: tf.Tensor, other: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
        total = tf.reduce_sum(pairs * _kernel(one, other), axis=[-2, -1])
        return tf.reduce_mean(tf.math.divide_no_nan(total, tf.reduce_sum(pairs)))

    return mean(z, z, apart) + mean(drawn, drawn, apart) - 2.0 * mean(z, drawn, weights * weights[:, tf.newaxis])


def _kernel(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The sum of inverse multiquadratics of all pairs, ``[K, B, D] x [K, C, D] -> [K, B, C]``."""
    distance = tf.reduce_sum((one[:, :, tf.newaxis] - other[:, tf.newaxis]) ** 2, axis=-1)
    widths = [2.0 * one.shape[-1] * scale for scale in _SCALES]
    return tf.add_n([width / (width + distance) for width in widths])
