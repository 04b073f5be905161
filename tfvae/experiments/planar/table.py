"""The comparison of Variational Inference with Normalizing Flows (Rezende & Mohamed, arXiv 1505.05770): binary MNIST.

    tfvae reproduce flows --num-flows 0 10 --updates 100000

784-400-40-400-784, maxout of four pieces, minibatches of 100, 500,000 updates by RMSprop (learning rate 1e-5, momentum
0.9). In the first 10,000 updates they weigh log p(x, z) by 0.01 + step / 10,000; here that weighs the KL. Their binary
images, Larochelle's, are drawn once from the greys; ours are another such draw by the seed, which moves log p(x) by a
few tenths of a nat.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfvae import networks, objectives, posteriors
from tfvae.arguments import check_at_least
from tfvae.experiments import datasets
from tfvae.experiments.paper_figure import write_csv
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, logits_of_mean
from tfvae.models.vae import VAE

# Their bound on log p(x) of the test images in nats, by the number of planar flows.
PUBLISHED: dict[int, float] = {0: -89.9, 10: -87.5, 20: -86.5, 40: -85.7, 80: -85.1}
_WARM_UP = keras.optimizers.schedules.PolynomialDecay(0.01, 9900, 1.0)
_HIDDEN, _PIECES, _LATENT_DIM, _BATCH_SIZE = 400, 4, 40, 100


def table(
    output: str = "runs/flows",
    data_dir: str = "data",
    num_flows: Sequence[int] = (0, 10, 80),
    updates: int = 500_000,
    learning_rate: float = 1e-5,
    num_samples: int = 200,
    test_rows: int = 10_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and measure a model for each number of flows, and write ``flows.csv`` to ``output``.

    A run that is stopped goes on where it was: each model is kept under ``output/checkpoints``.

    Args:
        output: The folder to write.
        data_dir: Holds ``mnist/`` with the four IDX files.
        num_flows: Planar flows of q(z|x); 0 is the diagonal normal.
        updates: Steps of the optimiser, rounded up to whole epochs; the paper has 500,000.
        learning_rate: RMSprop's.
        num_samples: Samples of the measured log p(x).
        test_rows: Test images to measure it on, the first ones.
        seed: Fixes the binary images, weights, shuffles and noise.

    Returns:
        A row for each number of flows: the published number, where there is one, our log p(x) with its standard error
        over images, the minutes of training.

    Raises:
        ValueError: For a number out of range.
    """
    check_at_least(1, updates=updates)
    for count in num_flows:
        check_at_least(0, num_flows=count)
    train, test = (
        datasets.binary(greys, seed + i)
        for i, greys in enumerate(datasets.mnist(str(pathlib.Path(data_dir) / "mnist")))
    )
    test = datasets.first_rows(test, test_rows)
    found: list[dict[str, Any]] = []
    for count in num_flows:
        run = run_of(count, train, test, updates, learning_rate, seed)
        found.append(_row(count, run.measure(output, 1, num_samples), run.plan, seed))
        write_csv(pathlib.Path(output) / "flows.csv", list(found[0]), [list(one.values()) for one in found])
    return found


def run_of(
    count: int, train: np.ndarray, test: np.ndarray, updates: int = 500_000, learning_rate: float = 1e-5, seed: int = 0
) -> Run:
    """The training of a row of the table, on binary images ``[N, 784]``."""
    plan = _Plan((-(-updates * _BATCH_SIZE // len(train)),), (learning_rate,), _BATCH_SIZE)
    model = _Maxout(objectives.Weighted(_WARM_UP), 1, (_HIDDEN,), _LATENT_DIM, "maxout", bernoulli, num_flows=count)
    name = f"flows-{count}-rate{learning_rate:g}"
    return Run(name, model, plan, train, test, logits_of_mean(train), seed=seed)


@dataclasses.dataclass(frozen=True)
class _Plan(Plan):
    """By RMSprop."""

    def optimizer(self, num_rows: int, epsilon: float) -> keras.optimizers.Optimizer:
        return keras.optimizers.RMSprop(self.rates[0], momentum=0.9)


@dataclasses.dataclass(frozen=True)
class _Maxout(Model):
    """Maxout networks, and planar flows after the normal where there are any."""

    num_flows: int = 0

    def build(self, pixel_bias: np.ndarray, seed: int) -> VAE:
        keras.utils.set_random_seed(seed)
        return VAE(
            networks.maxout_mlp(self.hidden, _PIECES, name="encoder"),
            networks.maxout_mlp(self.hidden, _PIECES, name="decoder"),
            posteriors.planar(self.latent_dim, self.num_flows)
            if self.num_flows
            else posteriors.diagonal_normal(self.latent_dim),
            self.likelihood("glorot_uniform", keras.initializers.Constant(pixel_bias)),
            objective=self.method,  # type: ignore[arg-type]
            seed=seed,
        )


def _row(count: int, measured: dict[str, Any], plan: Plan, seed: int) -> dict[str, Any]:
    published = PUBLISHED.get(count)
    return {
        "num_flows": count,
        "epochs": plan.epochs[0],
        "published": published,
        "log_marginal": measured["log_marginal"],
        "standard_error": measured["standard_error"],
        "difference": None if published is None else measured["log_marginal"] - published,
        "active": measured["active"],
        "seed": seed,
        "minutes": measured["minutes"],
    }
