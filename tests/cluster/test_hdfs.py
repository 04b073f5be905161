"""HDFS, on loopback: the door does there what it does here, and the commands read and write there as they do here."""

import uuid

import hdfs_native
import numpy as np
import pytest

import tfvae
from benchmarks import torture_stores
from pipelines import embed, hdfs, preprocess, storage, stores
from pipelines.errors import StoreError
from pipelines.verify import verify
from tests.cluster.hdfs import HdfsFolder, hdfs_server
from tests.pipelines.conftest import artifacts, write_idx
from tests.pipelines.test_store_jobs import in_store, placeless
from tests.pipelines.test_stores import assert_the_door_says_the_same, write
from tfvae import runs

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def endpoint(java):
    with hdfs_server() as endpoint:
        yield endpoint


@pytest.fixture
def folder(endpoint) -> HdfsFolder:
    """An empty one."""
    stores.forget_clients()
    return HdfsFolder(endpoint, uuid.uuid4().hex).make()


def test_the_door_says_of_hdfs_what_it_says_of_a_folder(folder, tmp_path):
    assert_the_door_says_the_same(folder, tmp_path / "files")


def test_a_lock_is_one_holders(folder, monkeypatch):
    monkeypatch.setattr(stores, "_BEAT", 0.1)
    monkeypatch.setattr(stores, "_DEAD", 1.0)
    lock = f"{folder.address}/lock"
    with storage.locked(lock) as mine, storage.locked(lock) as again:
        assert (mine, again) == (True, False)
    folder.put("lock/dead", b'{"host": "another", "process": 1, "beat": 3}')
    folder.put("lock/.dead", b'{"host": "ano')
    folder.put("lock/.never", b"")
    with storage.locked(lock) as mine:
        assert mine and len({key.replace("/.", "/") for key in folder.keys("lock")}) == 1
    assert folder.keys("lock") == []


def test_a_file_that_is_not_whole_is_not_there(folder):
    """What a killed writer leaves is a draft in the temporary folder, and the old file is the file."""
    path = f"{folder.address}/out/a"
    write(path, b"old")

    with pytest.raises(RuntimeError), storage.replacing(path, f"{folder.address}/out/temporary") as file:
        file.write(b"new")
        raise RuntimeError
    assert folder.keys() == ["out/a"] and folder.get("out/a") == b"old"


def test_a_file_that_is_still_written_is_not_read_as_a_shorter_one(folder, monkeypatch):
    monkeypatch.setattr(hdfs, "_REPORTED", 0.1)
    root, _, name = folder.address.rpartition("/")
    writer = hdfs_native.Client(root).create(f"/{name}/a")
    writer.write(b"half")
    writer.hsync()
    with pytest.raises(StoreError, match=r"/a: .*try again later: 0 of its 4 bytes can be read: it is still being"):
        storage.read(f"{folder.address}/a")
    writer.write(b" and half")
    writer.close()
    assert storage.read(f"{folder.address}/a") == b"half and half"


def test_who_may_not_write_is_told_so(folder, monkeypatch):
    monkeypatch.setenv("HADOOP_USER_NAME", "nobody")
    stores.forget_clients()
    with pytest.raises(StoreError, match=r"ask for the right to it: .*Permission denied: user=nobody") as caught:
        write(f"{folder.address}/a", b"1")
    assert len(str(caught.value).splitlines()) == 1 and folder.keys() == []
    stores.forget_clients()


def test_every_command_there_does_what_it_does_here(folder, tmp_path):
    """``prepare``, ``train --data``, ``export``, ``embed`` and ``verify``: the same weights and the same bytes."""
    here, there = str(tmp_path), folder.address
    x = np.random.default_rng(0).integers(1, 255, [600, 8, 8], np.uint8)
    (tmp_path / "idx").mkdir()
    write_idx(tmp_path / "idx" / "train-images-idx3-ubyte", x)
    folder.upload(tmp_path / "idx", "idx")
    for place in (here, there):
        preprocess.run("idx", f"{place}/idx", f"{place}/prepared", rows_per_shard=100)
    assert in_store(folder, "prepared", tmp_path / "copy") == placeless(artifacts(tmp_path / "prepared"))

    for place, run in ((here, "run"), (there, "run-there")):
        runs.train(f"{place}/prepared", f"{here}/{run}", "mlp", epochs=1, latent_dim=2)
    trained, other = (runs.load(f"{here}/{run}") for run in ("run", "run-there"))
    for mine, his in zip(trained.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine, his)

    assert tfvae.export(other, f"{there}/models/idx") == f"{there}/models/idx/1"
    folder.download("models", tmp_path / "models")
    for place in (here, there):
        embed.run(f"{place}/models/idx", f"{place}/prepared", f"{place}/out", split="all")
    assert in_store(folder, "out", tmp_path / "copy-of-out") == placeless(artifacts(tmp_path / "out"))
    assert verify(f"{there}/out").damaged == verify(f"{there}/prepared").damaged == ()
    assert embed.read_embeddings(f"{there}/out").num_rows == 600


def test_killed_at_random_moments(folder, tmp_path):
    """Whatever the moment, the second run does what is missing; nothing is lost and nothing there twice."""
    for name, torn in torture_stores.run(folder, tmp_path, kills=1, seed=0).items():
        assert torn.kills >= 1 and not any(torn.faults), (name, torn)
