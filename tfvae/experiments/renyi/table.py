"""The table of Rényi Divergence Variational Inference (Li & Turner, arXiv 1602.02311): Frey Face and silhouettes.

    tfvae reproduce renyi --datasets silhouettes --num-samples 5

Caltech-101 silhouettes: 784-500-200-500-784, tanh, minibatches of 20, 2^i passes with the learning rate 1e-4·10^(-i/7)
for i from 0 to 7, 255 in all. Frey Face: 560-200-20-200-560, softplus, minibatches of 100, Adam 5e-4, tenfold
cross-validation; the paper does not give the number of epochs, nor its exact sizes, so that order and gaps of its rows
are what can be held against ours. log p(x) is by 5,000 samples throughout.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np

from tfvae.distribution_layer import DistributionLayer
from tfvae.experiments import datasets as read
from tfvae.experiments.paper_figure import check_names, write_csv
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, logits_of_mean

METHODS: Final = ("VAE", "IWAE", "VR-max", "alpha-0.5")
DATASETS: Final = ("silhouettes", "frey")
# Their test log p(x) in nats, by dataset, K and method; over folds for Frey Face.
PUBLISHED: dict[tuple[str, int, str], float] = {
    ("frey", 5, "VAE"): 1322.96,
    ("frey", 5, "IWAE"): 1380.30,
    ("frey", 5, "VR-max"): 1377.40,
    ("frey", 5, "alpha-0.5"): 1374.64,
    ("silhouettes", 5, "VAE"): -119.69,
    ("silhouettes", 5, "IWAE"): -117.89,
    ("silhouettes", 5, "VR-max"): -118.01,
    ("silhouettes", 50, "VAE"): -119.61,
    ("silhouettes", 50, "IWAE"): -117.21,
    ("silhouettes", 50, "VR-max"): -117.10,
}
FOLDS = 10


def table(
    output: str = "runs/renyi",
    data_dir: str = "data",
    datasets: Sequence[Literal["silhouettes", "frey"]] = DATASETS,
    methods: Sequence[Literal["VAE", "IWAE", "VR-max", "alpha-0.5"]] = METHODS,
    num_samples: int = 5,
    folds: int = FOLDS,
    epochs: int = 1000,
    learning_rate: float | None = None,
    stages: int = 8,
    marginal_samples: int = 5000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and measure the model of each row, and write ``renyi.csv`` to ``output``.

    A run that is stopped goes on where it was: each model is kept under ``output/checkpoints``.

    Args:
        output: The folder to write.
        data_dir: Holds ``silhouettes/caltech101_silhouettes.npz`` and ``freyface/frey_faces.npy``.
        datasets: Some of ``silhouettes`` and ``frey``.
        methods: Some of VAE, IWAE, VR-max and alpha-0.5.
        num_samples: K of training; the paper has 5, and 50 for silhouettes.
        folds: How many of Frey Face's ten to hold out, one after the other.
        epochs: Passes over the faces.
        learning_rate: The first; the paper's for each dataset by default.
        stages: How many of silhouettes' schedule to train; the paper has 8.
        marginal_samples: Samples of the measured log p(x).
        seed: Fixes weights, shuffles, folds and noise.

    Returns:
        A row for each dataset and method: the published log p(x), where there is one, ours with its standard error,
        over images, or over folds for Frey Face, and the minutes of training.

    Raises:
        ValueError: For an unknown name, or a number out of range.
    """
    check_names(datasets, DATASETS)
    check_names(methods, METHODS)
    if not 1 <= folds <= FOLDS:
        raise ValueError(f"folds must lie between 1 and {FOLDS}, received {folds}.")
    found: list[dict[str, Any]] = []
    for dataset in datasets:
        for method in methods:
            name = f"{dataset}-{method}-{num_samples}"
            if dataset == "frey":
                runs = [
                    _faces(name, method, num_samples, data_dir, epochs, learning_rate or 5e-4, fold, seed)
                    for fold in range(folds)
                ]
            else:
                runs = [silhouettes_run(name, method, num_samples, data_dir, learning_rate or 1e-4, seed)]
            measured = [run.measure(output, 1 if dataset == "frey" else stages, marginal_samples) for run in runs]
            found.append(_row(dataset, method, num_samples, measured, seed))
            write_csv(pathlib.Path(output) / "renyi.csv", list(found[0]), [list(one.values()) for one in found])
    return found


def silhouettes_run(name: str, method: str, k: int, data_dir: str, rate: float, seed: int = 0) -> Run:
    """The training of a row of silhouettes, whose first learning rate is ``rate``."""
    train, test = read.silhouettes(str(pathlib.Path(data_dir) / "silhouettes" / "caltech101_silhouettes.npz"))
    model = Model(method, k, (500,), 200, "tanh", bernoulli)
    return Run(f"{name}-rate{rate:g}", model, Plan.falling(2, rate), train, test, logits_of_mean(train), seed=seed)


def _faces(name: str, method: str, k: int, data_dir: str, epochs: int, rate: float, fold: int, seed: int) -> Run:
    faces = read.faces(str(pathlib.Path(data_dir) / "freyface" / "frey_faces.npy"))
    parts = np.array_split(np.random.default_rng(seed).permutation(len(faces)), FOLDS)
    held_out = parts.pop(fold)
    model = Model(method, k, (200,), 20, "softplus", _pixels)
    plan = Plan((epochs,), (rate,), 100)
    train, test = faces[np.concatenate(parts)], faces[held_out]
    return Run(f"{name}-rate{rate:g}-fold{fold}", model, plan, train, test, np.zeros(1120), seed=seed)


def _pixels(kernel_initializer: Any, bias_initializer: Any) -> DistributionLayer:
    """Normals whose mean is a sigmoid, a variance for each pixel: the paper's likelihood for faces."""
    return DistributionLayer(
        "Normal",
        [560],
        constraints={"loc": "sigmoid", "scale": "log_variance"},
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        name="likelihood",
    )


def _row(dataset: str, method: str, k: int, measured: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    values = np.array([one["log_marginal"] for one in measured])
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else measured[0]["standard_error"]
    published = PUBLISHED.get((dataset, k, method))
    return {
        "dataset": dataset,
        "method": method,
        "num_samples": k,
        "folds": len(values) if dataset == "frey" else None,
        "published": published,
        "log_marginal": float(values.mean()),
        "standard_error": error,
        "difference": None if published is None else float(values.mean()) - published,
        "active": int(np.mean([one["active"] for one in measured])),
        "seed": seed,
        "minutes": sum(one["minutes"] for one in measured),
    }
