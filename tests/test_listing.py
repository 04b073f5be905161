"""``tfvae runs``: numbers of the model that lies there alone, whatever else a folder holds."""

import hashlib
import json
import os
import pathlib

import pytest
from click.testing import CliRunner

from tfvae import cli, listing


def write_run(folder: pathlib.Path, *, evaluated: bool = True, val: str = "-20.5", bits: str | None = None, **record):
    """A run whose model is its folder's name, in bytes."""
    folder.mkdir(parents=True)
    model = folder.name.encode()
    (folder / "model.keras").write_bytes(model)
    sha256 = hashlib.sha256(model).hexdigest()
    told = {"model": "mlp", "epochs": 20, "dataset": {"folder": "digits"}, "finished": "2026-01-02T03:04:05Z"}
    (folder / "run.json").write_text(json.dumps(told | {"model_sha256": sha256} | record))
    head, line = (
        ("epoch,val_elbo", f"19,{val}") if bits is None else ("val_bits_per_dimension,val_elbo", f"{bits},{val}")
    )
    (folder / "history.csv").write_text(f"{head}\n0,-99.0\n{line}\n")
    if evaluated:
        numbers = {"model_sha256": sha256, "log_marginal": -18.75, "monte_carlo_standard_error": 0.01}
        (folder / "evaluation.json").write_text(json.dumps(numbers))


def invoke(*arguments: object):
    return CliRunner().invoke(cli.main, ["runs", *map(str, arguments)])


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_run_shows_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    write_run(tmp_path / "runs/one")
    write_run(tmp_path / "runs/deep/below/two", evaluated=False, val="-19.25", bits="3.25", epochs=7)
    monkeypatch.chdir(tmp_path)
    result = invoke()
    assert result.exit_code == 0 and not result.stderr
    head, two, one = lines(result.stdout)
    assert head == ["run", "model", "data", "epochs", "validation", "ELBO", "bits/dimension", "log", "p(x)", "trained"]
    assert one[:4] == ["one", "mlp", "digits", "20"] and one[4:6] == ["-20.50", "-18.75"] and one[6] == "2026-01-02"
    assert two[:6] == ["deep/below/two", "mlp", "digits", "7", "-19.25", "3.250"] and two[6] == "2026-01-02"


@pytest.mark.parametrize(
    ("sort", "order"),
    [("run", "abc"), ("elbo", "cab"), ("log-marginal", "abc"), ("epochs", "bac"), ("when", "cba"), ("model", "cab")],
)
def test_the_best_and_the_newest_come_first_and_what_is_unknown_last(tmp_path, sort, order):
    write_run(tmp_path / "a", val="-30", epochs=2, finished="2026-01-01T00:00:00Z")
    write_run(tmp_path / "b", val="nan", epochs=3, finished="2026-01-02T00:00:00+00:00", evaluated=False)
    write_run(tmp_path / "c", val="-20", epochs="many", finished="2026-01-03", model="conv", evaluated=False)
    assert "".join(line[0] for line in lines(invoke(tmp_path, "--sort", sort).stdout)[1:]) == order


def test_a_model_of_ones_own_is_named_by_its_file(tmp_path):
    write_run(tmp_path / "a", model="model.py:make", model_file={"name": "mine.py", "sha256": "0"})
    write_run(tmp_path / "b", model=None, experiment="conv")
    write_run(tmp_path / "c", model="mlp", model_file=["x"])
    shown = lines(invoke(tmp_path, "--sort", "run").stdout)[1:]
    assert [line[1] for line in shown] == ["mine.py:make", "conv", "mlp"]


def test_numbers_of_another_model_are_not_shown(tmp_path):
    write_run(tmp_path / "run")
    (tmp_path / "run/model.keras").write_bytes(b"trained again, by hand")
    result = invoke(tmp_path)
    assert result.exit_code == 0 and "run has no run.json of its model" in result.stderr
    assert lines(result.stdout)[1][0] == "run" and "-20" not in result.stdout and "mlp" not in result.stdout


def test_too_few_samples_are_a_lower_bound(tmp_path):
    write_run(tmp_path / "run")
    told = json.loads((tmp_path / "run/evaluation.json").read_text()) | {"monte_carlo_standard_error": None}
    (tmp_path / "run/evaluation.json").write_text(json.dumps(told))
    assert "≥ -18.75" in invoke(tmp_path).stdout


def test_what_is_no_run_is_said_and_nothing_fails(tmp_path):
    write_run(tmp_path / "good")
    (tmp_path / "killed/incomplete").mkdir(parents=True)
    (tmp_path / "photos/cats").mkdir(parents=True)
    write_run(tmp_path / "broken")
    (tmp_path / "broken/run.json").write_text("{")
    write_run(tmp_path / "fifo")
    (tmp_path / "fifo/run.json").unlink()
    os.mkfifo(tmp_path / "fifo/run.json")
    write_run(tmp_path / "odd", model=3, epochs=[1], dataset="x", finished=5, evaluated=False, val="a,\"b'")
    write_run(tmp_path / "rude", model="\x1b[31mred\n" + "x" * 100, val="1e999")
    (tmp_path / "loop").symlink_to(tmp_path)
    result = invoke(tmp_path)
    assert result.exit_code == 0 and result.exception is None
    assert {line[0] for line in lines(result.stdout)[1:]} == {"good", "odd", "rude"}
    for sentence in ("killed: a training goes on there, or was killed", "killed is no finished run",
                     "photos holds no run", "broken/run.json cannot be read",
                     "fifo/run.json is no plain file"):  # fmt: skip
        assert sentence in " ".join(result.stderr.split()), result.stderr
    assert "\x1b" not in result.output and "?[31mred?" in result.stdout and "x" * 50 not in result.stdout


def test_an_empty_folder_is_no_error_and_none_is(tmp_path):
    assert invoke(tmp_path).exit_code == 0 and "holds no run." in invoke(tmp_path).stdout
    result = invoke(tmp_path / "none")
    assert result.exit_code == 1 and "There is no folder" in result.stderr


def test_a_long_history_is_read_at_its_end(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,val_elbo\n" + "0,-1.0\n" * 100_000 + "9,-2.5\n")
    assert listing._last_line(tmp_path / "history.csv") == {"epoch": "9", "val_elbo": "-2.5"}
    (tmp_path / "history.csv").write_text("")
    assert listing._last_line(tmp_path / "history.csv") == {}
    (tmp_path / "history.csv").write_text("epoch,val_elbo\n")
    assert listing._last_line(tmp_path / "history.csv") == {}
