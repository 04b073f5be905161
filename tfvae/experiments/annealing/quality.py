"""How far importance sampling is from log p(x), by annealed importance sampling (Wu et al., arXiv 1611.04273, 4.1).

    tfvae reproduce annealing --epochs 20 --temperatures 1000

A VAE of binarised MNIST with a decoder 50-1024-1024-1024-784, tanh, is measured on the same test images by annealed
importance sampling, which needs no q(z|x), and by importance sampling from q(z|x). Of images that the model makes
itself, walks from both ends hold log p(x) between them, which says how far off the first number can be. The paper
does not say how long its models were trained, so that the gap of the two estimates is what can be held against ours.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from tfvae import evaluation, observations
from tfvae.arguments import check_at_least
from tfvae.evaluation.estimate import MarginalEstimate, Mean
from tfvae.experiments import checkpoints, datasets
from tfvae.experiments.paper_figure import write_csv
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, logits_of_mean
from tfvae.models.vae import VAE

PUBLISHED = {"annealed importance sampling": -85.68, "importance sampling": -86.90}
_HIDDEN, _LATENT_DIM = (1024, 1024, 1024), 50
_RATE, _BATCH_SIZE, _CHAINS = 1e-3, 100, 16
_ROWS = 100  # walk at once


def quality(
    output: str = "runs/annealing",
    data_dir: str = "data",
    epochs: int = 20,
    test_rows: int = 100,
    temperatures: int = 1000,
    num_samples: int = 5000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train the model, measure it in both ways, and write ``annealing.csv`` to ``output``.

    A run that is stopped goes on where it was: the model is kept under ``output/checkpoints``, and each number too.

    Args:
        output: The folder to write.
        data_dir: Holds ``mnist/`` with the four IDX files.
        epochs: Passes over the training images.
        test_rows: How many test images to measure, the first ones.
        temperatures: Steps from p(z) to p(z|x); the bounds approach each other as they grow.
        num_samples: Samples of q(z|x) for each image.
        seed: Fixes weights, shuffles, noise and walks.

    Returns:
        A row for each way to measure: the published log p(x) in nats, ours with its standard error over images. For
        annealed importance sampling also how far it is ahead of the other, by pairs of the same image, and the gap
        between the two bounds on images that the model made, each with its standard error.

    Raises:
        ValueError: For numbers out of range.
    """
    check_at_least(1, epochs=epochs)
    train, test = datasets.mnist(str(pathlib.Path(data_dir) / "mnist"))
    if not 2 <= test_rows <= len(test):
        raise ValueError(f"test_rows must lie between 2 and {len(test):,}, received {test_rows:,}.")
    model = Model("VAE", 1, _HIDDEN, _LATENT_DIM, "tanh", bernoulli, observations.Binarized())
    plan = Plan((epochs,), (_RATE,), _BATCH_SIZE)
    run = Run("annealing", model, plan, train, test[:test_rows], logits_of_mean(train), seed=seed)
    vae, point = run.finish(output, 1)
    folder, of = checkpoints.place(output, run.name, seed), f"{point.samples}-{test_rows}"
    walks = f"{of}-{temperatures}.json"
    sampled = checkpoints.remembered(
        folder / f"sampled-{of}-{num_samples}.json", lambda: _sampled(vae, run, num_samples)
    )
    annealed = checkpoints.remembered(folder / f"annealed-{walks}", lambda: _annealed(vae, run, temperatures))
    sandwich = checkpoints.remembered(folder / f"sandwich-{walks}", lambda: _sandwich(vae, run, temperatures))
    ahead = Mean.of(np.subtract(annealed["each"], sampled["each"]))
    more = {"ahead": ahead.mean, "ahead_error": ahead.standard_error, **sandwich}
    rows = [
        _row("annealed importance sampling", annealed, more, epochs, seed),
        _row("importance sampling", sampled, {}, epochs, seed),
    ]
    write_csv(pathlib.Path(output) / "annealing.csv", list(rows[0]), [list(row.values()) for row in rows])
    return rows


def _sampled(vae: VAE, run: Run, num_samples: int) -> dict[str, Any]:
    with _progress(run, "importance sampling") as progress:
        found = evaluation.log_marginal(vae, run.test, num_samples, seed=run.seed, progress=progress)
    return _numbers(found) | {"standard_error": found.trusted_standard_error}


def _annealed(vae: VAE, run: Run, temperatures: int) -> dict[str, Any]:
    """The seed is that of the other estimate: both score the same draws of the test images."""
    with _progress(run, "annealing") as progress:
        found = evaluation.annealed_log_marginal(
            vae, run.test, temperatures, _CHAINS, batch_size=_ROWS, seed=run.seed, progress=progress
        )
    return _numbers(found) | {"acceptance_rate": float(np.mean(np.asarray(found.acceptance_rate)))}


def _sandwich(vae: VAE, run: Run, temperatures: int) -> dict[str, Any]:
    both = evaluation.bidirectional(vae, len(run.test), temperatures, _CHAINS, batch_size=_ROWS, seed=run.seed)
    gap = Mean.of(both.upper.log_marginal - both.lower.log_marginal)
    return {"gap": gap.mean, "gap_error": gap.standard_error}


@contextlib.contextmanager
def _progress(run: Run, desc: str) -> Iterator[Callable[[int], None]]:
    with tqdm(total=len(run.test), desc=desc, unit="row") as bar:
        yield lambda done: bar.update(done - bar.n)


def _numbers(found: MarginalEstimate) -> dict[str, Any]:
    return {"each": found.log_marginal.tolist(), "mean": found.mean, "standard_error": found.mean_standard_error}


def _row(name: str, measured: dict[str, Any], more: dict[str, float], epochs: int, seed: int) -> dict[str, Any]:
    return {
        "estimate": name,
        "epochs": epochs,
        "published": PUBLISHED[name],
        "log_marginal": measured["mean"],
        "standard_error": measured["standard_error"],
        **{column: more.get(column) for column in ("ahead", "ahead_error", "gap", "gap_error")},
        "seed": seed,
    }
