"""Photographs of different sizes: made one size, by `prepare` and by `embed --prepared-with` alike."""

import io
import shutil
import tarfile

import numpy as np
import PIL.Image
import pytest

from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from pipelines.formats.images import pixels
from pipelines.formats.resizing import Resizing, parse_size
from pipelines.inputs import Preparation, open_input
from pipelines.sources import Fields, make_source

from ..conftest import Linear, read_dataset, read_to_embed, rejections

SIZES = [(40, 60), (60, 40), (33, 33), (80, 20), (25, 31)]
ORIENTATION = 0x0112


def encoded(image, kind="PNG", **options):
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path):
    """A folder of photographs, of which the first lies on its side, says its EXIF; and one that is broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng, exif = np.random.default_rng(0), PIL.Image.Exif()
    exif[ORIENTATION] = 6
    for i, (height, width) in enumerate(SIZES):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        photo = coarse.resize((width, height), PIL.Image.Resampling.BICUBIC)
        options = {"exif": exif} if i == 0 else {}
        (folder / f"{i}.jpg").write_bytes(encoded(photo, "JPEG", quality=95, **options))
    (folder / "bad.jpg").write_bytes((folder / "1.jpg").read_bytes()[:-300])
    return folder


def test_prepare_and_embed_make_the_same_of_them(photos, tmp_path):
    preprocess.run("images", str(photos), str(tmp_path / "out"), resize="16x12", crop=True, test_fraction=0)
    prepared = {key: x for key, (x, _) in read_dataset(str(tmp_path / "out"), "train").items()}
    assert prepared.keys() == {f"{i}.jpg" for i in range(5)}
    fields = Preparation.of(str(tmp_path / "out")).fields
    assert fields == Fields(resize=(16, 12), crop=True)
    reasons = {key: row["reason"] for key, row in rejections(tmp_path / "out").items()}
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos, ".")
    for number, path in enumerate((photos, f"{photos}/*.jpg", tmp_path / "photos.tar")):
        rows = open_input(str(path), fields=fields).fitted((16, 12, 3), "uint8")
        embedded, rejected = read_to_embed(rows, tmp_path / f"embedded{number}")
        assert rejected == reasons and reasons["bad.jpg"].startswith("cannot be decoded")
        assert embedded.keys() == prepared.keys()
        for key, x in embedded.items():
            np.testing.assert_array_equal(x, prepared[key])
    alone, _ = read_to_embed(
        open_input(str(photos / "3.jpg"), fields=fields).fitted((16, 12, 3), "uint8"), tmp_path / "one"
    )
    np.testing.assert_array_equal(alone["3.jpg"], prepared["3.jpg"])


def test_through_a_model(photos, tmp_path):
    preprocess.run("images", str(photos), str(tmp_path / "data"), resize="8x8", test_fraction=0)
    model = Linear(tmp_path / "model" / "1", (8, 8, 3))
    runs = [
        embed.run(model.path, str(photos), str(tmp_path / "out"), prepared_with=str(tmp_path / "data"))
        for _ in range(2)
    ]
    assert [run.units_done > 0 for run in runs] == [True, False]
    embed.run(model.path, str(tmp_path / "data"), str(tmp_path / "own"), split="all")
    raw, own = (embed.read_embeddings(str(tmp_path / name)).sort_by("key") for name in ("out", "own"))
    assert raw.num_rows == 5 and raw.equals(own)
    # Among files of other kinds the pictures are meant, for the dataset was made of pictures.
    mixed = shutil.copytree(photos, tmp_path / "mixed")
    (mixed / "labels.csv").write_text("key,label\n0.jpg,1\n")
    (mixed / "more.zip").write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(
        PipelineError, match=r"kind \(images, archives, CSV\): name one by a pattern, such as .*/\*\*/\*\.jp"
    ):
        embed.run(model.path, str(mixed), str(tmp_path / "mix"))
    summary = embed.run(model.path, str(mixed), str(tmp_path / "mix"), prepared_with=str(tmp_path / "data"))
    assert embed.read_embeddings(str(tmp_path / "mix")).sort_by("key").equals(own)
    assert {"labels.csv", "more.zip"} <= {*summary.unread}


def test_the_middle_is_cut_and_scaled_without_aliases(tmp_path):
    lines = np.zeros([64, 96, 3], np.uint8)
    lines[:, 16:80:2] = 255  # stripes of one pixel in the square, black beside it
    small = pixels(encoded(PIL.Image.fromarray(lines)), 1 << 20, Resizing(8, 8, crop=True))
    assert small.shape == (8, 8, 3) and (np.abs(small[:, 1:-1].astype(int) - 127.5) < 3).all()
    squeezed = pixels(encoded(PIL.Image.fromarray(lines)), 1 << 20, Resizing(8, 12))
    assert squeezed[:, [0, -1]].max() == 0 and (np.abs(squeezed[:, 4:8].astype(int) - 127.5) < 3).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_every_mode_keeps_a_flat_colour(mode):
    flat = PIL.Image.new("RGB", (30, 20), (255, 0, 0)).convert(mode if mode != "1" else "L").convert(mode, dither=0)
    kept = pixels(encoded(flat), 1 << 20)
    x = pixels(encoded(flat), 1 << 20, Resizing(5, 7))
    assert x.shape == (5, 7, kept.shape[2]) and (x == kept[0, 0]).all()


@pytest.mark.parametrize("orientation", range(1, 10))
def test_pictures_are_turned_upright(orientation):
    """By the rule of the EXIF standard: where the stored first row and column lie in the picture as it is seen."""
    upright = np.random.default_rng(1).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright.swapaxes(0, 1)[:, ::-1],
    }.get(orientation, upright)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(PIL.Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(pixels(content, 1 << 20, Resizing(6, 4)), upright)
    np.testing.assert_array_equal(pixels(content, 1 << 20), stored)  # as it is stored, where no size is asked for


def test_without_the_flag_the_sizes_and_the_flag_are_named(photos):
    with pytest.raises(
        PipelineError, match=r"the 6 images in .* have 5 sizes, 60x40 \(2\), 40x60 \(1\).* and 2 more: --resize HxW"
    ):
        make_source("images", str(photos)).plan()


@pytest.mark.parametrize("text", ["64", "0x4", "4x", "x", "4 x 4", "-4x4", "1e3x4"])
def test_sizes_that_are_none(text):
    with pytest.raises(PipelineError, match=r"expected HEIGHTxWIDTH in pixels, such as 64x64"):
        parse_size(text)


def test_options_that_make_no_sense(photos, tmp_path):
    for options, message in (
        ({"crop": True}, "give that too"),
        ({"resize": "99999x99999"}, "more than 67108864 pixels"),
    ):
        with pytest.raises(PipelineError, match=message):
            preprocess.run("images", str(photos), str(tmp_path / "out"), **options)
    np.save(tmp_path / "x.npy", np.zeros([3, 2], np.float32))
    with pytest.raises(PipelineError, match="source npy has no use for --resize"):
        preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), resize="8x8")
