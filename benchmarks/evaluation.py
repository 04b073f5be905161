"""Rows a second of ``evaluate`` and ``embed`` beside a bare compiled function, called over slices of the same tensor.

    python -m benchmarks.evaluation [--rounds 5] [--batch-sizes 100 512 2048]

A bare loop is what one would write by hand: the same arithmetic as one XLA program for a batch, and Python around it.
It checks no row, reports no metric by name and compiles anew for a short last batch.
"""

import argparse
from collections.abc import Callable

import numpy as np
import tensorflow as tf

import tfvae
from benchmarks import models, report, training
from benchmarks.peers.turns import Work
from benchmarks.sizes import HIDDEN, LATENT
from tfvae import objectives
from tfvae.engine import xla
from tfvae.families import draws

PASSES = 2  # over the rows in one turn, which takes about a second


def evaluate(vae: tfvae.VAE, x: tf.Tensor, batch_size: int) -> list[float]:
    """Negative ELBO and KL, the means over the rows, nats."""
    found = vae.evaluate(x, batch_size=batch_size, verbose=0, return_dict=True)
    return [found["loss"], found["kl"]]


def bare_evaluate(vae: tfvae.VAE) -> Callable[[tf.Tensor, int], list[float]]:
    """``evaluate`` by hand."""

    @xla.compiled
    def sums(x: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        terms = vae.terms(x, 1, seed)
        return -tf.reduce_sum(objectives.elbo(terms).bound), tf.reduce_sum(terms.kl)

    def run(x: tf.Tensor, batch_size: int) -> list[float]:
        loss, kl = tf.constant(0.0), tf.constant(0.0)
        for start in range(0, x.shape[0], batch_size):
            found = sums(x[start : start + batch_size], tf.constant([0, start]))
            loss, kl = loss + found[0], kl + found[1]
        return [float(loss) / x.shape[0], float(kl) / x.shape[0]]

    return run


def bare_embed(vae: tfvae.VAE) -> Callable[[tf.Tensor, int], np.ndarray]:
    """``embed`` by hand."""
    mean = xla.compiled(lambda x: draws.mean(vae.encode(x)))

    def run(x: tf.Tensor, batch_size: int) -> np.ndarray:
        parts = [mean(x[start : start + batch_size]).numpy() for start in range(0, x.shape[0], batch_size)]
        return np.concatenate(parts)

    return run


def comparisons(vae: tfvae.VAE, x: tf.Tensor, batch_size: int) -> dict[str, tuple[Work, Work]]:
    """Of each method: ours and the bare loop, as turns that answer with rows and with what they found."""

    def turn(work: Callable[[tf.Tensor, int], np.ndarray | list[float]]) -> Work:
        def run() -> tuple[int, list[float]]:
            found = [work(x, batch_size) for _ in range(PASSES)][-1]
            return PASSES * x.shape[0], [float(np.mean(found[0]))]

        return run

    return {
        "evaluate": (turn(lambda x, size: evaluate(vae, x, size)), turn(bare_evaluate(vae))),
        "embed": (turn(vae.embed), turn(bare_embed(vae))),
    }


def measure(ours: Work, bare: Work, rounds: int) -> dict:
    """Rates of both sides in interleaved rounds, and their last answers."""
    answers: dict[str, list[float]] = {"ours": [], "bare": []}
    sides = {"ours": training.timed(ours, answers["ours"]), "bare": training.timed(bare, answers["bare"])}
    for run in sides.values():
        run()  # traces and compiles
    rates = report.interleave(sides, rounds)
    return {"rows_per_second": rates, "ratio": report.ratio(rates, "ours", "bare"), "answers": answers}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side after the first (default 5)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 512, 2048])
    options = parser.parse_args(arguments)
    x = tf.constant(training.images())
    vae = models.vae("mlp")
    vae.fit(x, epochs=1, verbose=0)
    details: dict[str, dict[str, dict]] = {}
    rows = []
    for batch_size in options.batch_sizes:
        for name, (ours, bare) in comparisons(vae, x, batch_size).items():
            found = measure(ours, bare, options.rounds)
            details.setdefault(name, {})[str(batch_size)] = found
            rates, answers = found["rows_per_second"], found["answers"]
            equal = " / ".join(f"{answers[side][-1]:.2f}" for side in ("ours", "bare"))
            row = [f"`{name}`", str(batch_size), report.spread(rates["ours"]), report.spread(rates["bare"])]
            rows.append([*row, f"{found['ratio']:.2f}", equal if name == "evaluate" else ""])
    header = ["method", "batch", "rows/s", "bare loop, rows/s", "ratio", "negative ELBO (nats)"]
    title = f"Evaluation of 784-{HIDDEN}-{LATENT}, Bernoulli, float32, {training.ROWS:,} rows in memory"
    report.keep("evaluation", title, header, rows, details)


if __name__ == "__main__":
    main()
