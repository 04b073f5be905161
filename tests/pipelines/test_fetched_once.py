"""Small files of a store are fetched once, for their checksums and their rows; a changed one is still noticed."""

import collections
import json
import os
import pathlib
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import embed, storage, stores
from pipelines.formats import files

from .conftest import fixed_binary, write_png
from .test_nightly import image_model

_COUNTING = threading.Lock()


class Counted:
    """A file, or a file system, of which is counted how much of each file below ``in/`` is read."""

    def __init__(self, inner, name: str, read: collections.Counter[str]):
        self._inner, self._name, self._read = inner, name, read

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_) -> None:
        self._inner.close()

    def open_input_file(self, name: str) -> "Counted":
        return Counted(self._inner.open_input_file(name), name, self._read)

    def _count(self, size: int) -> None:
        share = size / self._inner.size()
        with _COUNTING:  # two units are read at a time
            self._read[self._name.partition("/in/")[2]] += share

    def readinto(self, buffer) -> int:
        size = self._inner.readinto(buffer)
        self._count(size)
        return size

    def readall(self) -> bytes:
        content = self._inner.readall()
        self._count(len(content))
        return content


@pytest.fixture
def read(bucket, monkeypatch) -> collections.Counter[str]:
    """How often the bytes of each file below ``in/`` were fetched."""
    counter: collections.Counter[str] = collections.Counter()
    opened = stores._file_system
    monkeypatch.setattr(stores, "_file_system", lambda *which: Counted(opened(*which), "", counter))
    return counter


def fetched(read: collections.Counter[str]) -> dict[str, int]:
    """How often in whole; a footer of Parquet is a sixth of these files."""
    found = {name: int(times) for name, times in read.items() if name}
    read.clear()
    return found


def write_parquet(path: pathlib.Path, seed: int) -> None:
    """Of 64 KB the last are read for the footer."""
    x = np.random.default_rng(seed).integers(1, 255, (6000, 8, 8), np.uint8)
    pq.write_table(pa.table({"key": [f"{path.name}-{i}" for i in range(len(x))], "x": fixed_binary(x)}), path)
    os.utime(path, (9 + seed, 9 + seed))


def write_picture(path: pathlib.Path, seed: int) -> None:
    write_png(path, np.random.default_rng(seed).integers(0, 256, (2, 2), np.uint8))
    os.utime(path, (9 + seed, 9 + seed))


def manifest_and_inputs(content) -> tuple[dict, list]:
    """What an output says of itself, and of its input but for when that was written."""
    lines = [json.loads(line) for line in content("lineage.jsonl").splitlines()]
    inputs = [{name: entry[name] for name in ("path", "sha256", "bytes")} for line in lines for entry in line["inputs"]]
    manifest = json.loads(content("manifest.json"))
    return {name: manifest[name] for name in ("fingerprint", "rows", "rejected", "units")}, inputs


# How often each file is fetched in each of three nights. In the second b has changed, which decides what is done, and a
# unit of which it is a slice is made again; the first picture is looked at by every night, which may refuse it.
NIGHTS = {
    "parquet": (None, [{"a": 1, "b": 1, "c": 1}, {"b": 2, "d": 1}, {}]),
    "parquet, joined": (1, [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "d": 1}, {}]),
    "png": (None, [{"a": 2, "b": 1, "c": 1}, {"a": 2, "b": 2, "d": 1}, {"a": 1}]),
}


@pytest.mark.slow
@pytest.mark.parametrize("of", NIGHTS)
def test_what_is_new_is_fetched_once_and_what_changed_is_noticed(
    of, bucket, read, linear_digits, tmp_path, monkeypatch
):
    """What is written is what is written on this machine, with the same fingerprints, by each of three nights."""
    monkeypatch.setattr(files, "_UNSETTLED", -(10**18))  # however soon the nights follow one another
    kind, (part_size, expected) = of.partition(",")[0], NIGHTS[of]
    model = linear_digits.path if kind == "parquet" else image_model(tmp_path / "model" / "1")
    write, folder = write_parquet if kind == "parquet" else write_picture, tmp_path / "in"
    folder.mkdir()
    here, there = str(tmp_path / "out"), f"{bucket.address}/out"
    for night, (names, gone) in enumerate([("abc", ""), ("bd", "c"), ("", "")]):
        for name in names:
            write(folder / f"{name}.{kind}", night)
        for name in gone:
            (folder / f"{name}.{kind}").unlink()
            storage.remove(f"{bucket.address}/in/{name}.{kind}")
        time.sleep(1.1 * (night == 1))  # the server tells the second of a change: b is to have another
        for name in names:
            bucket.upload(folder / f"{name}.{kind}", f"in/{name}.{kind}")
        ours = embed.run(model, str(folder), here, part_size=part_size)
        theirs = embed.run(model, f"{bucket.address}/in", there, part_size=part_size)
        counts = fetched(read)
        assert {name[0]: times for name, times in counts.items() if times} == expected[night]
        for name in ("rows", "rejected", "units", "units_done", "new", "changed", "gone"):
            assert getattr(theirs, name) == getattr(ours, name), (night, name)
        generation = bucket.get("out/current").decode().strip()
        told = manifest_and_inputs(lambda name, at=generation: bucket.get(f"out/{at}/{name}"))
        assert told == manifest_and_inputs(lambda name: (tmp_path / "out" / name).read_bytes())
        assert embed.read_embeddings(there).equals(embed.read_embeddings(here))


@pytest.mark.slow
def test_a_job_that_was_stopped_before_it_knew_what_it_had_read_goes_on(bucket, linear_digits, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_parquet(tmp_path / "in" / f"{name}.parquet", 0)
    source, output = bucket.upload(tmp_path / "in", "in"), f"{bucket.address}/out"

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embed, "all_read", stopped)
        embed.run(linear_digits.path, source, output)
    write_parquet(tmp_path / "in" / "b.parquet", 1)
    bucket.upload(tmp_path / "in", "in")
    summary = embed.run(linear_digits.path, source, output)
    assert summary.units_done == 1  # the one of b, which has changed: of a the record says what was read
    embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"))
    assert embed.read_embeddings(output).equals(embed.read_embeddings(str(tmp_path / "out")))


@pytest.mark.slow
def test_large_files_are_fetched_as_before(bucket, read, linear_digits, tmp_path, monkeypatch):
    """For their checksums, and then for their rows."""
    monkeypatch.setattr(storage, "AT_ONCE", 1000)
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", 0)
    embed.run(linear_digits.path, bucket.upload(tmp_path / "in", "in"), f"{bucket.address}/out")
    assert fetched(read)["a.parquet"] == 2
    record = next(key for key in bucket.keys("out/generations/000001/_work/commits/"))
    assert "sha256" not in json.loads(bucket.get(record))["facts"]
