"""Families that TFP lacks, or has in a form that does not suit a VAE, each with an exact log-density.

``DistributionLayer`` takes them by name as it takes those of TFP.
"""

from tfvae.families import facts
from tfvae.families.continuous import Erlang, F, Gompertz, Rayleigh, Reciprocal
from tfvae.families.discrete import Bernoulli, OneHotCategorical
from tfvae.families.facts import Facts, Support
from tfvae.families.normal import Normal
from tfvae.families.random import standard_normal, standard_uniform
from tfvae.families.registry import FAMILIES, find, register

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Erlang",
    "F",
    "Facts",
    "Gompertz",
    "Normal",
    "OneHotCategorical",
    "Rayleigh",
    "Reciprocal",
    "Support",
    "facts",
    "find",
    "register",
    "standard_normal",
    "standard_uniform",
]
