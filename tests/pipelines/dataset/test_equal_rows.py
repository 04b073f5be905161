"""Rows of equal content: the first of the source stays, whoever found out when."""

import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from pipelines import preprocess
from pipelines.dataset import equal_rows
from pipelines.errors import PipelineError
from pipelines.sources import Batch

from ..conftest import ROOT, artifacts, read_dataset, rejections, write_png


@pytest.fixture
def twice(tmp_path):
    """90 rows of which many are equal, and for each row the first one with its content."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)[rng.integers(0, 40, 90)]
    x[50] = np.nan
    x[7] = x[60]
    np.save(tmp_path / "x.npy", x)
    first = {}
    return str(tmp_path / "x.npy"), x, [first.setdefault(row.tobytes(), i) for i, row in enumerate(x)]


def run(path, output, **more):
    arguments = {"test_fraction": 0.3, "rows_per_shard": 11, "deduplicate": True} | more
    return preprocess.run("npy", path, str(output), **arguments)


def rows_of(output):
    return read_dataset(str(output), "train") | read_dataset(str(output), "test")


def test_the_first_of_equal_rows_stays_and_the_others_are_named(tmp_path, twice):
    path, x, first = twice
    summary = run(path, tmp_path / "out")
    kept = [i for i in range(90) if first[i] == i and i != 50]
    rows = rows_of(tmp_path / "out")
    assert rows.keys() == {f"row-{i:05d}" for i in kept} and len(kept) < 45
    assert all((rows[f"row-{i:05d}"][0] == x[i]).all() for i in kept)
    reasons = {row["position"]: row["reason"] for row in rejections(tmp_path / "out").values()}
    assert summary.rejected == len(reasons) == 90 - len(kept)
    assert "not finite" in reasons.pop(50)
    assert reasons == {i: f"duplicate content, first at x.npy:{first[i]}" for i in range(90) if first[i] < i != 50}


def test_without_the_option_every_row_stays(tmp_path, twice):
    run(twice[0], tmp_path / "out", deduplicate=False)
    assert len(rows_of(tmp_path / "out")) == 89 and not (tmp_path / "out" / "_work" / "content").exists()


def test_a_row_keeps_its_split_and_a_bad_row_is_nobodys_first(tmp_path):
    """The first of two equal rows is the one that can be read: here the pixels, not the file."""
    x = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    for index in range(6):
        write_png(tmp_path / "in" / f"{index}.png", x[index])
    (tmp_path / "in" / "0.png").write_bytes((tmp_path / "in" / "1.png").read_bytes()[:-30])
    PIL.Image.fromarray(x[3]).save(tmp_path / "in" / "8.png", compress_level=0)  # other bytes, the same pixels
    write_png(tmp_path / "in" / "9.png", x[1])
    for name, deduplicate in (("all", False), ("once", True)):
        output = str(tmp_path / name)
        preprocess.run("images", str(tmp_path / "in"), output, test_fraction=0.4, deduplicate=deduplicate)
    found = rejections(tmp_path / "once")
    assert {key: row["reason"] for key, row in found.items() if key != "0.png"} == {
        "8.png": "duplicate content, first at 3.png:0",
        "9.png": "duplicate content, first at 1.png:0",
    }
    for split in ("train", "test"):
        assert read_dataset(str(tmp_path / "once"), split).keys() == read_dataset(
            str(tmp_path / "all"), split
        ).keys() - {
            "8.png",
            "9.png",
        }


def test_the_same_bytes_for_any_workers_and_order(tmp_path, twice, monkeypatch):
    run(twice[0], tmp_path / "a")
    run(twice[0], tmp_path / "b", beam_args=["--direct_num_workers", "2"])
    create = preprocess.beam.Create
    monkeypatch.setattr(preprocess.beam, "Create", lambda units: create(list(reversed(units))))
    run(twice[0], tmp_path / "c")
    first = artifacts(tmp_path / "a")
    assert len([name for name in first if "_work/content/" in name]) == 9
    assert first == artifacts(tmp_path / "b") == artifacts(tmp_path / "c")


def test_again(tmp_path, twice):
    output = tmp_path / "out"
    run(twice[0], output)
    whole = artifacts(output)
    assert run(twice[0], output).units_done == 0 and artifacts(output) == whole
    [shard, *_] = output.glob("npy-train*")
    shard.unlink()
    hashes = sorted((output / "_work" / "content").iterdir())
    hashes[2].unlink()
    untouched = hashes[1].stat().st_mtime_ns
    assert run(twice[0], output).units_done == 1 and artifacts(output) == whole
    assert hashes[1].stat().st_mtime_ns == untouched
    with pytest.raises(PipelineError, match="--overwrite"):
        run(twice[0], output, deduplicate=False)
    run(twice[0], output, deduplicate=False, overwrite=True)
    run(twice[0], tmp_path / "fresh", deduplicate=False)
    assert artifacts(output) == artifacts(tmp_path / "fresh")


def test_a_worker_that_fails_while_hashing(tmp_path, twice, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(equal_rows, "content_hashes", lambda *_: 1 / 0)
        with pytest.raises(PipelineError, match=r"^ZeroDivisionError"):
            run(twice[0], tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    run(twice[0], tmp_path / "out")
    run(twice[0], tmp_path / "fresh")
    assert artifacts(tmp_path / "out") == artifacts(tmp_path / "fresh")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["content-hashes", "train"])
def test_killed_in_either_phase_then_resumed(tmp_path, phase):
    x = np.random.default_rng(0).integers(0, 3, (12_000, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    flags = ["--source", "npy", "--input", str(tmp_path / "x.npy"), "--rows-per-shard", "100", "--deduplicate"]
    line = [sys.executable, "-m", "pipelines.preprocess", *flags, "--output", str(tmp_path / "out")]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    commits = tmp_path / "out" / "_work" / "commits"
    deadline = time.monotonic() + 60
    while len(list(commits.glob(f"{phase}-*.json"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in commits.glob("*.json")}
    arguments = {"rows_per_shard": 100, "test_fraction": 0.1}
    summary = run(str(tmp_path / "x.npy"), tmp_path / "out", **arguments)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert sum(summary.rows.values()) == len(np.unique(x, axis=0))
    run(str(tmp_path / "x.npy"), tmp_path / "fresh", **arguments)
    assert artifacts(tmp_path / "out") == artifacts(tmp_path / "fresh")


def test_hashes_know_dtype_and_shape():
    def hashes(x):
        return equal_rows.content_hashes(Batch(np.arange(len(x)), x, None, {}), len(x))

    zeros = np.zeros((1, 4), np.uint8)
    made = {hashes(x) for x in (zeros, zeros.reshape(1, 2, 2), zeros.view(np.float32), np.zeros((1, 4), np.float32))}
    assert len(made) == 4


def test_the_command(tmp_path, twice, capsys):
    flags = ["--source", "npy", "--input", twice[0], "--output", str(tmp_path / "out"), "--test-fraction", "0.3"]
    assert preprocess.main([*flags, "--deduplicate"]) == 3
    assert f"rows rejected    {90 - len(rows_of(tmp_path / 'out'))}" in capsys.readouterr().out
