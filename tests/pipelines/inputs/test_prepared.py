"""What a prepared dataset says of itself: read alike by all who read it, and told where it cannot be understood."""

import json
import shutil

import pytest

from pipelines.errors import PipelineError
from pipelines.inputs import Preparation, open_input
from pipelines.manifest import Manifest
from tfvae import data

WHOLE = {"kind": "prepared", "options": {"source": "npy", "missing": True}, "files": []}
UNITS = {"mean": [1, 2], "deviation": [3, 4]}


def told(folder, record):
    (folder / "manifest.json").write_text(json.dumps(record))
    return str(folder)


def test_what_a_manifest_says(tmp_path):
    assert Manifest.find(str(tmp_path)) is None
    folder = told(tmp_path, {**WHOLE, "standardized": UNITS, "columns": [["a", None], ["b", ["x", "y"]]]})
    preparation = Preparation.of(folder)
    assert (preparation.source, preparation.fields.missing) == ("npy", True)
    assert preparation.fields.columns == (("a", None), ("b", ("x", "y")))
    assert (preparation.standardization.mean, preparation.standardization.deviation) == ((1, 2), (3, 4))
    assert preparation.columns_sha256 == Manifest.find(folder).columns_sha256 is not None


@pytest.mark.parametrize(
    "strange",
    [
        {"options": None},
        {"options": [1]},
        {"options": {}},
        {"options": {"source": 3}},
        {"standardized": 3},
        {"standardized": {}},
        {"standardized": {"mean": ["x"], "deviation": [1]}},
        {"standardized": {"mean": 1, "deviation": 1}},
        {"columns": 3},
        {"columns": ["a"]},
        {"columns": [["a", 3]]},
        {"kind": "embeddings"},
    ],
    ids=str,
)
def test_a_manifest_that_does_not_say_how_is_told(strange, tmp_path):
    with pytest.raises(PipelineError, match=r"does not say how the dataset was prepared|is no complete prepared"):
        Preparation.of(told(tmp_path, WHOLE | strange))


@pytest.mark.parametrize("files", [None, 3, {}, ["a"], [{"path": "a"}], [{"path": 1, "bytes": 1, "sha256": "a"}]])
def test_a_manifest_that_lists_no_files_is_told(files, digits, tmp_path):
    shutil.copytree(digits, tmp_path / "digits")
    folder = told(tmp_path / "digits", WHOLE | {"files": files, "options": "missing"})
    with pytest.raises(PipelineError, match=r"manifest.json is damaged: it lists no files"):
        open_input(folder)
    assert not data.has_missing(folder)
