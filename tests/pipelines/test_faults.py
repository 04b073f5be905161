"""Killed, starved of disk, run twice at once: afterwards every good row is there once and every bad one named."""

import contextlib
import errno
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.forks import Forks
from pipelines import embed, preprocess
from pipelines.errors import PipelineError

from .conftest import ROOT, artifacts, fixed_binary, rejections
from .test_embed import assert_equals_numpy, observations

BLOCK_BYTES, UNITS = 64 * 30, 61  # 30 rows a unit: six shards of 9 units, one of 7


class Jobs:
    """Jobs of one model and input, each in a process that a test may kill."""

    def __init__(self, model: str, source: str, log: pathlib.Path):
        self._forks = Forks(log)
        self._arguments = ["embed", "--model", model, "--input", source, "--split", "all", "--output"]
        self.end, self.close = self._forks.end, self._forks.close

    def start(self, output: pathlib.Path) -> int:
        settings = {"tfvae.pipelines.inputs.base.BLOCK_BYTES": BLOCK_BYTES}
        return self._forks.start([*self._arguments, output], settings)


@pytest.fixture(scope="module")
def jobs(linear_digits, prepared_digits, tmp_path_factory):
    server = Jobs(linear_digits.path, prepared_digits, tmp_path_factory.mktemp("jobs") / "log")
    yield server
    server.close()


@pytest.mark.slow
def test_killed_at_twenty_random_moments(jobs, linear_digits, prepared_digits, tmp_path):
    """Whatever the moment, the second run does what is missing, and the bytes are those of an undisturbed run."""
    truth = observations(prepared_digits, "train", "test")
    whole = tmp_path / "whole"
    jobs.start(whole)
    began = time.monotonic()
    assert jobs.end() == 0
    duration = time.monotonic() - began
    assert_equals_numpy(whole, linear_digits, truth)
    expected, moments = artifacts(whole), random.Random(0)
    assert sum(name.startswith("generations/000001/_work/commits/") for name in expected) == UNITS
    in_the_middle = 0
    for attempt in range(20):
        output = tmp_path / str(attempt)
        process = jobs.start(output)
        time.sleep(moments.uniform(0.1, 1.0) * duration)
        with contextlib.suppress(ProcessLookupError):  # it was quicker than the first one
            os.kill(process, signal.SIGKILL)
        killed = jobs.end() == -signal.SIGKILL
        done = len(list((output / "generations" / "000001" / "_work" / "commits").glob("*.json")))
        in_the_middle += killed and 0 < done < UNITS
        assert (output / "manifest.json").exists() <= (done == UNITS)
        jobs.start(output)
        assert jobs.end() == 0
        assert artifacts(output) == expected
    assert in_the_middle > 0


@pytest.mark.slow
def test_a_second_night_killed_at_random_moments(linear_digits, tmp_path):
    """Readers see the first night whole or the second; the same command ends in the bytes of an undisturbed one."""

    def write(name: str, keys: list[str]) -> None:
        x = np.random.default_rng([*name.encode()]).integers(1, 254, (len(keys), 64), dtype=np.uint8)
        pq.write_table(pa.table({"key": keys, "x": fixed_binary(x)}), tmp_path / "in" / name, row_group_size=20)
        os.utime(tmp_path / "in" / name, (len(keys), len(keys)))  # whose times no later run takes for new

    def seen(output: pathlib.Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for name in ("parts", "rejected") for path in (output / name).iterdir()}

    (tmp_path / "in").mkdir()
    for name in ("b", "c", "d"):
        write(f"{name}.parquet", [f"{name}{i}" for i in range(100)])
    with contextlib.closing(Jobs(linear_digits.path, str(tmp_path / "in"), tmp_path / "log")) as jobs:
        jobs.start(tmp_path / "first")
        assert jobs.end() == 0
        first = seen(tmp_path / "first")
        for attempt in range(10):
            shutil.copytree(tmp_path / "first", tmp_path / str(attempt), symlinks=True)
        (tmp_path / "in" / "c.parquet").unlink()
        write("d.parquet", [f"d{i}" for i in range(0, 200, 2)])
        write("a.parquet", ["a0", "b7", "d2", *(f"a{i}" for i in range(3, 60))])
        shutil.copytree(tmp_path / "first", tmp_path / "whole", symlinks=True)
        jobs.start(tmp_path / "whole")
        assert jobs.end() == 3
        second, moments, states = artifacts(tmp_path / "whole"), random.Random(0), set()
        expected = seen(tmp_path / "whole")
        for attempt in range(10):
            output = tmp_path / str(attempt)
            process = jobs.start(output)
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                while len(list((output / "generations").glob("000002/_work/commits/*"))) < 1 + attempt % 3:
                    os.kill(process, 0)
                    time.sleep(0.001)
                time.sleep(moments.uniform(0.0, 0.2))
                os.kill(process, signal.SIGKILL)
            jobs.end()
            assert seen(output) in (first, expected)
            states.add(len(list((output / "generations").glob("000002/_work/commits/*"))))
            jobs.start(output)
            assert jobs.end() == 3
            assert artifacts(output) == second
    assert len(states) > 1


@pytest.mark.slow
def test_two_jobs_at_once_on_one_output(jobs, linear_digits, prepared_digits, tmp_path):
    output = tmp_path / "out"
    jobs.start(output)
    while not (output / "_work" / "job.json").exists():
        time.sleep(0.005)
    with pytest.raises(PipelineError, match="another job is writing"):
        embed.run(linear_digits.path, prepared_digits, str(output), split="all")
    assert jobs.end() == 0
    assert_equals_numpy(output, linear_digits, observations(prepared_digits, "train", "test"))


def in_small_file_system(commands: str, size: str = "300k") -> subprocess.CompletedProcess:
    """Runs shell commands in a mount namespace of their own, in which ``disk`` is a file system of that size."""
    script = f"mkdir -p disk && mount -t tmpfs -o size={size} none disk && {{ {commands} }}"
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        cwd=None, capture_output=True, text=True, timeout=180,
    )  # fmt: skip


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if shutil.which("unshare") is None or in_small_file_system("true;").returncode:
        pytest.skip("needs a mount namespace: unshare --mount --map-root-user is not allowed here")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.slow
def test_a_full_disk(small_disk, linear_digits, prepared_digits):
    """The job stops and says so; once there is room, the same command does the rest."""
    one = f"{sys.executable} -m pipelines.embed --model {linear_digits.path} --input {prepared_digits} --split all"
    two = f"{sys.executable} -m pipelines.preprocess --source digits"
    ran = in_small_file_system(
        "head -c 290000 /dev/zero > disk/others; df disk >&2;"
        f"{one} --output disk/embeddings; echo first $?; ls disk/embeddings;"
        f"{two} --output disk/prepared; echo first $?;"
        "rm disk/others; mount -o remount,size=64m disk;"
        f"{one} --output disk/embeddings; echo second $?; {two} --output disk/prepared; echo second $?;"
        "cp -r disk copy;",
    )
    assert ran.stdout.count("first 1") == 2, ran.stderr
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and all("No space left on device" in error for error in errors), ran.stderr
    assert "Traceback" not in ran.stderr and "ERROR:apache_beam" not in ran.stderr
    assert "manifest.json" not in ran.stdout.split("second")[0].split("first 1")[1]
    assert ran.stdout.count("second 0") == 2, ran.stderr
    assert_equals_numpy(
        small_disk / "copy" / "embeddings", linear_digits, observations(prepared_digits, "train", "test")
    )
    preprocess.run("digits", None, str(small_disk / "fresh"))
    assert artifacts(small_disk / "copy" / "prepared") == artifacts(small_disk / "fresh")


@pytest.mark.parametrize(
    ("number", "remedy", "mode"),
    [
        (errno.ENOSPC, "make room and give the same command again", "in_memory"),
        (errno.EACCES, "let the user of this command", "multi_threading"),
        (errno.EROFS, "name a folder that can be written", "in_memory"),
        (errno.EMFILE, "ulimit -n", "in_memory"),
        (errno.EISDIR, "Is a directory", "in_memory"),
    ],
)
def test_a_worker_s_error_is_one_sentence(number, remedy, mode, tmp_path, monkeypatch, capfd, caplog):
    """Neither Beam's log nor what it prints reaches the user, though on the full disk no unit can leave its reason."""
    np.save(tmp_path / "x.npy", np.ones([20, 3], np.float32))

    def fail(self, unit):
        raise OSError(number, os.strerror(number), "disk/shard")

    monkeypatch.setattr("pipelines.dataset.shards.WriteShard.process", fail)
    arguments = ["--source", "npy", "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "out")]
    beam_args = ["--direct_running_mode", mode, "--direct_num_workers", "1" if mode == "in_memory" else "2"]
    assert preprocess.main([*arguments, *beam_args]) == 1
    *progress, said = capfd.readouterr().err.splitlines()
    assert said.startswith("error: ") and os.strerror(number) in said and remedy in said
    assert all(line.startswith("prepare: ") for line in progress) and not caplog.records


@pytest.mark.slow
def test_workers_in_processes_of_their_own_write_no_log(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    beam_args = ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"]
    assert preprocess.main(["--source", "digits", "--output", "out", *beam_args]) == 0
    assert all(line.startswith("prepare: ") for line in capfd.readouterr().err.splitlines()) and not caplog.records
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 90),
    row_group=st.integers(1, 40),
    files=st.integers(1, 4),
    block_rows=st.integers(1, 50),
    batch_size=st.integers(1, 50),
    workers=st.sampled_from([1, 3]),
    bad=st.sets(st.integers(0, 89), max_size=6),
)
def test_sizes_and_workers_do_not_matter(
    rows, row_group, files, block_rows, batch_size, workers, bad, linear_digits, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("property")
    x = np.random.default_rng(rows).integers(1, 254, (rows, 8, 8, 1), dtype=np.uint8)
    bad = {row for row in bad if row < rows}
    x[sorted(bad)] = 255  # the model raises
    keys = [f"k{i}" for i in range(rows)]
    (folder / "in").mkdir()
    for i, some in enumerate(np.array_split(np.arange(rows), min(files, rows))):
        column = pa.array([x[row].tobytes() for row in some], pa.binary(64))
        table = pa.table({"key": [keys[row] for row in some], "x": column})
        pq.write_table(table, folder / "in" / f"{i}.parquet", row_group_size=row_group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.inputs.base.BLOCK_ROWS", block_rows)
        patch.setattr("pipelines.inputs.parquet.BLOCK_ROWS", block_rows)
        run = lambda: embed.run(  # noqa: E731
            linear_digits.path, str(folder / "in"), str(folder / "out"), batch_size=batch_size,
            beam_args=["--direct_num_workers", str(workers)],
        )  # fmt: skip
        if len(bad) == rows:
            with pytest.raises(PipelineError, match="no row of split 'all' is good"):
                run()
            return
        summary = run()
    assert_equals_numpy(folder / "out", linear_digits, {keys[i]: x[i] for i in range(rows) if i not in bad})
    assert rejections(folder / "out").keys() == {keys[i] for i in bad} and summary.rejected == len(bad)


@pytest.mark.parametrize("rows_per_shard", [1, 7, 100, 5000])
def test_shard_counts_and_workers_do_not_matter(rows_per_shard, tmp_path):
    x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for workers in (1, 3):
        preprocess.run(
            "npy", str(tmp_path / "x.npy"), str(tmp_path / str(workers)), rows_per_shard=rows_per_shard,
            beam_args=["--direct_num_workers", str(workers)],
        )  # fmt: skip
    assert artifacts(tmp_path / "1") == artifacts(tmp_path / "3")
    found = observations(str(tmp_path / "1"), "train") | observations(str(tmp_path / "1"), "test")
    assert found.keys() == {f"row-{i:05d}" for i in range(120)}
    for key, row in found.items():
        np.testing.assert_array_equal(row, x[int(key[4:])])
