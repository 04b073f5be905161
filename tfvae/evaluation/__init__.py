"""How good a trained VAE is: log p(x) by importance sampling or by HMC, bits per dimension, and its latent units."""

from tfvae.evaluation.annealing import Sandwich, annealed_log_marginal, bidirectional
from tfvae.evaluation.appendix_d import hmc_log_marginal
from tfvae.evaluation.bits import bits_per_dimension, level_width
from tfvae.evaluation.estimate import MarginalEstimate
from tfvae.evaluation.hmc import Chain, sample_posterior
from tfvae.evaluation.importance import log_marginal
from tfvae.evaluation.pareto import pareto_shape
from tfvae.evaluation.units import active_units, kl_by_unit

__all__ = [
    "Chain",
    "MarginalEstimate",
    "Sandwich",
    "active_units",
    "annealed_log_marginal",
    "bidirectional",
    "bits_per_dimension",
    "hmc_log_marginal",
    "kl_by_unit",
    "level_width",
    "log_marginal",
    "pareto_shape",
    "sample_posterior",
]
