"""IDX as a source: what is read is what was written, and what is broken is named."""

import gzip
import os

import numpy as np
import pytest

from pipelines.errors import PipelineError
from pipelines.sources import make_source

from ..conftest import column, read_all, write_idx


@pytest.fixture
def images(tmp_path):
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)


class TestIdx:
    def write(self, folder, images, suffix=""):
        opener = gzip.open if suffix else open
        labels = np.arange(len(images), dtype=np.uint8)
        for stem, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
            write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", images[rows], opener)
            write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", labels[rows], opener)

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_rows_keys_splits_and_labels(self, tmp_path, images, suffix):
        self.write(tmp_path, images, suffix)
        plan, rows = read_all(make_source("idx", str(tmp_path)))
        assert column(plan, "key") == [
            "train-00000",
            "train-00001",
            "train-00002",
            "train-00003",
            "test-00000",
            "test-00001",
        ]
        assert column(plan, "split") == ["train"] * 4 + ["test"] * 2
        assert (plan.schema.shape, plan.schema.dtype) == ((5, 4, 1), "uint8")
        assert plan.schema.labels == ("0", "1", "2", "3", "4", "5")
        np.testing.assert_array_equal(np.stack([row.x[..., 0] for row in rows]), images)
        assert [row.label for row in rows] == list(range(6))

    def test_without_labels(self, tmp_path, images):
        write_idx(tmp_path / "train-images-idx3-ubyte", images)
        plan, rows = read_all(make_source("idx", str(tmp_path)))
        assert plan.schema.labels is None and [row.label for row in rows] == [None] * 6

    @pytest.mark.parametrize("keep", [2, 10, -1])
    def test_truncated(self, tmp_path, images, keep):
        path = write_idx(tmp_path / "train-images-idx3-ubyte", images)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(PipelineError, match="train-images-idx3-ubyte"):
            make_source("idx", str(tmp_path)).plan()

    def test_trailing_bytes(self, tmp_path, images):
        path = write_idx(tmp_path / "train-images-idx3-ubyte", images)
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(PipelineError, match=r"should hold 120 bytes .* has more"):
            make_source("idx", str(tmp_path)).plan()

    def test_truncated_gz(self, tmp_path, images):
        path = write_idx(tmp_path / "train-images-idx3-ubyte.gz", images, gzip.open)
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(PipelineError, match=r"train-images-idx3-ubyte\.gz is broken"):
            make_source("idx", str(tmp_path)).plan()

    def test_damaged_gz(self, tmp_path, images):
        path = write_idx(tmp_path / "train-images-idx3-ubyte.gz", images, gzip.open)
        content = bytearray(path.read_bytes())
        content[-8] ^= 1  # of the checksum of the content
        path.write_bytes(content)
        with pytest.raises(PipelineError, match="broken"):
            make_source("idx", str(tmp_path)).plan()

    def test_a_gz_bomb_is_read_no_further_than_its_header_declares(self, tmp_path, images):
        path = tmp_path / "train-images-idx3-ubyte.gz"
        with gzip.open(path, "wb") as file:
            file.write(bytes((0, 0, 8, 3)) + np.array([1, 2, 2], ">u4").tobytes() + bytes(1 << 22))
        with pytest.raises(PipelineError, match="should hold 4 bytes"):
            make_source("idx", str(tmp_path)).plan()

    def test_a_header_that_claims_more_than_memory(self, tmp_path):
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(bytes((0, 0, 8, 3)) + b"\xff" * 12 + bytes(10))
        with pytest.raises(PipelineError, match="has 10"):
            make_source("idx", str(tmp_path)).plan()

    def test_bad_magic(self, tmp_path, images):
        write_idx(tmp_path / "train-images-idx3-ubyte", images.reshape(-1))
        with pytest.raises(PipelineError, match=r"has shape \[120\], expected \[N, ...\]"):
            make_source("idx", str(tmp_path)).plan()
        (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\x89PNG\r\n\x1a\n")
        with pytest.raises(PipelineError, match=r"begins with 89 50 4e 47, expected 00 00, a type .* \(IDX\)"):
            make_source("idx", str(tmp_path)).plan()

    def test_counts_of_images_and_labels_differ(self, tmp_path, images):
        self.write(tmp_path, images)
        write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(3, np.uint8))
        with pytest.raises(PipelineError, match=r"holds 3 labels, .* holds 4 images"):
            make_source("idx", str(tmp_path)).plan()

    def test_a_file_that_changed_is_not_served_from_the_cache(self, tmp_path, images):
        write_idx(tmp_path / "train-images-idx3-ubyte", images)
        source = make_source("idx", str(tmp_path))
        source.plan()
        path = write_idx(tmp_path / "train-images-idx3-ubyte", 255 - images)
        os.utime(path, ns=(1, 1))
        _, rows = read_all(source)
        np.testing.assert_array_equal(rows[0].x[..., 0], 255 - images[0])

    def test_both_gz_and_plain_is_ambiguous(self, tmp_path, images):
        self.write(tmp_path, images)
        self.write(tmp_path, images, ".gz")
        with pytest.raises(PipelineError, match="keep one"):
            make_source("idx", str(tmp_path)).plan()

    def test_no_images(self, tmp_path, images):
        write_idx(tmp_path / "train-images-idx3-ubyte", images[:0])
        with pytest.raises(PipelineError, match="no images"):
            make_source("idx", str(tmp_path)).plan()
