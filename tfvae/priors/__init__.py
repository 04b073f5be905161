"""p(z): priors as Keras layers, fixed, learned with the model or fitted after it; and a prior on weights."""

from tfvae.priors.base import Prior
from tfvae.priors.chain import FirstOrderAutoregressive
from tfvae.priors.exemplar import ExemplarPrior, HeldExemplars
from tfvae.priors.family import Family, StandardNormal
from tfvae.priors.fitted import fit
from tfvae.priors.flow import Autoregressive, Flow
from tfvae.priors.mixture import Mixture
from tfvae.priors.resampled import Resampled
from tfvae.priors.vamp import VampPrior
from tfvae.priors.weights import WeightPrior

__all__ = [
    "Autoregressive",
    "ExemplarPrior",
    "Family",
    "FirstOrderAutoregressive",
    "Flow",
    "HeldExemplars",
    "Mixture",
    "Prior",
    "Resampled",
    "StandardNormal",
    "VampPrior",
    "WeightPrior",
    "fit",
]
