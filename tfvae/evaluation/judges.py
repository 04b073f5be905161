"""The judges that need a model and held-out rows alone, by name: what ``tfvae evaluate --judges`` runs."""

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_whole
from tfvae.engine import batches
from tfvae.evaluation.annealing import annealed_log_marginal, bidirectional
from tfvae.evaluation.calibration import Calibration, predictive_calibration, simulation_based_calibration
from tfvae.evaluation.discrepancy import maximum_mean_discrepancy
from tfvae.evaluation.estimate import Mean, check_progress, made_in_batches, some_rows
from tfvae.evaluation.neighbors import precision_recall
from tfvae.evaluation.surgery import elbo_surgery
from tfvae.models.vae import VAE, check_vae

Findings = dict[str, float | None]

_BATCH = 100
_ANNEALED_ROWS = 100  # four minutes of two cores for 784 pixels
_CALIBRATED_ROWS = 1000
_COMPARED_ROWS = 2000  # of whose pairs each is looked at


def judge(
    vae: VAE, x: Any, names: Sequence[str], seed: int = 0, progress: Callable[[int], None] | None = None
) -> dict[str, Findings]:
    """What judges find, by their names and the names of their numbers; None where a number is not finite.

    - ``annealing``: log p(x) of 100 rows without q(z|x), and how far off it can be, by ``annealed_log_marginal``.
    - ``calibration``: whether q(z|x) is p(z|x), by ``simulation_based_calibration``.
    - ``predictive``: whether each number of x lies where p(x) has it, by ``predictive_calibration``.
    - ``samples``: whether samples are like the rows, by ``maximum_mean_discrepancy`` and ``precision_recall``.
    - ``surgery``: what the KL is made of, by ``elbo_surgery``.

    Args:
        vae: The model.
        x: Rows that it was not trained on, as ``fit`` takes them.
        names: Which judges.
        seed: Fixes them.
        progress: Called after each judge with the number of those that are done.

    Raises:
        ValueError: For an unknown judge, or what a judge says of the model.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> sorted(judge(vae, np.eye(8, dtype="float32"), ["surgery"])["surgery"])[:2]
        ['dimensionwise_kl', 'dimensionwise_kl_standard_error']
    """
    check_vae(vae)
    check_judges(names)
    check_whole(seed=seed)
    check_progress(progress, "judges")
    rows, found = some_rows(vae, x), {}
    for done, name in enumerate(names, 1):
        found[name] = _finite(JUDGES[name](vae, rows, seed))
        if progress:
            progress(done)
    return found


def check_judges(names: Sequence[str]) -> None:
    """Raise ValueError for a name that is no judge's.

    Example:
        >>> check_judges(["sugery"])
        Traceback (most recent call last):
        ValueError: names has 'sugery', which is no judge: did you mean surgery?
    """
    given = [names] if isinstance(names, (str, bytes)) or not isinstance(names, Sequence) else names
    for name in given:
        if not isinstance(name, str) or name not in JUDGES:
            near = difflib.get_close_matches(str(name), JUDGES, n=1, cutoff=0.5)
            asked = f"did you mean {near[0]}?" if near else f"there are {', '.join(JUDGES)}."
            raise ValueError(f"names has {name!r}, which is no judge: {asked}")
    if given is not names:
        raise ValueError(f"names is {names!r}, expected a list of judges, such as [{names!r}].")


def _annealing(vae: VAE, rows: Any, seed: int) -> Findings:
    some = _some(rows, _ANNEALED_ROWS, seed)
    found = annealed_log_marginal(vae, some, seed=seed)
    sandwich = bidirectional(vae, len(found.log_marginal), seed=seed, condition=some.get("condition"))
    return {
        "log_marginal": found.mean,
        "log_marginal_standard_error": found.mean_standard_error,
        "acceptance_rate": None if found.acceptance_rate is None else float(np.mean(found.acceptance_rate)),
        "sandwich_gap": sandwich.gap,
        "rows": len(found.log_marginal),
    }


def _calibration(vae: VAE, rows: Any, seed: int) -> Findings:
    condition = rows.get("condition")
    if condition is not None:
        condition = tf.gather(condition, np.arange(_CALIBRATED_ROWS) % batches.num_rows(rows))
    return _calibrated(simulation_based_calibration(vae, _CALIBRATED_ROWS, seed=seed, condition=condition))


def _predictive(vae: VAE, rows: Any, seed: int) -> Findings:
    some = _some(rows, _CALIBRATED_ROWS, seed)
    num_bins = next(bins for bins in (20, 10, 5, 4, 2) if bins * 5 <= batches.num_rows(some) or bins == 2)
    return _calibrated(predictive_calibration(vae, some, num_bins=num_bins, seed=seed))


def _calibrated(found: Calibration) -> Findings:
    coverage = found.coverage(0.9)
    return {
        "corrected_p_value": found.corrected_p_value,
        "lowest_coverage_of_90_percent": float(coverage.share.min()),
        "mean_coverage_of_90_percent": float(coverage.share.mean()),
        "highest_coverage_of_90_percent": float(coverage.share.max()),
        "rows": len(found.ranks),
    }


def _samples(vae: VAE, rows: Any, seed: int) -> Findings:
    some = vae.drawn(_some(rows, _COMPARED_ROWS, seed), tf.constant([seed, 0]))
    count = batches.num_rows(some)
    made = made_in_batches(vae, count, some.get("condition"), _BATCH, seed)["x"].numpy()
    mmd, near = maximum_mean_discrepancy(some["x"], made, seed=seed), precision_recall(some["x"], made)
    found: Findings = {
        "mmd_squared": mmd.mmd_squared,
        "mmd_squared_standard_error": mmd.standard_error,
        "p_value": mmd.p_value,
    }
    return found | _means(near, "precision", "recall", "density", "coverage") | {"rows": count}


def _surgery(vae: VAE, rows: Any, seed: int) -> Findings:
    found = elbo_surgery(vae, rows, seed=seed)
    parts = ("kl", "mutual_information", "marginal_kl", "total_correlation", "dimensionwise_kl")
    return _means(found, *parts) | {"rows": found.num_rows}


def _means(found: Any, *names: str) -> Findings:
    means: Findings = {}
    for name in names:
        if isinstance(mean := getattr(found, name), Mean):
            means |= {name: mean.mean, f"{name}_standard_error": mean.standard_error}
    return means


def _some(rows: Any, count: int, seed: int) -> dict[str, tf.Tensor]:
    """Rows from all over: those of a file may stand in the order of their classes."""
    chosen = np.random.default_rng(abs(seed)).permutation(batches.num_rows(rows))[:count]
    return tf.nest.map_structure(lambda part: tf.gather(part, np.sort(chosen)), rows)


def _finite(found: Findings) -> Findings:
    return {name: value if value is not None and math.isfinite(value) else None for name, value in found.items()}


JUDGES: dict[str, Callable[[VAE, Any, int], Findings]] = {
    "annealing": _annealing,
    "calibration": _calibration,
    "predictive": _predictive,
    "samples": _samples,
    "surgery": _surgery,
}
