"""Runs as folders: what lies there is whole, is read with care, and goes on to an export."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tfvae import VAE, likelihoods, networks, posteriors, runs

MADE_BEFORE = pathlib.Path(__file__).with_name("made_by_0_1")


def model(likelihood=None) -> VAE:
    likelihood = likelihood or likelihoods.bernoulli([3])
    return VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)


def test_what_the_package_registers_is_known_to_the_command(tmp_path):
    """Wake-sleep with the paper's optimiser, as ``tfvae export`` loads it: in a process that imports ``runs`` alone."""
    shutil.copy(MADE_BEFORE / "wake_sleep.keras", tmp_path / "model.keras")
    code = "import sys; from tfvae import runs; print(type(runs.load(sys.argv[1])).__name__)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout.strip() == "VAE", done.stderr


def test_a_model_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    vae = model()
    x = np.zeros([2, 3], np.float32)
    path = tmp_path / "model.keras"
    runs._save(vae, path)
    np.testing.assert_array_equal(runs.load(tmp_path).embed(x), vae.embed(x))
    before = path.read_bytes()

    def dies(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.shutil, "copyfileobj", dies)
    with pytest.raises(KeyboardInterrupt):
        runs._save(model(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


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
