"""NumPy files as a source: what is read is what was saved, and what makes no sense is named."""

import numpy as np
import pytest

from pipelines.errors import PipelineError
from pipelines.sources import make_source

from ..conftest import Row, column, read_all


@pytest.fixture
def images(tmp_path):
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)


class TestNpy:
    def test_one_file_of_grey_images(self, tmp_path, images):
        np.save(tmp_path / "x.npy", images)
        plan, rows = read_all(make_source("npy", str(tmp_path / "x.npy")))
        assert (
            plan.schema.shape == (5, 4, 1)
            and column(plan, "split") == [None] * 6
            and column(plan, "key")[0] == "row-00000"
        )
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
        assert column(plan, "split") == ["train"] * 4 + ["test"] * 2
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
            (
                np.zeros((3, 2), np.int64),
                r"holds int64, expected uint8.*: save it as .astype\('float32'\), which holds whole numbers to 16,777",
            ),
            (np.zeros((3, 2), bool), r"holds bool, .*: save it as .astype\('float32'\)$"),
            (np.zeros((3, 2), np.longdouble), r"holds float128, .*: save it as .astype\('float32'\)$"),
            (np.zeros((3, 2), complex), "holds complex128, .*: save real numbers$"),
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

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda content: 2 * content, r"holds 200 bytes after its array \[9, 2\]: save each array in a file"),
            (lambda content: b"", "does not begin as np.save begins one"),
            (lambda content: b"\x80\x04" + content, "does not begin as np.save begins one"),
            (lambda content: content.replace(b"(9, 2), }", b"(9**9**9)"), "its header is damaged: save it again"),
            (lambda content: content.replace(b"(9, 2), }", b"(" * 9), "its header is damaged: save it again"),
        ],
    )
    def test_other_bytes_are_told_in_a_sentence(self, tmp_path, change, message):
        np.save(tmp_path / "x.npy", np.zeros((9, 2), np.float32))
        (tmp_path / "x.npy").write_bytes(change((tmp_path / "x.npy").read_bytes()))
        with pytest.raises(PipelineError, match=message):
            make_source("npy", str(tmp_path / "x.npy")).plan()

    def test_labels_must_match(self, tmp_path):
        np.save(tmp_path / "train.npy", np.zeros((4, 2), np.float32))
        np.save(tmp_path / "train_labels.npy", np.zeros(3, np.int64))
        with pytest.raises(PipelineError, match=r"shape \[4\]"):
            make_source("npy", str(tmp_path)).plan()
