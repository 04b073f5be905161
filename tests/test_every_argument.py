"""Every argument of the public functions, given the wrong thing of each kind: our sentence, and no other library's."""

import inspect
import pathlib
import traceback

import keras
import numpy as np
import pytest

import tfvae
from tests.test_arguments import a_vae
from tfvae import callbacks, evaluation, networks, objectives, plots, posteriors, priors

pytestmark = pytest.mark.slow  # a large table, each row quick

X = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
HISTORY = {"elbo": [-2.0, -1.5], "val_elbo": [-2.5, -2.0]}
OURS = str(pathlib.Path(tfvae.__file__).parent)
SQUARE = {"image_shape": [3, 1]}
SMALL = {"num_temperatures": 2, "num_chains": 2, "num_leapfrog_steps": 1, "batch_size": 5, "seed": 0}
FEATURES = evaluation.ClassifierFeatures(keras.Sequential([keras.Input([3]), keras.layers.Dense(2)]), 1.0)
GRID = np.stack(np.unravel_index(np.arange(24), [2, 3, 4]), axis=1)
CODED = {"code": GRID.astype(np.float32), "factors": GRID}
FEW = {"num_draws": 3, "num_bins": 2, "batch_size": 10, "seed": 0}
RIGHT = {
    plots.animation: {"pictures": [np.zeros([4, 4, 1])] * 2, "path": "a.gif", "seconds": 0.1, "rest": 0.1},
    plots.attributes: {
        "vae": 0,
        "x": X,
        "attribute": [0, 1, 0, 1, 0],
        "path": "a.png",
        "rows": 2,
        "columns": 2,
        "reach": 1.0,
        **SQUARE,
    },
    plots.interpolations: {"vae": 0, "x": X, "path": "a.png", "pairs": 2, "columns": 3, **SQUARE},
    plots.kl_by_unit: {"vae": 0, "x": X, "path": "a.png"},
    plots.latent_space: {"vae": 0, "x": X, "path": "a.png", "labels": [0, 1, 0, 1, 0], "names": ["a", "b"]},
    plots.learning_curve: {"history": HISTORY, "path": "a.png"},
    plots.manifold: {"vae": 0, "path": "a.png", "rows": 2, "columns": 2, **SQUARE},
    plots.manifold_grid: {"vae": 0, "rows": 2, "columns": 2, **SQUARE},
    plots.projector: {"vae": 0, "x": X, "folder": "p", "labels": [0, 1, 0, 1, 0], "names": ["a", "b"], **SQUARE},
    plots.reconstructions: {"vae": 0, "x": X, "path": "a.png", "columns": 2, "pairs": 1, **SQUARE},
    plots.residuals: {"vae": 0, "x": X, "path": "a.png", "names": ["a", "b", "c"]},
    plots.samples: {"vae": 0, "path": "a.png", "rows": 2, "columns": 2, "seed": 0, "condition": None, **SQUARE},
    plots.traversals: {"vae": 0, "x": X, "path": "a.png", "units": 2, "columns": 2, **SQUARE},
    callbacks.Checkpoint: {
        "folder": "f",
        "steps": 5,
        "minutes": 1.0,
        "keep": 2,
        "monitor": "val_elbo",
        "mode": "max",
    },
    callbacks.Pictures: {"x": X, "folder": "f", "log_dir": "l", "every": 1, "seed": 0, **SQUARE},
    callbacks.Units: {"x": X, "log_dir": "l", "warm_up": 5},
    callbacks.ProgressBar: {"label": "training"},
    evaluation.active_units: {"vae": 0, "x": X, "threshold": 0.01},
    evaluation.attribute_vector: {"vae": 0, "x": X, "attribute": [0, 1, 0, 1, 0]},
    evaluation.annealed_log_marginal: {"vae": 0, "x": X, **SMALL},
    evaluation.bidirectional: {"vae": 0, "num_rows": 2, "condition": None, "progress": None, **SMALL},
    evaluation.bits_per_dimension: {"nats": [1.0], "event_shape": [3], "bin_width": 1.0},
    evaluation.classifier_features: {"x": np.tile(X, [8, 1]), "label": np.tile(np.arange(5), 8), "seed": 0},
    evaluation.beta_vae_score: {**CODED, "num_train": 20, "num_test": 5, "num_pairs": 2, "seed": 0},
    evaluation.complexity_corrected: {"log_marginal": [-1.0, -2.0], "x": np.zeros([2, 4], np.uint8)},
    evaluation.compressed_bits: {"x": np.zeros([2, 4], np.uint8)},
    evaluation.detection: {"ordinary": [0.0, 1.0], "odd": [1.0, 2.0], "seed": 0},
    evaluation.likelihood_ratio: {"log_marginal": [-1.0, -2.0], "background": [-2.0, -3.0]},
    evaluation.perturbed: {"x": X, "rate": 0.2, "seed": 0},
    evaluation.typicality: {"log_marginal": [-1.0, -2.0], "ordinary": [-2.0, -3.0]},
    evaluation.watanabe_akaike: {"log_marginals": [[-1.0, -2.0], [-1.0, -3.0]]},
    evaluation.judge: {"vae": 0, "x": X, "names": ["surgery"], "seed": 0, "progress": None},
    evaluation.disentanglement_completeness: {**CODED, "categorical": [], "seed": 0},
    evaluation.factor_vae_score: {**CODED, "num_train": 20, "num_test": 5, "group_size": 2, "seed": 0},
    evaluation.interventional_robustness: {**CODED, "seed": 0},
    evaluation.modularity: {**CODED, "num_bins": 3, "seed": 0},
    evaluation.mutual_information_gap: {**CODED, "num_bins": 3, "seed": 0},
    evaluation.separated_predictability: {**CODED, "categorical": [0], "seed": 0},
    evaluation.sprite_factors: {"indices": [0, 1]},
    evaluation.sprites: {"indices": [0, 1]},
    evaluation.elbo_surgery: {"vae": 0, "x": X, "num_draws": 5, "batch_size": 5, "seed": 0},
    evaluation.frechet_classifier_distance: {
        "a": np.tile(X, [2, 1]),
        "b": np.tile(X, [2, 1]),
        "features": FEATURES,
        "seed": 0,
    },
    evaluation.frechet_distance: {"features_a": np.tile(X, [2, 1]), "features_b": np.tile(X, [2, 1]), "seed": 0},
    evaluation.kernel_distance: {"a": X, "b": X, "kernel": "cubic", "num_subsets": 2, "subset_size": 3, "seed": 0},
    evaluation.maximum_mean_discrepancy: {"a": X, "b": X, "kernel": "cubic", "num_permutations": 3, "seed": 0},
    evaluation.precision_recall: {"real": X, "generated": X, "k": 2},
    evaluation.kl_by_unit: {"vae": 0, "x": X, "seed": 0, "batch_size": 2},
    evaluation.level_width: {"vae": 0},
    evaluation.log_marginal: {"vae": 0, "x": X, "num_samples": 30, "batch_size": 5, "seed": 0, "progress": None},
    evaluation.simulation_based_calibration: {"vae": 0, "num_rows": 10, "condition": None, "progress": None, **FEW},
    evaluation.predictive_calibration: {"vae": 0, "x": np.repeat(X, 2, axis=0), "progress": None, **FEW},
    evaluation.pareto_shape: {"log_weights": np.zeros([30, 2])},
    objectives.AdversarialTotalCorrelation: {
        "latent_dim": 2,
        "gamma": 1.0,
        "hidden": [3],
        "learning_rate": 0.1,
        "seed": 1,
    },
    objectives.ConstrainedLikelihood: {"target": -3.0, "rate": 0.1, "smoothing": 0.5},
    objectives.Capacity: {"capacity": 3.0, "gamma": 1.0},
    objectives.CombinationImportanceWeighted: {"beta": 0.1},
    objectives.Cyclic: {"num_steps": 3, "num_cycles": 2, "ratio": 0.5},
    objectives.DisentangledInferredPrior: {"off_diagonal": 1.0, "diagonal": 1.0},
    objectives.FreeBits: {"nats": 0.1, "group_size": 1},
    objectives.MaximumMeanDiscrepancy: {"mmd_weight": 1.0, "kl_weight": 1.0},
    objectives.MultiplyImportanceWeighted: {"num_bounds": 2},
    objectives.PartiallyImportanceWeighted: {"num_bounds": 2},
    objectives.Renyi: {"alpha": 0.5},
    objectives.TotalCorrelation: {"num_rows": 5, "beta": 1.0, "alpha": 1.0, "gamma": 1.0},
    evaluation.perplexity: {"nats": [-1.0, -2.0], "x": [[1, 2], [0, 3]]},
    objectives.Weighted: {"beta": 1.0},
    priors.ExemplarPrior: {"latent_dim": 2, "exemplars": X, "num_drawn": 3},
    priors.HeldExemplars: {"latent_dim": 2, "num_exemplars": 3},
    priors.Family: {"distribution": "Normal", "event_shape": [2], "shared": (), "loc": 0.0, "scale": 1.0},
    priors.Autoregressive: {"latent_dim": 2, "hidden": [3]},
    priors.Flow: {"latent_dim": 2, "num_flows": 2, "hidden": [3], "transform": "affine"},
    priors.Resampled: {"latent_dim": 2, "hidden": [3], "truncation": 5, "decay": 0.9},
    posteriors.inverse_autoregressive: {"latent_dim": 2, "num_flows": 1, "hidden": [3]},
    posteriors.coupling: {"latent_dim": 2, "num_flows": 1, "transform": "spline", "hidden": [3]},
    posteriors.planar: {"latent_dim": 2, "num_flows": 2},
    networks.Masked: {"num_outputs": 2, "hidden": [3], "degrees": [1, 2], "activation": "elu"},
    priors.FirstOrderAutoregressive: {"latent_dim": 2, "correlation": 0.5, "num_channels": 2},
    priors.Mixture: {"latent_dim": 2, "num_components": 2},
    priors.StandardNormal: {"latent_dim": 2},
    priors.VampPrior: {"latent_dim": 2, "x_shape": [3], "num_components": 2, "constraint": "sigmoid", "initial": None},
    priors.WeightPrior: {"num_rows": 5, "scale": 1.0},
}
JUNK = {
    "a word": "rubbish",
    "below zero": -1,
    "too many": 10**20,
    "a fraction": 2.5,
    "no end": float("inf"),
    "bytes": b"a",
    "NaN": float("nan"),
    "an object": object(),
    "no list": [],
    "words": ["a", "b"],
    "a mapping": {"a": 1},
    "another shape": np.zeros([2, 7], np.float32),
}


@pytest.fixture(scope="module")
def vae():
    return a_vae(seed=0)


@pytest.mark.parametrize(
    ("door", "argument"),
    [(door, name) for door, right in RIGHT.items() for name in right],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_the_wrong_thing_is_told_in_a_sentence_of_ours(door, argument, vae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right = {name: vae if name == "vae" else value for name, value in RIGHT[door].items()}
    for kind, wrong in JUNK.items():
        try:
            door(**right | {argument: wrong})
        except (ValueError, TypeError) as error:
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
            assert raised_in.startswith(OURS), f"{argument} = {kind}: {type(error).__name__}: {error} from {raised_in}"
            named = (argument.split("_")[0], "rubbish", "no parameter a")
            assert any(word in str(error) for word in named), f"{argument} = {kind}: {error}"


def test_every_public_function_has_its_row():
    rooms = (plots, callbacks, evaluation, objectives, priors)
    results = """Chain MarginalEstimate Sandwich Mean Surgery Calibration Discrepancy KernelDistance FrechetDistance
        ClassifierFeatures PrecisionRecall Score Informativeness Predictability Detection Estimate Latent Terms Prior"""
    asked_elsewhere = {
        *results.split(),  # and a base
        *("hmc_log_marginal", "sample_posterior", "samples_by_class", "fit", "WakePhase"),  # slow, or of a truth value
    }
    for room in rooms:
        for name in room.__all__:
            thing = getattr(room, name)
            if name not in asked_elsewhere and inspect.signature(thing).parameters and not _of_terms(thing):
                assert thing in RIGHT, name


def _of_terms(thing) -> bool:
    return list(inspect.signature(thing).parameters) == ["terms"]
