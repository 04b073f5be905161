"""Both pipelines on a real Flink cluster: the same output as in one process, whoever is killed on the way."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from pipelines.jobs.commits import Output
from pipelines.jobs.progress import State
from tests.cluster.flink import SLOTS, Flink
from tests.pipelines.conftest import Linear, artifacts, read_dataset

pytestmark = pytest.mark.cluster

ROWS_PER_SHARD = 2000  # 35 units of MNIST
JOB_SECONDS = 180  # a job that takes longer hangs
SMALL_BATCHES = 8  # rows; slows a unit down to a fraction of a second, so that there is a middle to be killed in


@pytest.fixture(scope="module")
def model(workshop) -> Linear:
    return Linear(workshop / "models" / "linear" / "1", (28, 28, 1))


@pytest.fixture(scope="module")
def prepared(workshop, mnist_dir) -> str:
    """MNIST, prepared in this process."""
    output = str(workshop / "prepared")
    preprocess.run("idx", str(mnist_dir), output, rows_per_shard=ROWS_PER_SHARD)
    return output


@pytest.fixture(scope="module")
def truth(prepared) -> dict[str, np.ndarray]:
    """MNIST's rows by key, as TensorFlow Datasets reads them."""
    return {key: x for split in ("train", "test") for key, (x, _) in read_dataset(prepared, split).items()}


def assert_whole(output: pathlib.Path, model: Linear, truth: dict[str, np.ndarray]) -> None:
    """Each key once with the value that NumPy computes, and every file as the manifest says."""
    table = embed.read_embeddings(str(output))
    keys = table["key"].to_pylist()
    assert len(keys) == len(truth) and set(keys) == truth.keys()
    found = np.stack(table["embedding"].to_numpy())
    np.testing.assert_allclose(found, model.embed(np.stack([truth[key] for key in keys])), atol=1e-5)
    target = Output(str(output / "current"))
    for entry in json.loads((output / "manifest.json").read_text())["files"]:
        assert target.describe(entry["path"]) == entry
    assert not list((output / "current" / "_work" / "temporary").iterdir())


class Running:
    """An embedding job of all of MNIST on the cluster, in its middle: a few units are committed, more are not.

    Attributes:
        job: The job's future.
        committed: The parts that were committed by then, with the times of their writing.
    """

    def __init__(self, flink: Flink, *arguments: str):
        self.output = pathlib.Path(arguments[-1])
        self._flink, self._done = flink, self.output / "generations" / "000001" / "_work" / "commits"
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.job = pool.submit(embed.run, *arguments, split="all", batch_size=SMALL_BATCHES, beam_args=flink.beam_args)
        pool.shutdown(wait=False)
        flink.wait_for(self._is_in_the_middle, "the job's first commits")
        assert not self.job.done(), self.job.result()
        self.committed = self._parts()

    def _is_in_the_middle(self) -> bool:
        return self.job.done() or (len(self._parts()) >= 5 and len(self._flink.workers()) == SLOTS)

    def _parts(self) -> dict[str, int]:
        names = [path.stem for path in self._done.glob("*.json")] if self._done.exists() else []
        return {name: (self._done.parents[1] / "parts" / f"{name}.parquet").stat().st_mtime_ns for name in names}

    def assert_untouched(self) -> None:
        """What was committed was not done again."""
        now = self._parts()
        assert {name: now[name] for name in self.committed} == self.committed


def assert_restarted(flink: Flink) -> None:
    """The last job finished, though some of it had failed."""
    job = flink.jobs()[-1]
    assert job["state"] == "FINISHED" and flink.failures(job["jid"])


def test_a_prepared_dataset_is_the_same_byte_for_byte(flink, prepared, mnist_dir, workshop):
    output = str(workshop / "prepared-on-flink")
    arguments = ("idx", str(mnist_dir), output)
    summary = preprocess.run(*arguments, rows_per_shard=ROWS_PER_SHARD, beam_args=flink.beam_args)
    assert summary.rows == {"train": 60_000, "test": 10_000} and summary.units_done == summary.units == 35
    assert artifacts(output) == artifacts(prepared)
    assert flink.jobs()[-1]["state"] == "FINISHED" and flink.jobs()[-1]["tasks"]["finished"] >= 2 * SLOTS


def test_embeddings_are_the_same(flink, prepared, model, truth, workshop):
    local, remote = (str(workshop / name) for name in ("embedded", "embedded-on-flink"))
    told: list[State] = []
    embed.run(model.path, prepared, local, split="all")
    arguments = (model.path, prepared, remote)
    embed.run(*arguments, split="all", beam_args=flink.beam_args, progress=told.append)
    assert_whole(pathlib.Path(remote), model, truth)
    ours, theirs = (embed.read_embeddings(output) for output in (local, remote))
    assert ours["key"].to_pylist() == theirs["key"].to_pylist()
    values = [np.stack(table["embedding"].to_numpy()) for table in (ours, theirs)]
    np.testing.assert_allclose(*values, atol=1e-6)
    assert told[-1] == State(units_done=35, units=35, rows_done=70_000, rows=70_000, rejected=0)


def test_a_killed_worker_is_replaced(flink, prepared, model, truth, workshop):
    """Flink starts the job again, and of that only what was not committed is done a second time."""
    running = Running(flink, model.path, prepared, str(workshop / "killed"))
    os.kill(flink.workers()[0], signal.SIGKILL)
    assert running.job.result(JOB_SECONDS).rows == {"train": 60_000, "test": 10_000}
    assert_restarted(flink)
    running.assert_untouched()
    assert_whole(running.output, model, truth)


def test_a_killed_task_manager_is_replaced(flink, prepared, model, truth, workshop):
    """As when a machine dies and whoever keeps the cluster starts another."""
    running = Running(flink, model.path, prepared, str(workshop / "lost"))
    os.kill(flink.task_managers[0].pid, signal.SIGKILL)
    flink.add_task_manager()
    assert running.job.result(JOB_SECONDS).units == 35
    assert_restarted(flink)
    running.assert_untouched()
    assert_whole(running.output, model, truth)


def test_a_job_that_is_given_up_is_finished_by_a_second_run(flink, prepared, model, truth, workshop):
    """Workers that die more often than Flink restarts a job fail it; the second run does what is missing."""
    arguments = (model.path, prepared, str(workshop / "given-up"))
    running = Running(flink, *arguments)
    while not running.job.done():
        for worker in flink.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.05)
    with pytest.raises(PipelineError):
        running.job.result(JOB_SECONDS)
    assert flink.jobs()[-1]["state"] == "FAILED" and not (running.output / "manifest.json").exists()
    flink.wait_for(lambda: not flink.workers(), "the last worker to end")
    committed = Output(str(running.output / "generations" / "000001")).committed()
    assert running.committed.keys() <= committed and len(committed) < 35
    summary = embed.run(*arguments, split="all", beam_args=flink.beam_args)
    assert summary.units_done == 35 - len(committed)
    running.assert_untouched()
    assert_whole(running.output, model, truth)
