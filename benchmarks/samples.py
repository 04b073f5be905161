"""How near ``fit`` with K samples a row comes to the machine: its rate beside that of its matrix products.

    python -m benchmarks.samples [--rounds 5] [--samples 5 50]

The encoder's products are those of a batch, the decoder's those of K batches; their rate is the most that any program
of these products reaches.
"""

import argparse

from benchmarks import models, report
from benchmarks.peers.keras import products
from benchmarks.sizes import HIDDEN, LATENT
from benchmarks.training import ROWS, fitted, images, timed
from tfvae import objectives

BATCH_SIZE = 100
OBJECTIVES = {"IWAE": objectives.importance_weighted, "DReG": objectives.doubly_reparameterized}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side after the first (default 5)")
    parser.add_argument("--samples", type=int, nargs="+", default=[5, 50])
    options = parser.parse_args(arguments)
    table, details = [], {}
    for num_samples in options.samples:
        x = images()[: ROWS // num_samples]
        sides = {"the matrix products": timed(products(x, BATCH_SIZE, num_samples=num_samples), [])}
        for name, objective in OBJECTIVES.items():
            model = models.vae("mlp", objective=objective, num_samples=num_samples)
            sides[f"`fit`, {name}"] = timed(fitted(model, x, BATCH_SIZE), [])
        for run in sides.values():
            run()  # traces and compiles
        rates = report.interleave(sides, options.rounds)
        for name in sides:
            ratio = report.ratio(rates, name, "the matrix products")
            table.append([str(num_samples), name, report.spread(rates[name]), f"{ratio:.2f}"])
        details[str(num_samples)] = {"examples_per_second": rates}
    header = ["samples", "side", "examples/s", "of the matrix products' rate"]
    title = f"Importance-weighted training, 784-{HIDDEN}-{LATENT}, batch {BATCH_SIZE}, Bernoulli, Adam, float32"
    report.keep("samples", title, header, table, {"samples": details})


if __name__ == "__main__":
    main()
