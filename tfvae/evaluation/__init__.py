"""How good a trained VAE is: log p(x) by importance sampling or by HMC, and how many latent units it uses."""

from tfvae.evaluation.annealing import Sandwich, annealed_log_marginal, bidirectional
from tfvae.evaluation.appendix_d import hmc_log_marginal
from tfvae.evaluation.estimate import MarginalEstimate
from tfvae.evaluation.hmc import Chain, sample_posterior
from tfvae.evaluation.importance import log_marginal
from tfvae.evaluation.units import active_units

__all__ = [
    "Chain",
    "MarginalEstimate",
    "Sandwich",
    "active_units",
    "annealed_log_marginal",
    "bidirectional",
    "hmc_log_marginal",
    "log_marginal",
    "sample_posterior",
]
