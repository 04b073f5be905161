"""NumPy archives: the arrays that NumPy saved; nothing is unpickled, and nothing unpacks to more than it declares."""

import io
import resource
import struct
import zipfile

import numpy as np
import pytest

from pipelines import preprocess
from pipelines.errors import PipelineError
from pipelines.inputs import open_input
from pipelines.sources import Fields, make_source

from ..conftest import Row, artifacts, column, read_all, read_dataset


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)


def stack(rows):
    return np.stack([row.x for row in rows])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(("labels", "key"), [("y", "keys"), ("labels", "keys"), ("label", "key")])
def test_arrays_labels_and_keys(tmp_path, x, save, labels, key):
    keys = np.array([f"ключ {i}" for i in range(12)])
    more = {key: keys, labels: np.arange(12)[:, None] % 3, "other": np.ones(3)}
    save(tmp_path / "a.npz", x=np.asfortranarray(x), **more)
    plan, rows = read_all(make_source("npz", str(tmp_path / "a.npz")))
    assert (
        column(plan, "key") == keys.tolist()
        and column(plan, "split") == [None] * 12
        and plan.schema.labels == ("0", "1", "2")
    )
    assert plan.schema.shape == (5, 4, 1) and [row.label for row in rows] == [i % 3 for i in range(12)]
    np.testing.assert_array_equal(stack(rows)[..., 0], x)


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
def test_floats_become_float32_and_rows_are_numbered(tmp_path, dtype):
    x = np.random.default_rng(1).normal(size=(7, 3)).astype(dtype)
    x[2, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=x, keys=np.arange(7) * 2)
    plan, rows = read_all(make_source("npz", str(tmp_path / "a.npz")))
    assert column(plan, "key") == [str(i * 2) for i in range(7)] and str(rows[2]) == "1 of 3 values are not finite"
    np.testing.assert_array_equal(stack(rows[3:]), x[3:].astype("float32"))
    np.savez(tmp_path / "a.npz", x=x)
    assert column(make_source("npz", str(tmp_path / "a.npz")).plan(), "key")[1] == "row-00001"


def test_the_splits_of_keras_are_kept(tmp_path, x):
    labels = np.arange(12) % 2
    np.savez(tmp_path / "a.npz", x_train=x[:8], y_train=labels[:8], x_test=x[8:], y_test=labels[8:])
    preprocess.run("npz", str(tmp_path / "a.npz"), str(tmp_path / "out"))
    for split, first, end in (("train", 0, 8), ("test", 8, 12)):
        rows = read_dataset(str(tmp_path / "out"), split)
        assert rows.keys() == {f"{split}-{i:05d}" for i in range(end - first)}
        for i in range(first, end):
            row, label = rows[f"{split}-{i - first:05d}"]
            np.testing.assert_array_equal(row[..., 0], x[i])
            assert label == labels[i]


def test_a_folder_of_archives(tmp_path, x):
    (tmp_path / "parts").mkdir()
    (tmp_path / "splits").mkdir()
    for folder, names in (("parts", ("b", "a")), ("splits", ("test", "train"))):
        for name, part in zip(names, (x[:4], x[4:]), strict=True):
            np.savez(tmp_path / folder / f"{name}.npz", x=part)
    plan, rows = read_all(make_source("npz", str(tmp_path / "parts")))
    assert column(plan, "key") == [f"a-{i:05d}" for i in range(8)] + [f"b-{i:05d}" for i in range(4)]
    assert column(plan, "split") == [None] * 12
    np.testing.assert_array_equal(stack(rows)[..., 0], np.concatenate([x[4:], x[:4]]))
    plan = make_source("npz", str(tmp_path / "splits")).plan()
    assert column(plan, "split") == ["test"] * 4 + ["train"] * 8 and column(plan, "key")[4] == "train-00000"


def test_the_dataset_is_that_of_the_npy_file(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "x.npz", x=x)
    for kind in ("npy", "npz"):
        preprocess.run(kind, str(tmp_path / f"x.{kind}"), str(tmp_path / kind), test_fraction=0.3, rows_per_shard=3)
    npy, npz = (
        {name.replace("npz-", "npy-"): data for name, data in artifacts(tmp_path / kind).items() if "tfrecord-" in name}
        for kind in ("npy", "npz")
    )
    assert npy == npz and len(npy) >= 3


def test_a_member_that_would_be_unpickled_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    evil = np.empty((2, 1), object)
    evil[:] = [[Evil()], [1]]
    for arrays in ({"x": evil}, {"x": np.zeros((2, 1), np.uint8), "keys": evil[:, 0]}):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(PipelineError, match="objects would have to be unpickled"):
            make_source("npz", str(tmp_path / "a.npz")).plan()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (300, 1 << 20)})
        for _ in range(300):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PipelineError, match=r"unpacks from [\d,]+ to 314,572,\d+ bytes, expected at most 500 times"):
        make_source("npz", str(tmp_path / "a.npz")).plan()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # kilobytes


@pytest.mark.parametrize(
    ("shape", "size"), [((1 << 40, 4), 48), ((-1, 4), 48), ((1 << 32, 1 << 32, 0), 48), ((3, 4), 47)]
)
def test_a_header_that_does_not_fit_its_member(tmp_path, shape, size):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        archive.writestr("x.npy", file.getvalue() + bytes(size))
    with pytest.raises(PipelineError, match=r"x in .*a\.npz cannot be read as an array"):
        make_source("npz", str(tmp_path / "a.npz")).plan()


def test_a_directory_that_lies_about_a_size(tmp_path, x):
    np.savez_compressed(tmp_path / "a.npz", x=x)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    where = content.index(b"PK\x01\x02") + 24
    [size] = struct.unpack_from("<I", content, where)
    for lie in (size - 1, size + 1, 1 << 25):
        struct.pack_into("<I", content, where, lie)
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(PipelineError, match=r"a\.npz"):
            make_source("npz", str(tmp_path / "a.npz")).plan()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_noticed(tmp_path, x, save):
    save(tmp_path / "a.npz", x=x, y=np.arange(12))
    content, rng = (tmp_path / "a.npz").read_bytes(), np.random.default_rng(0)
    changed = [content[:cut] for cut in rng.integers(0, len(content), 10)]
    for where in rng.integers(0, len(content), 60):
        flipped = bytearray(content)
        flipped[where] ^= 1 << rng.integers(0, 8)
        changed.append(bytes(flipped))
    stopped = 0
    for damaged in changed:
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            _, rows = read_all(make_source("npz", str(tmp_path / "a.npz")))
        except PipelineError as error:
            assert "a.npz" in str(error)
            stopped += 1
            continue
        assert all(isinstance(row, Row) for row in rows)
        np.testing.assert_array_equal(stack(rows)[..., 0], x)  # the bit was one that says nothing, a date perhaps
    assert stopped > 40


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros((3, 2)), "arr_1": np.zeros(3)}, r"holds the arrays \['arr_0', 'arr_1'\], expected x, or"),
        ({"x": np.zeros((3, 2)), "x_train": np.zeros((3, 2))}, "expected x, or x_train and x_test, or train_images"),
        ({"x": np.zeros((3, 2), np.int64)}, "x in .* holds int64"),
        (
            {"data": np.ones(3), "format": np.array(b"csr"), "shape": np.array([3, 2]), "indices": np.zeros(3, int)},
            r"is a sparse matrix of SciPy, expected .* save scipy\.sparse\.load_npz\(\.\.\.\)\.toarray\(\) by np\.save",
        ),
        ({"x": np.zeros(3)}, r"shape \[3\]"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3)}, "y in .* holds float64"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(2, int)}, r"shape \[3\]"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3, int), "labels": np.zeros(3, int)}, "both y and labels"),
        ({"x": np.zeros((3, 2)), "keys": np.zeros(3)}, "keys in .* expected text or integers"),
        ({"x": np.zeros((3, 2)), "keys": np.array([b"\xff", b"a", b"b"])}, "not UTF-8"),
        ({"x_train": np.zeros((3, 2)), "x_test": np.zeros((3, 3))}, "arrays in .* differ"),
        ({"x_train": np.zeros((3, 2)), "y_train": np.zeros(3, int), "x_test": np.zeros((3, 2))}, "some of its arrays"),
    ],
)
def test_archives_that_make_no_sense(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(PipelineError, match=message):
        make_source("npz", str(tmp_path / "a.npz")).plan()


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_a_split_whose_keys_all_came_before_is_told(tmp_path, x, fraction):
    """Numbered anew in each split, as a table's index is, no row of the later one is kept."""
    keys = np.arange(8)
    np.savez(tmp_path / "a.npz", x_train=x[:8], keys_train=keys, x_test=x[8:], keys_test=keys[:4])
    done = preprocess.run("npz", str(tmp_path / "a.npz"), str(tmp_path / "out"), test_fraction=fraction)
    assert done.rejected == 4 and ("test" in done.rows) == (fraction > 0) and sum(done.rows.values()) == 8
    told = "no row of the source's own test is left, all have keys of rows before them"
    assert told in done.table()
    assert ("and test drawn from train by its fraction" in done.hint) == (fraction > 0)
    with pytest.raises(PipelineError, match="has no row of split 'test' that is left: all have keys of rows before"):
        open_input(str(tmp_path / "a.npz")).blocks("test")
    assert {block.split for block in open_input(str(tmp_path / "a.npz")).blocks(None)} == {"train"}


@pytest.mark.parametrize("splits", [[""], ["_train", "_test"]])
def test_arrays_of_other_names_are_named_as_columns_are(tmp_path, x, splits):
    parts = dict(zip(splits, np.split(x, len(splits)), strict=True))
    arrays = {f"features{split}": part for split, part in parts.items()}
    arrays |= {f"target{split}": np.arange(len(part)) % 3 for split, part in parts.items()}
    arrays |= {f"ids{split}": [f"{split}{i}" for i in range(len(part))] for split, part in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    path, names = str(tmp_path / "a.npz"), {"column": "features", "label": "target", "key": "ids"}
    plan, rows = read_all(make_source("npz", path, fields=Fields(**names)))
    assert plan.unread == () and column(plan, "key") == np.concatenate([arrays[f"ids{s}"] for s in splits]).tolist()
    np.testing.assert_array_equal(stack(rows)[..., 0], x)
    assert [row.label for row in rows] == np.concatenate([arrays[f"target{split}"] for split in splits]).tolist()
    dataset = open_input(path, "ids", "features", ["target"]).fitted([5, 4, 1], "uint8")
    assert dataset.shape == (5, 4, 1) and dataset.schema.labels == ("0", "1", "2")
    for wrong, told in (
        ({}, r"holds the arrays \[.*\], expected x, or .*: --column names the array with the observations, --label"),
        ({"column": "x"}, r"expected x, or x_train and x_test: --column names the array"),
        ({**names, "label": "y"}, r"holds no array y\w*, the arrays \['features.*\]: name another --label"),
        ({**names, "key": "y"}, r"holds no array y\w*, the arrays \['features.*\]: name another --key"),
    ):
        with pytest.raises(PipelineError, match=told):
            make_source("npz", path, fields=Fields(**wrong)).plan()
