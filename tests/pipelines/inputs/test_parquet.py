"""Embedding from Parquet: every form of column, every good row once, every bad row named."""

import contextlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import embed
from pipelines.errors import PipelineError
from pipelines.formats import equals
from pipelines.inputs import open_input
from pipelines.sources import make_source

from ..conftest import FORMS, Linear, command, fixed_binary, flat, png, read_all, rejections
from ..test_embed import assert_equals_numpy, read_parts

ROWS = 50


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (ROWS, 8, 8, 1), dtype=np.uint8)


def keys(count: int = ROWS) -> list[str]:
    return [f"Zeile/{i:03d}é" for i in range(count)]


def truth(x: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(keys(len(x)), x, strict=True))


def write(path, x: np.ndarray, column: pa.Array | None = None, row_group_size: int = 7, **more):
    table = pa.table({"key": keys(len(x)), "x": fixed_binary(x) if column is None else column, **more})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def run(model, path, tmp_path, **more):
    return embed.run(model.path, str(path), str(tmp_path / "out"), **more)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_column(form, x, linear_digits, tmp_path):
    write(tmp_path / "rows.parquet", x, FORMS[form](x))
    summary = run(linear_digits, tmp_path / "rows.parquet", tmp_path)
    assert_equals_numpy(tmp_path / "out", linear_digits, truth(x))
    assert summary.rows == {"all": ROWS} and summary.exit_code == 0


@pytest.mark.parametrize(("signature", "dtype"), [("embed_uint8", np.uint8), ("embed", np.float32)])
def test_raw_bytes_are_what_the_named_signature_takes(signature, dtype, x, linear_digits, tmp_path):
    raw = x if dtype == np.uint8 else x.astype(dtype) / 255
    write(tmp_path / "rows.parquet", x, pa.array([row.tobytes() for row in raw], pa.binary()))
    run(linear_digits, tmp_path / "rows.parquet", tmp_path, signature=signature)
    assert_equals_numpy(tmp_path / "out", linear_digits, truth(x))


class Decoding:
    """A linear model that takes encoded images."""

    def __init__(self, path, linear: Linear):
        import tensorflow as tf

        module = tf.Module()
        module.weights = tf.Variable(linear.weights)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
        def embed_image_bytes(image_bytes):
            decode = lambda image: tf.io.decode_png(image, channels=1)  # noqa: E731
            x = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([None, None, 1], tf.uint8))
            return {"embedding": tf.reshape(tf.cast(x, tf.float32) / 255.0, [-1, 64]) @ module.weights}

        self.path = str(path)
        tf.saved_model.save(module, self.path, {"embed_image_bytes": embed_image_bytes})


def test_encoded_images_and_one_that_cannot_be_decoded(x, linear_digits, tmp_path):
    images = [png(row) for row in x]
    images[4] = b"no picture"
    images[9] = None
    write(tmp_path / "rows.parquet", x, pa.array(images, pa.binary()))
    model = Decoding(tmp_path / "model" / "1", linear_digits)
    assert run(model, tmp_path / "rows.parquet", tmp_path).exit_code == 3
    good = {key: row for i, (key, row) in enumerate(truth(x).items()) if i not in (4, 9)}
    assert_equals_numpy(tmp_path / "out", linear_digits, good)
    found = rejections(tmp_path / "out")
    assert found.keys() == {keys()[4], keys()[9]}
    assert "not a readable PNG or JPEG" in found[keys()[4]]["reason"] and found[keys()[9]]["reason"] == "x is null"


def test_bad_rows_are_named_and_the_others_kept(x, linear_digits, tmp_path):
    rows = [list(row) for row in (flat(x) / np.float32(255))]
    rows[3] = rows[3][:-1]
    rows[20] = None
    rows[21][5] = float("nan")
    rows[22][0] = None
    names = keys()
    names[40] = None
    table = pa.table({"key": names, "x": pa.array(rows, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=6)
    assert run(linear_digits, tmp_path / "rows.parquet", tmp_path).exit_code == 3
    bad = {3, 20, 21, 22, 40}
    assert_equals_numpy(
        tmp_path / "out", linear_digits, {k: v for i, (k, v) in enumerate(truth(x).items()) if i not in bad}
    )
    found = {row["position"]: row for row in rejections(tmp_path / "out").values()}
    assert found.keys() == bad and {row["source"] for row in found.values()} == {"rows.parquet"}
    assert found[3]["reason"] == "x has 63 values, expected 64 for float32 [8, 8, 1]"
    assert found[20]["reason"] == "x is null" and found[40]["reason"] == "the key is null"
    assert "not finite" in found[21]["reason"] and "not finite" in found[22]["reason"]


def test_a_null_among_bytes_is_no_zero(x, linear_digits, tmp_path):
    rows = flat(x).tolist()
    rows[5][63] = None
    for name, kind in (("list", pa.list_(pa.uint8())), ("fixed", pa.list_(pa.uint8(), 64))):
        write(tmp_path / f"{name}.parquet", x, pa.array(rows, kind))
        summary = embed.run(linear_digits.path, str(tmp_path / f"{name}.parquet"), str(tmp_path / name))
        assert summary.rows == {"all": ROWS - 1}
        assert rejections(tmp_path / name)[keys()[5]]["reason"] == "x has values that are null"


def test_a_tensor_whose_axes_are_permuted_is_refused(x, linear_digits, tmp_path):
    kind = pa.fixed_shape_tensor(pa.uint8(), [8, 8, 1], permutation=[1, 0, 2])
    column = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 64))
    with pytest.raises(PipelineError, match="expected lists of numbers"):
        run(linear_digits, write(tmp_path / "rows.parquet", x, column), tmp_path)
    for shape, fits in (([4, 16], False), ([1, 8, 8], True), ([64], True)):
        kind = pa.fixed_shape_tensor(pa.uint8(), shape)
        column = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 64))
        opened = open_input(str(write(tmp_path / "rows.parquet", x, column)))
        with contextlib.nullcontext() if fits else pytest.raises(PipelineError, match=r"holds uint8 \[4, 16\]"):
            opened.fitted([8, 8, 1], "uint8")


def test_a_folder_behind_a_link_is_not_entered(x, linear_digits, tmp_path):
    (tmp_path / "outside").mkdir()
    write(tmp_path / "outside" / "rows.parquet", x)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(PipelineError, match=r"in/link is a link, and links are not followed"):
        run(linear_digits, f"{tmp_path}/in/*/*.parquet", tmp_path)
    with pytest.raises(PipelineError, match="names no"):
        run(linear_digits, tmp_path / "in", tmp_path)


def test_kept_columns_and_number_keys(x, linear_digits, tmp_path):
    table = pa.table({"id": np.arange(ROWS), "pixels": fixed_binary(x), "when": np.arange(ROWS) * 10, "who": keys()})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=9)
    run(
        linear_digits, tmp_path / "rows.parquet", tmp_path, key="id", column="pixels", keep=["who", "when"], stddev=True
    )
    got = embed.read_embeddings(str(tmp_path / "out"))
    assert got.schema.names == ["key", "embedding", "embedding_stddev", "who", "when"]
    assert got["key"].to_pylist() == [str(i) for i in range(ROWS)]
    assert got["who"].to_pylist() == keys() and got["when"].to_pylist() == list(range(0, 10 * ROWS, 10))


def test_a_row_group_larger_than_a_block_is_one_unit(x, linear_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.base.BLOCK_BYTES", 64 * 8)
    write(tmp_path / "rows.parquet", x, row_group_size=ROWS, label=np.arange(ROWS))
    assert run(linear_digits, tmp_path / "rows.parquet", tmp_path, keep=["label"], batch_size=3).units == 1
    assert_parts = read_parts(tmp_path / "out")
    assert [int(row["label"]) for row in assert_parts.values()] == list(range(ROWS))
    [part] = (tmp_path / "out" / "parts").glob("*.parquet")
    assert pq.ParquetFile(part).metadata.num_row_groups == 7


@pytest.mark.parametrize(("block_rows", "row_group_size"), [(1, 1), (10, 3), (10, 25), (1000, 4)])
def test_blocks_and_row_groups_do_not_matter(block_rows, row_group_size, x, linear_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.parquet.BLOCK_ROWS", block_rows)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    everything = write(tmp_path / "all.parquet", x, row_group_size=row_group_size)
    table = pq.read_table(everything)
    pq.write_table(table[:17], tmp_path / "in" / "a.parquet", row_group_size=row_group_size)
    pq.write_table(table[17:], tmp_path / "in" / "sub" / "b.parquet", row_group_size=row_group_size)
    (tmp_path / "in" / "_SUCCESS").touch()
    run(linear_digits, tmp_path / "in", tmp_path)
    assert_equals_numpy(tmp_path / "out", linear_digits, truth(x))


@pytest.mark.parametrize("hashes", [1 << 22, 1, 7])
def test_a_key_that_comes_twice_keeps_its_first_good_row(hashes, x, linear_digits, tmp_path, monkeypatch):
    """Across files and units; the first row of one of the keys is itself bad, so that its second stays."""
    monkeypatch.setattr(equals, "_ROWS_A_FILE", hashes)  # that are sorted together: all, one or few
    (tmp_path / "in").mkdir()
    x = x.copy()
    x[2] = 255  # the model raises
    names = keys()
    names[30], names[31], names[45] = names[1], names[2], names[1]
    table = pa.table({"key": names, "x": fixed_binary(x), "row": np.arange(ROWS)})
    pq.write_table(table[:25], tmp_path / "in" / "a.parquet", row_group_size=10)
    pq.write_table(table[25:], tmp_path / "in" / "b.parquet", row_group_size=10)
    summary = run(linear_digits, tmp_path / "in", tmp_path, keep=["row"])
    assert summary.rows == {"all": ROWS - 3} and summary.rejected == 3
    rows = read_parts(tmp_path / "out")  # fails for a key that comes twice
    assert sorted(int(row["row"]) for row in rows.values()) == sorted(set(range(ROWS)) - {2, 30, 45})
    reasons = [
        (row["source"], row["position"], row["reason"])
        for row in map(json.loads, sorted_lines(tmp_path / "out" / "rejected"))
    ]
    assert ("b.parquet", 5, "duplicate key, first at a.parquet:1") in reasons
    assert ("b.parquet", 20, "duplicate key, first at a.parquet:1") in reasons
    assert [reason for file, position, reason in reasons if (file, position) == ("a.parquet", 2)] != []
    again = run(linear_digits, tmp_path / "in", tmp_path, keep=["row"])
    assert again.units_done == 0 and again.rows == summary.rows


def sorted_lines(folder) -> list[str]:
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_an_error_that_names_it(damage, x, linear_digits, tmp_path):
    path = write(tmp_path / "rows.parquet", x)
    data = bytearray(path.read_bytes())
    changed = {"cut": data[:-40], "flipped": data[:-8] + b"\xff\xff\xff\x7fPAR1", "empty": b"", "text": b"key,x\na,1\n"}
    path.write_bytes(changed[damage])
    with pytest.raises(PipelineError, match=r"rows\.parquet cannot be read as Parquet"):
        run(linear_digits, path, tmp_path)


def test_inputs_that_make_no_sense(x, linear_digits, prepared_digits, tmp_path):
    path = write(tmp_path / "rows.parquet", x, label=np.arange(ROWS))
    for more, message in (
        ({"column": "pixels"}, r"no column 'pixels', expected one of \['key', 'x', 'label'\]"),
        ({"keep": ["key"]}, "column 'key' cannot be kept"),
        ({"column": "label"}, "holds int64, expected lists of numbers, or binary"),
        ({"key": "x"}, "expected text or integers"),
        ({"split": "test"}, "no split 'test': files that were not prepared are embedded whole"),
        ({"signature": "embed"}, r"takes float32 \[8, 8, 1\], column 'x' holds bytes \[64\]"),
    ):
        with pytest.raises(PipelineError, match=message):
            run(linear_digits, path, tmp_path, **more)
    with pytest.raises(PipelineError, match="is a prepared dataset, whose columns are key and x"):
        run(linear_digits, prepared_digits, tmp_path, column="pixels")
    (tmp_path / "link.parquet").symlink_to(path)
    with pytest.raises(PipelineError, match="links are not followed"):
        run(linear_digits, tmp_path / "l*.parquet", tmp_path)
    with pytest.raises(PipelineError, match="is not there"):
        run(linear_digits, tmp_path / "absent", tmp_path)
    write(tmp_path / "other.parquet", x, FORMS["list"](x))
    with pytest.raises(PipelineError, match="columns of different types"):
        run(linear_digits, tmp_path / "[ro]*.parquet", tmp_path)
    pq.write_table(pq.read_table(path)[:0], tmp_path / "none.parquet")
    with pytest.raises(PipelineError, match="holds no rows"):
        run(linear_digits, tmp_path / "none.parquet", tmp_path)


def test_a_changed_input_is_embedded_anew(x, linear_digits, tmp_path):
    path = write(tmp_path / "rows.parquet", x)
    run(linear_digits, path, tmp_path)
    write(path, x[::-1])
    assert run(linear_digits, path, tmp_path).changed == 1
    assert_equals_numpy(tmp_path / "out", linear_digits, truth(x[::-1]))


@pytest.mark.slow
def test_the_command(x, linear_digits, tmp_path):
    path = write(tmp_path / "rows.parquet", x, label=np.arange(ROWS))
    done = command("pipelines.embed", "--model", linear_digits.path, "--input", path, "--output", tmp_path / "out",
                   "--keep", "label")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_equals_numpy_but_label(tmp_path / "out", linear_digits, x)


def assert_equals_numpy_but_label(output, model, x) -> None:
    table = embed.read_embeddings(str(output))
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), model.embed(x), atol=1e-5)
    assert table["label"].to_pylist() == list(range(ROWS))


def test_files_may_differ_in_the_size_of_their_offsets(x, tmp_path):
    """One writer gives string and list, another large_string and large_list: they hold the same values."""
    names, labels = keys(), [f"class {i % 3}" for i in range(ROWS)]
    for part, (text, values) in enumerate([(pa.string(), pa.list_), (pa.large_string(), pa.large_list)]):
        rows = slice(part * 20, ROWS if part else 20)
        lists = pa.array([row.ravel().tolist() for row in x[rows]], values(pa.uint8()))
        columns = {"key": pa.array(names[rows], text), "x": lists, "label": pa.array(labels[rows], text)}
        pq.write_table(pa.table(columns), tmp_path / f"{part}.parquet")
    dataset = open_input(str(tmp_path), keep=["label"]).fitted([64], "uint8")
    blocks = [block for reference in dataset.blocks(None) for block in dataset.read(reference)]
    assert [key for block in blocks for key in block.keys] == names
    np.testing.assert_array_equal(np.concatenate([block.x for block in blocks]), x.reshape(ROWS, 64))
    assert pa.concat_tables([block.kept for block in blocks])["label"].to_pylist() == labels
    plan, read = read_all(make_source("parquet", str(tmp_path)))
    assert plan.rows["key"].to_pylist() == names and plan.schema.labels == ("class 0", "class 1", "class 2")
    np.testing.assert_array_equal([row.x for row in read], x.reshape(ROWS, 64))
