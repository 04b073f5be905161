"""The command line of ``tfvae reproduce``: what it prints, what it refuses, what its help holds."""

import inspect

import numpy as np
import pytest
from click.testing import CliRunner

from tfvae import cli, evaluation
from tfvae.experiments import curves, datasets, paper_figure, reproduce, stages
from tfvae.experiments.aevb import figure2, figure3, figure4_5, linear, release
from tfvae.experiments.annealing import quality
from tfvae.experiments.isolating import sprites
from tfvae.experiments.iwae import table1
from tfvae.experiments.photographs import patches
from tfvae.experiments.planar import table as planar
from tfvae.experiments.renyi import table as renyi
from tfvae.experiments.single_cell import pbmc
from tfvae.experiments.vamp import table as vamp

FUNCTIONS = {
    "aevb-figure2": figure2.figure2,
    "aevb-figure3": figure3.figure3,
    "aevb-figure4": figure4_5.figure4,
    "aevb-figure5": figure4_5.figure5,
    "aevb-models": release.models,
    "linear-frey": linear.linear_frey,
    "annealing": quality.quality,
    "iwae": table1.table1,
    "sprites": sprites.sprites,
    "patches": patches.patches,
    "flows": planar.table,
    "renyi": renyi.table,
    "pbmc": pbmc.pbmc,
    "vamp": vamp.table,
}


def invoke(*arguments: str):
    return CliRunner().invoke(cli.main, ["reproduce", *arguments], prog_name="tfvae")


def test_the_command_prints_the_table(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "POINTS", [500, 1000])
    arguments = ["aevb-figure2", "--datasets", "mnist", "--methods", "AEVB", "--latent-dims", "2", "--samples", "5e2"]
    result = invoke(*arguments, "--output", str(tmp_path))
    assert result.exit_code == 0, result.output
    header, _, row = result.stdout.strip().splitlines()
    assert header == "| dataset | latent dim | method | split | samples | paper | ours | difference | seconds |"
    assert row.startswith("| mnist | 2 | AEVB | test | 500 | - | ")


def test_the_functions_errors_are_sentences(tiny, tmp_path):
    result = invoke("aevb-figure3", "--train-sizes", "0", "--output", str(tmp_path))
    assert result.exit_code == 1
    assert "error: train_sizes must lie between 1 and 250" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["linear-frey"], "/freyface/frey_faces.npy is not there, expected Frey Face, NumPy's .npy of bytes"),
        (["iwae"], "/mnist/train-images-idx3-ubyte.gz is not there, expected the IDX files of MNIST"),
        (["renyi", "--datasets", "silhouettes"], "/silhouettes/caltech101_silhouettes.npz is not there, expected Cal"),
        (["pbmc"], "/pbmc/pbmc_counts.npz is not there, expected blood cells, NumPy's .npz of counts [N, G]"),
    ],
)
def test_a_folder_without_the_data_is_told_with_what_belongs_there(arguments, told, tmp_path):
    result = invoke(*arguments, "--data-dir", str(tmp_path), "--output", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert told in result.output and "name the folder above with --data-dir" in result.output
    assert "docs/results/published.md" in result.output


def test_files_of_data_that_hold_something_else_are_told(tmp_path):
    text, faces, other = tmp_path / "a.npz", tmp_path / "faces.npy", tmp_path / "other.npz"
    text.write_text("no archive")
    np.save(faces, np.zeros([3, 28, 20]))
    np.savez(other, x=[1])
    for read, path, told in (
        (datasets.cells, text, "a.npz cannot be read, expected blood cells"),
        (datasets.cells, faces, "faces.npy cannot be read, expected blood cells"),
        (datasets.silhouettes, other, "other.npz has no test_data and no train_data, only x"),
        (datasets.faces, faces, r"faces.npy holds float64 \[3, 28, 20\], expected bytes of faces"),
    ):
        with pytest.raises(ValueError, match=told):
            read(str(path))


def test_a_lower_bound_has_no_standard_error():
    """As ``tfvae evaluate`` shows none: of three effective samples it would be too small."""
    few, many = (evaluation.MarginalEstimate(-np.arange(4.0), np.ones(4), np.full(4, size)) for size in (3.0, 30.0))
    assert few.trusted_standard_error is None
    assert many.trusted_standard_error == many.mean_standard_error
    measured = {"log_marginal": few.mean, "standard_error": few.trusted_standard_error}
    assert stages.bits(measured, [3])[1] is None
    assert paper_figure.table([measured]).splitlines()[-1] == "| -1.50 | - |"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["aevb-figure9"], "No such command 'aevb-figure9'"),
        (["aevb-figure2", "--train-sizes", "5"], "--train-sizes"),
        (["aevb-figure2", "--methods", "MCEM"], "'MCEM' is not one of 'AEVB', 'WS'"),
        (["aevb-figure3", "--datasets", "frey"], "--datasets"),
        (["aevb-figure3", "--samples", "1e999"], "expected a whole number such as 1000 or 1e7, received 1e999"),
        (["aevb-figure4", "--latent-dims", "3"], "--latent-dims"),
        (["aevb-figure5", "--methods", "WS"], "--methods"),
        (["linear-frey", "--samples", "1e6"], "--samples"),
        (["linear-frey", "5"], "unexpected extra argument"),
    ],
)
def test_an_option_that_does_not_apply_is_an_error(arguments, sentence):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split("error:")[-1].split())


def test_the_help_shows_every_figure_with_its_defaults():
    text = " ".join(invoke("--help").output.split())
    for name in reproduce.FIGURES:
        assert f"Usage: tfvae reproduce {name} [OPTIONS]" in text
        assert f"tfvae reproduce {name} --" in text
    for default in ("[default: 10000000]", "[default: 1000, 50000]", "[default: 2, 5, 10, 20]", "[default: data]"):
        assert default in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_options_are_the_functions_arguments(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    options = {option.name: option for option in reproduce.group().commands[name].params}
    assert options.keys() == parameters.keys()
    for option in options.values():
        assert option.default == parameters[option.name].default and option.help, option.name
