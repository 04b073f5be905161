"""The command line of ``tfvae reproduce``: a figure, and the options that its function takes.

The figures are named here and imported when one is drawn, so that ``--help`` answers before TensorFlow has loaded.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from tfvae.pipelines import command_line

# From a figure to its function, what it shows, and an example.
FIGURES = {
    "aevb-figure2": (
        "aevb.figure2.figure2",
        "the bound over samples evaluated, by dataset and size of z",
        "--datasets mnist --latent-dims 3 20 --samples 1e6",
    ),
    "aevb-figure3": (
        "aevb.figure3.figure3",
        "log p(x) over samples evaluated, by the number of training images",
        "--train-sizes 1000 --methods AEVB WS --samples 1e7",
    ),
    "aevb-figure4": (
        "aevb.figure4_5.figure4",
        "the manifolds that 2-D models have learned",
        "--datasets frey --samples 1e7",
    ),
    "aevb-figure5": (
        "aevb.figure4_5.figure5",
        "draws from models of MNIST, by the size of z",
        "--latent-dims 2 20 --samples 1e7",
    ),
    "aevb-models": (
        "aevb.release.models",
        "the models of Figure 2's table as files of a release: .keras, SavedModel, card, licence, checksums",
        "--datasets mnist --latent-dims 20 --samples 1e7",
    ),
    "linear-frey": (
        "aevb.linear.linear_frey",
        "a linear VAE on Frey Face beside probabilistic PCA in closed form",
        "--latent-dims 2 5",
    ),
    "iwae": (
        "iwae.table1.table1",
        "Table 1 of Importance Weighted Autoencoders, log p(x) of MNIST, one stochastic layer",
        "--rows VAE-1 IWAE-5 --stages 4",
    ),
    "annealing": (
        "annealing.quality.quality",
        "what importance sampling misses of log p(x), by annealed importance sampling and bounds from both sides",
        "--epochs 5 --temperatures 500",
    ),
    "sprites": (
        "isolating.sprites.sprites",
        "whether β-TCVAE's units stand for factors more than β-VAE's, by the mutual information gap, on sprites",
        "--methods beta TC --seeds 0 1 2",
    ),
    "patches": (
        "photographs.patches.patches",
        "bits per dimension of RGB patches of two photographs, beside uniform noise, and pictures of draws",
        "--likelihoods mixture --epochs 30",
    ),
    "flows": (
        "planar.table.table",
        "planar flows of Variational Inference with Normalizing Flows, log p(x) of binary MNIST",
        "--num-flows 0 10 --updates 100000",
    ),
    "renyi": (
        "renyi.table.table",
        "the table of Rényi Divergence Variational Inference, log p(x) of Frey Face and of Caltech-101 silhouettes",
        "--datasets silhouettes --methods VAE IWAE --num-samples 5",
    ),
    "pbmc": (
        "single_cell.pbmc.pbmc",
        "scVI's model of blood cells beside scvi-tools: held-out ELBO, log p(x | library) and speed",
        "--environment .venv-scvi --families NegativeBinomial",
    ),
    "vamp": (
        "vamp.table.table",
        "VAEs of N(0, I) and of a VampPrior, log p(x) of dynamic MNIST and Fashion-MNIST, bits of Frey Face",
        "--datasets freyface --priors normal vamp",
    ),
}

_HERE = ("output", "data_dir")
_STOPPED = "what {output} holds stays; the same command goes on with it"


class _Figures(click.Group):
    """A group whose help holds that of every figure."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """See ``click.Group``."""
        for name, figure in self.commands.items():
            formatter.write("\n" + figure.get_help(click.Context(figure, context, name)) + "\n")


def group(around: Callable[[], AbstractContextManager[Any]] = nullcontext) -> click.Group:
    """The commands of all figures; each draws inside of ``around`` and prints a table of paper, ours and time."""
    about = "Make a figure or table of a paper anew. Its own numbers stand beside; what it shows is trained."
    return _Figures("reproduce", {name: _command(name, around) for name in FIGURES}, help=about)


def _command(name: str, around: Callable[[], AbstractContextManager[Any]]) -> click.Command:
    function, about, example = FIGURES[name]
    module, _, own = f"{__package__}.{function}".rpartition(".")

    def draw(given: dict[str, Any]) -> None:
        with around():
            from tfvae.experiments.paper_figure import table

            click.echo(table(getattr(importlib.import_module(module), own)(**given)))

    return command_line.command(
        name, f"{module}.{own}", f"{about[0].upper()}{about[1:]}.", example, draw, stopped=_STOPPED, here=_HERE
    )
