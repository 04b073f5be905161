"""What a decoder's way of doubling a picture does: checkerboards, the bound, and the time of a step.

    python -m benchmarks.decoders [--rows 6000] [--epochs 6] [--seeds 3]

The data are 32x32 RGB patches of scikit-learn's two photographs, the left halves to learn from and the right ones to
judge. A checkerboard is energy at the highest frequency that pixels can hold in both directions: the table has
that of the
reconstructions as a multiple of that of the patches themselves. Medians over seeds.
"""

import argparse
import time
from collections.abc import Callable

import keras
import numpy as np
from sklearn.datasets import load_sample_images

import tfvae
from benchmarks import report
from benchmarks.sizes import FILTERS

SIDE, LATENT = 32, 32
Doubling = Callable[[int], list[keras.layers.Layer]]


def patches(count: int, right: bool) -> np.ndarray:
    """``[N, 32, 32, 3]`` bytes: windows of 64x64, every 2x2 pixels averaged."""
    pictures, rng, cut = load_sample_images().images, np.random.default_rng(int(right)), 2 * SIDE
    found = []
    for i in range(count):
        picture = pictures[i % 2]
        half = picture.shape[1] // 2
        top, left = rng.integers(picture.shape[0] - cut), rng.integers(half - cut) + half * right
        window = picture[top : top + cut, left : left + cut].reshape(SIDE, 2, SIDE, 2, 3)
        found.append(np.round(window.mean((1, 3))))
    return np.array(found, np.uint8)


def checkerboard(pictures: np.ndarray) -> float:
    """Mean energy of the grey pictures where every second pixel changes, in both directions."""
    grey = pictures.astype(np.float64).mean(-1)
    alternating = (-1.0) ** np.add.outer(np.arange(SIDE), np.arange(SIDE))
    return float(np.mean(np.sum(grey * alternating, axis=(1, 2)) ** 2))


def doublings() -> dict[str, Doubling]:
    layers = keras.layers
    doubling = {"strides": 2, "padding": "same", "activation": "relu"}
    return {
        "transposed convolution 3x3": lambda f: [layers.Conv2DTranspose(f, 3, **doubling)],
        "transposed convolution 4x4": lambda f: [layers.Conv2DTranspose(f, 4, **doubling)],
        "UpSampling2D, Conv2D 3x3": lambda f: [
            layers.UpSampling2D(2),
            layers.Conv2D(f, 3, padding="same", activation="relu"),
        ],
        "networks.ResizeConv2D": lambda f: [tfvae.networks.ResizeConv2D(f, "relu")],
    }


def measured(doubling: Doubling, x: np.ndarray, held_out: np.ndarray, epochs: int, seed: int) -> tuple[float, ...]:
    """(checkerboard beside the data's, held-out ELBO, seconds of processor time an epoch) of a fitted model."""
    keras.utils.set_random_seed(seed)
    small = SIDE // 2 ** len(FILTERS)
    layers = [keras.layers.Dense(small**2 * FILTERS[-1], "relu"), keras.layers.Reshape([small, small, FILTERS[-1]])]
    layers += [layer for f in FILTERS[::-1] for layer in doubling(f)]
    posterior = tfvae.posteriors.diagonal_normal(LATENT)
    likelihood = tfvae.DistributionLayer("Normal", [SIDE, SIDE, 3], scale=0.1)
    vae = tfvae.VAE(tfvae.networks.conv_encoder(FILTERS), keras.Sequential(layers), posterior, likelihood, seed=seed)
    vae.compile(keras.optimizers.Adam(1e-3))
    vae.fit(x, batch_size=100, verbose=0)
    started = time.process_time()
    vae.fit(x, batch_size=100, epochs=epochs, initial_epoch=1, verbose=0)
    seconds = (time.process_time() - started) / (epochs - 1)
    board = checkerboard(vae.reconstruct(held_out)) / checkerboard(held_out / 255.0)
    return board, vae.evaluate(held_out, verbose=0, return_dict=True)["elbo"], seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=6000, help="patches to learn from (default 6000)")
    parser.add_argument("--epochs", type=int, default=6, help="passes over them, 2 at least (default 6)")
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind (default 3)")
    options = parser.parse_args(arguments)
    x, held_out = patches(options.rows, right=False), patches(1000, right=True)
    runs: dict[str, list[tuple[float, ...]]] = {name: [] for name in doublings()}
    for seed in range(options.seeds):
        for name, doubling in doublings().items():
            runs[name].append(measured(doubling, x, held_out, options.epochs, seed))
    medians = {name: np.median(values, axis=0) for name, values in runs.items()}
    rows = [
        [name, f"{board:.2f}", f"{elbo:.1f}", f"{seconds:.1f} s"] for name, (board, elbo, seconds) in medians.items()
    ]
    title = f"Decoders of {' and '.join(map(str, FILTERS[::-1]))} filters on {options.rows} patches of photographs"
    header = ["doubling", "checkerboard / the data's", "held-out ELBO, nats", "processor time an epoch"]
    details = {"runs": runs, "of_each": ["checkerboard", "elbo", "processor_seconds_an_epoch"]}
    report.keep("decoders", title, header, rows, details)


if __name__ == "__main__":
    main()
