"""Every objective, prior and model that the project promises, once, as a small VAE with the rows that it takes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tests import linear_gaussian
from tfvae import VAE, DistributionLayer, likelihoods, networks, objectives, observations, posteriors, priors

X, CONDITION = linear_gaussian.rows(12, seed=7)
BYTES = np.random.default_rng(1).integers(0, 256, [12, 4], np.uint8)
COUNTS = np.random.default_rng(2).poisson(3.0, [12, 4]).astype(np.uint8)
# A table of two real columns, a count and a class, with holes in all but the count.
TABLE = np.concatenate([X[:, :2], COUNTS[:, :1], np.arange(12)[:, None] % 3], axis=1).astype(np.float32)
TABLE[[1, 5, 5, 7, 8], [0, 0, 1, 3, 3]] = np.nan
HOLES = np.where(np.arange(48).reshape(12, 4) % 5 == 0, np.float32(np.nan), X)
SEED = 3
_WARM_UP = keras.optimizers.schedules.PolynomialDecay(0.0, 8, 1.0)


@dataclasses.dataclass(frozen=True)
class Objective:
    """An objective, and what is to be expected of it.

    Attributes:
        given: The objective, or a partial call that makes one: its weights are of one model, and of one strategy.
        pathwise: Whether its gradient is, draw for draw, the derivative of what it says is maximised; where it is not,
            the two have the same mean. None where encoder and decoder have each an aim of its own.
        is_tighter: Whether its bound is tighter than the ELBO.
        of_batch: Whether it takes statistics of the batch, which replicas take each of its own rows.
    """

    given: Any
    pathwise: bool | None = True
    num_samples: int = 3
    is_tighter: bool = False
    of_batch: bool = False

    @property
    def objective(self) -> Any:
        """One for a new model."""
        return self.given() if isinstance(self.given, functools.partial) else self.given


OBJECTIVES = {
    "elbo": Objective(objectives.elbo),
    "elbo_a": Objective(objectives.elbo_a),
    "elbo_b": Objective(objectives.elbo_b),
    "elbo_entropy": Objective(objectives.elbo_entropy),
    "importance_weighted": Objective(objectives.importance_weighted, is_tighter=True),
    "doubly_reparameterized": Objective(objectives.doubly_reparameterized, pathwise=False, is_tighter=True),
    "sticking_the_landing": Objective(objectives.sticking_the_landing, pathwise=False),
    "score_function": Objective(objectives.score_function, pathwise=False),
    "Weighted": Objective(objectives.Weighted(4.0)),
    "Weighted, a schedule": Objective(objectives.Weighted(_WARM_UP)),
    "Weighted, in cycles": Objective(objectives.Weighted(objectives.Cyclic(40))),
    "FreeBits": Objective(objectives.FreeBits(0.01)),
    "FreeBits, each row": Objective(objectives.FreeBits(0.01, group_size=2, each_row=True)),
    "Capacity": Objective(objectives.Capacity(0.5, gamma=2.0), of_batch=True),
    "WakePhase": Objective(objectives.WakePhase(), pathwise=None, is_tighter=True),
    "Renyi": Objective(objectives.Renyi(0.5)),
    "Renyi, VR-max": Objective(objectives.Renyi(-np.inf), pathwise=False),  # steps across its kinks
    "MultiplyImportanceWeighted": Objective(objectives.MultiplyImportanceWeighted(2), num_samples=4, is_tighter=True),
    "PartiallyImportanceWeighted": Objective(
        objectives.PartiallyImportanceWeighted(2), pathwise=None, num_samples=4, is_tighter=True
    ),
    "CombinationImportanceWeighted": Objective(objectives.CombinationImportanceWeighted(0.5), is_tighter=True),
    "TotalCorrelation": Objective(objectives.TotalCorrelation(50), of_batch=True),
    "DisentangledInferredPrior": Objective(objectives.DisentangledInferredPrior(1.0), of_batch=True),
    "AdversarialTotalCorrelation": Objective(
        functools.partial(objectives.AdversarialTotalCorrelation, 2, gamma=2.0, hidden=[6]),
        pathwise=False,
        of_batch=True,  # leaky units
    ),
    # λ stays, so that one program after another gives the same numbers; tests/objectives asks how it moves.
    "ConstrainedLikelihood": Objective(
        functools.partial(objectives.ConstrainedLikelihood, -4.0, rate=0.0), of_batch=True
    ),
    "MaximumMeanDiscrepancy": Objective(objectives.MaximumMeanDiscrepancy(), of_batch=True),
}

PRIORS: dict[str, Callable[[], priors.Prior]] = {
    "StandardNormal": lambda: priors.StandardNormal(2),
    "Family": lambda: priors.Family("Normal", [2], loc=[0.5, -0.5], scale=2.0),
    "Family, shared": lambda: priors.Family("StudentT", [2], shared=["loc", "scale"], df=4.0),
    "FirstOrderAutoregressive": lambda: priors.FirstOrderAutoregressive(2, correlation=-0.5),
    "Mixture": lambda: priors.Mixture(2, num_components=3),
    "Mixture, full": lambda: priors.Mixture(2, num_components=2, full_covariance=True),
    "Flow": lambda: priors.Flow(2, num_flows=2, hidden=[6]),
    "Autoregressive": lambda: priors.Autoregressive(2, hidden=[6]),
    # Z stays, so that one program after another gives the same numbers.
    "Resampled": lambda: priors.Resampled(2, hidden=[6], decay=1.0),
    "ExemplarPrior": lambda: priors.ExemplarPrior(2, X),
    "ExemplarPrior, some drawn": lambda: priors.ExemplarPrior(2, X, num_drawn=5),
    "VampPrior": lambda: priors.VampPrior(2, [4], num_components=3, constraint="identity"),
}


def _small(x_layer: Any, posterior: Any = None, **more: Any) -> VAE:
    return VAE(networks.mlp([5]), networks.mlp([5]), posterior or posteriors.diagonal_normal(2), x_layer, **more)


def _conditional(**more: Any) -> VAE:
    encoder, decoder = (linear_gaussian.two_inputs(n, 3, 5) for n in (4, 2))
    likelihood = DistributionLayer("Normal", [4])
    return VAE(encoder, decoder, posteriors.diagonal_normal(2), likelihood, condition_shape=[3], **more)


# Planar flows are solved as Sylvester's are, and a spline is what a coupling layer does to each unit.
FLOWS: dict[str, Callable[[], DistributionLayer]] = {
    "Sylvester": lambda: posteriors.sylvester(2, 1),
    "inverse autoregressive": lambda: posteriors.inverse_autoregressive(2, 2, hidden=[6]),
    "spline": lambda: posteriors.coupling(2, 1, transform="spline", hidden=[6]),
}


def _table() -> Any:
    real, count = DistributionLayer("Normal", [2], missing=True), DistributionLayer("NegativeBinomial", [1])
    return likelihoods.mixed([real, count, DistributionLayer("Categorical", [1], num_classes=3, missing=True)])


# A model, and the rows that it takes.
MODELS: dict[str, tuple[Callable[..., VAE], dict[str, np.ndarray]]] = {
    "bytes": (lambda **m: _small(likelihoods.bernoulli([4]), **m), {"x": BYTES}),
    "binarised": (lambda **m: _small(likelihoods.bernoulli([4]), noise=observations.Binarized(), **m), {"x": BYTES}),
    "counts of a library": (
        lambda **m: _small(likelihoods.library_counts([4], "ZeroInflatedNegativeBinomial"), **m),
        {"x": COUNTS},
    ),
    "counts": (lambda **m: _small(DistributionLayer("Poisson", [4]), **m), {"x": COUNTS}),
    "full covariance": (
        lambda **m: _small(DistributionLayer("Normal", [4]), posteriors.full_normal(2), **m),
        {"x": X},
    ),
    **{
        f"posterior {name}": (lambda q=make, **m: _small(DistributionLayer("Normal", [4]), q(), **m), {"x": X})
        for name, make in FLOWS.items()
    },
    "conditional, labelled": (_conditional, {"x": X, "condition": CONDITION, "label": np.arange(12) % 3}),
    "missing": (lambda **m: _small(likelihoods.missing(DistributionLayer("StudentT", [4])), **m), {"x": HOLES}),
    "mixed, missing": (lambda **m: _small(_table(), **m), {"x": TABLE}),
    "weight prior": (
        lambda **m: _small(DistributionLayer("Normal", [4]), weight_prior=priors.WeightPrior(12), **m),
        {"x": X},
    ),
}

# TensorFlow has another generator in XLA programs, and of these TFP draws: there the same seed is other noise.
OTHER_NOISE_IN_XLA = ("model binarised", "model full covariance", "objective AdversarialTotalCorrelation")
# TFP numbers the noise of a full normal coordinate by coordinate, not row by row: replicas draw other noise, as good.
OTHER_NOISE_IN_REPLICAS = ("model full covariance",)
OF_BATCH = tuple(f"objective {name}" for name, entry in OBJECTIVES.items() if entry.of_batch)


@dataclasses.dataclass(frozen=True)
class Entry:
    """How to make the model, and its rows."""

    make: Callable[[], VAE]
    rows: dict[str, np.ndarray]


def _objective(entry: Objective) -> Callable[[], VAE]:
    return lambda: linear_gaussian.vae(
        wider=1.5, shift=0.4, objective=entry.objective, num_samples=entry.num_samples, seed=SEED
    )


def _prior(make: Callable[[], priors.Prior]) -> Callable[[], VAE]:
    return lambda: linear_gaussian.vae(wider=1.5, prior=make(), seed=SEED)


def _model(make: Callable[..., VAE]) -> Callable[[], VAE]:
    return lambda: make(seed=SEED)


ENTRIES = {
    **{f"objective {name}": Entry(_objective(entry), {"x": X}) for name, entry in OBJECTIVES.items()},
    **{f"prior {name}": Entry(_prior(make), {"x": X}) for name, make in PRIORS.items()},
    **{f"model {name}": Entry(_model(make), rows) for name, (make, rows) in MODELS.items()},
}

# An objective is no part of an export. What a conditional model exports is asked of its signatures, in exporting.
EXPORTED = [name for name in ENTRIES if not name.startswith("objective") and "conditional" not in name]


def made(name: str) -> tuple[VAE, dict[str, np.ndarray]]:
    """The entry's model, the same whenever and wherever it is made, and its rows."""
    keras.utils.set_random_seed(0)
    return ENTRIES[name].make(), ENTRIES[name].rows
