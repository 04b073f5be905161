"""Sources: what is read is what was written, and what is broken is named."""

import gzip
import os

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from pipelines.errors import PipelineError
from pipelines.sources import Row, make_source

from .conftest import read_all, write_idx, write_png


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
        assert plan.keys == ["train-00000", "train-00001", "train-00002", "train-00003", "test-00000", "test-00001"]
        assert plan.splits == ["train"] * 4 + ["test"] * 2
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
        with pytest.raises(PipelineError, match="begins with 00 00 08 01, expected 00 00 08 03"):
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


def test_digits(digits_images):
    plan, rows = read_all(make_source("digits", None))
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), digits_images)
    np.testing.assert_array_equal([row.label for row in rows], load_digits().target)
    assert len(set(plan.keys)) == 1797 and len(np.unique(digits_images)) == 17


class TestNpy:
    def test_one_file_of_grey_images(self, tmp_path, images):
        np.save(tmp_path / "x.npy", images)
        plan, rows = read_all(make_source("npy", str(tmp_path / "x.npy")))
        assert plan.schema.shape == (5, 4, 1) and plan.splits == [None] * 6 and plan.keys[0] == "row-00000"
        np.testing.assert_array_equal(np.stack([row.x[..., 0] for row in rows]), images)

    @pytest.mark.parametrize("dtype", ["float32", "float64", ">f8"])
    def test_floats_become_float32(self, tmp_path, dtype):
        x = np.random.default_rng(1).normal(size=(7, 3)).astype(dtype)
        np.save(tmp_path / "x.npy", x)
        plan, rows = read_all(make_source("npy", str(tmp_path / "x.npy")))
        assert (plan.schema.shape, plan.schema.dtype) == ((3,), "float32")
        np.testing.assert_array_equal(np.stack([row.x for row in rows]), x.astype("float32"))

    def test_a_folder_has_splits_and_labels(self, tmp_path, images):
        for split, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
            np.save(tmp_path / f"{split}.npy", images[rows])
            np.save(tmp_path / f"{split}_labels.npy", np.arange(6)[rows])
        plan, rows = read_all(make_source("npy", str(tmp_path)))
        assert plan.splits == ["train"] * 4 + ["test"] * 2
        assert [row.label for row in rows] == list(range(6))

    def test_rows_that_are_not_finite_are_rejected(self, tmp_path):
        x = np.ones((4, 3))
        x[1, 2], x[2, 0] = np.nan, 1e300  # the second overflows float32
        np.save(tmp_path / "x.npy", x)
        _, rows = read_all(make_source("npy", str(tmp_path / "x.npy")))
        assert [isinstance(row, Row) for row in rows] == [True, False, False, True]
        assert str(rows[1]) == "1 of 3 values are not finite"

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((3, 2), np.int64), "holds int64, expected uint8"),
            (np.zeros((0, 2), np.float32), "at least one row"),
            (np.zeros(5, np.float32), r"shape \[5\]"),
            (np.array([[{}]], dtype=object), "cannot be read"),
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path, array, message):
        np.save(tmp_path / "x.npy", array, allow_pickle=True)
        with pytest.raises(PipelineError, match=message):
            make_source("npy", str(tmp_path / "x.npy")).plan()

    def test_truncated(self, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros((9, 9), np.float32))
        content = (tmp_path / "x.npy").read_bytes()
        for keep in (3, 100, len(content) - 1):
            (tmp_path / "x.npy").write_bytes(content[:keep])
            with pytest.raises(PipelineError, match=r"x\.npy"):
                make_source("npy", str(tmp_path / "x.npy")).plan()

    def test_labels_must_match(self, tmp_path):
        np.save(tmp_path / "train.npy", np.zeros((4, 2), np.float32))
        np.save(tmp_path / "train_labels.npy", np.zeros(3, np.int64))
        with pytest.raises(PipelineError, match=r"shape \[4\]"):
            make_source("npy", str(tmp_path)).plan()


class TestImages:
    def test_labels_are_parent_folders_and_keys_paths(self, tmp_path, images):
        for index, name in enumerate(("b/1.png", "a/2.png", "a/ü 3.PNG")):
            write_png(tmp_path / name, images[index])
        plan, rows = read_all(make_source("images", str(tmp_path)))
        assert plan.keys == ["a/2.png", "a/ü 3.PNG", "b/1.png"] and plan.schema.labels == ("a", "b")
        assert [row.label for row in rows] == [0, 0, 1]
        np.testing.assert_array_equal(rows[2].x[..., 0], images[0])

    @pytest.mark.parametrize(
        ("pattern", "keys"),
        [
            ("a/*", ["1.png", "4.jpg"]),
            ("*/*.png", ["a/1.png", "c/3.png"]),
            ("a/*/**/*.png", ["b/2.png", "b/d/5.png"]),
            ("**/b/*", ["a/b/2.png"]),
            ("[ac]/?.png", ["a/1.png", "c/3.png"]),
            ("?????.png", []),
        ],
    )
    def test_a_pattern(self, tmp_path, images, pattern, keys):
        for name in ("a/1.png", "a/b/2.png", "c/3.png", "a/4.jpg", "a/b/d/5.png", "6.png"):
            write_png(tmp_path / name, images[0])
        source = make_source("images", f"{tmp_path}/{pattern}")
        if keys:
            assert source.plan().keys == keys
        else:
            with pytest.raises(PipelineError, match="matches no"):
                source.plan()

    @pytest.mark.parametrize(
        ("mode", "shape"), [("L", (5, 4, 1)), ("RGB", (5, 4, 3)), ("RGBA", (5, 4, 4)), ("LA", (5, 4, 2))]
    )
    def test_modes_keep_every_value(self, tmp_path, mode, shape):
        x = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
        PIL.Image.frombytes(mode, (4, 5), x.tobytes()).save(tmp_path / "x.png")
        plan, rows = read_all(make_source("images", str(tmp_path)))
        assert plan.schema.shape == shape
        np.testing.assert_array_equal(rows[0].x, x)

    def test_palette_and_bilevel_are_looked_up(self, tmp_path):
        x = np.random.default_rng(3).integers(0, 2, (5, 4), dtype=np.uint8)
        palette = PIL.Image.fromarray(x, "P")
        palette.putpalette([10, 20, 30, 40, 50, 60])
        palette.save(tmp_path / "p.png")
        _, rows = read_all(make_source("images", str(tmp_path)))
        np.testing.assert_array_equal(rows[0].x, np.uint8([[10, 20, 30], [40, 50, 60]])[x])
        (tmp_path / "p.png").unlink()
        PIL.Image.fromarray(x * 255).convert("1").save(tmp_path / "b.png")
        _, rows = read_all(make_source("images", str(tmp_path)))
        np.testing.assert_array_equal(rows[0].x[..., 0], x * 255)

    def test_bad_images_are_rejected_one_by_one(self, tmp_path, images):
        for index in range(4):
            write_png(tmp_path / f"{index}.png", images[index])
        content = (tmp_path / "0.png").read_bytes()
        for cut in range(1, 40, 3):  # the last bytes are no pixels, and are missed all the same
            (tmp_path / f"cut{cut}.png").write_bytes(content[:-cut])
        (tmp_path / "empty.png").write_bytes(b"")
        (tmp_path / "text.jpg").write_bytes(b"not an image")
        (tmp_path / "gif.png").write_bytes(b"GIF89a" + bytes(20))
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 0xFF
        (tmp_path / "flip.png").write_bytes(damaged)
        write_png(tmp_path / "wide.png", np.zeros((9, 8), np.uint8))
        for channels in (1, 2, 3, 4):
            deep = tf.io.encode_png(np.full((5, 4, channels), 0x1234, np.uint16)).numpy()
            (tmp_path / f"deep{channels}.png").write_bytes(deep)
        plan, rows = read_all(make_source("images", str(tmp_path)))
        outcome = dict(zip(plan.keys, rows, strict=True))
        assert [key for key, row in outcome.items() if isinstance(row, Row)] == [f"{i}.png" for i in range(4)]
        assert str(outcome["wide.png"]) == "shape [9, 8, 1], expected [5, 4, 1]"
        for channels in (1, 2, 3, 4):
            assert str(outcome[f"deep{channels}.png"]) == "16 bits a channel, expected at most 8"

    def test_a_bomb_is_rejected_undecoded(self, tmp_path, images, monkeypatch):
        write_png(tmp_path / "a.png", images[0])
        write_png(tmp_path / "bomb.png", np.zeros((200, 200), np.uint8))
        decoded = []
        load = PIL.Image.Image.tobytes
        monkeypatch.setattr(PIL.Image.Image, "tobytes", lambda self, *a: decoded.append(self.size) or load(self, *a))
        plan, rows = read_all(make_source("images", str(tmp_path), max_pixels=30_000))
        assert plan.schema.shape == (5, 4, 1) and "200 x 200 pixels, expected at most 30000" in str(rows[1])
        assert (200, 200) not in decoded and decoded

    def test_links_and_pipes_are_rejected_and_not_followed(self, tmp_path, images):
        outside = write_png(tmp_path / "outside" / "secret.png", images[0])
        folder = tmp_path / "in"
        write_png(folder / "good.png", images[1])
        (folder / "link.png").symlink_to(outside)
        (folder / "folder").symlink_to(outside.parent)
        os.mkfifo(folder / "pipe.png")
        plan, rows = read_all(make_source("images", str(folder)))
        assert plan.keys == ["good.png"] and len(rows) == 1
        assert {row.key: row.reason for row in plan.rejected} == {
            "link.png": "a link: links are not followed",
            "folder": "a link: links are not followed",
            "pipe.png": "not a plain file",
        }

    def test_loose_images_beside_folders_are_an_error(self, tmp_path, images):
        write_png(tmp_path / "a.png", images[0])
        write_png(tmp_path / "b" / "c.png", images[0])
        with pytest.raises(PipelineError, match="1 images lie beside sub-folders"):
            make_source("images", str(tmp_path)).plan()

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(PipelineError, match="matches no PNG or JPEG"):
            make_source("images", str(tmp_path)).plan()

    def test_a_name_that_is_not_utf8(self, tmp_path, images):
        write_png(tmp_path / "good.png", images[0])
        os.rename(write_png(tmp_path / "x.png", images[0]), os.fsencode(tmp_path) + b"/\xff.png")
        plan = make_source("images", str(tmp_path)).plan()
        assert plan.keys == ["good.png"] and plan.rejected[0].key == "\\xff.png"


@pytest.mark.parametrize("kind", ["mnist", "tfds", "idx:x", ""])
def test_unknown_kinds(kind):
    with pytest.raises(PipelineError, match="unknown source"):
        make_source(kind, "x")


def test_an_input_that_is_not_there(tmp_path):
    for kind in ("idx", "npy", "images"):
        with pytest.raises(PipelineError, match="gone"):
            make_source(kind, str(tmp_path / "gone")).plan()
        with pytest.raises(PipelineError, match="--input"):
            make_source(kind, None)
