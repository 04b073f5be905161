"""Figures 4 and 5 of Auto-Encoding Variational Bayes: what the decoder makes of a plane of z, and of z ~ p(z).

    tfvae reproduce aevb-figure4 --samples 1e7
    tfvae reproduce aevb-figure5 --samples 1e7

They show AEVB's models of Figure 2, and share their checkpoints: what has been trained as far already is drawn at once.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tfvae import plots
from tfvae.experiments import checkpoints, curves
from tfvae.experiments.aevb import figure2, settings
from tfvae.experiments.paper_figure import check_names

_MANIFOLDS = {"mnist": (20, 20), "frey": (10, 10)}  # rows and columns

Draw = Callable[[Any, Any], Any]  # a VAE, the file to write


def figure4(
    output: str = "runs/aevb",
    data_dir: str = "data",
    datasets: Sequence[Literal["mnist", "frey"]] = ("mnist", "frey"),
    samples: int = 10_000_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The manifolds of 2-D models: the mean of p(x|z) at z = Φ⁻¹(u), u on a linear grid of the unit square.

    Writes ``aevb_figure4_<dataset>.png`` to ``output``, 20 by 20 images of MNIST and 10 by 10 of Frey Face.

    Args:
        output: The folder to write; models are taken from, or else trained and kept under, ``output/checkpoints``.
        data_dir: Holds ``mnist/`` with the four IDX files and ``freyface/frey_faces.npy``.
        datasets: Some of ``mnist`` and ``frey``.
        samples: Samples evaluated to which a model is trained, if it has not gone so far or further already.
        seed: Fixes weights, shuffles and noise.

    Returns:
        A row for each picture: its model as in ``figure2.figure2``, and its name.

    Raises:
        ValueError: For an unknown dataset, or fewer samples than the paper's first point.
    """
    check_names(datasets, _MANIFOLDS)
    panels = []
    for dataset in datasets:
        data = settings.load(dataset, data_dir)
        rows, columns = _MANIFOLDS[dataset]
        draw = functools.partial(plots.manifold, rows=rows, columns=columns, image_shape=data.image_shape)
        curve = curves.Curve(dataset, 2, "AEVB")
        panels.append(_panel(f"aevb_figure4_{dataset}.png", draw, data, curve, samples, output, seed))
    return panels


def figure5(
    output: str = "runs/aevb",
    data_dir: str = "data",
    latent_dims: Sequence[int] = (2, 5, 10, 20),
    samples: int = 10_000_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """What MNIST's models dream of: the means of p(x|z) for 100 draws z ~ p(z), for each size of z.

    Writes ``aevb_figure5_<size of z>.png`` to ``output``.

    Args:
        output: The folder to write; models are taken from, or else trained and kept under, ``output/checkpoints``.
        data_dir: Holds ``mnist/`` with the four IDX files.
        latent_dims: Sizes of z, a picture for each.
        samples: Samples evaluated to which a model is trained, if it has not gone so far or further already.
        seed: Fixes weights, shuffles and noise.
    """
    data = settings.load("mnist", data_dir)
    draw = functools.partial(plots.samples, seed=seed, image_shape=data.image_shape)
    return [
        _panel(f"aevb_figure5_{size}.png", draw, data, curves.Curve("mnist", size, "AEVB"), samples, output, seed)
        for size in latent_dims
    ]


def _panel(
    picture: str, draw: Draw, data: settings.Data, curve: curves.Curve, samples: int, output: str, seed: int
) -> dict[str, Any]:
    curve.follow(data, samples, output, seed)
    folder = checkpoints.place(output, curve.name, seed)
    draw(curves.vae_of(checkpoints.load(folder)), pathlib.Path(output) / picture)
    last = checkpoints.read_points(folder)[-1]
    return figure2.FIGURE.row(dataclasses.astuple(curve), last, "test") | {"picture": picture}
