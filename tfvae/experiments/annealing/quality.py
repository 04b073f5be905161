"""How far importance sampling is from log p(x), by annealed importance sampling (Wu et al., arXiv 1611.04273, 4.1).

    tfvae reproduce annealing --epochs 20 --temperatures 1000

A VAE of binarised MNIST with a decoder 50-1024-1024-1024-784, tanh, is measured on the same test images by annealed
importance sampling, which needs no q(z|x), and by importance sampling from q(z|x). Of images that the model makes
itself, walks from both ends hold log p(x) between them, which says how far off the first number can be. The paper
does not say how long its models were trained, so that the gap of the two estimates is what can be held against ours.
"""

import pathlib
from typing import Any

from tqdm import tqdm

from tfvae import evaluation, observations
from tfvae.arguments import check_at_least
from tfvae.experiments import checkpoints, datasets
from tfvae.experiments.paper_figure import write_csv
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, logits_of_mean
from tfvae.models.vae import VAE

PUBLISHED = {"annealed importance sampling": -85.68, "importance sampling": -86.90}
_HIDDEN, _LATENT_DIM = (1024, 1024, 1024), 50
_RATE, _BATCH_SIZE, _CHAINS = 1e-3, 100, 16


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
        A row for each way to measure: the published log p(x) in nats, ours with its standard error over images; for
        annealed importance sampling also the gap between the two bounds on images that the model made.

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
    place = checkpoints.place(output, run.name, seed) / f"gap-{point.samples}-{temperatures}-{test_rows}.json"
    annealed = checkpoints.remembered(place, lambda: _annealed(vae, run, temperatures))
    sampled = run.measure(output, 1, num_samples)
    rows = [
        _row("annealed importance sampling", annealed, epochs, seed),
        _row("importance sampling", sampled, epochs, seed),
    ]
    write_csv(pathlib.Path(output) / "annealing.csv", list(rows[0]), [list(row.values()) for row in rows])
    return rows


def _annealed(vae: VAE, run: Run, temperatures: int) -> dict[str, Any]:
    """The seed is that of the other estimate: both score the same draws of the test images."""
    count, size = len(run.test), 100
    with tqdm(total=count, desc="annealing", unit="row") as bar:
        found = evaluation.annealed_log_marginal(
            vae,
            run.test,
            temperatures,
            _CHAINS,
            batch_size=size,
            seed=run.seed,
            progress=lambda done: bar.update(done - bar.n),
        )
    both = evaluation.bidirectional(vae, count, temperatures, _CHAINS, batch_size=size, seed=run.seed)
    return {"log_marginal": found.mean, "standard_error": found.mean_standard_error, "gap": both.gap}


def _row(name: str, measured: dict[str, Any], epochs: int, seed: int) -> dict[str, Any]:
    return {
        "estimate": name,
        "epochs": epochs,
        "published": PUBLISHED[name],
        "log_marginal": measured["log_marginal"],
        "standard_error": measured["standard_error"],
        "gap": measured.get("gap"),
        "seed": seed,
    }
