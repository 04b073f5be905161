"""The models of the table as files of a release, at a tiny size."""

import pathlib
import subprocess
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from tfvae.experiments import curves
from tfvae.experiments.aevb import release


@pytest.fixture(autouse=True)
def short(tiny, monkeypatch) -> None:
    monkeypatch.setattr(curves, "POINTS", [500, 1000])


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Skipping variable loading")
def test_a_release_is_whole_and_says_what_it_is(tmp_path, data):
    (row,) = release.models(str(tmp_path), "unused", ["mnist"], [2], samples=500)
    folder = tmp_path / "models"
    name = row["model"]
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["LICENSE", "SHA256SUMS", *(f"aevb-mnist-2.{end}" for end in ("keras", "md", "tar.gz"))]
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == 4
    assert "Apache License" in (folder / "LICENSE").read_text()

    vae = keras.saving.load_model(folder / f"{name}.keras")
    assert not vae.compiled
    vae.compile()
    assert vae.evaluate(data.test, return_dict=True, verbose=0)["elbo"] == pytest.approx(row["ours"], abs=0.1)
    with tarfile.open(folder / f"{name}.tar.gz") as archive:
        members = archive.getmembers()
        assert all((one.mtime, one.uid, one.uname) == (0, 0, "") for one in members)
        archive.extractall(tmp_path / "out")  # filter= came with Python 3.11.4
    served = tf.saved_model.load(str(tmp_path / "out" / name / "1")).signatures["embed"](x=tf.constant(data.test))
    np.testing.assert_allclose(served["embedding"], vae.encode(data.test).mean(), atol=1e-6)

    head = yaml.safe_load((folder / f"{name}.md").read_text().split("---\n")[1])
    (result,) = head["model-index"][0]["results"]
    assert head["license"] == "apache-2.0" and head["model-index"][0]["name"] == name
    assert result["dataset"]["name"] == "mnist"
    assert {one["type"]: one["value"] for one in result["metrics"]} == {"elbo": row["ours"]}


@pytest.mark.slow
def test_a_model_that_was_trained_is_written_again_and_others_stay(tmp_path):
    release.models(str(tmp_path), "unused", ["mnist"], [2], samples=500)
    folder = tmp_path / "models"
    before = (folder / "aevb-mnist-2.tar.gz").read_bytes()
    release.models(str(tmp_path), "unused", ["mnist"], [3], samples=500)
    listed = (folder / "SHA256SUMS").read_text()
    assert "aevb-mnist-2.keras" in listed and "aevb-mnist-3.keras" in listed
    assert (folder / "aevb-mnist-2.tar.gz").read_bytes() == before


@pytest.mark.slow
def test_a_stop_leaves_no_part_and_no_checksums(tmp_path, monkeypatch):
    def stopped(folder: pathlib.Path, archive: pathlib.Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(release, "_pack", stopped)
    with pytest.raises(KeyboardInterrupt):
        release.models(str(tmp_path), "unused", ["mnist"], [2], samples=500)
    assert not list((tmp_path / "models").iterdir())


def test_an_unknown_dataset_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="There is no cifar, only mnist, frey"):
        release.models(str(tmp_path), "unused", ["cifar"])
    assert not (tmp_path / "models").exists()
