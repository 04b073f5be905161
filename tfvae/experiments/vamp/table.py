"""VAEs of N(0, I), a VampPrior (Tomczak & Welling, arXiv 1705.07120) and exemplars, as Exemplar VAE's table has them.

    tfvae reproduce vamp --datasets mnist --priors normal vamp

784-300-300-40-300-300-784, gated layers of He-normal weights, minibatches of 100 of the first 50,000 images, binarised
anew at each presentation, Adam 5e-4 of gradients divided by their norms, KL weighted by min(1, epoch / 100) (here by
steps, in as many epochs), log p(x) by 5,000 samples (Norouzi et al., arXiv 2004.04795). Training ends after 50 epochs
without a better validation ELBO, 2,000 at most, with the weights of the best. σ lies between exp(-3) and e, as there,
by a sigmoid. Of the exemplars a step takes some at random, where theirs takes those nearest to its rows.

Frey Face (arXiv 1705.07120, table 3, in bits per dimension): 1,565 faces to train on, 200 to validate and 200 to test,
under a discretised logistic with log scales from -4.5 to 0. Theirs has no bins at the ends and adds 1e-7 to each
probability, so that it does not sum to 1 over the levels: their bits and ours are of two likelihoods.
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
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, bits, logits_of_mean
from tfvae.models.vae import VAE

DATASETS: Final = ("mnist", "fashion_mnist", "freyface")
PRIORS: Final = ("normal", "vamp", "exemplar")
# Test log p(x) in nats and its spread over runs; of faces, bits per dimension.
PUBLISHED: dict[tuple[str, str], tuple[float, float | None]] = {
    ("mnist", "normal"): (-84.45, 0.12),
    ("mnist", "vamp"): (-82.43, 0.06),
    ("mnist", "exemplar"): (-82.09, 0.18),
    ("fashion_mnist", "normal"): (-228.70, 0.15),
    ("fashion_mnist", "vamp"): (-227.35, 0.05),
    ("fashion_mnist", "exemplar"): (-226.75, 0.07),
    ("freyface", "normal"): (4.63, None),
    ("freyface", "vamp"): (4.57, None),
}
_TRAIN_ROWS, _BATCH_SIZE, _RATE, _WARM_UP_EPOCHS, _PATIENCE = 50_000, 100, 5e-4, 100, 50
_HELD_OUT_FACES, _PIXELS_OF_A_FACE = 200, 560
_HIDDEN, _LATENT_DIM = (300, 300), 40
_Sizes = tuple[int, ...]  # pseudo-inputs, or exemplars of a step and of all


def table(
    output: str = "runs/vamp",
    data_dir: str = "data",
    datasets: Sequence[Literal["mnist", "fashion_mnist", "freyface"]] = DATASETS,
    priors: Sequence[Literal["normal", "vamp", "exemplar"]] = ("normal", "vamp"),
    epochs: int = 2000,
    num_components: int = 500,
    num_exemplars: int = 25_000,
    num_samples: int = 5000,
    test_rows: int = 10_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and measure the model of each row, and write ``vamp.csv`` to ``output``.

    A run that is stopped goes on where it was: each model is kept under ``output/checkpoints``.

    Args:
        output: The folder to write.
        data_dir: Holds ``mnist/`` and ``fashion_mnist/``, each with the four IDX files, and ``freyface/``.
        datasets: Some of ``mnist``, ``fashion_mnist`` and ``freyface``.
        priors: Some of ``normal``, ``vamp`` and ``exemplar``, which has no published number for faces.
        epochs: Passes over the rows, at most; the KL is warmed up over the first 100.
        num_components: Pseudo-inputs of the VampPrior, exemplars of a step.
        num_exemplars: The first training rows, those of the exemplar prior.
        num_samples: Samples of the measured log p(x).
        test_rows: Test images to measure it on, the first ones, binarised once; of faces all 200.
        seed: Fixes weights, shuffles, the split of the faces and noise.

    Returns:
        A row for each dataset and prior: the published log p(x) in nats with its error, or bits per dimension; ours
        with its standard error over images, the epochs until validation no longer rose, the minutes of training.

    Raises:
        ValueError: For an unknown name, or a number out of range.
    """
    check_names(datasets, DATASETS)
    check_names(priors, PRIORS)
    check_at_least(1, epochs=epochs, num_components=num_components)
    check_at_least(2, num_exemplars=num_exemplars)
    found: list[dict[str, Any]] = []
    for dataset in datasets:
        for prior in priors:
            sizes = {"normal": (), "vamp": (num_components,), "exemplar": (num_components, num_exemplars)}[prior]
            run = run_of(dataset, prior, sizes, data_dir, epochs, test_rows, seed)
            found.append(_row(dataset, prior, run.measure(output, 1, num_samples), seed))
            write_csv(pathlib.Path(output) / "vamp.csv", list(found[0]), [list(one.values()) for one in found])
    return found


def run_of(
    dataset: str,
    prior: str,
    sizes: _Sizes,
    data_dir: str,
    epochs: int = 2000,
    test_rows: int = 10_000,
    seed: int = 0,
) -> Run:
    """The training of a row of the table; ``sizes`` are those of its prior, none for N(0, I)."""
    name = "-".join(map(str, (dataset, prior, *sizes)))
    of = _faces if dataset == "freyface" else _digits
    return of(name, dataset, data_dir, sizes, epochs, test_rows, seed)


def _digits(name: str, dataset: str, data_dir: str, sizes: _Sizes, epochs: int, test_rows: int, seed: int) -> Run:
    """Binarised: training images at each presentation, the others once."""
    images, test = read.mnist(str(pathlib.Path(data_dir) / dataset))
    train, validation = images[:_TRAIN_ROWS], read.binary(images[_TRAIN_ROWS:], seed + 1)
    binary = read.binary(read.first_rows(test, test_rows), seed)
    model = _gated(sizes, train, bernoulli, observations.Binarized())
    bias = logits_of_mean(train)
    return Run(name, model, _plan(epochs), train, binary, bias, seed=seed, validation=validation)


def _faces(name: str, dataset: str, data_dir: str, sizes: _Sizes, epochs: int, _: int, seed: int) -> Run:
    levels = read.faces(str(pathlib.Path(data_dir) / dataset / "frey_faces.npy"), divisor=255)
    held_out = min(_HELD_OUT_FACES, len(levels) // 3)
    levels = levels[np.random.default_rng(seed).permutation(len(levels))]
    train, validation, test = np.split(levels, [len(levels) - 2 * held_out, len(levels) - held_out])
    bias = np.concatenate([logits_of_mean(train), np.zeros(_PIXELS_OF_A_FACE)])
    model = _gated(sizes, train, _pixels)
    return Run(name, model, _plan(epochs), train, test, bias, seed=seed, validation=validation)


def _pixels(kernel_initializer: Any, bias_initializer: Any) -> DistributionLayer:
    return DistributionLayer(
        "DiscretizedLogistic",
        [_PIXELS_OF_A_FACE],
        constraints={"loc": "sigmoid", "scale": (math.exp(-4.5), 1.0)},
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        name="likelihood",
    )


def _plan(epochs: int) -> Plan:
    return _Plan((epochs,), (_RATE,), _BATCH_SIZE, _PATIENCE, _WARM_UP_EPOCHS)


@dataclasses.dataclass(frozen=True)
class _Plan(Plan):
    """By Adam of normalised gradients."""

    def optimizer(self, num_rows: int, epsilon: float) -> keras.optimizers.Optimizer:
        return optimizers.NormalizedAdam(self.rates[0], epsilon=epsilon)


@dataclasses.dataclass(frozen=True)
class _Gated(Model):
    """Gated layers; a VampPrior where there is a size, an exemplar prior of the training rows where there are two."""

    sizes: _Sizes = ()
    train: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0), compare=False, repr=False)

    def build(self, pixel_bias: np.ndarray, seed: int) -> VAE:
        keras.utils.set_random_seed(seed)
        ends = {"scale": (math.exp(-3.0), math.e)}
        encoder, decoder = (networks.gated_mlp(self.hidden, name=name) for name in ("encoder", "decoder"))
        posterior = DistributionLayer("Normal", [self.latent_dim], constraints=ends, name="posterior")
        likelihood = self.likelihood("glorot_uniform", keras.initializers.Constant(pixel_bias))
        prior: priors_of.Prior | None = None
        if len(self.sizes) == 1:
            prior = priors_of.VampPrior(self.latent_dim, likelihood.event_shape, *self.sizes)
        elif self.sizes:
            num_drawn, num_exemplars = self.sizes
            prior = priors_of.ExemplarPrior(self.latent_dim, self.train[:num_exemplars], num_drawn)
        parts = encoder, decoder, posterior, likelihood, prior
        return VAE(*parts, objective=self.method, noise=self.noise, seed=seed)  # type: ignore[arg-type]


def _gated(sizes: _Sizes, train: np.ndarray, likelihood: Any, noise: observations.Noise | None = None) -> Model:
    steps = -(-len(train) // _BATCH_SIZE)
    method = objectives.Weighted(keras.optimizers.schedules.PolynomialDecay(0.0, _WARM_UP_EPOCHS * steps, 1.0))
    return _Gated(method, 1, _HIDDEN, _LATENT_DIM, "gated", likelihood, noise, sizes, train)


def _row(dataset: str, prior: str, measured: dict[str, Any], seed: int) -> dict[str, Any]:
    published, spread = PUBLISHED.get((dataset, prior), (None, None))
    ours, error, unit = measured["log_marginal"], measured["standard_error"], "nats"
    if dataset == "freyface":
        (ours, error), unit = bits(measured, [_PIXELS_OF_A_FACE]), "bits per dimension"
    return {
        "dataset": dataset,
        "prior": prior,
        "epochs": measured["epochs"],
        "unit": unit,
        "published": published,
        "published_error": spread,
        "ours": ours,
        "standard_error": error,
        "difference": None if published is None else ours - published,
        "active": measured["active"],
        "seed": seed,
        "minutes": measured["minutes"],
    }
