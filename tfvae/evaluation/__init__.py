"""How good a trained VAE is: log p(x) and bits, its latent code, its calibration, its samples beside data."""

from tfvae.evaluation.annealing import Sandwich, annealed_log_marginal, bidirectional
from tfvae.evaluation.appendix_d import hmc_log_marginal
from tfvae.evaluation.attributes import attribute_vector
from tfvae.evaluation.bits import bits_per_dimension, level_width
from tfvae.evaluation.calibration import Calibration, predictive_calibration, simulation_based_calibration
from tfvae.evaluation.discrepancy import Discrepancy, KernelDistance, kernel_distance, maximum_mean_discrepancy
from tfvae.evaluation.disentanglement import (
    Score,
    factor_vae_score,
    interventional_robustness,
    modularity,
    mutual_information_gap,
)
from tfvae.evaluation.estimate import MarginalEstimate, Mean
from tfvae.evaluation.frechet import (
    ClassifierFeatures,
    FrechetDistance,
    classifier_features,
    frechet_classifier_distance,
    frechet_distance,
)
from tfvae.evaluation.hmc import Chain, sample_posterior
from tfvae.evaluation.importance import log_marginal
from tfvae.evaluation.judges import judge
from tfvae.evaluation.neighbors import PrecisionRecall, precision_recall
from tfvae.evaluation.outliers import (
    Detection,
    complexity_corrected,
    compressed_bits,
    detection,
    likelihood_ratio,
    perturbed,
    typicality,
    watanabe_akaike,
)
from tfvae.evaluation.pareto import pareto_shape
from tfvae.evaluation.perplexity import perplexity
from tfvae.evaluation.predictors import (
    Informativeness,
    Predictability,
    beta_vae_score,
    disentanglement_completeness,
    separated_predictability,
)
from tfvae.evaluation.sprite_set import sprite_factors, sprites
from tfvae.evaluation.surgery import Surgery, elbo_surgery
from tfvae.evaluation.units import active_units, kl_by_unit

__all__ = [
    "Calibration",
    "Chain",
    "ClassifierFeatures",
    "Detection",
    "Discrepancy",
    "FrechetDistance",
    "Informativeness",
    "KernelDistance",
    "MarginalEstimate",
    "Mean",
    "PrecisionRecall",
    "Predictability",
    "Sandwich",
    "Score",
    "Surgery",
    "active_units",
    "annealed_log_marginal",
    "attribute_vector",
    "beta_vae_score",
    "bidirectional",
    "bits_per_dimension",
    "classifier_features",
    "complexity_corrected",
    "compressed_bits",
    "detection",
    "disentanglement_completeness",
    "elbo_surgery",
    "factor_vae_score",
    "frechet_classifier_distance",
    "frechet_distance",
    "hmc_log_marginal",
    "interventional_robustness",
    "judge",
    "kernel_distance",
    "kl_by_unit",
    "level_width",
    "likelihood_ratio",
    "log_marginal",
    "maximum_mean_discrepancy",
    "modularity",
    "mutual_information_gap",
    "pareto_shape",
    "perplexity",
    "perturbed",
    "precision_recall",
    "predictive_calibration",
    "sample_posterior",
    "separated_predictability",
    "simulation_based_calibration",
    "sprite_factors",
    "sprites",
    "typicality",
    "watanabe_akaike",
]
