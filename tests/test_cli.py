"""The commands: the whole way on the digits once, and what each says when something is wrong."""

import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.embed import read_embeddings
from tfvae import cli, data, quickstart, runs


@pytest.fixture(scope="module")
def whole_way(tmp_path_factory) -> tuple[pathlib.Path, str]:
    """A finished quickstart and what it printed."""
    output = tmp_path_factory.mktemp("quickstart") / "out"
    result = CliRunner().invoke(cli.main, ["quickstart", "--output", str(output)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return output, result.output


def test_quickstart_shows_every_command_and_ends_with_what_it_measured(whole_way):
    output, printed = whole_way
    for command in ("prepare", "train", "evaluate", "export", "embed", "plot"):
        assert f"$ tfvae {command} " in printed
    measured = json.loads((output / "quickstart.json").read_text())
    table = printed[printed.index("What was measured") :]
    assert f"{measured['test_elbo']:.2f} nats" in table and "rows embedded     1,797" in table
    assert "Bernoulli, binarised" in table
    # 64 independent pixels reach -25.3 nats on the same rows: a model that learned nothing would stay there.
    assert -23 < measured["test_elbo"] < measured["test_log_marginal"] < -15


def test_quickstart_leaves_every_artifact(whole_way):
    output, _ = whole_way
    assert {p.name for p in (output / "plots").iterdir()} == {
        "samples.png", "reconstructions.png", "latent_space.png", "learning_curve.png", "kl_by_unit.png",
        "traversals.png", "interpolations.png",
    }  # fmt: skip
    assert (output / "saved_models/digits/1/saved_model.pb").exists()
    with open(output / "run/history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert len(history) == json.loads((output / "run/run.json").read_text())["epochs"]
    assert float(history[-1]["val_elbo"]) > float(history[0]["val_elbo"])


def test_the_export_passes_its_check(whole_way):
    result = invoke("check-export", str(whole_way[0] / "saved_models/digits"))
    assert result.exit_code == 0, result.output
    head, *lines = result.output.splitlines()
    assert head.split() == ["check", "result", "detail"] and len(lines) > 8
    assert all(re.search(r"  ok  +\S", line) for line in lines), result.output


def test_embeddings_equal_the_model_row_by_row_each_key_once(whole_way):
    output, _ = whole_way
    vae = runs.load(output / "run")
    prepared = output / "prepared"
    expected = {}
    for split in ("train", "test"):
        keys = data.load(prepared, split, "key").astype(str)
        expected |= dict(zip(keys, vae.embed(data.load(prepared, split)), strict=True))
    table = read_embeddings(str(output / "embeddings"))
    keys = table["key"].to_pylist()
    assert len(keys) == 1797 and set(keys) == set(expected)
    embedded = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(embedded, np.stack([expected[key] for key in keys]), atol=1e-5)


def test_evaluation_is_repeatable_and_says_what_it_scored(whole_way):
    output, _ = whole_way
    first = json.loads((output / "run/evaluation.json").read_text())
    assert first["rows"] == len(data.load(output / "prepared", "test"))
    assert first["observations"] == "Bernoulli, binarised"
    assert 0 < first["active_units"] <= 20 and first["monte_carlo_standard_error"] < 0.1
    again = runs.evaluate(output / "run", output / "prepared", num_samples=first["num_samples"])
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in first.items() if k != "seconds"}


def test_a_second_quickstart_replaces_the_first_and_nothing_else(whole_way, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no quickstart"):
        quickstart.run(str(tmp_path), cli.main)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_model_saved_by_hand_is_plotted_too(whole_way, tmp_path):
    output, _ = whole_way
    (tmp_path / "mine").mkdir()
    shutil.copy(output / "run/model.keras", tmp_path / "mine")
    result = invoke("plot", str(tmp_path / "mine"), "--output", str(tmp_path / "new/plots"))
    assert result.exit_code == 1 and "has no run.json" in result.output and "--data" in result.output
    result = invoke(
        "plot",
        str(tmp_path / "mine"),
        "--output",
        str(tmp_path / "new/plots"),
        "--data",
        f"{output}/prepared",
        "--projector",
    )
    assert result.exit_code == 0, result.output
    assert {path.stem for path in (tmp_path / "new/plots").iterdir()} == {
        "samples", "reconstructions", "latent_space", "kl_by_unit", "traversals", "interpolations", "projector",
    }  # fmt: skip
    assert str(tmp_path / "new/plots/projector") in result.output
    words = (tmp_path / "new/plots/projector/metadata.tsv").read_text().split()
    assert words == [str(digit) for digit in data.load(output / "prepared", "test", "label")]


def invoke(*arguments: str):
    return CliRunner().invoke(cli.main, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--data", "{tmp}", "--output", "{tmp}/run"], "no prepared dataset"),
        (["train", "--data", "{out}/prepared", "--output", "{out}/run"], "holds a run already"),
        (["train", "--data", "{out}/prepared", "--output", "{tmp}/run", "--model", "gan"], "no model 'gan', only mlp"),
        (
            ["train", "--data", "{out}/prepared", "--output", "{tmp}/run", "--epochs", "1", "--learning-rate", "1e30"],
            "At step 2 of the training the loss is ",
        ),
        (["evaluate", "{tmp}", "--data", "{out}/prepared"], "no finished run"),
        (["evaluate", "{out}/run", "--data", "{out}/prepared", "--split", "dev"], "no split 'dev'"),
        (["export", "{out}/run", "{out}/saved_models/digits", "--version", "1"], "exists already"),
        (["export", "{tmp}", "{tmp}/model"], "no finished run"),
        (["check-export", "{tmp}"], "holds no SavedModel"),
        (["plot", "{tmp}", "--output", "{tmp}/plots"], "no finished run"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(whole_way, tmp_path, arguments, sentence):
    filled = [a.format(tmp=tmp_path, out=whole_way[0]) for a in arguments]
    result = invoke(*filled)
    assert result.exit_code == 1, result.output
    assert sentence in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("flag", "values"), [("--learning-rate", ["-1", "0", "inf", "nan"]), ("--seed", ["-5", str(2**70)])]
)
def test_a_number_of_train_is_one_that_can_be(flag, values, whole_way, tmp_path):
    for value in values:
        run = invoke("train", "--data", f"{whole_way[0]}/prepared", "--output", f"{tmp_path}/run", flag, value)
        assert run.exit_code in (1, 2) and "Traceback" not in run.output
        assert re.search(rf"{flag.strip('-').replace('-', '[-_]')}", run.output) and value[:3] in run.output
        assert not (tmp_path / "run").exists()


HEAVY = ("tensorflow", "keras", "tensorflow_probability", "apache_beam", "numpy", "pyarrow", "matplotlib", "sklearn")
HELPS = [
    ("tfvae", *path)
    for path in (
        (), ("prepare",), ("init",), ("train",), ("runs",), ("evaluate",), ("export",), ("check-export",),
        ("embed",), ("plot",), ("quickstart",), ("reproduce",), ("reproduce", "aevb-figure3"),
    )
] + [("pipelines.preprocess",), ("pipelines.embed",)]  # fmt: skip


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_answers_before_anything_heavy_is_imported(command):
    code = f"""
import runpy, sys
sys.argv = ["program", *{command[1:]!r}, "--help"]
try:
    runpy.run_module({command[0]!r}, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    print("code", stop.code, *(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Usage: python -m {' '.join(command)} [OPTIONS]")
    assert done.stdout.endswith("code 0\n"), done.stdout
    assert "xample:" in done.stdout or len(command) == 1


def test_a_wrong_path_is_told_before_anything_heavy_is_imported(tmp_path):
    commands = {
        "train --data none --output out": "a prepared dataset",
        "evaluate none --data here": "a run",
        "evaluate here --data none": "a prepared dataset",
        "export none out": "a run",
        "check-export none": "a SavedModel or a LiteRT file",
        "push none me/model": "a run of tfvae train, or an export",
        "plot none --output out": "a run",
        "drift here none": "the embeddings of rows",
        "embed --model none --input digits --output out": "a SavedModel",
        "embed --model here --input none --output out": "a prepared dataset, or files of rows",
        "embed --model here --input digits --output out --prepared-with none": "a prepared dataset",
    }
    (tmp_path / "here").mkdir()
    code = f"""
import sys
from click.testing import CliRunner
from tfvae import cli
for command in {[*commands]!r}:
    print(CliRunner().invoke(cli.main, command.split()).output, end="")
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    *told, heavy = done.stdout.split("\n")[:-1]
    assert heavy == ""
    for line, expected in zip(told, commands.values(), strict=True):
        assert line.startswith(f"error: none is not there: expected {expected}")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_the_list_of_commands_is_whole_and_in_the_order_of_the_work():
    done = subprocess.run(
        [sys.executable, "-m", "tfvae", "-h"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}
    )
    listed = done.stdout[done.stdout.index("Commands:\n") :].splitlines()[1:]
    assert not [line for line in listed if line.endswith("...") or not re.match(r"  [a-z]", line)]
    names = [line.split()[0] for line in listed]
    assert sorted(names) == sorted(cli.main.commands)
    way = ["prepare", "train", "evaluate", "export", "check-export", "embed"]
    assert [name for name in names if name in way] == way


def test_the_log_level_says_how_much_is_told(tmp_path):
    def told(*options: str) -> str:
        command = [sys.executable, "-m", "tfvae", *options, "runs", str(tmp_path / "none")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.endswith(f"error: There is no folder {tmp_path}/none: tfvae train --output writes runs.\n")
        return done.stderr

    assert "Traceback" not in told() + told("--log-level", "info")
    assert told("--log-level", "debug").startswith("DEBUG tfvae.cli: the command failed\nTraceback")
    assert invoke("--log-level", "loud", "runs").exit_code == 2


def every_command():
    def below(group, path):
        for name, command in group.commands.items():
            yield from below(command, [*path, name]) if isinstance(command, click.Group) else [([*path, name], command)]

    return below(cli.main, [])


def filled(command: click.Command, but: click.Parameter) -> list[str]:
    """Arguments that a command takes, one of them empty."""
    arguments = []
    for param in command.params:
        given = "" if param is but else param.type.choices[0] if isinstance(param.type, click.Choice) else "1"
        if isinstance(param, click.Argument):
            arguments.append(given)
        elif param is but or param.required:
            arguments += [param.opts[0], given]
    return arguments


def _named(param: click.Parameter) -> str:
    return str(param.metavar if isinstance(param, click.Argument) and param.metavar else param.opts[0].split("_")[0])


EMPTY = [
    pytest.param(path, command, param, id=" ".join([*path, param.name]))
    for path, command in every_command()
    for param in command.params
    if param.type is click.STRING and param.name != "config"
]


@pytest.mark.parametrize(("path", "command", "param"), EMPTY)
def test_an_empty_text_is_refused_and_not_taken_for_the_current_folder(path, command, param):
    result = invoke(*path, *filled(command, param))
    assert result.exit_code == (1 if path[0] in ("prepare", "embed") else 2), result.output
    assert re.fullmatch(
        rf"error: Invalid value for .*{_named(param)}.*: it is empty, expected a name or a path "
        rf"\(see \w+ {' '.join(path)} --help\)\n",
        result.output,
        re.IGNORECASE,
    ), result.output


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["trian"], 2, "No such command 'trian'"),
        (["--log-level", "loud", "runs"], 2, "Invalid value for '--log-level': 'loud' is not one of"),
        (["train", "--datta", "x"], 2, "No such option"),
        (["train", "--data", "x"], 2, "Missing option '--output'"),
        (["evaluate"], 2, "Missing argument 'RUN'"),
        (["runs", "{tmp}/none"], 1, "There is no folder {tmp}/none"),
        (["init", "{tmp}/mine", "--data", "{tmp}/none"], 1, "{tmp}/none is not there: expected a prepared dataset"),
        (
            ["init", "{tmp}/mine", "--data", "{tmp}/file"],
            1,
            "{tmp}/file is no prepared dataset (it has no dataset_info",
        ),
        (["drift", "{tmp}/file", "{tmp}/file"], 1, "{tmp}/file is not a complete output of tfvae embed: expected the"),
        (["check-export", "ftp://a/b"], 1, "ftp://a/b is no path on this machine, where check-export reads"),
        (["push", "s3://a/b", "me/x"], 1, "s3://a/b is no path on this machine, where push reads"),
        (["runs", "s3://a/b"], 1, "s3://a/b is no path on this machine, where runs reads"),
        (["train", "--data", "{tmp}", "--output", "x", "--model", "s3://a/b.py"], 1, "s3://a/b.py is no path on this"),
        (["train", "--config", "s3://a/b.toml"], 2, "s3://a/b.toml is no file on this machine"),
        (["verify", "{tmp}/none"], 1, "{tmp}/none"),
        (["init", "{tmp}/file"], 1, "{tmp}/file is a file, expected a folder"),
        (["evaluate", "{tmp}/file/x", "--data", "{tmp}"], 1, "{tmp}/file/x"),
        (["prepare", "--source", "digits", "--output", "{tmp}/file"], 1, "{tmp}/file"),
        (["prepare", "--source", "csv", "--input", "{tmp}/none.csv", "--output", "{tmp}/out"], 1, "{tmp}/none.csv"),
        (["embed", "--model", "{tmp}", "--input", "digits", "--output", "{tmp}/out"], 1, "{tmp} holds no SavedModel"),
        (["reproduce", "aevb-figure9"], 2, "No such command 'aevb-figure9'"),
    ],
)
def test_every_error_is_one_line_that_begins_alike(arguments, code, sentence, tmp_path):
    (tmp_path / "file").write_text("text")
    result = invoke(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.exit_code == code and result.output.startswith("error: "), result.output
    assert sentence.format(tmp=tmp_path) in result.output and len(result.output.splitlines()) == 1
    assert not re.search(r"error: \w+Error|Errno", result.output), result.output


def test_a_letter_that_the_terminal_lacks_is_replaced():
    code = """
import click
from tfvae import cli
@cli.main.command()
def say(): click.echo("KL(q‖p) 日本")
cli.main(["say"])
"""
    environment = {**os.environ, "PYTHONIOENCODING": "iso8859-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stdout) == (0, b"KL(q?p) ??\n"), done.stderr


def test_an_unknown_option_is_an_error(tmp_path):
    assert invoke("train", "--datta", "x").exit_code == 2
    assert invoke("prepare", "--source", "digits", "--output", str(tmp_path / "x"), "--shards", "3").exit_code == 1


def test_ctrl_c_in_training_says_what_is_there_and_ends_as_shells_expect(monkeypatch, tmp_path):
    def stopped(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train", stopped)
    result = invoke("train", "--data", str(tmp_path), "--output", "runs/mine")
    assert result.exit_code == 130
    assert "Stopped: runs/mine is as it was before this training began; give it again." in result.output
    kept = tmp_path / "mine/incomplete/checkpoints/epoch-000001-step-000000000"
    kept.mkdir(parents=True)
    (kept / "checkpoint.json").touch()
    monkeypatch.setattr(runs, "train", lambda **options: sys.exit(143))
    result = invoke("train", "--data", str(tmp_path), "--output", str(tmp_path / "mine"))
    assert result.exit_code == 143 and "training began; the same command goes on with it." in result.output
    monkeypatch.setattr(runs, "train", stopped)
    monkeypatch.setattr(cli.listing, "found", lambda folder: stopped())
    result = invoke("runs", str(tmp_path))
    assert result.exit_code == 130 and result.output.endswith(
        "Stopped: nothing was changed; give the same command again.\n"
    )
