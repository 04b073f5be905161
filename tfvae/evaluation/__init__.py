"""How good a trained VAE is: log p(x) and bits, its latent code, its calibration, its samples beside data."""

from tfvae.evaluation.annealing import Sandwich, annealed_log_marginal, bidirectional
from tfvae.evaluation.appendix_d import hmc_log_marginal
from tfvae.evaluation.bits import bits_per_dimension, level_width
from tfvae.evaluation.calibration import Calibration, predictive_calibration, simulation_based_calibration
from tfvae.evaluation.estimate import MarginalEstimate, Mean
from tfvae.evaluation.hmc import Chain, sample_posterior
from tfvae.evaluation.importance import log_marginal
from tfvae.evaluation.pareto import pareto_shape
from tfvae.evaluation.surgery import Surgery, elbo_surgery
from tfvae.evaluation.units import active_units, kl_by_unit

__all__ = [
    "Calibration",
    "Chain",
    "MarginalEstimate",
    "Mean",
    "Sandwich",
    "Surgery",
    "active_units",
    "annealed_log_marginal",
    "bidirectional",
    "bits_per_dimension",
    "elbo_surgery",
    "hmc_log_marginal",
    "kl_by_unit",
    "level_width",
    "log_marginal",
    "pareto_shape",
    "predictive_calibration",
    "sample_posterior",
    "simulation_based_calibration",
]
