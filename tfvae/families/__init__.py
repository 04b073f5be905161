"""Families that TFP lacks, or has in a form that does not suit a VAE, each with an exact log-density.

``DistributionLayer`` takes them by name as it takes those of TFP.
"""

from tfvae.families import facts
from tfvae.families.amortized_flows import PlanarFlow, SylvesterFlow
from tfvae.families.continuous import PERT, Erlang, F, GeneralizedPareto, Gompertz, Rayleigh, Reciprocal
from tfvae.families.counts import (
    BetaBinomial,
    Binomial,
    DirichletMultinomial,
    Geometric,
    Multinomial,
    NegativeBinomial,
    ZeroInflatedNegativeBinomial,
)
from tfvae.families.discrete import Bernoulli, Categorical, OneHotCategorical, OrderedLogistic
from tfvae.families.extreme_values import GeneralizedExtremeValue
from tfvae.families.facts import Facts, Support
from tfvae.families.flow import Flow
from tfvae.families.levels import DiscretizedLogistic, DiscretizedLogisticMixture, DiscretizedNormal
from tfvae.families.library import (
    LibraryNegativeBinomial,
    LibraryPoisson,
    LibraryZeroInflatedNegativeBinomial,
    LibraryZeroInflatedPoisson,
    is_given_total,
    with_library,
    with_library_of,
    with_total_of,
)
from tfvae.families.normal import (
    MultivariateNormalDiagPlusLowRankCovariance,
    Normal,
    NormalMixture,
    StratifiedNormalMixture,
)
from tfvae.families.poisson import BagOfWords, DirichletBagOfWords, Poisson, ZeroInflatedPoisson
from tfvae.families.random import standard_normal, standard_uniform
from tfvae.families.registry import FAMILIES, find, register
from tfvae.families.table import Mixed, Observed

__all__ = [
    "FAMILIES",
    "PERT",
    "BagOfWords",
    "Bernoulli",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "DirichletBagOfWords",
    "DirichletMultinomial",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "Erlang",
    "F",
    "Facts",
    "Flow",
    "GeneralizedExtremeValue",
    "GeneralizedPareto",
    "Geometric",
    "Gompertz",
    "LibraryNegativeBinomial",
    "LibraryPoisson",
    "LibraryZeroInflatedNegativeBinomial",
    "LibraryZeroInflatedPoisson",
    "Mixed",
    "Multinomial",
    "MultivariateNormalDiagPlusLowRankCovariance",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "Observed",
    "OneHotCategorical",
    "OrderedLogistic",
    "PlanarFlow",
    "Poisson",
    "Rayleigh",
    "Reciprocal",
    "StratifiedNormalMixture",
    "Support",
    "SylvesterFlow",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "facts",
    "find",
    "is_given_total",
    "register",
    "standard_normal",
    "standard_uniform",
    "with_library",
    "with_library_of",
    "with_total_of",
]
