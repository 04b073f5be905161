"""VAEs of N(0, I) and of a VampPrior (Tomczak & Welling, arXiv 1705.07120) as Exemplar VAE's table has them.

    tfvae reproduce vamp --datasets mnist --priors normal vamp --epochs 400

784-300-300-40-300-300-784, gated layers of He-normal weights, minibatches of 100 of the first 50,000 images, binarised
anew at each presentation, Adam 5e-4 of gradients divided by their norms, KL weighted by min(1, epoch / 100) (here by
steps, in as many epochs), log p(x) by 5,000 samples. The table (Norouzi et al., arXiv 2004.04795) stops after 50 epochs
without a better validation loss, 2,000 at most; here ``epochs`` says how many. σ lies between exp(-3) and e, as there,
by a sigmoid.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import keras
import numpy as np

from tfvae import networks, objectives, observations, optimizers
from tfvae import priors as priors_of
from tfvae.arguments import check_at_least
from tfvae.distribution_layer import DistributionLayer
from tfvae.experiments import datasets as read
from tfvae.experiments.paper_figure import check_names, write_csv
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, logits_of_mean
from tfvae.models.vae import VAE

DATASETS: Final = ("mnist", "fashion_mnist")
PRIORS: Final = ("normal", "vamp")
# Test log p(x) in nats and its spread over runs.
PUBLISHED: dict[tuple[str, str], tuple[float, float]] = {
    ("mnist", "normal"): (-84.45, 0.12),
    ("mnist", "vamp"): (-82.43, 0.06),
    ("fashion_mnist", "normal"): (-228.70, 0.15),
    ("fashion_mnist", "vamp"): (-227.35, 0.05),
}
_TRAIN_ROWS, _BATCH_SIZE, _RATE, _WARM_UP_EPOCHS = 50_000, 100, 5e-4, 100
_HIDDEN, _LATENT_DIM = (300, 300), 40


def table(
    output: str = "runs/vamp",
    data_dir: str = "data",
    datasets: Sequence[Literal["mnist", "fashion_mnist"]] = DATASETS,
    priors: Sequence[Literal["normal", "vamp"]] = PRIORS,
    epochs: int = 400,
    num_components: int = 500,
    num_samples: int = 5000,
    test_rows: int = 10_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and measure the model of each row, and write ``vamp.csv`` to ``output``.

    A run that is stopped goes on where it was: each model is kept under ``output/checkpoints``.

    Args:
        output: The folder to write.
        data_dir: Holds ``mnist/`` and ``fashion_mnist/``, each with the four IDX files.
        datasets: Some of ``mnist`` and ``fashion_mnist``.
        priors: Some of ``normal`` and ``vamp``.
        epochs: Passes over the rows; the KL is warmed up over the first 100.
        num_components: Pseudo-inputs of the VampPrior.
        num_samples: Samples of the measured log p(x).
        test_rows: Test images to measure it on, the first ones, binarised once.
        seed: Fixes weights, shuffles and noise.

    Returns:
        A row for each dataset and prior: the published log p(x) in nats with its error, ours with its standard error
        over images, the minutes of training.

    Raises:
        ValueError: For an unknown name, or a number out of range.
    """
    check_names(datasets, DATASETS)
    check_names(priors, PRIORS)
    check_at_least(1, epochs=epochs, num_components=num_components)
    found: list[dict[str, Any]] = []
    for dataset in datasets:
        train, test = read.mnist(str(pathlib.Path(data_dir) / dataset))
        train = train[:_TRAIN_ROWS]
        binary = read.binary(read.first_rows(test, test_rows), seed)
        for prior in priors:
            model = _gated(prior, num_components, -(-len(train) // _BATCH_SIZE))
            plan = _Plan((epochs,), (_RATE,), _BATCH_SIZE)
            name = f"{dataset}-{prior}" + (f"-{num_components}" if prior == "vamp" else "")
            run = Run(name, model, plan, train, binary, logits_of_mean(train), seed=seed)
            found.append(_row(dataset, prior, epochs, run.measure(output, 1, num_samples), seed))
            write_csv(pathlib.Path(output) / "vamp.csv", list(found[0]), [list(one.values()) for one in found])
    return found


@dataclasses.dataclass(frozen=True)
class _Plan(Plan):
    """By Adam of normalised gradients."""

    def optimizer(self, num_rows: int, epsilon: float) -> keras.optimizers.Optimizer:
        return optimizers.NormalizedAdam(self.rates[0], epsilon=epsilon)


@dataclasses.dataclass(frozen=True)
class _Gated(Model):
    """Gated layers, and a VampPrior where there are components."""

    num_components: int = 0

    def build(self, pixel_bias: np.ndarray, seed: int) -> VAE:
        keras.utils.set_random_seed(seed)
        ends = {"scale": (math.exp(-3.0), math.e)}
        return VAE(
            networks.gated_mlp(self.hidden, name="encoder"),
            networks.gated_mlp(self.hidden, name="decoder"),
            DistributionLayer("Normal", [self.latent_dim], constraints=ends, name="posterior"),
            self.likelihood("glorot_uniform", keras.initializers.Constant(pixel_bias)),
            prior=priors_of.VampPrior(self.latent_dim, [len(pixel_bias)], self.num_components)
            if self.num_components
            else None,
            objective=self.method,  # type: ignore[arg-type]
            noise=self.noise,
            seed=seed,
        )


def _gated(prior: str, num_components: int, steps_per_epoch: int) -> Model:
    warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, _WARM_UP_EPOCHS * steps_per_epoch, 1.0)
    method, components = objectives.Weighted(warm_up), num_components if prior == "vamp" else 0
    noise = observations.Binarized()
    return _Gated(method, 1, _HIDDEN, _LATENT_DIM, "gated", bernoulli, noise, num_components=components)


def _row(dataset: str, prior: str, epochs: int, measured: dict[str, Any], seed: int) -> dict[str, Any]:
    published, error = PUBLISHED[dataset, prior]
    return {
        "dataset": dataset,
        "prior": prior,
        "epochs": epochs,
        "published": published,
        "published_error": error,
        "log_marginal": measured["log_marginal"],
        "standard_error": measured["standard_error"],
        "difference": measured["log_marginal"] - published,
        "active": measured["active"],
        "seed": seed,
        "minutes": measured["minutes"],
    }
