"""Images in archives: the rows of the folder that was packed, and nothing that leads out of it."""

import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from pipelines import preprocess
from pipelines.errors import PipelineError
from pipelines.formats import archives
from pipelines.sources import make_source

from ..conftest import Row, artifacts, column, png, read_all, rejections

SUFFIXES = ["tar", "tar.gz", "TGZ", "tar.bz2", "txz", "ZIP"]

PACKED = {"gz": "gz", "tgz": "gz", "bz2": "bz2", "txz": "xz"}


@pytest.fixture
def images():
    """Names in an archive and their images."""
    x = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    return {f"pets/{'cat' if i % 3 else 'dög'}/{i}.png": row for i, row in enumerate(x)}


def pack(path, contents, special=()):
    """Writes an archive of names and contents; ``special`` are further members of tar, or of zip."""
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in [*contents, *special]:
                archive.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{PACKED.get(name.rpartition('.')[2], '')}", format=tarfile.PAX_FORMAT) as archive:
            for name, content in contents:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            for entry in special:
                archive.addfile(entry)
    return str(path)


def encoded(images):
    return [(name, png(row)) for name, row in images.items()]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_keys_and_labels_are_those_of_the_folder(tmp_path, images, suffix):
    contents = [(f"./{name}", content) for name, content in encoded(images)] + [("./notes.txt", b"no image")]
    reader = make_source("images", pack(tmp_path / f"pets.{suffix}", contents))
    plan, rows = read_all(reader)
    assert column(plan, "key") == list(images) and plan.schema.labels == ("cat", "dög") and not plan.rejected
    assert [plan.schema.labels[row.label] for row in rows] == [name.split("/")[1] for name in images]
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), np.stack(list(images.values())))
    chosen = np.random.default_rng(1).permutation(9)[:5]
    batch = reader.read_rows(plan.rows.take(chosen), plan.schema)
    np.testing.assert_array_equal(batch.x, np.stack([list(images.values())[i] for i in chosen]))


def test_the_dataset_is_that_of_the_unpacked_folder(tmp_path, images):
    for name, content in encoded(images):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    arguments = {"test_fraction": 0.3, "rows_per_shard": 2}
    preprocess.run("images", str(tmp_path / "in"), str(tmp_path / "folder"), **arguments)
    expected = {name: data for name, data in artifacts(tmp_path / "folder").items() if ".tfrecord-" in name}
    for suffix in SUFFIXES:
        path = pack(tmp_path / f"pets.{suffix}", encoded(images))
        preprocess.run("images", path, str(tmp_path / suffix.replace(".", "-")), **arguments)
        found = artifacts(tmp_path / suffix.replace(".", "-"))
        assert {name: data for name, data in found.items() if ".tfrecord-" in name} == expected


def test_a_pattern_of_archives(tmp_path, images):
    contents = encoded(images)
    pack(tmp_path / "a.tar", contents[:4])
    pack(tmp_path / "b.zip", contents[4:])
    pack(tmp_path / "c.tar", contents[:2])
    plan, rows = read_all(make_source("images", f"{tmp_path}/[ac].tar"))
    names = list(images)
    assert column(plan, "key") == [f"a.tar/{name}" for name in names[:4]] + [f"c.tar/{name}" for name in names[:2]]
    assert all(isinstance(row, Row) for row in rows)


def test_members_of_tar_that_lead_elsewhere_are_rejected(tmp_path, images, monkeypatch):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(np.zeros((8, 8, 1), np.uint8)))
    special = []
    for name, kind, link in (
        ("link.png", tarfile.SYMTYPE, str(secret)),
        ("hard.png", tarfile.LNKTYPE, "pets/cat/1.png"),
        ("folder", tarfile.SYMTYPE, "/"),
        ("device.png", tarfile.CHRTYPE, ""),
        ("pipe.png", tarfile.FIFOTYPE, ""),
    ):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        special.append(entry)
    content = png(np.zeros((8, 8, 1), np.uint8))
    odd = [(str(secret), content), ("../up.png", content), ("a/../../b.png", content), ("C:\\x.png", content)]
    before = sorted(tmp_path.iterdir())
    path = pack(tmp_path / "in.tar", encoded(images) + odd, special)
    plan, rows = read_all(make_source("images", path))
    assert column(plan, "key") == list(images) and len(rows) == 9
    assert {row.key: row.reason for row in plan.rejected} == {
        "link.png": "a link: links are not followed",
        "hard.png": "a link: links are not followed",
        "folder": "a link: links are not followed",
        "device.png": "not a plain file",
        "pipe.png": "not a plain file",
        str(secret): "the path is absolute",
        "../up.png": "the path leads out of the archive",
        "a/../../b.png": "the path leads out of the archive",
        "C:\\x.png": "the path is absolute",
    }
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "in.tar"]), "something was unpacked"


def test_members_of_zip_that_lead_elsewhere_are_rejected(tmp_path, images):
    link, fifo = zipfile.ZipInfo("link.png"), zipfile.ZipInfo("pipe.png")
    link.external_attr, fifo.external_attr = 0o120777 << 16, 0o010644 << 16
    path = tmp_path / "in.zip"
    pack(path, encoded(images), [(link, b"/etc/passwd"), (fifo, b""), ("../up.png", b"x"), ("/abs.png", b"x")])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("packed.png", b"x" * 100, compress_type=zipfile.ZIP_BZIP2)
    plan = make_source("images", str(path)).plan()
    assert column(plan, "key") == list(images)
    assert {row.key: row.reason for row in plan.rejected} == {
        "link.png": "a link: links are not followed",
        "pipe.png": "not a plain file",
        "../up.png": "the path leads out of the archive",
        "/abs.png": "the path is absolute",
        "packed.png": "compression method 12, expected deflate",
    }


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_listed_twice_is_a_duplicate(tmp_path, images, suffix):
    contents = encoded(images)
    path = pack(tmp_path / f"pets.{suffix}", [*contents, (contents[2][0], contents[3][1])])
    summary = preprocess.run("images", path, str(tmp_path / "out"), test_fraction=0.3)
    assert sum(summary.rows.values()) == 9 and summary.rejected == 1
    [(key, row)] = rejections(tmp_path / "out").items()
    assert key == contents[2][0] and row["position"] == 9
    assert row["reason"] == f"duplicate key, first at pets.{suffix}:2"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bomb_is_rejected_by_its_declared_size(tmp_path, images, suffix, monkeypatch):
    path = pack(tmp_path / f"in.{suffix}", [*encoded(images), ("pets/cat/bomb.png", bytes(3 << 20))])
    read = []
    monkeypatch.setattr(zipfile.ZipExtFile, "read", _counting(zipfile.ZipExtFile.read, read))
    _, rows = read_all(make_source("images", path, max_pixels=64))
    assert "3145728 bytes, expected at most 1048832 for an image" in str(rows[-1])
    assert all(isinstance(row, Row) for row in rows[:-1]) and max(read, default=0) < 10_000


def _counting(read, sizes):
    def counting(self, n=-1):
        content = read(self, n)
        sizes.append(len(content))
        return content

    return counting


def test_a_zip_whose_directory_lies_about_a_size_takes_no_more_than_it_says(tmp_path, images):
    """The directory promises 100 bytes; the stream holds 300 megabytes."""
    import resource

    path = tmp_path / "in.zip"
    pack(path, [*encoded(images), ("pets/cat/bomb.png", bytes(300 << 20))])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        where = data.rindex(signature)
        assert struct.unpack_from("<I", data, where + offset) == (300 << 20,)
        struct.pack_into("<I", data, where + offset, 100)
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, rows = read_all(make_source("images", str(path)))
    assert "cannot be unpacked" in str(rows[-1]) and sum(isinstance(row, Row) for row in rows) == 9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # kilobytes


def test_a_zip_whose_members_overlap(tmp_path, images):
    path = tmp_path / "in.zip"
    pack(path, [("a.png", np.random.default_rng(0).bytes(1000)), ("b.png", b"")])
    data = bytearray(path.read_bytes())
    first, second = data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02")
    data[second + 8 : second + 46] = data[first + 8 : first + 46]  # the second entry is the first one's content
    path.write_bytes(data)
    with pytest.raises(PipelineError, match="members overlap"):
        make_source("images", str(path)).plan()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage(tmp_path, images, suffix):
    """A cut or a flipped bit stops the job, or rejects the row that it hit; it never changes a pixel unseen."""
    path = tmp_path / f"in.{suffix}"
    pack(path, encoded(images))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    truth = {name: row.tobytes() for name, row in images.items()}
    outcomes = {"stopped": 0, "rejected": 0, "harmless": 0}
    end = len(content.rstrip(b"\0")) if suffix == "tar" else len(content)  # what follows is padding
    cuts = [content[:cut] for cut in rng.integers(0, end, 15)]
    flips = []
    for where in rng.integers(0, len(content), 40):
        damaged = bytearray(content)
        damaged[where] ^= 1 << rng.integers(0, 8)
        flips.append(bytes(damaged))
    for damaged in cuts + flips:
        path.write_bytes(damaged)
        try:
            plan, rows = read_all(make_source("images", str(path)))
        except PipelineError as error:
            assert f"in.{suffix}" in str(error)
            outcomes["stopped"] += 1
            continue
        assert damaged not in cuts
        good = {
            key: row.x.tobytes() for key, row in zip(column(plan, "key"), rows, strict=True) if isinstance(row, Row)
        }
        assert set(good.values()) <= set(truth.values())
        outcomes["rejected" if len(good) < 9 else "harmless"] += 1
    assert outcomes["stopped"] >= len(cuts)


def test_a_tar_header_that_claims_too_much(tmp_path):
    entry = tarfile.TarInfo("a.png")
    for size, kind, message in (
        (1 << 40, tarfile.XHDTYPE, "a header of 1099511627776 bytes"),
        (-1024, tarfile.REGTYPE, "negative size"),
        (1 << 40, tarfile.REGTYPE, "truncated or damaged"),
    ):
        entry.size, entry.type = size, kind
        (tmp_path / "in.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
        with pytest.raises(PipelineError, match=message):
            archives.members(str(tmp_path / "in.tar"))


def test_archives_without_images_and_that_are_none(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"in.{suffix}"
        with pytest.raises(PipelineError, match="names no"):
            make_source("images", str(path)).plan()
        pack(path, [("notes.txt", b"no image")])
        with pytest.raises(PipelineError, match="holds no PNG or JPEG"):
            make_source("images", str(path)).plan()
        if suffix == "ZIP":
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("a.png", b"x" * 100, compress_type=zipfile.ZIP_LZMA)
            with pytest.raises(PipelineError, match=r"of 1 that are rejected, a\.png: compression method 14, expect"):
                make_source("images", str(path)).plan()
        path.write_bytes(b"no archive at all" * 100)
        with pytest.raises(PipelineError, match=rf"in\.{suffix}"):
            make_source("images", str(path)).plan()
