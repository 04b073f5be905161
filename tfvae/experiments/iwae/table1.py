"""Table 1 of Importance Weighted Autoencoders (Burda et al., arXiv 1509.00519): MNIST, one stochastic layer.

    tfvae reproduce iwae --rows VAE-1 IWAE-5 --stages 6

784-200-200-50-200-200-784, tanh, minibatches of 20, Adam (β₁ 0.9, β₂ 0.999, ε 1e-4), 3^i epochs with the learning rate
1e-3·10^(-i/7) for i from 0 to 7, 3,280 epochs; an image is binarised anew at each presentation, the test images once.
The authors' gradient is summed over the minibatch where ``fit`` takes its mean, so that their ε is 1e-4/20 here; their
images come in a fixed order, ours are shuffled. Six stages are a ninth of the work: what one day allows.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np

from tfvae import observations
from tfvae.experiments import datasets
from tfvae.experiments.paper_figure import check_names, write_csv
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, logits_of_mean

ROWS: Final = ("VAE-1", "VAE-5", "IWAE-5", "DReG-5")
# Their test log p(x) by 5,000 samples, and active units. DReG's is nbip/iwae's, whose IWAE-5 reads -85.18.
PUBLISHED: dict[str, tuple[float, int | None]] = {
    "VAE-1": (-86.76, 19),
    "VAE-5": (-86.47, 20),
    "IWAE-5": (-85.54, 22),
    "DReG-5": (-84.90, None),
}
PLAN = Plan.falling(3, 1e-3)
_HIDDEN, _LATENT_DIM, _EPSILON = (200, 200), 50, 1e-4


def table1(
    output: str = "runs/iwae",
    data_dir: str = "data",
    rows: Sequence[Literal["VAE-1", "VAE-5", "IWAE-5", "DReG-5"]] = ROWS,
    stages: int = 6,
    num_samples: int = 5000,
    test_rows: int = 10_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train each row's model, measure it and write ``iwae_table1.csv`` to ``output``.

    A run that is stopped goes on where it was, and one of more stages where one of fewer ended: each model is kept
    under ``output/checkpoints``.

    Args:
        output: The folder to write.
        data_dir: Holds ``mnist/`` with the four IDX files.
        rows: Some of VAE-1, VAE-5, IWAE-5 and DReG-5: what is maximised, and K.
        stages: How many of the schedule to train; the paper has 8.
        num_samples: Samples of the measured log p(x).
        test_rows: Test images to measure it on, the first ones.
        seed: Fixes weights, shuffles and noise.

    Returns:
        A row for each model: the published log p(x) in nats, ours with its standard error over images, the active
        units of both, the minutes of training.

    Raises:
        ValueError: For an unknown row, more stages than there are, or no test rows.
    """
    check_names(rows, PUBLISHED)
    train, test = datasets.mnist(str(pathlib.Path(data_dir) / "mnist"))
    test = datasets.first_rows(test, test_rows)
    found: list[dict[str, Any]] = []
    for row in rows:
        measured = run_of(row, train, test, seed).measure(output, stages, num_samples)
        found.append(_row(row, stages, measured, seed))
        write_csv(pathlib.Path(output) / "iwae_table1.csv", list(found[0]), [list(one.values()) for one in found])
    return found


def run_of(row: str, train: np.ndarray, test: np.ndarray, seed: int = 0) -> Run:
    """The training of a row of the table, on greyscale images ``[N, 784]`` in [0, 1]."""
    method, _, k = row.rpartition("-")
    model = Model(method, int(k), _HIDDEN, _LATENT_DIM, "tanh", bernoulli, observations.Binarized())
    epsilon = _EPSILON / PLAN.batch_size
    return Run(f"iwae-{row}", model, PLAN, train, test, logits_of_mean(train), epsilon, seed)


def _row(row: str, stages: int, measured: dict[str, Any], seed: int) -> dict[str, Any]:
    published, active = PUBLISHED[row]
    return {
        "row": row,
        "epochs": sum(PLAN.epochs[:stages]),
        "published": published,
        "log_marginal": measured["log_marginal"],
        "standard_error": measured["standard_error"],
        "difference": measured["log_marginal"] - published,
        "published_active": active,
        "active": measured["active"],
        "seed": seed,
        "minutes": measured["minutes"],
    }
