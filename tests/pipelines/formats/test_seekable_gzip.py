"""Gzip with random access: the bytes that were packed, from anywhere, for the price of a few megabytes."""

import gzip
import io

import numpy as np
import pytest

from pipelines.formats import seekable_gzip


def test_reads_at_random_are_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(seekable_gzip, "_SPACING", 10_000)
    rng = np.random.default_rng(0)
    content = rng.integers(0, 30, 1_000_000, dtype=np.uint8).tobytes()
    parts = content[:300_000], content[300_000:300_001], b"", content[300_001:]
    packed = [gzip.compress(part, level) for part, level in zip(parts, (1, 9, 6, 6), strict=True)]
    (tmp_path / "x.gz").write_bytes(packed[0] + bytes(70_000) + b"".join(packed[1:]) + bytes(5))
    with seekable_gzip.open_gzip(str(tmp_path / "x.gz")) as file:
        for _ in range(200):
            offset, size = int(rng.integers(0, len(content) + 10)), int(rng.integers(0, 30_000))
            file.seek(offset)
            assert file.read(size) == content[offset : offset + size]
        assert file.seek(0) == 0 and file.read() == content


def test_going_back_costs_a_few_megabytes_and_not_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(seekable_gzip, "_SPACING", 100_000)
    content = np.random.default_rng(0).integers(0, 4, 4_000_000, dtype=np.uint8).tobytes()
    (tmp_path / "x.gz").write_bytes(gzip.compress(content, 1))
    produced = []
    decompress = seekable_gzip._Gzip._decompress
    monkeypatch.setattr(
        seekable_gzip._Gzip, "_decompress", lambda self, *a: produced.append(len(r := decompress(self, *a))) or r
    )
    with seekable_gzip.open_gzip(str(tmp_path / "x.gz")) as file:
        file.read()
    produced.clear()
    with seekable_gzip.open_gzip(str(tmp_path / "x.gz")) as file:  # another reader of the same file
        file.seek(3_900_000)
        assert file.read(10) == content[3_900_000:3_900_010]
    assert sum(produced) < 400_000


def test_another_content_under_the_name_is_read_anew(tmp_path):
    for content in (b"a" * 100, b"b" * 1000):
        (tmp_path / "x.gz").write_bytes(gzip.compress(content))
        with seekable_gzip.open_gzip(str(tmp_path / "x.gz")) as file:
            assert file.read() == content


def test_the_end_cannot_be_sought(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"abc"))
    with seekable_gzip.open_gzip(str(tmp_path / "x.gz")) as file, pytest.raises(io.UnsupportedOperation):
        file.seek(0, 2)
