"""Whether β-TCVAE's code isolates factors more than β-VAE's (Chen et al., arXiv 1802.04942, section 5.1), on sprites.

    tfvae reproduce sprites --methods beta TC --seeds 0 1 2

4096-1200-1200-10-1200-1200-4096 with ReLU, Adam 1e-3, minibatches of 500. The paper's data are dSprites, all 737,280 of
them; the pictures here are drawn by ``evaluation.sprites``, a part of them trains, and their scores compare with
nothing but each other: what can be held against the paper is that TC's gap is the larger one.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np

from tfvae import evaluation, objectives
from tfvae.arguments import check_at_least
from tfvae.evaluation.sprite_set import NUM_SPRITES
from tfvae.experiments import checkpoints
from tfvae.experiments.paper_figure import check_names, write_csv
from tfvae.experiments.stages import Model, Plan, Run, bernoulli, logits_of_mean

METHODS: Final = ("beta", "TC")
_HIDDEN, _LATENT_DIM, _BATCH_SIZE, _RATE = (1200, 1200), 10, 500, 1e-3
_SCORED = 10_000  # rows on which the gap is measured


def sprites(
    output: str = "runs/sprites",
    methods: Sequence[Literal["beta", "TC"]] = METHODS,
    beta: float = 6.0,
    images: int = 64_000,
    epochs: int = 20,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[dict[str, Any]]:
    """Train a model of each method and seed, measure the mutual information gap, and write ``sprites.csv``.

    A run that is stopped goes on where it was: each model is kept under ``output/checkpoints``.

    Args:
        output: The folder to write.
        methods: Some of ``beta``, the KL times β, and ``TC``, the total correlation times β.
        beta: β of either.
        images: How many of the 737,280 sprites to train on, drawn anew for each seed.
        epochs: Passes over them.
        seeds: One model for each: they fix images, weights, shuffles and noise.

    Returns:
        A row for each method: the mean gap over seeds, its standard error, each seed's gap, the mean ELBO of 10,000
        other images, in nats, and the minutes of training.

    Raises:
        ValueError: For an unknown method, or numbers out of range.
    """
    check_names(methods, METHODS)
    check_at_least(1, images=images, epochs=epochs, seeds=len(seeds))
    if images + _SCORED > NUM_SPRITES:
        raise ValueError(f"images is {images:,}, expected {NUM_SPRITES - _SCORED:,} at most: some are kept.")
    rows: list[dict[str, Any]] = []
    for method in methods:
        found = [_measured(output, method, beta, images, epochs, seed) for seed in seeds]
        rows.append(_row(method, beta, found))
        write_csv(pathlib.Path(output) / "sprites.csv", list(rows[0]), [list(row.values()) for row in rows])
    return rows


def _measured(output: str, method: str, beta: float, images: int, epochs: int, seed: int) -> dict[str, Any]:
    numbers = np.random.default_rng(seed).choice(NUM_SPRITES, images + _SCORED, replace=False)
    train, test = (evaluation.sprites(part).reshape(-1, 4096) for part in np.split(numbers, [images]))
    objective = objectives.Weighted(beta) if method == "beta" else objectives.TotalCorrelation(images, beta)
    likelihood = functools.partial(bernoulli, num_pixels=4096)
    model = Model(objective, 1, _HIDDEN, _LATENT_DIM, "relu", likelihood)
    plan = Plan((epochs,), (_RATE,), _BATCH_SIZE)
    name = f"sprites-{method}-{beta:g}-{images}"
    run = Run(name, model, plan, train, test, logits_of_mean(train), seed=seed)
    place = checkpoints.place(output, name, seed) / f"gap-{images * epochs}.json"

    def measure() -> dict[str, Any]:
        vae, point = run.finish(output, 1)
        factors = evaluation.sprite_factors(numbers[images:])
        gap = evaluation.mutual_information_gap(vae.embed(test), factors)
        return {"gap": gap.value, "elbo": point.test, "minutes": point.seconds / 60}

    return checkpoints.remembered(place, measure)


def _row(method: str, beta: float, found: list[dict[str, Any]]) -> dict[str, Any]:
    gaps = np.array([one["gap"] for one in found])
    return {
        "method": method,
        "beta": beta,
        "gap": float(gaps.mean()),
        "standard_error": float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else None,
        "gaps": " ".join(f"{gap:.3f}" for gap in gaps),
        "elbo": float(np.mean([one["elbo"] for one in found])),
        "minutes": float(sum(one["minutes"] for one in found)),
    }
