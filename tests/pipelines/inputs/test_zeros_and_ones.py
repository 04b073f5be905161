"""Pictures of 0 and 1 in bytes: white is 1 or 255, which the numbers do not say, so that the user does."""

import gzip
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tfvae
from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from pipelines.sources import Fields, make_source
from tfvae import networks, posteriors

from ..conftest import Linear, read_dataset


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """None is black or white, on which the model fails."""
    return (np.random.default_rng(0).random([40, 8, 8]) < 0.4).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Linear:
    """For floats and bytes of 64 numbers."""
    return Linear(tmp_path_factory.mktemp("models") / "1", (64,))


def write_idx(x, folder):
    folder.mkdir()
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", *x.shape) + x.tobytes())
    return "idx", str(folder)


def write_npy(x, folder):
    np.save(f"{folder}.npy", x)
    return "npy", f"{folder}.npy"


def write_npz(x, folder):
    np.savez(f"{folder}.npz", x=x)
    return "npz", f"{folder}.npz"


def write_parquet(x, folder):
    column = pa.array(x.reshape(len(x), -1).tolist(), pa.list_(pa.uint8()))
    pq.write_table(pa.table({"x": column}), f"{folder}.parquet")
    return "parquet", f"{folder}.parquet"


@pytest.mark.parametrize("highest", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_bytes_that_are_counts_are_embedded_as_the_counts_that_fit_took(tmp_path, highest):
    counts = np.random.default_rng(0).integers(0, highest + 1, [30, 5]).astype(np.uint8)
    parts = networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2)
    vae = tfvae.VAE(*parts, tfvae.DistributionLayer("Poisson", [5]), seed=0)
    tfvae.export(vae, tmp_path / "model", warmup_batch_sizes=[1])
    _, path = write_npy(counts, tmp_path / "counts")
    told = {"signature": "embed_uint8"} if highest == 1 else {}
    embed.run(tmp_path / "model", path, tmp_path / "out", score=2, **told)
    np.testing.assert_allclose(embedded(tmp_path / "out"), vae.embed(counts), rtol=1e-5, atol=1e-6)


slow = [pytest.param(write, marks=pytest.mark.slow) for write in (write_idx, write_npz, write_parquet)]
every_format = pytest.mark.parametrize("write", [write_npy, *slow])


def embedded(output) -> np.ndarray:
    return np.stack(embed.read_embeddings(str(output))["embedding"].to_numpy())


@every_format
def test_the_user_says_what_1_is(pictures, model, tmp_path, write):
    _, path = write(pictures, tmp_path / "data")
    x = pictures.reshape(40, 64)
    with pytest.raises(
        PipelineError, match=r"nothing but 0 and 1, .* --signature embed if 1 is white, .*embed_uint8 if"
    ):
        embed.run(model.path, path, str(tmp_path / "embed"))
    for signature, truth in (("embed", x.astype(np.float32)), ("embed_uint8", x)):  # the first where it was asked
        embed.run(model.path, path, str(tmp_path / signature), signature=signature)
        np.testing.assert_allclose(embedded(tmp_path / signature), model.embed(truth), atol=1e-6)


@every_format
def test_what_was_prepared_as_floats_is_embedded_as_floats(pictures, model, tmp_path, write):
    x = 200 * pictures.reshape(40, 64)
    kind, path = write(x.reshape(40, 8, 8), tmp_path / "data")
    prepared = str(tmp_path / "prepared")
    preprocess.run(kind, path, prepared, test_fraction=0, dtype="float32")
    rows = [x for x, _ in read_dataset(prepared, "train").values()]
    assert {row.dtype for row in rows} == {np.dtype(np.float32)}
    assert sorted(row.tobytes() for row in rows) == sorted(row.tobytes() for row in x.astype(np.float32))
    embed.run(model.path, path, str(tmp_path / "out"), prepared_with=prepared)
    np.testing.assert_allclose(embedded(tmp_path / "out"), model.embed(x.astype(np.float32)), rtol=1e-5, atol=1e-4)


def test_a_prepared_dataset_of_bytes_is_a_question_too(pictures, tmp_path):
    np.save(tmp_path / "x.npy", pictures)
    prepared, model = str(tmp_path / "prepared"), Linear(tmp_path / "model", (8, 8, 1))
    preprocess.run("npy", str(tmp_path / "x.npy"), prepared, test_fraction=0)
    with pytest.raises(PipelineError, match="nothing but 0 and 1"):
        embed.run(model.path, prepared, str(tmp_path / "out"), split="train")
    embed.run(model.path, prepared, str(tmp_path / "out"), split="train", signature="embed")
    found, truth = embedded(tmp_path / "out"), model.embed(pictures.astype(np.float32))
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(truth, axis=0), atol=1e-6)


def test_one_grey_among_them_says_that_they_are_bytes(pictures, model, tmp_path):
    x = pictures.reshape(40, 64).copy()
    x[7, 3] = 2
    np.save(tmp_path / "x.npy", x)
    embed.run(model.path, str(tmp_path / "x.npy"), str(tmp_path / "out"))
    np.testing.assert_allclose(embedded(tmp_path / "out"), model.embed(x), atol=1e-6)


def test_floats_are_no_bytes(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros([3, 4], np.float32))
    with pytest.raises(PipelineError, match="--dtype is uint8, the rows are float32: leave it out"):
        make_source("npy", str(tmp_path / "x.npy"), fields=Fields(dtype="uint8")).plan()
