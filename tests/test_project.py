"""What ``tfvae init`` writes works at once, and nothing is written over."""

import json
import runpy
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from tfvae import cli


def invoke(*arguments: object):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_the_project_trains_at_once_and_its_test_passes(tmp_path, digits, monkeypatch):
    result = invoke("init", tmp_path / "mine", "--data", digits)
    assert result.exit_code == 0 and f"Next: tfvae train --config {tmp_path}/mine/run.toml" in result.output
    monkeypatch.chdir(tmp_path / "mine")
    readme = (tmp_path / "mine/README.md").read_text()
    commands = [line.split()[1:] for line in readme.splitlines() if line.startswith("    tfvae ")]
    assert [words[0] for words in commands] == ["prepare", "train", "evaluate", "plot", "runs"]
    for words in commands[1:]:
        assert invoke(*words).exit_code == 0, words
    record = json.loads((tmp_path / "mine/runs/first/run.json").read_text())
    assert record["epochs"] == 20 and record["likelihood"] == "Bernoulli" and record["data"] == digits
    evaluation = json.loads((tmp_path / "mine/runs/first/evaluation.json").read_text())
    assert evaluation["elbo"] > -44.4  # 64 pixels that know of nothing: -64 log 2
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    runpy.run_path("test_model.py")["test_the_bound_rises"]()
    sys.modules.pop("model")


def test_a_table_gets_a_likelihood_of_real_numbers(tmp_path):
    tmp_path = tmp_path / "of mine"
    result = invoke("init", tmp_path)
    assert result.exit_code == 0 and f"--config '{tmp_path}/run.toml'" in result.output  # can be pasted
    build = runpy.run_path(str(tmp_path / "model.py"))["build"]
    assert build((7,)).likelihood.family.__name__ == "Normal" and build((8, 8, 1)).likelihood.event_shape == (8, 8, 1)
    assert 'data = "prepared"' in (tmp_path / "run.toml").read_text()
    assert len((tmp_path / "README.md").read_text().splitlines()) <= 12


def test_the_address_of_a_dataset_in_a_store_stays_as_it_is(tmp_path):
    assert invoke("init", tmp_path / "mine", "--data", "s3://bucket/data").exit_code == 0
    assert 'data = "s3://bucket/data"\n' in (tmp_path / "mine/run.toml").read_text()
    assert "--data s3://bucket/data\n" in (tmp_path / "mine/README.md").read_text()


@pytest.mark.parametrize("name", ["model.py", "run.toml", "test_model.py", "README.md"])
def test_nothing_is_written_over(tmp_path, name):
    (tmp_path / name).symlink_to("nowhere")
    result = invoke("init", tmp_path)
    assert result.exit_code == 1 and f"holds {name} already: choose another folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == [name] and not (tmp_path / name).exists()


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("init", tmp_path / "file/mine")
    assert result.exit_code == 1 and "Traceback" not in result.output and "error: " in result.output


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gaussian-mlp", "its own"])
def test_rows_with_missing_numbers_train_at_once(tmp_path, model):
    x = np.random.default_rng(0).normal(size=[200, 3])
    lines = [f"r{i}," + ",".join("" if value > 1 else repr(value) for value in row) for i, row in enumerate(x.tolist())]
    (tmp_path / "x.csv").write_text("\n".join(["key,a,b,c", *lines]))
    prepare = ["prepare", "--source", "csv", "--input", tmp_path / "x.csv", "--missing", "--standardize"]
    assert invoke(*prepare, "--output", tmp_path / "p").exit_code == 0
    assert invoke("init", tmp_path / "mine").exit_code == 0
    chosen = f"{tmp_path / 'mine' / 'model.py'}:build" if model == "its own" else model
    train = ["train", "--data", tmp_path / "p", "--model", chosen, "--epochs", 2, "--output", tmp_path / "run"]
    result = invoke(*train)
    assert result.exit_code == 0, result.output
    assert keras.models.load_model(tmp_path / "run/model.keras").likelihood.missing
