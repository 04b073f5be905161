"""Runs as folders: what lies there is whole, is read with care, and goes on to an export."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tfvae import VAE, likelihoods, networks, observations, posteriors, runs

MADE_BEFORE = pathlib.Path(__file__).with_name("made_by_0_1")


def model(likelihood=None) -> VAE:
    likelihood = likelihood or likelihoods.bernoulli([3])
    return VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)


@pytest.mark.slow
def test_what_the_package_registers_is_known_to_the_command(tmp_path):
    """Wake-sleep with the paper's optimiser, as ``tfvae export`` loads it: in a process that imports ``runs`` alone."""
    shutil.copy(MADE_BEFORE / "wake_sleep.keras", tmp_path / "model.keras")
    code = "import sys; from tfvae import runs; print(type(runs.load(sys.argv[1])).__name__)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout.strip() == "VAE", done.stderr


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old_run(tmp_path) -> pathlib.Path:
    """A run with its evaluation, and a file of the user's."""
    (tmp_path / "logs/train").mkdir(parents=True)
    for name in ("logs/train/events", "history.csv", "model.keras", "run.json", "evaluation.json", "notes.txt"):
        (tmp_path / name).write_bytes(b"old")
    return tmp_path


def test_a_run_that_is_being_replaced_is_whole_until_the_new_one_is(old_run):
    before = files(old_run)
    with runs._replacing(old_run) as folder:
        (folder / "logs").mkdir()
        for name in ("logs/events", "history.csv", "model.keras", "run.json"):
            (folder / name).write_bytes(b"new")
        assert {name: found for name, found in files(old_run).items() if "incomplete" not in name} == before
    assert files(old_run) == dict.fromkeys(("logs/events", "history.csv", "model.keras", "run.json"), b"new") | {
        "notes.txt": b"old"
    }


@pytest.mark.parametrize(
    "stopped", [KeyboardInterrupt, FloatingPointError("NaN"), OSError(28, "No space left on device")]
)
def test_a_training_that_stops_leaves_the_old_run_and_nothing_else(old_run, stopped):
    before = files(old_run)
    with pytest.raises((KeyboardInterrupt, FloatingPointError, OSError)), runs._replacing(old_run) as folder:
        (folder / "history.csv").write_bytes(b"half")
        raise stopped
    assert files(old_run) == before


def test_what_a_killed_training_left_is_removed_and_two_do_not_mix(old_run):
    (old_run / "incomplete/logs").mkdir(parents=True)
    (old_run / "incomplete/history.csv").write_bytes(b"half")
    with runs._replacing(old_run) as folder:
        assert list(files(folder)) == ["lock"]
        with pytest.raises(ValueError, match="Another training writes to"), runs._replacing(old_run):
            pass
        (folder / "model.keras").write_bytes(b"new")
    assert (old_run / "model.keras").read_bytes() == b"new" and not (old_run / "incomplete").exists()


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (b"[1]", "holds a JSON list, expected an object"),
        (b"{", "cannot be read"),
        (b" " * (1 << 20) + b"{}", "no plain file of at most"),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error(tmp_path, record, sentence):
    (tmp_path / "model.keras").write_bytes(b"a model")
    (tmp_path / "run.json").write_bytes(record)
    with pytest.raises(ValueError, match=sentence):
        runs.provenance(tmp_path)


def test_a_record_of_another_model_says_nothing(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"a model")
    record = {"model_sha256": "0" * 64, "dataset": {"name": "digits"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert runs.provenance(tmp_path).trained_on.name is None
    record["model_sha256"] = runs.storage.sha256(str(tmp_path / "model.keras"))
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert runs.provenance(tmp_path).trained_on.name == "digits"


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (np.array([[0, 255, 255]], np.uint8), "Bernoulli, binarised"),
        (np.array([[0, 1, 1]], np.float32), "Bernoulli, binarised"),
        (np.array([[0, 254, 255]], np.uint8), "Bernoulli, greyscale (not binarised)"),
        (np.array([[0, 0.5, 1]], np.float32), "Bernoulli, greyscale (not binarised)"),
    ],
)
def test_a_bound_says_how_x_was_scored(x, kind):
    assert runs._observation_kind(model(), x) == kind


def test_other_families_say_their_name():
    assert runs._observation_kind(model(likelihoods.normal([3])), np.zeros([1, 3])) == "Normal, real values"


def test_bits_per_dimension_are_measured_where_there_are_such():
    levels = VAE(
        networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.sigmoid_normal([3]),
        noise=observations.Dequantized(),
    )  # fmt: skip
    assert [type(one).__name__ for one in runs._bits(levels)] == ["BitsPerDimension"]
    assert not runs._bits(model()) and not runs._bits(model(likelihoods.normal([3])))
