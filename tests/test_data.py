"""Prepared datasets come back as they were written."""

import csv
import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_digits

from tfvae import VAE, cli, data, likelihoods, networks, posteriors
from tfvae.pipelines.errors import PipelineError


def test_load_gives_every_row_of_the_source_once(digits):
    x = np.concatenate([data.load(digits, split) for split in ("train", "test")])
    labels = np.concatenate([data.load(digits, split, "label") for split in ("train", "test")])
    assert x.shape == (1797, 8, 8, 1) and x.dtype == np.uint8
    source = load_digits()
    scaled = np.round(source.images * 255 / 16).astype(int)
    rows = [(*image.ravel(), label) for image, label in zip(x.astype(int), labels, strict=True)]
    assert sorted(rows) == sorted((*i.ravel(), label) for i, label in zip(scaled, source.target, strict=True))


def test_keys_are_strings_and_unique(digits):
    keys = np.concatenate([data.load(digits, split, "key") for split in ("train", "test")])
    assert len(set(keys.tolist())) == 1797


def test_stream_covers_a_split_once_in_batches(digits):
    whole = data.load(digits, "train")
    batches = list(data.stream(digits, "train", batch_size=100, shuffle=False).as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate(batches), whole)
    assert {len(b) for b in batches[:-1]} == {100}
    shuffled = np.concatenate(list(data.stream(digits, "train", seed=1).as_numpy_iterator()))
    again = data.stream(digits, "train", seed=1)  # the same passes, each in an order of its own
    first, second = (np.concatenate(list(again.as_numpy_iterator())) for _ in range(2))
    assert np.array_equal(first, shuffled) and not np.array_equal(second, first)
    assert np.any(shuffled != whole)
    order = np.lexsort(whole.reshape(len(whole), -1).T), np.lexsort(shuffled.reshape(len(whole), -1).T)
    np.testing.assert_array_equal(shuffled[order[1]], whole[order[0]])


def test_several_features_come_by_their_names_row_by_row(digits):
    rows = data.load(digits, "train", ["x", "label", "key"])
    assert list(rows) == ["x", "label", "key"]
    for name, values in rows.items():
        np.testing.assert_array_equal(values, data.load(digits, "train", name))
    batches = list(data.stream(digits, "train", 100, seed=1, features=["label", "key"]).as_numpy_iterator())
    label_of = dict(zip(rows["key"].tolist(), rows["label"].tolist(), strict=True))
    streamed = {key: label for batch in batches for key, label in zip(batch["key"], batch["label"], strict=True)}
    assert streamed == label_of
    assert len(batches) == 17 and set(batches[0]) == {"label", "key"}


def test_rows_with_names_go_into_fit(digits):
    def bound(x, **more) -> float:
        keras.utils.set_random_seed(0)
        posterior, likelihood = posteriors.diagonal_normal(2), likelihoods.bernoulli([8, 8, 1])
        vae = VAE(networks.mlp([4]), networks.mlp([4]), posterior, likelihood, seed=0)
        vae.compile(jit_compile=False)
        return vae.fit(x, verbose=0, **more).history["elbo"][0]

    names = ["x", "label"]
    alone = bound(data.load(digits, "test"), batch_size=50)
    assert bound(data.load(digits, "test", names), batch_size=50) == pytest.approx(alone, abs=1e-4)
    streams = [data.stream(digits, "test", 50, shuffle=False, features=features) for features in ("x", names)]
    assert bound(streams[1]) == pytest.approx(bound(streams[0]), abs=1e-4)


def test_what_is_not_there_is_said(digits, tmp_path):
    with pytest.raises(ValueError, match=r"no prepared dataset.*tfvae prepare"):
        data.load(tmp_path)
    with pytest.raises(ValueError, match="no split 'dev', only test, train"):
        data.load(digits, "dev")
    with pytest.raises(ValueError, match="no feature 'y', only key, label, x"):
        data.load(digits, "test", "y")
    with pytest.raises(ValueError, match="no feature 'condition', only key, label, x"):
        data.stream(digits, features=["x", "condition"])
    with pytest.raises(ValueError, match="no prepared dataset"):
        data.has_missing(tmp_path / "nothing")


@pytest.mark.parametrize("read", [data.load, data.stream, data.open_dataset, data.has_missing, data.identity])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("http://host/a", "^{} is neither a local path nor s3://"),
        ("file:///tmp/a", "^{} is neither a local path nor s3://"),
        (None, "directory is None, expected a path"),
    ],
)
def test_a_place_that_cannot_be_read_is_told(read, wrong, told):
    with pytest.raises((PipelineError, ValueError), match=told.format(wrong)):
        read(wrong)


@pytest.mark.parametrize(
    ("read", "wrong", "told"),
    [
        (data.load, {"split": ["train"]}, "split is ..train.., expected the name of one"),
        (data.load, {"features": 3}, "features is 3, expected a list of strings"),
        (data.stream, {"batch_size": "a"}, "batch_size must be a whole number of 1 or more"),
        (data.stream, {"seed": 0.5}, "seed is 0.5, expected"),
        (data.stream, {"shuffle": "no"}, "shuffle is 'no', expected"),
    ],
)
def test_arguments_of_another_kind_are_told(digits, read, wrong, told):
    with pytest.raises(ValueError, match=told):
        read(digits, **wrong)


def test_a_dataset_in_a_store_is_read_and_held_against_its_manifest(digits, bucket):
    there = bucket.upload(digits, "prepared/digits")
    for split in ("train", "test"):
        np.testing.assert_array_equal(data.load(there, split), data.load(digits, split))
    assert data.identity(there) == data.identity(digits)
    shard = next(key for key in bucket.keys("prepared/digits") if "-test.tfrecord" in key)
    bucket.upload(digits, "damaged/digits")
    bucket.put(shard.replace("prepared", "damaged"), bucket.get(shard)[:-1] + b"x")
    with pytest.raises(ValueError, match=r"s3://.*-test.tfrecord-.* is not as it was written: the command that"):
        data.load(f"{bucket.address}/damaged/digits")
    with pytest.raises(ValueError, match=r"s3://.*/none is no prepared dataset"):
        data.load(f"{bucket.address}/none")


@pytest.mark.slow
def test_a_training_on_a_dataset_in_a_store_is_that_on_the_same_one_here(digits, bucket, tmp_path):
    there = bucket.upload(digits, "digits")
    for name, source in (("here", digits), ("there", there)):
        line = ["train", "--data", source, "--output", str(tmp_path / name), "--epochs", "1"]
        done = CliRunner().invoke(cli.main, line)
        assert done.exit_code == 0, done.output
    losses = [csv.DictReader((tmp_path / name / "history.csv").open()).__next__()["elbo"] for name in ("here", "there")]
    assert losses[0] == losses[1]
    assert json.loads((tmp_path / "there" / "run.json").read_text())["data"] == there
    done = CliRunner().invoke(cli.main, ["train", "--data", there, "--output", f"{bucket.address}/run"])
    assert done.exit_code == 1 and "is no path on this machine, where train reads and writes" in done.output


def test_no_features_are_told(digits):
    with pytest.raises(ValueError, match="features names none, expected some of key, label, x"):
        data.load(digits, features=[])
