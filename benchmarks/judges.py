"""Seconds of the judges: AIS of 100 images, and those that another library has too, beside it in interleaved rounds.

    python -m benchmarks.judges [--rounds 5] [--rows 100] [--temperatures 1000]

Both sides do the same work: where ours gives a standard error by resampling, the other is called as often.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import sklearn.metrics

import tfvae
from benchmarks import models, report, training
from benchmarks.sizes import HIDDEN, LATENT
from tfvae import evaluation

Side = Callable[[], float]


def samples(rows: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=[rows, size]), rng.normal(0.1, 1, [rows, size])


def neighbors(rows: int) -> dict[str, Side]:
    """Density, which counts every ball that holds a row."""
    import prdc

    real, made = samples(rows, 64)
    return {
        "ours": lambda: evaluation.precision_recall(real, made).density.mean,
        "prdc": lambda: float(prdc.compute_prdc(real, made, nearest_k=5)["density"]),
    }


def detection(rows: int) -> dict[str, Side]:
    """AUROC, beside AUPRC and false positives: once, and for 100 samples of the rows."""
    ordinary, odd = (part[:, 0] for part in samples(rows, 1))
    truth = np.repeat([0, 1], rows)

    def reference() -> float:
        rng, found = np.random.default_rng(0), []
        for i in range(101):
            parts = [part if i == 0 else part[rng.integers(rows, size=rows)] for part in (ordinary, odd)]
            scores = np.concatenate(parts)
            found.append(sklearn.metrics.roc_auc_score(truth, scores))
            sklearn.metrics.average_precision_score(truth, scores)
            sklearn.metrics.roc_curve(truth, scores)
        return float(found[0])

    return {"ours": lambda: evaluation.detection(ordinary, odd).auroc, "scikit-learn": reference}


def information(rows: int) -> dict[str, Side]:
    """MIG of ten units and sprites' factors: once, and for 20 samples of the rows."""
    rng = np.random.default_rng(0)
    factors = evaluation.sprite_factors(rng.integers(0, 737_280, rows))
    code = factors @ rng.normal(size=[5, 10]) + rng.normal(size=[rows, 10])

    def gap(code: np.ndarray, factors: np.ndarray) -> float:
        bins = [np.digitize(unit, np.histogram(unit, 20)[1][:-1]) for unit in code.T]
        score = sklearn.metrics.mutual_info_score
        told = np.sort([[score(unit, factor) for factor in factors.T] for unit in bins], axis=0)
        return float(np.mean((told[-1] - told[-2]) / [score(factor, factor) for factor in factors.T]))

    def reference() -> float:
        rng = np.random.default_rng(0)
        chosen = [slice(None), *(rng.integers(rows, size=rows) for _ in range(20))]
        found = [gap(code[one], factors[one]) for one in chosen]
        return found[0]

    return {"ours": lambda: evaluation.mutual_information_gap(code, factors).value, "scikit-learn": reference}


def discrepancy(rows: int) -> dict[str, Side]:
    """MMD² by the cubic kernel with 200 permutations; the reference keeps the whole matrix and sums its blocks."""
    a, b = samples(rows, 64)

    def reference() -> float:
        rng, found = np.random.default_rng(0), []
        matrix = sklearn.metrics.pairwise.polynomial_kernel(np.concatenate([a, b]), degree=3)
        np.fill_diagonal(matrix, 0)
        for i in range(201):
            one, other = np.split(np.arange(2 * rows) if i == 0 else rng.permutation(2 * rows), 2)
            within = sum(matrix[np.ix_(part, part)].sum() for part in (one, other)) / (rows * (rows - 1))
            found.append(within - 2 * matrix[np.ix_(one, other)].mean())
        return float(found[0])

    return {"ours": lambda: evaluation.maximum_mean_discrepancy(a, b, "cubic").mmd_squared, "scikit-learn": reference}


COMPARED = {
    "precision_recall": (neighbors, 3000),
    "detection": (detection, 5000),
    "mutual_information_gap": (information, 10_000),
    "maximum_mean_discrepancy": (discrepancy, 1000),
}


def measure(sides: dict[str, Side], rounds: int) -> dict:
    """Calls a second of both sides in interleaved rounds, and their answers."""
    answers: dict[str, float] = {}

    def turn(name: str) -> float:
        started = time.perf_counter()
        answers[name] = sides[name]()
        return 1 / (time.perf_counter() - started)

    for name in sides:
        turn(name)
    rates = report.interleave({name: lambda name=name: turn(name) for name in sides}, rounds)
    other = next(name for name in sides if name != "ours")
    return {"calls_per_second": rates, "ratio": report.ratio(rates, "ours", other), "answers": answers}


def annealing(vae: tfvae.VAE, rows: int, num_temperatures: int) -> dict:
    """Seconds of one call, its compiling among them."""
    x = training.images()[:rows]
    started, used = time.perf_counter(), time.process_time()
    found = evaluation.annealed_log_marginal(vae, x, num_temperatures)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "log_marginal": found.mean,
        "rows": rows,
        "temperatures": num_temperatures,
    }


def show(details: dict) -> None:
    """The table of what was measured, and its files."""
    table = []
    for name, (_, rows) in COMPARED.items():
        found = details[name]
        seconds = {side: 1 / statistics.median(rates) for side, rates in found["calls_per_second"].items()}
        other = next(side for side in seconds if side != "ours")
        equal = " / ".join(f"{answer:.5f}" for answer in found["answers"].values())
        sides = [f"{seconds['ours']:.2f}", f"{seconds[other]:.2f}", other, f"{found['ratio']:.1f}"]
        table.append([f"`{name}`", f"{rows:,}", *sides, equal])
    ais = details["annealed_log_marginal"]
    what = f"`annealed_log_marginal`, {ais['temperatures']:,} temperatures, 784-{HIDDEN}-{LATENT}"
    seconds = f"{ais['seconds']:.0f} ({ais['cpu_seconds']:.0f} of CPU)"
    table.append([what, f"{ais['rows']}", seconds, "", "", "", f"{ais['log_marginal']:.2f} nats"])
    header = ["judge", "rows", "ours, s", "other, s", "the other", "ratio", "answers"]
    report.keep("judges", "Seconds of the judges", header, table, details, report.versions("scikit-learn", "prdc"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side after the first (default 5)")
    parser.add_argument("--rows", type=int, default=100, help="images of AIS (default 100)")
    parser.add_argument("--temperatures", type=int, default=1000, help="steps of AIS (default 1000)")
    options = parser.parse_args(arguments)
    details = {name: measure(sides(rows), options.rounds) for name, (sides, rows) in COMPARED.items()}
    vae = models.vae("mlp")
    vae.fit(training.images(), epochs=1, verbose=0)
    details["annealed_log_marginal"] = annealing(vae, options.rows, options.temperatures)
    show(details)


if __name__ == "__main__":
    main()
