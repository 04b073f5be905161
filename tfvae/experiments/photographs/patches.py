"""Patches of two photographs under discretised logistics: bits per dimension, and pictures of draws.

    tfvae reproduce patches --likelihoods logistic mixture --epochs 30

The photographs are scikit-learn's, a temple and a flower of 427 x 640. Two bands of each, 64 columns wide, are held
out; the patches that train lie between them, one every four pixels. Uniform noise has 8 bits per dimension, levels that
are drawn independently those of their histogram. No paper has this table: it shows RGB pictures end to end.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import keras
import numpy as np

from tfvae import evaluation, networks, objectives, posteriors, priors
from tfvae.arguments import check_at_least
from tfvae.distribution_layer import DistributionLayer
from tfvae.experiments import checkpoints
from tfvae.experiments.paper_figure import check_names, write_csv
from tfvae.experiments.stages import Model, Plan, Run, bits
from tfvae.models.vae import VAE
from tfvae.pipelines import extras
from tfvae.plots.pictures import as_images, grid, save_picture

LIKELIHOODS: Final = ("logistic", "mixture")
_STRIDE, _HELD_OUT = 4, ((128, 192), (448, 512))  # columns
_FILTERS, _LATENT_DIM, _BATCH_SIZE, _RATE = (32, 64, 128), 64, 100, 1e-3
_FLOW_EPOCHS, _COLUMNS = 60, 12


def _logistic(event_shape: Sequence[int]) -> DistributionLayer:
    """Scales that no feature moves; they start at 13 levels, for from the 180 of softplus Adam takes 3,000 steps."""
    held: dict[str, Any] = {"loc": "sigmoid", "scale": [0.0005, 0.1]}
    return DistributionLayer("DiscretizedLogistic", event_shape, constraints=held, shared=["scale"], name="likelihood")


def _mixture(event_shape: Sequence[int]) -> DistributionLayer:
    """Five components, which start at grey, with scales of 13 levels and each channel near the one before."""
    start = {"logits": 0.0, "loc": 0.5, "scale": math.log(math.expm1(0.05)), "coefficients": 1.0}
    bias = np.repeat(list(start.values()), [5, 15, 15, 15])
    settings: dict[str, Any] = {"num_components": 5, "bias_initializer": keras.initializers.Constant(bias)}
    return DistributionLayer("DiscretizedLogisticMixture", event_shape, name="likelihood", **settings)


_DENSITIES: dict[str, Callable[[Sequence[int]], DistributionLayer]] = {"logistic": _logistic, "mixture": _mixture}


def patches(
    output: str = "runs/patches",
    likelihoods: Sequence[Literal["logistic", "mixture"]] = LIKELIHOODS,
    size: int = 32,
    epochs: int = 30,
    num_samples: int = 500,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and measure a convolutional model of each likelihood, and write ``patches.csv`` and pictures to ``output``.

    A flow is fitted to the codes of the trained model, and is the prior of what is measured and drawn. A run that is
    stopped goes on where it was: each model is kept under ``output/checkpoints``.

    Args:
        output: The folder to write.
        likelihoods: Some of ``logistic`` and ``mixture``, of five discretised logistics.
        size: Height and width of a patch, a multiple of 8 up to 64.
        epochs: Passes over the patches.
        num_samples: Samples of the measured log p(x).
        seed: Fixes weights, shuffles and noise.

    Returns:
        A row for each likelihood: bits per dimension of the held-out patches with N(0, I) as p(z) and with the flow,
        standard errors over patches, those of uniform noise and of the training patches' histogram, the minutes of
        training.

    Raises:
        ValueError: For an unknown name, or a number out of range.
    """
    check_names(likelihoods, LIKELIHOODS)
    check_at_least(1, epochs=epochs)
    if size not in range(8, 65, 8):
        raise ValueError(f"size is {size}, expected a multiple of 8 from 8 to 64: three layers halve a patch.")
    train, test = _cut(size)
    histogram = _histogram_bits(train, test)
    rows: list[dict[str, Any]] = []
    for likelihood in likelihoods:
        model = _Convolutional(
            objectives.elbo, 1, _FILTERS, _LATENT_DIM, "relu", _DENSITIES[likelihood], shape=train.shape[1:]
        )
        plan = Plan((epochs,), (_RATE,), _BATCH_SIZE)
        run = Run(f"patches-{likelihood}-{size}", model, plan, train, test, np.zeros(0), seed=seed)
        plain = run.measure(output, 1, num_samples)
        learned = _with_flow(run, output, num_samples)
        rows.append(_row(likelihood, train.shape[1:], epochs, plain, learned, histogram, seed))
        write_csv(pathlib.Path(output) / "patches.csv", list(rows[0]), [list(row.values()) for row in rows])
    return rows


@dataclasses.dataclass(frozen=True)
class _Convolutional(Model):
    shape: tuple[int, ...] = ()

    def build(self, pixel_bias: np.ndarray, seed: int) -> VAE:
        keras.utils.set_random_seed(seed)
        return VAE(
            networks.conv_encoder(self.hidden),
            networks.conv_decoder(self.shape, self.hidden[::-1]),
            posteriors.diagonal_normal(self.latent_dim),
            self.likelihood(self.shape),
            objective=self.method,  # type: ignore[arg-type]
            seed=seed,
        )


def _cut(size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 ``[N, size, size, 3]``: overlapping patches that train, and those of the bands, side by side."""
    with extras.needed("sklearn"):
        from sklearn.datasets import load_sample_images

    edges = [0, *(edge for band in _HELD_OUT for edge in band), 640]
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for photograph in load_sample_images().images:
        for number, (left, right) in enumerate(itertools.pairwise(edges)):
            windows = np.lib.stride_tricks.sliding_window_view(photograph[:, left:right], (size, size), axis=(0, 1))
            step = size if number % 2 else _STRIDE
            sides[number % 2].append(windows[::step, ::step].transpose(0, 1, 3, 4, 2).reshape(-1, size, size, 3))
    train, test = (np.concatenate(side) for side in sides)
    return train, test


def _histogram_bits(train: np.ndarray, test: np.ndarray) -> float:
    counts = [np.bincount(train[..., channel].ravel(), minlength=256) + 1.0 for channel in range(3)]
    each = [-np.log2(count / count.sum())[test[..., channel]].mean() for channel, count in enumerate(counts)]
    return float(np.mean(each))


def _with_flow(run: Run, output: str, num_samples: int) -> dict[str, Any]:
    """log p(x) and pictures with a flow as p(z)."""
    place = checkpoints.place(output, run.name, run.seed) / f"flow-{run.plan.epochs[0]}-{num_samples}.json"

    def measure() -> dict[str, Any]:
        vae = checkpoints.load(checkpoints.place(output, run.name, run.seed))
        keras.utils.set_random_seed(run.seed)
        flow = priors.Flow(_LATENT_DIM, hidden=(256, 256))
        learned = vae.with_prior(priors.fit(flow, vae, run.train, epochs=_FLOW_EPOCHS, batch_size=500, seed=run.seed))
        _picture(vae, learned, run, str(pathlib.Path(output) / f"{run.name}.png"))
        found = evaluation.log_marginal(learned, run.test, num_samples, seed=run.seed)
        return {"log_marginal": found.mean, "standard_error": found.trusted_standard_error}

    return checkpoints.remembered(place, measure)


def _picture(vae: VAE, learned: VAE, run: Run, path: str) -> None:
    """Held-out patches, the means that their codes are decoded to, and means for z of either prior, two lines each."""
    count = 2 * _COLUMNS
    test = run.test[np.linspace(0, len(run.test) - 1, count).astype(int)]
    bands = {
        "held out": test,
        "decoded": vae.reconstruct(test),
        "z of N(0, I)": vae.sample(count, seed=run.seed),
        "z of the flow": learned.sample(count, seed=run.seed),
    }
    pictures = np.concatenate([as_images(vae, band) for band in bands.values()])
    lines = [word for name in bands for word in (name, "")]
    save_picture(grid(pictures, _COLUMNS), "Patches of photographs", path, lines)


def _row(
    likelihood: str,
    shape: Sequence[int],
    epochs: int,
    plain: dict[str, Any],
    learned: dict[str, Any],
    histogram: float,
    seed: int,
) -> dict[str, Any]:
    value, error = bits(plain, shape)
    with_flow, flow_error = bits(learned, shape)
    return {
        "likelihood": likelihood,
        "size": shape[0],
        "epochs": epochs,
        "uniform": 8.0,
        "histogram": histogram,
        "bits": value,
        "standard_error": error,
        "bits_with_flow": with_flow,
        "flow_standard_error": flow_error,
        "active": plain["active"],
        "seed": seed,
        "minutes": plain["minutes"],
    }
