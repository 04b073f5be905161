"""Inputs as others write them: what `prepare` reads, `embed` reads alike, with the same keys, values and rejections."""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines import storage
from pipelines.errors import PipelineError
from pipelines.formats import tfrecords
from pipelines.formats.unpacked import open_unpacked
from pipelines.inputs import open_input
from pipelines.sources import make_source

from ..conftest import column, read_all, read_to_embed

TYPES = {"u1": 8, "i1": 9, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def read_by_both(kind, path, folder, dtype=None):
    """Keys, observations by key and labels, and the rejected keys' reasons, which are the same in either command."""
    plan, rows = read_all(make_source(kind, str(path)))
    keys = column(plan, "key")
    prepared = {key: row.x for key, row in zip(keys, rows, strict=True) if not isinstance(row, str)}
    reasons = {key: row for key, row in zip(keys, rows, strict=True) if isinstance(row, str)}
    reasons |= {row.key: row.reason for row in plan.rejected}
    found = open_input(str(path))
    image = dtype or found.dtype == "string"
    found = found.fitted(*(((), "string") if image else (plan.schema.shape, plan.schema.dtype)))
    embedded, rejected = read_to_embed(found, folder)
    assert embedded.keys() == prepared.keys() and rejected == reasons
    for key, x in embedded.items():
        assert x.dtype == prepared[key].dtype
        np.testing.assert_array_equal(x, prepared[key])
    labels = [row.label for row in rows if not isinstance(row, str)]
    return keys, prepared, labels, reasons


def write_idx(path, x, dtype="u1", opener=open):
    with opener(path, "wb") as file:
        file.write(
            bytes([0, 0, TYPES[dtype], x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.astype(dtype).tobytes()
        )


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 100, [7, 4, 3])


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    "train, test, sep, opener",
    [
        ("train", "t10k", ".", open),
        ("emnist-letters-train", "emnist-letters-test", "-", gzip.open),
        ("TRAIN", "Test", "-", open),
    ],
)
def test_idx_by_the_names_of_mnist_s_kin(x, data, tmp_path, train, test, sep, opener):
    end = "" if opener is open else ".gz"
    for name, some in ((train, x[:4]), (test, x[4:])):
        write_idx(data / f"{name}-images{sep}idx3-ubyte{end}", some, opener=opener)
        write_idx(data / f"{name}-labels{sep}idx1-ubyte{end}", some[:, 0, 0] % 5, opener=opener)
    keys, found, labels, _ = read_by_both("idx", data, tmp_path / "out")
    assert keys == [f"train-0000{i}" for i in range(4)] + [f"test-0000{i}" for i in range(3)]
    np.testing.assert_array_equal(np.stack(list(found.values()))[..., 0], x)  # EMNIST's too: as stored
    assert labels == (x[:, 0, 0] % 5).tolist()


def test_a_pattern_names_one_of_several_sets(x, data, tmp_path):
    for name in ("emnist-letters", "emnist-digits"):
        write_idx(data / f"{name}-train-images-idx3-ubyte", x if name == "emnist-digits" else 99 - x)
    for read in (lambda: make_source("idx", str(data)).plan(), lambda: open_input(str(data))):
        with pytest.raises(PipelineError, match=r"several sets \(emnist-digits-train.*letters.* by a pattern"):
            read()
    _, found, _, _ = read_by_both("idx", data / "emnist-digits-*", tmp_path / "out")
    np.testing.assert_array_equal(np.stack(list(found.values()))[..., 0], x)


@pytest.mark.parametrize("dtype", [name for name in TYPES if name != "u1"])
def test_idx_of_other_numbers_is_float32(x, data, tmp_path, dtype):
    values = x - 50.0
    if "f" in dtype:
        values = values / 7
        values[2, 0, 0] = np.nan
    write_idx(data / "train-images-idx3-float", values, dtype)
    write_idx(data / "train-labels-idx1-int", np.arange(7), ">i4")
    _, found, labels, reasons = read_by_both("idx", data, tmp_path / "out")
    assert reasons == ({"train-00002": "1 of 12 values are not finite"} if "f" in dtype else {})
    good = [i for i in range(7) if i != 2 or "f" not in dtype]
    assert labels == good
    np.testing.assert_array_equal(np.stack(list(found.values())), values[good].astype(np.float32))


def test_idx_of_integers_that_float32_does_not_hold_is_refused(x, data):
    x[1, 1, 1] = 2**24 + 1
    write_idx(data / "train-images-idx3-int", x, ">i4")
    for read in (lambda: make_source("idx", str(data)).plan(), lambda: open_input(str(data))):
        with pytest.raises(PipelineError, match="int32 beyond 16,777,216, which float32 does not hold exactly"):
            read()


def test_npz_of_medmnist(x, data, tmp_path):
    x, labels = x.astype(np.uint8), (np.arange(7) % 3).astype(np.uint8)[:, None]
    parts = {"train": slice(0, 3), "val": slice(3, 5), "test": slice(5, 7)}
    np.savez(
        data / "medmnist.npz",
        **{f"{name}_images": x[part] for name, part in parts.items()},
        **{f"{name}_labels": labels[part] for name, part in parts.items()},
    )
    keys, found, classes, _ = read_by_both("npz", data / "medmnist.npz", tmp_path / "out")
    assert keys[2:4] == ["train-00002", "validation-00000"]
    np.testing.assert_array_equal(np.stack(list(found.values()))[..., 0], x)
    assert classes == labels[:, 0].tolist()


def test_npz_of_one_array_without_a_name(x, data, tmp_path):
    np.savez(data / "a.npz", x / 7)
    keys, found, labels, _ = read_by_both("npz", data / "a.npz", tmp_path / "out")
    assert keys == [f"row-0000{i}" for i in range(7)] and labels == [None] * 7
    np.testing.assert_array_equal(np.stack(list(found.values())), (x / 7).astype(np.float32))


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "name", ["a.PNG", "b.ZIP", "c.Tar.BZ2", "d.tar.xz", "e.CSV", "f.NPY", "g.NPZ", "h.TFRECORD", "i.Parquet"]
)
def test_what_a_suffix_says_it_says_in_capitals(x, data, tmp_path, name):
    x, suffix = x.astype(np.uint8), name.lower().partition(".")[2]
    path, kind = data / name, {"png": "images", "zip": "images", "tfrecord": "tfrecord"}.get(suffix, suffix)
    if suffix == "png":
        for i, image in enumerate(x):
            (data / f"{i}.{'PNG' if i % 2 else 'Png'}").write_bytes(encoded(image))
        path = data
    elif suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for i, image in enumerate(x):
                archive.writestr(f"{i}.PNG", encoded(image))
    elif suffix.startswith("tar"):
        kind = "images"
        with tarfile.open(path, f"w:{suffix[4:]}") as archive:
            for i, image in enumerate(x):
                entry = tarfile.TarInfo(f"{i}.PNG")
                entry.size = len(encoded(image))
                archive.addfile(entry, io.BytesIO(encoded(image)))
    elif suffix == "csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in [[f"c{i}" for i in range(12)], *x.reshape(7, 12)]))
    elif suffix == "npy":
        with open(path, "wb") as file:
            np.save(file, x)
    elif suffix == "npz":
        with open(path, "wb") as file:
            np.savez(file, x=x)
    else:
        keys, rows = [str(i) for i in range(7)], (x / 7).astype(np.float32).reshape(7, 12)
        if suffix == "parquet":
            pq.write_table(pa.table({"key": keys, "x": rows.tolist()}), path)
        else:
            path.write_bytes(b"".join(framed_floats(key, row) for key, row in zip(keys, rows, strict=True)))
        x = rows
    for place in {path} | ({data} if kind not in ("images", "npy") else set()):
        _, found, _, reasons = read_by_both(kind, place, tmp_path / "out" / place.name)
        assert not reasons
        np.testing.assert_array_equal(np.stack([row.reshape(x[0].shape) for row in found.values()]), x)


def framed_floats(key, row):
    features = {"key": tf.train.Feature(bytes_list=tf.train.BytesList(value=[key.encode()]))}
    features["x"] = tf.train.Feature(float_list=tf.train.FloatList(value=row))
    return tfrecords.frame(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


@pytest.mark.parametrize("compression", ["ZLIB", "GZIP"])
def test_packed_tfrecords(x, data, tmp_path, compression, monkeypatch):
    monkeypatch.setattr("pipelines.formats.seekable_gzip._SPACING", 64)
    rows = (x / 7).astype(np.float32).reshape(7, 12)
    with tf.io.TFRecordWriter(str(data / "a.tfrecord"), compression) as file:
        for i, row in enumerate(rows):
            file.write(framed_floats(str(i), row)[12:-4])
    keys, found, _, _ = read_by_both("tfrecord", data / "a.tfrecord", tmp_path / "out")
    assert keys == [str(i) for i in range(7)]
    np.testing.assert_array_equal(np.stack(list(found.values())), rows)
    content = (data / "a.tfrecord").read_bytes()
    (data / "a.tfrecord").write_bytes(content[:-9])
    for read in (lambda: make_source("tfrecord", str(data)).plan(), lambda: open_input(str(data))):
        with pytest.raises(PipelineError, match=r"a\.tfrecord is broken: it ends early"):
            read()


@pytest.mark.parametrize(
    ("own", "wanted", "fits"),
    [
        ((3, 8, 8), (8, 8, 3), False),  # channels first
        ((4, 16), (8, 8, 1), False),
        ((2, 3), (3, 2), False),
        ((8, 8), (8, 8, 1), True),
        ((8, 8, 3), (192,), True),
        ((192,), (8, 8, 3), True),
        ((8, 8, 3), (8, 8, 3), True),
    ],
)
def test_axes_in_another_order_are_no_rows_of_the_model(data, own, wanted, fits):
    np.save(data / "rows.npy", np.zeros((5, *own), np.uint8))
    found = open_input(str(data / "rows.npy"))
    with contextlib.nullcontext() if fits else pytest.raises(PipelineError, match="the signature takes uint8"):
        assert found.fitted(wanted, "uint8").shape == wanted


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_two_archives_that_were_joined_are_refused_by_name(data, tmp_path, name):
    for number in range(2):
        with tarfile.open(tmp_path / str(number), "w:gz" if name.endswith("gz") else "w") as archive:
            picture = io.BytesIO()
            PIL.Image.new("L", (2, 2), number).save(picture, "png")
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = picture.tell()
            archive.addfile(entry, io.BytesIO(picture.getvalue()))
    (data / name).write_bytes((tmp_path / "0").read_bytes() + (tmp_path / "1").read_bytes())
    for read in (lambda: make_source("images", str(data / name)).plan(), lambda: open_input(str(data / name))):
        with pytest.raises(PipelineError, match=r"a\.tar(\.gz)? goes on behind its end mark at byte \d+"):
            read()


@pytest.mark.parametrize("name", ["a.tar.bz2", "a.tar.xz"])
def test_a_packed_tar_that_is_broken_or_a_bomb_is_refused_by_name(data, name):
    with tarfile.open(data / "a.tar", "w") as archive:
        for i in range(9):
            entry = tarfile.TarInfo(f"{i}.png")
            entry.size = 3000
            archive.addfile(entry, io.BytesIO(np.random.default_rng(i).bytes(3000)))
    content = (data / "a.tar").read_bytes()
    module = bz2 if name.endswith("bz2") else lzma
    packed = module.compress(content[:9000]) + module.compress(content[9000:])  # two streams are one content
    (data / name).write_bytes(packed)
    with open_unpacked(str(data / name)) as file:
        assert file.read() == content and file.seek(8990) == 8990 and file.read(20) == content[8990:9010]
    for cut in (packed[:-20], packed[:2000] + bytes(8) + packed[2008:]):
        (data / name).write_bytes(cut)
        for read in (lambda: make_source("images", str(data / name)).plan(), lambda: open_input(str(data / name))):
            with pytest.raises(PipelineError, match=rf"{name} is broken"):
                read()
    bomb = tarfile.TarInfo("bomb.png")
    bomb.size = 40 << 20
    (data / name).write_bytes(module.compress(bomb.tobuf() + bytes(bomb.size) + bytes(1024)))
    tracemalloc.start()
    with pytest.raises(PipelineError, match=r"none of the 1 images"):
        make_source("images", str(data / name), 64).plan()
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def picture(form):
    """A picture `[6, 5]` in some form, and its file."""
    rng = np.random.default_rng(3)
    shape = {"LA": (6, 5, 2), "RGBA": (6, 5, 4), "RGB": (6, 5, 3), "RGB+tRNS": (6, 5, 3), "CMYK": (6, 5, 4)}.get(
        form, (6, 5)
    )
    x = rng.integers(0, 256, shape, dtype=np.uint8)
    if form in ("P", "P+tRNS"):
        palette = rng.integers(0, 256, (4, 3), dtype=np.uint8)
        image = PIL.Image.fromarray(x % 4, "P")
        image.putpalette(palette.ravel().tolist())
        alpha = np.uint8([0, 9, 200, 255])
        looked_up = palette[x % 4] if form == "P" else np.concatenate([palette, alpha[:, None]], 1)[x % 4]
        return looked_up, image, {} if form == "P" else {"transparency": alpha.tobytes()}
    if form == "1":
        return (x > 127)[..., None] * np.uint8(255), PIL.Image.fromarray((x > 127) * np.uint8(255)).convert("1"), {}
    if form == "CMYK":
        return x, PIL.Image.frombytes("CMYK", (5, 6), x.tobytes()), {}
    options = {"RGB+tRNS": {"transparency": (1, 2, 3)}, "L+tRNS": {"transparency": 7}}.get(form, {})
    return x.reshape(6, 5, -1), PIL.Image.frombytes(form.split("+")[0], (5, 6), x.tobytes()), options


@pytest.mark.parametrize("form", ["L", "1", "LA", "RGB", "RGBA", "P", "P+tRNS", "RGB+tRNS", "L+tRNS"])
def test_every_form_of_png_of_up_to_8_bits_is_exact(data, tmp_path, form):
    x, image, options = picture(form)
    image.save(data / "a.png", **options)
    _, found, _, reasons = read_by_both("images", data, tmp_path / "out")
    assert not reasons
    np.testing.assert_array_equal(found["a.png"], x)


def write_bad(folder):
    """Pictures that cannot be read exactly, and what is said of each."""
    grey, other = (
        PIL.Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 5), dtype=np.uint8)) for i in (1, 2)
    )
    for i in range(3):
        grey.save(folder / f"good{i}.png")
    picture("CMYK")[1].save(folder / "cmyk.jpg")
    for channels in (1, 2, 3, 4):
        deep = tf.io.encode_png(np.full((6, 5, channels), 0x1234, np.uint16)).numpy()
        (folder / f"deep{channels}.png").write_bytes(deep)
    grey.save(folder / "moving.png", save_all=True, append_images=[other])
    for suffix in ("gif", "webp"):
        grey.save(folder / f"still.{suffix}")
        grey.save(folder / f"moving.{suffix}", save_all=True, append_images=[other])
        (folder / f"{suffix}.png").write_bytes((folder / f"moving.{suffix}").read_bytes())
    content = (folder / "good0.png").read_bytes()
    (folder / "cut.png").write_bytes(content[:-5])
    foreign = "expected PNG or JPEG: convert it to PNG"
    return {
        "cmyk.jpg": "mode CMYK with 1 frame",
        "moving.png": "mode L with 2 frame",
        "cut.png": "the file is truncated",
        **{f"deep{channels}.png": "16 bits a channel, expected at most 8" for channels in (1, 2, 3, 4)},
        **{f"{name}.{suffix}": foreign for name in ("still", "moving") for suffix in ("gif", "webp")},
        **{f"{suffix}.png": "not a readable PNG or JPEG" for suffix in ("gif", "webp")},
    }


@pytest.mark.parametrize("archived", [False, True])
def test_what_is_not_exact_is_rejected_by_name(data, tmp_path, archived):
    expected, path = write_bad(data), data
    if archived:
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(data, ".")
    _, found, _, reasons = read_by_both("images", path, tmp_path / "out")
    assert sorted(found) == ["good0.png", "good1.png", "good2.png"] and reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]


def refused(files):
    """What either command says of a folder, at its plan, which must be the same."""
    said = []
    for read in (lambda: make_source("images", str(files)).plan(), lambda: open_input(str(files))):
        with pytest.raises(PipelineError) as caught:
            read()
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["empty.png"], r"none of the 1 images in .* can be read; the first is empty.png: not a readable PNG"),
        (["empty.png", "a.gif"], r"none of the 1 images"),
        (["a.gif"], r"no PNG or JPEG file .*\(1 rejected, the first is a.gif: a .gif file, expected PNG or JPEG"),
        (["pipe.png"], r"no PNG or JPEG file .*the first is pipe.png: not a plain file"),
        (["good.png", "cat/good.png"], r"1 images lie beside sub-folders \(good.png"),
        (["label=1/good.png", "other/good.png"], r"1 images lie in no folder label=VALUE \(other/good.png"),
        (["label=__HIVE_DEFAULT_PARTITION__/good.png"], r"no image lies in a folder label=VALUE that says a class"),
    ],
)
def test_folders_of_pictures_are_refused_alike(data, names, message):
    for name in names:
        (data / name).parent.mkdir(exist_ok=True)
        if "pipe" in name:
            os.mkfifo(data / name)
        else:
            (data / name).write_bytes(encoded(np.zeros((4, 3), np.uint8)) if "good" in name else b"")
    assert re.search(message, refused(data))
    if len(names) == 1 and "/" not in names[0] and "pipe" not in names[0]:
        assert re.search(message, refused(data / names[0]))


def test_pictures_that_may_not_be_read_and_links_to_themselves(data, tmp_path, monkeypatch):
    (data / "_folder").mkdir()
    for name in ("good", "closed"):
        (data / "_folder" / f"{name}.png").write_bytes(encoded(np.zeros((4, 3), np.uint8)))
    (data / "_folder" / "loop.png").symlink_to(data / "_folder" / "loop.png")
    opened = storage.open_to_read

    def open_to_read(path, *arguments):
        if path.endswith("closed.png"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, *arguments)

    monkeypatch.setattr(storage, "open_to_read", open_to_read)
    _, found, _, reasons = read_by_both("images", data, tmp_path / "out")
    assert list(found) == ["_folder/good.png"] and reasons == {
        "_folder/closed.png": "cannot be read: Permission denied",
        "_folder/loop.png": "a link: links are not followed",
    }


def framed_example(**features):
    """A record of lists of floats, whole numbers or bytes."""
    kinds = {float: "float", int: "int64", bytes: "bytes"}
    made = {}
    for name, values in features.items():
        kind = kinds[type(values[0])]
        lists = {"float": tf.train.FloatList, "int64": tf.train.Int64List, "bytes": tf.train.BytesList}
        made[name] = tf.train.Feature(**{f"{kind}_list": lists[kind](value=values)})
    return tfrecords.frame(tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString())


UNREAD = framed_example(key=[b"bad"], x=[1.0, 2.0], other=[3])[12:-4]  # no row is made of the last of its features


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("bad", "key", "reason"),
    [
        (tfrecords.frame(b"\xff\xff"), None, "not a tf.Example"),
        (tfrecords.frame(b""), None, "no feature 'key', expected the key"),
        (framed_example(x=[1.0, 2.0]), None, "no feature 'key', expected the key"),
        (framed_example(key=[b"a", b"b"], x=[1.0, 2.0]), None, "the key is not one integer or one string"),
        (framed_example(key=[b""], x=[1.0, 2.0]), None, "the key is empty"),
        (framed_example(key=[b"bad"]), "bad", "no feature 'x', expected one string of bytes or a list of floats"),
        (framed_example(key=[b"bad"], x=[1, 2]), "bad", "2 values, floats or not, in 'x'"),
        (framed_example(key=[b"bad"], x=[1.0]), "bad", "x has 1 values of float32, expected float32 [2]"),
        (
            tfrecords.frame(UNREAD.replace(b"\x1a\3\n\1\3", b"\x12\3\n\1\3")),
            None,
            "not a tf.Example",
        ),  # a byte of floats
        (
            tfrecords.frame(UNREAD.replace(b"other\x12", b"other\x13")),
            None,
            "not a tf.Example",
        ),  # a group that never ends
    ],
    ids=[
        "no example",
        "nothing",
        "no key",
        "two keys",
        "empty key",
        "no x",
        "whole numbers",
        "one number",
        "unread floats",
        "unread group",
    ],
)
def test_a_bad_record_is_one_row_wherever_it_lies(data, bad, key, reason, is_first):
    """In the words of ours, and not of the kernel that parses a block of them; no other row loses its key."""
    if is_first and "x has 1 values" in reason:
        pytest.skip("the first record says how many values there are")
    good = b"".join(framed_example(key=[f"k{i}".encode()], x=[float(i), 0.5]) for i in range(3))
    (data / "a.tfrecord").write_bytes(bad + good if is_first else good + bad)
    plan, rows = read_all(make_source("tfrecord", str(data)))
    found = open_input(str(data)).fitted((2,), "float32")
    [block] = found.read(found.blocks("all")[0])
    assert block.keys == ["k0", "k1", "k2"] and block.x[:, 0].tolist() == [0, 1, 2]
    [said] = [row for row in rows if isinstance(row, str) and row] or [row.reason for row in plan.rejected]
    [rejected] = block.rejected
    assert rejected.reason == said and reason in said
    assert rejected.key == (key or f"a.tfrecord:{0 if is_first else 3}")


@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_a_row_without_a_name_is_rejected(kind, data, tmp_path):
    x, names = np.float32([[0, 1], [2, 3], [4, 5]]), ["a", "", "c"]
    if kind == "npz":
        np.savez(data / "a.npz", x=x, keys=np.array(names))
    else:
        table = {"key": names, "x": pa.array(x.tolist(), pa.list_(pa.float32(), 2))}
        pq.write_table(pa.table(table), data / "a.parquet")
    _, prepared, _, reasons = read_by_both(kind, data, tmp_path / "out")
    assert [*prepared] == ["a", "c"] and [*reasons.values()] == ["the key is empty"]


def test_several_labels_of_a_record_are_none(data):
    rows = [framed_example(key=[f"k{i}".encode()], x=[1.0], label=[1] * (1 + (i == 2))) for i in range(4)]
    (data / "a.tfrecord").write_bytes(b"".join(rows))
    plan, _ = read_all(make_source("tfrecord", str(data)))
    assert column(plan, "key") == ["k0", "k1", "k3"] and plan.schema.labels == ("0", "1")
    assert [(row.key, row.reason) for row in plan.rejected] == [("k2", "2 values in 'label', expected one")]
    (data / "a.tfrecord").write_bytes(rows[2])
    with pytest.raises(PipelineError, match="2 values in 'label', expected one"):
        make_source("tfrecord", str(data)).plan()


def test_a_key_that_comes_late_is_not_lost(data, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.tfrecords._HEADS", 2)
    records = [framed_example(x=[1.0, 2.0])] * 3 + [framed_example(key=[b"late"], x=[1.0, 2.0])]
    (data / "a.tfrecord").write_bytes(b"".join(records))
    found = open_input(str(data)).fitted((2,), "float32")
    with pytest.raises(
        PipelineError, match=r"record 3 of a\.tfrecord has a feature 'key' and the first ones have none"
    ):
        list(found.read(found.blocks("all")[0]))


@pytest.mark.parametrize("empty", [{"key": pa.array([]), "x": pa.array([])}, {}])
def test_a_parquet_file_without_rows_may_have_no_columns_either(x, data, tmp_path, empty):
    """As pandas writes them, of a night without rows."""
    rows = (x / 7).astype(np.float32).reshape(7, 12)
    pq.write_table(pa.table(empty), data / "a.parquet")
    pq.write_table(pa.table({"key": [str(i) for i in range(7)], "x": rows.tolist()}), data / "b.parquet")
    _, found, _, reasons = read_by_both("parquet", data, tmp_path / "out")
    assert len(found) == 7 and not reasons
    (data / "b.parquet").unlink()
    for read in (lambda: make_source("parquet", str(data)).plan(), lambda: open_input(str(data))):
        with pytest.raises(PipelineError, match="holds no rows"):
            read()


def test_a_picture_that_is_named_itself_may_be_a_link_or_hidden(data, tmp_path):
    (data / ".hidden.png").write_bytes(encoded(np.zeros((4, 3), np.uint8)))
    (data / "link.png").symlink_to(data / ".hidden.png")
    for name in (".hidden.png", "link.png"):
        assert read_by_both("images", data / name, tmp_path / name)[0] == [name]


def test_pictures_in_records_are_judged_alike(data, tmp_path):
    expected = {name: reason for name, reason in write_bad(data).items() if "convert" not in reason}
    for path in sorted(data.iterdir()):
        if path.suffix in (".gif", ".webp"):
            path.unlink()
    records = [tfrecords.frame(tfrecords.example(path.name, path.read_bytes())) for path in sorted(data.iterdir())]
    (tmp_path / "a.tfrecord").write_bytes(b"".join(records))
    _, found, _, reasons = read_by_both("tfrecord", tmp_path / "a.tfrecord", tmp_path / "out", "string")
    assert sorted(found) == ["good0.png", "good1.png", "good2.png"] and reasons.keys() == expected.keys()


@pytest.mark.parametrize("name", ["sub/x", "model/layer.0/x"])
@pytest.mark.parametrize("file", ["a.npz", "folder/a.npz"])
def test_an_array_whose_name_has_slashes(name, file, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **{name: np.arange(12, dtype=np.float32).reshape(6, 2)})
    for given in (path, tmp_path):
        keys, _ = read_by_both("npz", given, tmp_path / f"out-{given.name}")[:2]
        assert len(keys) == 6


def test_records_without_a_key_are_called_by_their_number(tmp_path):
    records = [framed_example(key=[b"one"], x=[1.0, 2.0]), framed_example(x=[3.0, 4.0]), framed_example(x=[5.0, 6.0])]
    (tmp_path / "a.tfrecord").write_bytes(b"".join(records))
    found = make_source("tfrecord", str(tmp_path / "a.tfrecord")).plan()
    assert [row.key for row in found.rejected] == ["a.tfrecord:1", "a.tfrecord:2"]
    _, rejected = read_to_embed(open_input(str(tmp_path / "a.tfrecord")).fitted((2,), "float32"), tmp_path / "lists")
    assert sorted(rejected) == ["a.tfrecord:1", "a.tfrecord:2"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_name(encoding, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("a,b\n1,2\n".encode(encoding))
    message = rf"begins with NUL bytes .*as UTF-16 does, .* iconv -f UTF-16{encoding[-2:].upper()} -t UTF-8 a\.csv"
    for read in (lambda: make_source("csv", str(path)).plan(), lambda: open_input(str(path))):
        with pytest.raises(PipelineError, match=message) as told:
            read()
        assert "\0" not in str(told.value)


@pytest.mark.parametrize("name", ["cats.7z", "cats.tar.zst", "cats.rar"])
def test_archives_that_are_not_read_are_told_which_are(name, tmp_path):
    (tmp_path / name).write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    message = rf"{name} is an archive of a kind .* pack it as \.tar, .* or \.zip"
    for given in (str(tmp_path / name), str(tmp_path)):
        with pytest.raises(PipelineError, match=message):
            make_source("images", given).plan()
        with pytest.raises(PipelineError, match=message):
            open_input(given)


def test_archives_in_a_folder_are_named_by_a_pattern(tmp_path):
    with zipfile.ZipFile(tmp_path / "cats.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(PipelineError, match=r"cats\.zip is an archive: name it, or several by a pattern, '\*\.zip'"):
        make_source("images", str(tmp_path)).plan()
