"""Patches of photographs at a tiny size: what is held out is not trained, and the numbers are of the kept model."""

import csv

import numpy as np
import pytest

from tfvae import evaluation
from tfvae.experiments import checkpoints
from tfvae.experiments.photographs import patches


@pytest.fixture(scope="module")
def cut():
    pytest.importorskip("sklearn")
    return patches._cut(32)


def test_no_pixel_is_trained_and_tested(cut, monkeypatch):
    from sklearn import datasets

    photograph = np.zeros([427, 640, 3], np.uint8)
    photograph[:, 128:192] = photograph[:, 448:512] = 1
    monkeypatch.setattr(datasets, "load_sample_images", lambda: type("Bunch", (), {"images": [photograph]}))
    train, test = patches._cut(32)
    assert train.shape == (99 * (25 + 57 + 25), 32, 32, 3) and test.shape == (13 * 4, 32, 32, 3)
    assert train.max() == 0 and test.min() == 1
    assert cut[0].shape == (2 * len(train), 32, 32, 3) and cut[1].shape == (2 * len(test), 32, 32, 3)


def test_the_bits_of_a_histogram():
    train = np.zeros([1, 32, 32, 3], np.uint8)
    train[:, :16] = 255
    assert patches._histogram_bits(train, train) == pytest.approx(1 + np.log2((1024 + 256) / (1024 + 2)), abs=1e-6)


@pytest.mark.slow
def test_the_numbers_are_of_the_kept_model(cut, as_graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(patches, "_cut", lambda size: (cut[0][::500], cut[1][:4]))
    monkeypatch.setattr(patches, "_FILTERS", (4, 4))
    monkeypatch.setattr(patches, "_LATENT_DIM", 2)
    (row,) = patches.patches(str(tmp_path), ["mixture"], epochs=1, num_samples=20)
    vae = checkpoints.load(tmp_path / "checkpoints" / "patches-mixture-32")
    nats = evaluation.log_marginal(vae, cut[1][:4], 20, seed=0)
    assert row["bits"] == pytest.approx(-nats.mean / 3072 / np.log(2), abs=1e-4) and row["uniform"] == 8
    assert row["standard_error"] is nats.trusted_standard_error is None
    with open(tmp_path / "patches.csv", newline="") as file:
        assert [float(one["bits"]) for one in csv.DictReader(file)] == [pytest.approx(row["bits"])]
    assert [path.name for path in tmp_path.glob("*.png")] == ["patches-mixture-32.png"]
    for wrong, words in (
        ({"likelihoods": ["normal"]}, "There is no normal"),
        ({"epochs": 0}, "epochs must be"),
        ({"size": 20}, "size is 20"),
    ):
        with pytest.raises(ValueError, match=words):
            patches.patches(str(tmp_path), **wrong)
