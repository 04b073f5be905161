"""What a VAE maximises: small pure functions from Terms to Estimate.

The model computes the terms of a batch once; an objective combines them into a bound on log p(x), which is reported,
and a surrogate, which is differentiated. The two are the same number for the paper's estimators and differ for others,
so that a curve always shows nats of a true bound. Objectives never see the model.

The examples here are of terms with log p(x|z) = 3, log p(z) = 2, log q(z|x) = 1 and KL = 1 nat, for two rows.
"""

from tfvae.objectives.adversarial import AdversarialTotalCorrelation
from tfvae.objectives.aggregate import DisentangledInferredPrior, MaximumMeanDiscrepancy, TotalCorrelation
from tfvae.objectives.configured import Cyclic
from tfvae.objectives.constrained import ConstrainedLikelihood
from tfvae.objectives.elbo import elbo, elbo_a, elbo_b, elbo_entropy
from tfvae.objectives.importance import (
    CombinationImportanceWeighted,
    MultiplyImportanceWeighted,
    PartiallyImportanceWeighted,
    Renyi,
    WakePhase,
    doubly_reparameterized,
    importance_weighted,
    sticking_the_landing,
)
from tfvae.objectives.score import score_function
from tfvae.objectives.terms import Estimate, Latent, Terms
from tfvae.objectives.weighted import Capacity, FreeBits, Weighted

__all__ = [
    "AdversarialTotalCorrelation",
    "Capacity",
    "CombinationImportanceWeighted",
    "ConstrainedLikelihood",
    "Cyclic",
    "DisentangledInferredPrior",
    "Estimate",
    "FreeBits",
    "Latent",
    "MaximumMeanDiscrepancy",
    "MultiplyImportanceWeighted",
    "PartiallyImportanceWeighted",
    "Renyi",
    "Terms",
    "TotalCorrelation",
    "WakePhase",
    "Weighted",
    "doubly_reparameterized",
    "elbo",
    "elbo_a",
    "elbo_b",
    "elbo_entropy",
    "importance_weighted",
    "score_function",
    "sticking_the_landing",
]
