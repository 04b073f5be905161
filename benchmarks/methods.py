"""Examples a second of the paper's methods beside ``fit`` of a plain VAE, all through the one engine.

    python -m benchmarks.methods [--rounds 5]

AEVB and wake-sleep are what ``tfvae reproduce aevb-figure2`` trains: the authors' Adagrad, p(θ) on the weights.
Wake-sleep runs the encoder and the decoder twice, once awake and once asleep.
"""

import argparse

from benchmarks import models, report, training
from benchmarks.sizes import HIDDEN, LATENT, PIXELS
from tfvae import likelihoods
from tfvae.experiments.aevb import figure2, settings


def method_side(x, method: str, losses: list[float]):
    data = settings.Data(
        x,
        x[:1],
        hidden=HIDDEN,
        latent_dims=(LATENT,),
        learning_rate=0.01,
        likelihood=lambda init: likelihoods.bernoulli([PIXELS], init),
        image_shape=(28, 28),
    )
    model = settings.build(data, LATENT, method)
    return training.timed(training.fitted(model, x, settings.BATCH_SIZE), losses)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="calls of fit of each side after the first (default 5)")
    options = parser.parse_args(arguments)
    x = training.images()
    losses: dict[str, list[float]] = {name: [] for name in ("fit", *figure2.METHODS)}
    sides = {"fit": training.timed(training.fitted(models.vae("mlp"), x, settings.BATCH_SIZE), losses["fit"])}
    sides |= {method: method_side(x, method, losses[method]) for method in figure2.METHODS}
    for run in sides.values():
        run()  # traces and compiles
    rates = report.interleave(sides, options.rounds)
    rows = [
        [name, report.spread(rates[name]), f"{report.ratio(rates, name, 'fit'):.2f}", f"{losses[name][-1]:.2f}"]
        for name in sides
    ]
    title = f"The paper's methods, 784-{HIDDEN}-{LATENT}, batch {settings.BATCH_SIZE}, float32"
    header = ["method", "examples/s", "ratio to fit", "last loss (nats)"]
    report.keep("methods", title, header, rows, {"examples_per_second": rates, "losses": losses})


if __name__ == "__main__":
    main()
