"""The commands of the pipelines are their functions: each argument an option, what is left over Beam's."""

import inspect

import click
import pytest
from click.testing import CliRunner

from pipelines import command_line, embed, preprocess
from pipelines.sources import SOURCES

RUNS = {"prepare": preprocess.run, "embed": embed.run}


@pytest.mark.parametrize("name", RUNS)
def test_every_argument_is_an_option_with_its_default_and_a_help(name):
    parameters = dict(inspect.signature(RUNS[name]).parameters)
    del parameters["beam_args"], parameters["progress"], parameters["mend"]  # for other programs
    command = command_line.pipeline(name)
    options = {option.name: option for option in command.params}
    assert options.keys() == parameters.keys()
    text = command.get_help(click.Context(command, info_name=name))
    for option in options.values():
        assert option.opts[0] in text and len(option.help) > 10
        default = parameters[option.name].default
        if option.name != "max_pixels":  # whose default is told in words
            assert default is inspect.Parameter.empty or option.default == default, option.name
    assert {option.name for option in options.values() if option.required} == (
        {"source", "output"} if name == "prepare" else {"model", "input", "output"}
    )
    assert "--runner FlinkRunner" in text


def test_the_help_names_every_source():
    source = next(option for option in command_line.pipeline("prepare").params if option.name == "source")
    assert all(name in source.help for name in SOURCES)


def called(arguments: list[str], monkeypatch) -> tuple[dict, list[str]]:
    """What reaches the pipeline, and what reaches Beam."""
    seen = []
    told = lambda module, title, given, beam, ours: seen.append((given, list(beam))) or 0  # noqa: E731
    monkeypatch.setattr(command_line, "_run", told)
    assert command_line.main("prepare", ["--source", "npy", "--output", "o", *arguments]) == 0
    given, beam = seen[0]
    return {key: value for key, value in given.items() if key not in ("source", "output")}, beam


@pytest.mark.parametrize(
    ("arguments", "given", "beam"),
    [
        ([], {"input": None}, []),
        (["--shape", "8", "9", "--input", "a"], {"input": "a", "shape": (8, 9)}, []),
        (["--shape=8", "9", "--runner", "X"], {"input": None, "shape": (8, 9)}, ["--runner", "X"]),
        (["--runner=X", "--overwrite", "--n", "2"], {"input": None, "overwrite": True}, ["--runner=X", "--n", "2"]),
        (["--", "--direct_num_workers", "2"], {"input": None}, ["--direct_num_workers", "2"]),
        (["--rows-per-shard", "1e3"], {"input": None, "rows_per_shard": 1000}, []),
        (["--rows-per-shard", "-5"], {"input": None, "rows_per_shard": -5}, []),
        (["--test-fraction", "0.1"], {"input": None, "test_fraction": 0.1}, []),
    ],
)
def test_what_is_given_reaches_the_function_and_the_rest_beam(arguments, given, beam, monkeypatch):
    assert called(arguments, monkeypatch) == (given, beam)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--source", "npy"], "Missing option '--output'"),
        (["--source", "npy", "--output", "o", "--dtype", "int8"], "'int8' is not one of 'uint8', 'float32'"),
        (["--source", "npy", "--output", "o", "--rows-per-shard", "1.5"], "expected a whole number"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_1(arguments, sentence):
    group = click.Group("tfvae", {"prepare": command_line.pipeline("prepare")})
    result = CliRunner().invoke(group, ["prepare", *arguments], prog_name="tfvae")
    assert result.exit_code == 1
    assert result.output.startswith("error: ") and result.output.endswith("(see tfvae prepare --help)\n")
    assert sentence in result.output and len(result.output.splitlines()) == 1
    assert command_line.main("prepare", arguments) == 1
