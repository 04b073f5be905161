"""Scores of planted codes by ``tfvae.evaluation`` and by disentanglement_lib's own code.

    python -m benchmarks.planted [--rows 2000] [--seeds 4]

It needs disentanglement-lib, gin-config and six (``make bench-judges`` installs them). MIG, modularity, IRS and SAP are
functions of the rows, of which both sides get the same. DCI draws the rows that test it, FactorVAE's and β-VAE's score
their groups and pairs: there the means over seeds are compared, with the error of their difference.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import report
from tfvae import evaluation

SIZES = np.array([3, 4, 5, 4])  # values of each factor
_TURN = np.kron(np.eye(2), np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2.0))
_MIXING = np.random.default_rng(1).normal(size=[4, 6])
_VOTES, _TESTED, _GROUP = 2000, 1000, 64
_EXACT = ("MIG", "modularity", "IRS", "SAP")

Scores = dict[str, float]
CODES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "factors": lambda factors, rng: factors[:, ::-1] * [2.0, -0.5, 1.0, 3.0],
    "factors and noise": lambda factors, rng: factors + 0.5 * rng.normal(size=factors.shape),
    "two factors, two units of noise": lambda factors, rng: np.hstack(
        [factors[:, :2], rng.normal(size=[len(factors), 2])]
    ),
    "pairs turned by 45°": lambda factors, rng: (factors - (SIZES - 1) / 2) / np.sqrt((SIZES**2 - 1) / 12) @ _TURN,
    "mixtures and noise": lambda factors, rng: factors @ _MIXING + 0.3 * rng.normal(size=[len(factors), 6]),
    "noise": lambda factors, rng: rng.normal(size=[len(factors), 5]),
}


class World:
    """Factors of a uniform grid, which are their own observations: what disentanglement_lib calls a data set."""

    num_factors = len(SIZES)

    def sample_factors(self, num: int, random_state: Any) -> np.ndarray:
        return random_state.randint(SIZES, size=[num, len(SIZES)])

    def sample_observations_from_factors(self, factors: np.ndarray, random_state: Any) -> np.ndarray:
        return factors

    def sample_observations(self, num: int, random_state: Any) -> np.ndarray:
        return self.sample_factors(num, random_state)


def ours(name: str, rows: int, seed: int) -> Scores:
    """By our definitions."""
    code, factors = _drawn(name, rows, seed)
    trees = evaluation.disentanglement_completeness(code, factors, categorical=range(len(SIZES)), seed=seed)
    return {
        "MIG": evaluation.mutual_information_gap(code, factors).value,
        "modularity": evaluation.modularity(code, factors).value,
        "IRS": evaluation.interventional_robustness(code, factors).value,
        "SAP": evaluation.separated_predictability(code, factors).value,
        "DCI: disentanglement": trees.disentanglement,
        "DCI: completeness": trees.completeness,
        "DCI: informativeness": trees.informativeness,
        "FactorVAE": evaluation.factor_vae_score(code, factors, _VOTES, _TESTED, seed=seed).mean,
        "β-VAE": evaluation.beta_vae_score(code, factors, _VOTES, _TESTED, seed=seed).mean,
    }


def theirs(name: str, rows: int, seed: int) -> Scores:
    """By disentanglement_lib's functions, below those that only draw data and log."""
    metrics = _metrics()
    code, factors = (part.T for part in _drawn(name, rows, seed))
    bins = metrics["utils"].make_discretizer(code)
    lines = metrics["sap_score"].compute_score_matrix(code, factors, None, None, continuous_factors=True)
    split = 2 * rows // 3
    trees = metrics["dci"]._compute_dci(code[:, :split], factors[:, :split], code[:, split:], factors[:, split:])
    state, noise = np.random.RandomState(seed), np.random.default_rng(seed)
    drawn = World(), lambda observed: CODES[name](observed, noise), state, None, _GROUP, _VOTES, _TESTED
    return {
        "MIG": metrics["mig"]._compute_mig(code, factors)["discrete_mig"],
        "modularity": metrics["modularity_explicitness"].modularity(
            metrics["utils"].discrete_mutual_info(bins, factors)
        ),
        "IRS": metrics["irs"].scalable_disentanglement_score(factors.T, code.T)["avg_score"],
        "SAP": metrics["sap_score"].compute_avg_diff_top_two(lines),
        "DCI: disentanglement": trees["disentanglement"],
        "DCI: completeness": trees["completeness"],
        "DCI: informativeness": trees["informativeness_test"],
        "FactorVAE": metrics["factor_vae"].compute_factor_vae(*drawn, rows)["eval_accuracy"],
        "β-VAE": metrics["beta_vae"].compute_beta_vae_sklearn(*drawn)["eval_accuracy"],
    }


def _drawn(name: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    factors = rng.integers(SIZES, size=[rows, len(SIZES)])
    return CODES[name](factors, rng), factors


def _metrics() -> dict[str, Any]:
    """Its modules, which want gin's part for TensorFlow 1 and its settings for bins."""
    import importlib

    import gin

    sys.modules.setdefault("gin.tf", gin)
    gin.tf = gin
    names = ("utils", "mig", "modularity_explicitness", "irs", "sap_score", "dci", "factor_vae", "beta_vae")
    found = {name: importlib.import_module(f"disentanglement_lib.evaluation.metrics.{name}") for name in names}
    gin.bind_parameter("discretizer.discretizer_fn", found["utils"]._histogram_discretize)
    gin.bind_parameter("discretizer.num_bins", 20)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2000, help="rows of a code (default 2000)")
    parser.add_argument("--seeds", type=int, default=4, help="codes of each kind, 2 or more (default 4)")
    options = parser.parse_args(arguments)
    table, details = [], {}
    for name in CODES:
        sides = [[of(name, options.rows, seed) for seed in range(options.seeds)] for of in (ours, theirs)]
        for score in sides[0][0]:
            mine, other = (np.array([one[score] for one in side]) for side in sides)
            pairs = mine - other
            error = 0.0 if score in _EXACT else float(np.std(pairs, ddof=1) / np.sqrt(len(pairs)))
            difference = float(np.abs(pairs).max()) if score in _EXACT else float(pairs.mean())
            table.append(
                [name, score, f"{mine.mean():.4f}", f"{other.mean():.4f}", f"{difference:.1e}", f"{error:.1e}"]
            )
            details[f"{name}, {score}"] = {"ours": mine.tolist(), "theirs": other.tolist()}
    header = ["code", "score", "ours", "disentanglement_lib's", "difference", "its standard error"]
    title = f"Scores of planted codes, {options.rows:,} rows, means over {options.seeds} seeds"
    report.keep("planted", title, header, table, details, report.versions("scikit-learn", "disentanglement-lib"))


if __name__ == "__main__":
    main()
