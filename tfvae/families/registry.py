"""How a family is found: by its name, here first, then in TFP; and how a new one is made known."""

from typing import Any

from tensorflow_probability import distributions as tfd

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
from tfvae.families.facts import FACTS, Facts
from tfvae.families.levels import DiscretizedLogistic, DiscretizedLogisticMixture, DiscretizedNormal
from tfvae.families.library import (
    LibraryNegativeBinomial,
    LibraryPoisson,
    LibraryZeroInflatedNegativeBinomial,
    LibraryZeroInflatedPoisson,
)
from tfvae.families.normal import (
    MultivariateNormalDiagPlusLowRankCovariance,
    Normal,
    NormalMixture,
    StratifiedNormalMixture,
)
from tfvae.families.poisson import BagOfWords, DirichletBagOfWords, Poisson, ZeroInflatedPoisson
from tfvae.families.refused import REFUSED

FAMILIES: dict[str, type[tfd.Distribution]] = {
    family.__name__: family
    for family in (
        *(Normal, MultivariateNormalDiagPlusLowRankCovariance, NormalMixture, StratifiedNormalMixture),
        *(PlanarFlow, SylvesterFlow),
        *(Bernoulli, OneHotCategorical, Categorical, OrderedLogistic),
        *(DiscretizedLogistic, DiscretizedNormal, DiscretizedLogisticMixture),
        *(Geometric, Binomial, BetaBinomial, NegativeBinomial, ZeroInflatedNegativeBinomial),
        *(Multinomial, DirichletMultinomial),
        *(Poisson, ZeroInflatedPoisson, BagOfWords, DirichletBagOfWords),
        *(LibraryPoisson, LibraryNegativeBinomial),
        *(LibraryZeroInflatedPoisson, LibraryZeroInflatedNegativeBinomial),
        *(Rayleigh, Reciprocal, Gompertz, Erlang, F, GeneralizedExtremeValue, GeneralizedPareto, PERT),
    )
}


def register(family: type[tfd.Distribution], facts: Facts | None = None) -> type[tfd.Distribution]:
    """Make a family of your own known to ``DistributionLayer`` and to saved models, by its class name; a decorator.

    The class states its parameters in ``_parameter_properties``. A program that loads a saved model must have
    registered the family too.

    Args:
        family: The class.
        facts: Where its numbers lie, and what else TFP does not say. Without facts a likelihood of the family checks
            no observations and refuses uint8, for nobody knows whether they are pixels or counts.

    Raises:
        ValueError: If the class is no distribution, or its name is taken.

    Example:
        >>> class HalfUnit(tfd.HalfNormal):
        ...     pass
        >>> register(HalfUnit, Facts(FACTS["HalfNormal"].support)) is find("HalfUnit") is HalfUnit
        True
    """
    if not (isinstance(family, type) and issubclass(family, tfd.Distribution)):
        raise ValueError(f"{family!r} is no class of distributions: derive it from tfp.distributions.Distribution.")
    if family.__name__ in FAMILIES or hasattr(tfd, family.__name__):
        raise ValueError(f"There is a family {family.__name__} already: choose another name.")
    FAMILIES[family.__name__] = family
    if facts is not None:
        FACTS[family.__name__] = facts
    return family


def find(family: str | type) -> Any:
    """The class of a family, from its name or itself.

    Raises:
        ValueError: For one that is neither here, in TFP, nor registered, and for one that no layer builds.

    Example:
        >>> find("Rayleigh") is Rayleigh, find(tfd.Gamma) is tfd.Gamma
        (True, True)
    """
    name = family if isinstance(family, str) else getattr(family, "__name__", "")
    in_tfp = getattr(tfd, name, None)
    found = FAMILIES.get(name, in_tfp)
    if name in REFUSED and found is in_tfp:
        why, instead = REFUSED[name]
        raise ValueError(f"DistributionLayer does not build {name}: {why}. Instead, {instead}.")
    is_known = isinstance(found, type) and issubclass(found, tfd.Distribution)
    if not is_known or (isinstance(family, type) and family not in (found, in_tfp)):
        raise ValueError(
            f"Unknown distribution {family!r}. Expected a class of tensorflow_probability.distributions or its name, "
            "such as 'Normal'; a class of your own must be registered first, with tfvae.families.register."
        )
    return found
