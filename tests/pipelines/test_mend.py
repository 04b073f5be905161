"""``tfvae verify --mend``: of an output just what is damaged is made again, byte for byte, or nothing is changed."""

import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines import checksums, embed, preprocess
from pipelines.errors import PipelineError
from pipelines.mend import mend
from tfvae import cli

from .conftest import artifacts
from .test_damage import flip

COMMAND = "_work/command.json"


def write(path: pathlib.Path, first: int) -> None:
    x = np.random.default_rng(first).integers(1, 254, (20, 64), dtype=np.uint8)
    x[3] = 255  # which the model rejects
    keys = [f"k{i}" for i in range(first, first + 19)] + ["k0"]  # which comes twice
    pq.write_table(pa.table({"key": keys, "x": pa.array([row.tobytes() for row in x], pa.binary(64))}), path)
    os.utime(path, (9, 9))


@pytest.fixture(scope="module")
def made(linear_digits, tmp_path_factory) -> pathlib.Path:
    """An input of two files and a model; a dataset, and embeddings of two nights, the first of one file."""
    base = tmp_path_factory.mktemp("mend")
    (base / "rows").mkdir()
    shutil.copytree(linear_digits.path, base / "model" / "1")
    for night in range(2):
        write(base / "rows" / f"{night}.parquet", 20 * night)
        embed.run(str(base / "model"), str(base / "rows"), str(base / "embed"), batch_size=15)
    preprocess.run("parquet", str(base / "rows"), str(base / "prepare"), shape=[8, 8, 1], rows_per_shard=20)
    return base


@pytest.fixture
def output(made, tmp_path):
    def copied(command: str) -> pathlib.Path:
        shutil.copytree(made / command, tmp_path / command, symlinks=True)
        return tmp_path / command

    return copied


def of_each_kind(files: dict[str, bytes]) -> list[str]:
    """A file of each kind: names that differ in nothing but numbers are of one."""
    return [*{"".join(c for c in name if not c.isdigit()): name for name in sorted(files)}.values()]


@pytest.mark.parametrize("command", ["prepare", "embed"])
def test_a_damaged_file_of_any_kind_is_made_again(command, output):
    """The first night's part, carried into the second, keeps the number of its night."""
    folder = output(command)
    below, whole = ("generations/000002/" if command == "embed" else ""), artifacts(folder)
    now = {name: content for name, content in whole.items() if name.startswith(below)}
    kinds = [name for name in of_each_kind(now) if name != below + COMMAND]
    names = {pathlib.Path(name).name for name in kinds}
    assert names >= {"manifest.json", "job.json"} | ({"_SUCCESS", "lineage.jsonl"} if below else {"features.json"})
    assert any(name.endswith(".parquet") or ".tfrecord-" in name for name in kinds)
    for name in kinds:
        if now[name]:
            (folder / name).write_bytes(bytes(now[name][:-1]) + b"?")  # of generations a file may have two names
        else:
            (folder / name).unlink()
        mended = mend(str(folder))
        assert (mended.made, mended.differing, mended.exit_code) == ((name,), (), 0)
        assert f"made again       {name}" in mended.table() and "damaged          none" in mended.table()
        assert {name: content for name, content in artifacts(folder).items() if name.startswith(below)} == now
    assert mend(str(folder)).made == ()


def test_one_that_died_while_it_was_mended_is_mended_on(output):
    folder = output("prepare")
    whole = artifacts(folder)
    next(folder.glob("*.tfrecord-*")).unlink()
    (folder / "manifest.json").unlink()  # which goes first
    assert mend(str(folder)).exit_code == 0 and artifacts(folder) == whole


def test_a_draft_of_a_job_that_was_killed_at_its_very_end_is_swept(made, output):
    """All was done but to keep the command: the next run has nothing to make."""
    folder = output("prepare")
    whole = artifacts(folder)
    (folder / COMMAND).unlink()
    (folder / "_work/temporary/command.json-0123").write_bytes(b"half")
    preprocess.run("parquet", str(made / "rows"), str(folder), shape=[8, 8, 1], rows_per_shard=20)
    assert artifacts(folder) == whole


def unreadable(base: pathlib.Path) -> None:
    flip(base / "out" / COMMAND, 0.5)


def unknown(base: pathlib.Path) -> None:
    (base / "out" / COMMAND).unlink()


def hostile(base: pathlib.Path) -> None:
    record = checksums.read_record(str(base / "out" / COMMAND))
    record["arguments"]["metrics_file"] = str(base / "written.prom")
    (base / "out" / COMMAND).write_bytes(checksums.record_bytes(record))


REFUSED = {
    "the input is gone": (lambda base: shutil.rmtree(base / "rows"), "rows is not there|rows names no"),
    "the input has changed": (lambda base: write(base / "rows" / "1.parquet", 60), "was not made from what is now at"),
    "the input has grown": (lambda base: write(base / "rows" / "2.parquet", 60), "was not made from what is now at"),
    "the model is gone": (lambda base: shutil.rmtree(base / "model"), "holds no SavedModel"),
    "the model has changed": (
        lambda base: flip(base / "model" / "1" / "variables" / "variables.index", 0.5),
        "was not made from what is now at|cannot be loaded",
    ),
    "the record is damaged": (unreadable, "command.json is damaged: .*: give the command that made .* again"),
    "the record is gone": (unknown, "does not say how it was made: give the command that made it again"),
    "the record asks for more": (hostile, "the record of the command that made it is of another release"),
}


@pytest.mark.parametrize("why", sorted(REFUSED))
def test_what_cannot_be_mended_is_told_and_left_as_it_was(why, linear_digits, tmp_path):
    damage, message = REFUSED[why]
    base = tmp_path
    (base / "rows").mkdir()
    write(base / "rows" / "1.parquet", 0)
    if "model" in why:
        shutil.copytree(linear_digits.path, base / "model" / "1")
        embed.run(str(base / "model"), str(base / "rows"), str(base / "out"))
        damaged = next((base / "out" / "parts").glob("*.parquet"))
    else:
        preprocess.run("parquet", str(base / "rows"), str(base / "out"), shape=[8, 8, 1])
        damaged = base / "out" / "report.html"
    flip(damaged, 0.5)
    damage(base)
    before = artifacts(base / "out")
    with pytest.raises(PipelineError, match=message) as caught:
        mend(str(base / "out"))
    assert len(str(caught.value).splitlines()) == 1
    assert artifacts(base / "out") == before and not (base / "written.prom").exists()


def test_the_command_and_its_exit_codes(output, tmp_path):
    folder = output("prepare")
    whole = artifacts(folder)
    flip(folder / "statistics.json", 0.5)
    said = CliRunner().invoke(cli.main, ["verify", str(folder), "--mend"])
    assert said.exit_code == 0 and "made again       statistics.json" in said.output and artifacts(folder) == whole
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.keras").write_bytes(b"weights")
    checksums.list_files(str(tmp_path / "run"), "checksums.json")
    sound = CliRunner().invoke(cli.main, ["verify", str(tmp_path / "run"), "--mend"])
    assert sound.exit_code == 0 and "damaged          none" in sound.output
    flip(tmp_path / "run" / "model.keras", 0.5)
    said = CliRunner().invoke(cli.main, ["verify", str(tmp_path / "run"), "--mend"])
    assert said.exit_code == 1 and "of a run no file is made again: bring these files back from a copy" in said.output
