"""Image files as a source: every stored value is kept, and hostile files are rejected one by one."""

import os
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from pipelines import preprocess
from pipelines.errors import PipelineError, RowError
from pipelines.formats.images import check_encoded, pixels
from pipelines.sources import make_source

from ..conftest import Row, column, read_all, write_png


@pytest.fixture
def images(tmp_path):
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)


class TestImages:
    def test_labels_are_parent_folders_and_keys_paths(self, tmp_path, images):
        for index, name in enumerate(("b/1.png", "a/2.png", "a/ü 3.PNG")):
            write_png(tmp_path / name, images[index])
        plan, rows = read_all(make_source("images", str(tmp_path)))
        assert column(plan, "key") == ["a/2.png", "a/ü 3.PNG", "b/1.png"] and plan.schema.labels == ("a", "b")
        assert [row.label for row in rows] == [0, 0, 1]
        np.testing.assert_array_equal(rows[2].x[..., 0], images[0])

    def test_folders_that_are_numbers_are_classes_by_their_numbers(self, tmp_path, images):
        for index, name in enumerate(("2", "10", "9")):
            write_png(tmp_path / name / "1.png", images[index])
        plan, rows = read_all(make_source("images", str(tmp_path)))
        found = dict(zip(column(plan, "key"), [row.label for row in rows], strict=True))
        assert found == {"10/1.png": 10, "2/1.png": 2, "9/1.png": 9}
        assert plan.schema.labels == tuple(map(str, range(11)))

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
            assert column(source.plan(), "key") == keys
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
        outcome = dict(zip(column(plan, "key"), rows, strict=True))
        assert [key for key, row in outcome.items() if isinstance(row, Row)] == [f"{i}.png" for i in range(4)]
        assert str(outcome["wide.png"]).startswith("shape [9, 8, 1], expected [5, 4, 1]: --resize HxW")
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
        assert column(plan, "key") == ["good.png"] and len(rows) == 1
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
        assert column(plan, "key") == ["good.png"] and plan.rejected[0].key == "\\xff.png"


def made_png(x, colour=0, methods=(0, 0, 0), rows=None, **chunks):
    """A PNG of 8 bits by hand; ``rows`` are what is packed."""
    rows = b"".join(b"\0" + row.tobytes() for row in x) if rows is None else rows
    header = struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 8, colour, *methods)
    parts = [("IHDR", header), *chunks.items(), ("IDAT", zlib.compress(rows)), ("IEND", b"")]
    framed = [(kind.encode() + data, len(data)) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", size) + data + struct.pack(">I", zlib.crc32(data)) for data, size in framed
    )


def interlaced(x):
    """The seven passes of Adam7, as the PNG specification lists them."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [x[first::down, left::right] for first, left, down, right in passes]
    return b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)


class TestPngByHand:
    """Whole by their checksums: what Pillow would decode to black rows, or TensorFlow refuses, is rejected."""

    x = np.arange(30, dtype=np.uint8).reshape(6, 5)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (made_png(x, rows=b"\0\1\2\3\4\5"), "it ends before its last row"),
            (made_png(x, methods=(0, 0, 1), rows=interlaced(x)[:-6]), "it ends before its last row"),
            (made_png(x, methods=(1, 0, 0)), "compression, filter, interlacing (1, 0, 0)"),
            (made_png(x, 3), "the palette has 0 bytes"),
            (made_png(x, 3, PLTE=bytes(13)), "the palette has 13 bytes"),
            (made_png(x, 3, PLTE=bytes(90), tRNS=bytes(31)), "the palette has 90 bytes"),
            (made_png(x, WHAT=b""), "chunk WHAT is unknown"),
        ],
    )
    def test_what_is_not_whole(self, content, reason):
        with pytest.raises(RowError, match="cannot be decoded: ") as caught:
            pixels(content, 100)
        assert reason in str(caught.value)
        with pytest.raises((RowError, tf.errors.InvalidArgumentError)):
            check_encoded(content, 100)
            tf.io.decode_png(content)

    @pytest.mark.parametrize("shape", [(6, 5), (1, 1), (9, 17)])
    def test_interlaced(self, shape):
        x = np.random.default_rng(0).integers(0, 2, shape, dtype=np.uint8)  # dark, so that rows are counted
        content = made_png(x, methods=(0, 0, 1), rows=interlaced(x))
        check_encoded(content, 1000)
        np.testing.assert_array_equal(pixels(content, 1000)[..., 0], x)
        np.testing.assert_array_equal(tf.io.decode_png(content).numpy()[..., 0], x)

    def test_black_last_rows_and_metadata_are_no_damage(self):
        dark = np.zeros_like(self.x)
        np.testing.assert_array_equal(pixels(made_png(dark, tEXt=b"a\0b", sBIT=b"\3"), 100)[..., 0], dark)

    def test_a_jpeg_without_an_end(self):
        content = tf.io.encode_jpeg(self.x[..., None]).numpy()
        check_encoded(content, 100)
        preview = b"\xff\xe1\x00\x06" + b"\xff\xda\xff\xd9"  # of the metadata
        cut = content[:2] + preview + content[2:-2]
        for judge in (check_encoded, pixels):
            with pytest.raises(RowError, match="the file is truncated"):
                judge(cut, 100)
            judge(cut + b"\xff\xd9", 100)


@pytest.mark.parametrize(
    ("folders", "hint"),
    [
        (("train/cat", "test/cat"), "the folders train and test make no splits"),
        (("train/cat", "dog/cat"), "the pictures in dog/cat and train/cat are of one class, cat: a label is"),
        (("a", "b"), ""),
        (
            ("-1", "1"),
            "labels are numbers below 0 too, and were taken as names (-1 is class 0, 1 is class 1): leave out",
        ),
    ],
    ids=str,
)
def test_what_folders_say_that_was_perhaps_not_meant_is_told(folders, hint, tmp_path):
    """In npz and npy such names make splits; of pictures the folders say the label, and the keys the split."""
    for at, folder in enumerate(folders):
        for i in range(3):
            write_png(tmp_path / "in" / folder / f"{i}.png", np.full((4, 4), 9 * i + at, np.uint8))
    summary = preprocess.run("images", str(tmp_path / "in"), str(tmp_path / "out"), test_fraction=0)
    assert summary.hint.startswith(hint) and bool(summary.hint) == bool(hint)
    assert not hint or f"hint             {hint}" in summary.table()
