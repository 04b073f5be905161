"""``evaluation.log_marginal`` beside pythae's ``get_nll``: the same weights, rows and number of samples.

    python -m benchmarks.log_marginal --environments .venv-peers [--rounds 3] [--rows 100]

Both form log (1/K) Σ p(x|z) p(z) / q(z|x) with z ~ q(z|x), and the mean over the rows. ``get_nll`` returns that mean
itself, not its negative. Its Bernoulli scores grey pixels as ours does, and it drops only the normals' log 2π, which
cancel in p(z) / q(z|x): the answers are the same but for the noise of their samples. What it calls ``batch_size`` is
the number of samples at once, of one row, which it encodes anew for each of them; it must divide the number of samples.
That the two compute the same is shown by the first column of answers, for the same draws on both sides; the second has
each side's own.
"""

import argparse
import contextlib
import math
import pathlib
import statistics
import tempfile
import time

import numpy as np

from benchmarks import models, report
from benchmarks.peers.turns import Side
from benchmarks.sizes import HIDDEN, LATENT
from benchmarks.training import images
from tfvae import DistributionLayer, evaluation

SAMPLES = 5000
GIVEN = 500  # draws that both sides are given
PYTHAE_BATCHES = (100, SAMPLES)  # pythae's own default, and the quickest


def posterior() -> DistributionLayer:
    """A normal whose raw scales are log σ², as pythae's are."""
    return DistributionLayer("Normal", [LATENT], constraints={"scale": "log_variance"})


def state_dict(vae) -> dict[str, np.ndarray]:
    """The weights as those of pythae's model: by its names, and each kernel transposed."""
    layers = {
        "encoder.network.0": vae.encoder.layers[-1],
        "encoder.network.2": vae.posterior.projection,
        "decoder.network.0": vae.decoder.layers[-1],
        "decoder.network.2": vae.likelihood.projection,
    }
    weights = {f"{name}.weight": layer.kernel.numpy().T for name, layer in layers.items()}
    return weights | {f"{name}.bias": layer.bias.numpy() for name, layer in layers.items()}


def answer_for(vae, x: np.ndarray, noise: np.ndarray) -> float:
    """The mean of log (1/K) Σ w at z = mean + stddev noise, the same noise ``[K, D]`` for each row, nats."""
    q = vae.encode(x)
    log_weight = vae.terms_at(x, q, q.mean() + q.stddev() * noise[:, None]).log_weight.numpy()
    return float(np.mean(np.logaddexp.reduce(log_weight.astype(np.float64)) - math.log(len(noise))))


class Ours:
    """A turn of ``log_marginal``, with samples of its own; ``standard_error`` is that of an answer, nats."""

    def __init__(self, vae, x: np.ndarray):
        self._vae, self._x = vae, x
        self.answers: list[float] = []
        self.standard_error = math.nan

    def __call__(self) -> float:
        started = time.perf_counter()
        found = evaluation.log_marginal(self._vae, self._x, SAMPLES, seed=len(self.answers))
        self.answers.append(found.mean)
        self.standard_error = math.sqrt(np.sum(found.standard_error.astype(np.float64) ** 2)) / len(self._x)
        return len(self._x) / (time.perf_counter() - started)


def compare(vae, x: np.ndarray, rounds: int, environments: pathlib.Path) -> dict[str, dict]:
    """Rows a second and log p(x) of each side; the error of an answer is the same on both, and ours says it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        np.save(f"{folder}/rows.npy", x)
        np.savez(f"{folder}/weights.npz", **state_dict(vae))
        noise = np.random.default_rng(0).normal(size=[GIVEN, LATENT]).astype(np.float32)
        np.save(f"{folder}/noise.npy", noise)
        ours = Ours(vae, x)
        sides = {"`log_marginal`": ours}
        program = ["benchmarks.peers.get_nll", folder, str(SAMPLES)]
        python = str(environments / "torch" / "bin" / "python")
        for batch_size in PYTHAE_BATCHES:
            side = Side(python, [*program, str(batch_size)])
            stack.callback(side.close)
            sides[f"pythae's `get_nll`, batch_size={batch_size}"] = side
        for run in sides.values():
            run()  # compiles, and on pythae's side answers for the given noise
        rates = report.interleave(sides, rounds)
        return {
            name: {
                "rows_per_second": rates[name],
                "ours_over_it": report.ratio(rates, "`log_marginal`", name),
                "for_given_draws": answer_for(vae, x, noise) if side is ours else side.losses[0],
                "for_own_draws": (ours.answers if side is ours else side.losses)[1:],
                "standard_error": ours.standard_error / math.sqrt(rounds),
            }
            for name, side in sides.items()
        }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environments", type=pathlib.Path, default=pathlib.Path(".venv-peers"))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side after the first (default 3)")
    parser.add_argument("--rows", type=int, default=100, help="rows whose log p(x) is estimated (default 100)")
    options = parser.parse_args(arguments)
    x = images()
    vae = models.vae("mlp", posterior())
    vae.fit(x, epochs=2, verbose=0)
    details = compare(vae, x[: options.rows], options.rounds, options.environments)
    rows = [
        [
            name,
            rates(side["rows_per_second"]),
            f"{side['ours_over_it']:.2f}" if i else "",
            f"{side['for_given_draws']:.4f}",
            f"{statistics.mean(side['for_own_draws']):.3f} ± {side['standard_error']:.3f}",
        ]
        for i, (name, side) in enumerate(details.items())
    ]
    header = ["side", "rows/s", "ours / it", f"mean log p(x), {GIVEN} given draws (nats)", "own draws (nats)"]
    title = f"log p(x) from {SAMPLES:,} samples a row, 784-{HIDDEN}-{LATENT}, Bernoulli, {options.rows} rows"
    report.keep("log_marginal", title, header, rows, {"samples": SAMPLES, "sides": details})


def rates(values: list[float]) -> str:
    """Median and range; see ``report.spread`` for thousands."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
