"""Damage found later: a byte flipped in any file of a finished output is noticed, and just that made again."""

import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from pipelines.verify import verify

from .conftest import artifacts

PLACES = {"start": 0.0, "middle": 0.5, "end": 1.0}


def flip(path: pathlib.Path, share: float) -> None:
    content = bytearray(path.read_bytes())
    content[round(share * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """40 digits in 2 files of Parquet, of which 2 are no rows and 1 comes twice."""
    folder = tmp_path_factory.mktemp("table")
    x = np.random.default_rng(0).integers(1, 254, (40, 64), dtype=np.uint8)
    x[7] = 255  # which the model rejects
    values = [None if i == 3 else row.tobytes() for i, row in enumerate(x)]
    keys = [f"k{i % 39}" for i in range(40)]
    for i in range(2):
        mine = slice(20 * i, 20 * (i + 1))
        pq.write_table(
            pa.table({"key": keys[mine], "x": pa.array(values[mine], pa.binary(64)), "label": [i] * 20}),
            folder / f"{i}.parquet",
        )
        os.utime(folder / f"{i}.parquet", (9, 9))  # whose times no later run takes for new
    return str(folder)


@pytest.fixture(scope="module")
def again(table, linear_digits):
    """The two commands, each with an output of its own."""
    return {
        "prepare": lambda output, **options: preprocess.run("parquet", table, output, shape=[8, 8, 1], **options),
        "embed": lambda output: embed.run(linear_digits.path, table, output, batch_size=15),
    }


@pytest.fixture(scope="module")
def finished(again, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    for name, run in again.items():
        run(str(folder / name))
    return folder


@pytest.mark.parametrize("command", ["prepare", "embed"])
def test_a_flipped_byte_anywhere(command, again, finished, tmp_path):
    """Each file, at its start, middle and end: named, and afterwards every byte is that of the undisturbed output."""
    output, whole = tmp_path / "out", artifacts(finished / command)
    of = "generations/000001/" if command == "embed" else ""
    kinds = {"_work/job.json", f"{of}_work/job.json", f"{of}manifest.json"}
    kinds |= {f"{of}lineage.jsonl"} if of else {"rejected/plan.jsonl"}
    assert kinds <= whole.keys() and any(name.startswith(f"{of}_work/commits/") for name in whole)
    shutil.copytree(finished / command, output, symlinks=True)
    for name in (name for name, content in whole.items() if content):
        for share in PLACES.values():
            flip(output / name, share)
            summary = again[command](str(output))
            assert list(summary.damaged) == [name] and f"made again       {name}: damaged" in summary.table()
            assert artifacts(output) == whole, (name, share)
            within = name.removeprefix(of)
            of_a_unit = within.startswith(("_work/commits", "parts/", "rejected/")) or "tfrecord" in name
            assert summary.units_done == (of_a_unit and name != "rejected/plan.jsonl"), name
    summary = again[command](str(output))
    assert not summary.damaged and summary.units_done == 0 and "made again" not in summary.table()


@pytest.mark.parametrize("command", ["prepare", "embed"])
def test_several_that_are_damaged_at_once_are_all_named(command, again, finished, tmp_path):
    output, whole = tmp_path / "out", artifacts(finished / command)
    of = "generations/000001/" if command == "embed" else ""
    data = next(name for name, content in whole.items() if content and ("tfrecord" in name or "/parts/" in name))
    shutil.copytree(finished / command, output, symlinks=True)
    for name in (data, f"{of}manifest.json"):
        flip(output / name, 0.5)
    assert sorted(again[command](str(output)).damaged) == sorted([data, f"{of}manifest.json"])
    assert artifacts(output) == whole


@pytest.mark.parametrize("command", ["prepare", "embed"])
def test_an_output_of_an_earlier_release_is_done(command, again, finished, tmp_path):
    """Its records have no checksum, which is said; the files that they list have, so damage of those is mended."""
    output = tmp_path / "out"
    shutil.copytree(finished / command, output, symlinks=True)
    of = "generations/000001/" if command == "embed" else ""
    records = {f"{of}manifest.json", f"{of}_work/job.json", "_work/job.json"}
    for path in [*(output / name for name in records), *(output / of / "_work" / "commits").iterdir()]:
        record = {name: value for name, value in json.loads(path.read_text()).items() if name != "checksum"}
        record["format_version"] = 1
        path.write_text(json.dumps(record, indent=2, sort_keys=True))
    old = artifacts(output)
    summary = again[command](str(output))
    assert summary.units_done == 0 and not summary.damaged and artifacts(output) == old
    assert summary.table().count("not verified     the manifest is of an earlier release") == 1
    listed = of + json.loads(old[f"{of}manifest.json"])["files"][0]["path"]
    flip(output / listed, 0.5)
    summary = again[command](str(output))
    assert list(summary.damaged) == [listed] and "not verified" not in summary.table()
    assert artifacts(output)[listed] == artifacts(finished / command)[listed]


@pytest.mark.parametrize("record", [b"{}\n", b'{"format_version": 1}\n'])
@pytest.mark.parametrize("command", ["prepare", "embed"])
def test_a_record_that_was_emptied_is_named(command, record, again, finished, tmp_path):
    output, whole = tmp_path / "out", artifacts(finished / command)
    of = "generations/000001/" if command == "embed" else ""
    shutil.copytree(finished / command, output, symlinks=True)
    for name in [f"{of}manifest.json", *["_work/job.json"] * (record == b"{}\n")]:
        (output / name).write_bytes(record)
        assert name in verify(str(output)).damaged
        summary = again[command](str(output))
        assert list(summary.damaged) == [name] and f"made again       {name}: damaged" in summary.table()
        assert artifacts(output) == whole and not verify(str(output)).damaged


def test_records_that_contradict_one_another(again, finished, tmp_path):
    """A file that is gone, an unreadable record, several at once; and a folder of which nothing says whose it is."""
    output, whole = tmp_path / "out", artifacts(finished / "prepare")
    shutil.copytree(finished / "prepare", output)
    (output / "report.html").unlink()
    assert list(again["prepare"](str(output)).damaged) == ["report.html"]
    (output / "manifest.json").write_bytes(b"\xff")
    (output / "_work" / "job.json").write_bytes(b"")
    assert list(again["prepare"](str(output)).damaged) == ["_work/job.json", "manifest.json"]
    assert artifacts(output) == whole
    for name in whole:
        if name.startswith("_work") or name == "manifest.json":
            flip(output / name, 0.5)
    with pytest.raises(PipelineError, match=r"job.json is damaged.*: use another folder, or --overwrite"):
        again["prepare"](str(output))
    assert (output / "report.html").exists()
    again["prepare"](str(output), overwrite=True)
    assert artifacts(output) == whole
