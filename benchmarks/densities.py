"""What a density costs: ``fit`` with densities of 784 pixels and with a VampPrior, beside ``fit`` with a Bernoulli.

    python -m benchmarks.densities [--rounds 5] [--batch-size 100]

A density with two numbers a pixel has a projection of twice the size, and a VampPrior encodes 500 rows more in each
step: the rate that their products alone allow is said beside theirs.
"""

import argparse
from collections.abc import Callable

from benchmarks import models, report
from benchmarks.sizes import HIDDEN, LATENT, PIXELS
from benchmarks.training import ROWS, fitted, images, timed
from tfvae import DistributionLayer, likelihoods, priors

DENSITIES: dict[str, Callable[[], DistributionLayer]] = {
    "Bernoulli": lambda: likelihoods.bernoulli([PIXELS]),
    "discretised logistic": lambda: likelihoods.discretized_logistic([PIXELS]),
    "discretised logistic, scale from z": lambda: DistributionLayer("DiscretizedLogistic", [PIXELS]),
    "normal, scale from z": lambda: likelihoods.normal([PIXELS]),
}
PSEUDO_INPUTS = 500
VAMP = f"Bernoulli, VampPrior of {PSEUDO_INPUTS}"


def _products(layer: DistributionLayer, others: float = 0.0) -> float:
    """Multiplications of a row: one product forward, one for the weights, one for the inputs unless those are data.

    ``others`` pseudo-inputs are encoded with each row, and are learned.
    """
    first, second = PIXELS * HIDDEN, HIDDEN * 2 * LATENT
    decoder = LATENT * HIDDEN + HIDDEN * len(layer.free) * PIXELS
    return 2.0 * first + 3.0 * (second + decoder) + others * 3.0 * (first + second)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="calls of fit of each side after the first (default 5)")
    parser.add_argument("--batch-size", type=int, default=100)
    options = parser.parse_args(arguments)
    x = images()
    vaes = {name: models.vae("mlp", likelihood=make()) for name, make in DENSITIES.items()}
    vaes[VAMP] = models.vae("mlp", prior=priors.VampPrior(LATENT, [PIXELS], PSEUDO_INPUTS))
    sides = {name: timed(fitted(vae, x, options.batch_size), []) for name, vae in vaes.items()}
    for run in sides.values():
        run()  # traces and compiles
    rates = report.interleave(sides, options.rounds)
    first = _products(DENSITIES["Bernoulli"]())
    table = [
        [
            name,
            report.spread(rates[name]),
            f"{report.ratio(rates, name, 'Bernoulli'):.2f}",
            f"{first / _products(vae.likelihood, PSEUDO_INPUTS / options.batch_size if name == VAMP else 0.0):.2f}",
        ]
        for name, vae in vaes.items()
    ]
    header = ["densities", "`fit`, examples/s", "of a Bernoulli's rate", "which its products alone would allow"]
    title = f"Densities of {PIXELS} pixels, {PIXELS}-{HIDDEN}-{LATENT}, batch {options.batch_size}, {ROWS:,} rows"
    report.keep("densities", title, header, table, {"examples_per_second": rates})


if __name__ == "__main__":
    main()
