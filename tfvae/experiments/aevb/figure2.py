"""Figure 2 of Auto-Encoding Variational Bayes: the bound over samples evaluated, for each dataset and size of z.

tfvae reproduce aevb-figure2 --datasets mnist --methods AEVB WS --latent-dims 3 20 --samples 1e7
"""

import pathlib
from collections.abc import Sequence
from typing import Any, Final, Literal

from tfvae.experiments.aevb import settings
from tfvae.experiments.curves import Curve
from tfvae.experiments.paper_figure import Curves, PaperFigure, check_names

FIGURE = PaperFigure("aevb_figure2", ("dataset", "latent_dim"), "bound", "{}, {}-D z")
METHODS: Final = ("AEVB", "WS")


def figure2(
    output: str = "runs/aevb",
    data_dir: str = "data",
    datasets: Sequence[Literal["mnist", "frey"]] = ("mnist", "frey"),
    methods: Sequence[Literal["AEVB", "WS"]] = METHODS,
    latent_dims: Sequence[int] = (),
    samples: int = 10_000_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Train and measure every curve asked for, and write ``aevb_figure2.csv`` and ``.png`` to ``output``.

    A run that is stopped goes on where it was: each model is kept under ``output/checkpoints``.

    Args:
        output: The folder to write.
        data_dir: Holds ``mnist/`` with the four IDX files and ``freyface/frey_faces.npy``.
        datasets: Some of ``mnist`` and ``frey``.
        methods: Some of ``AEVB`` and ``WS``.
        latent_dims: Sizes of z; the paper's for each dataset by default.
        samples: Samples evaluated at which each curve ends.
        seed: Fixes weights, shuffles and noise.

    Returns:
        A row for each curve: what the paper has, what was reached, the difference, the seconds of training.

    Raises:
        ValueError: For an unknown dataset or method, or fewer samples than the paper's first point.
    """
    check_names(datasets, settings.DATASETS)
    check_names(methods, METHODS)
    measured: Curves = {}
    for dataset in datasets:
        data = settings.load(dataset, data_dir)
        for latent_dim in latent_dims or data.latent_dims:
            for method in methods:
                curve = Curve(dataset, latent_dim, method)
                measured[dataset, latent_dim, method] = curve.follow(data, samples, output, seed)
                FIGURE.write(pathlib.Path(output), measured)
    return [FIGURE.row(key, points[-1], "test") for key, points in measured.items()]
