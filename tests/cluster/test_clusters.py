"""Both pipelines on real clusters: the same output as in one process, whoever is killed on the way."""

import contextlib
import os
import signal
import time

import numpy as np
import pytest

from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from pipelines.jobs.commits import Output
from pipelines.jobs.progress import State
from tests.cluster.jobs import JOB_SECONDS, ROWS, ROWS_PER_SHARD, UNITS, Running, assert_whole
from tests.cluster.jvms import Jvms
from tests.pipelines.conftest import artifacts

pytestmark = pytest.mark.cluster


def assert_made_good(cluster: Jvms) -> None:
    """The last job finished, though some of it had failed."""
    last = cluster.last_job()
    assert last.state == "FINISHED" and last.failures


def test_a_prepared_dataset_is_the_same_byte_for_byte(cluster, prepared, idx, place):
    output = str(place / "prepared")
    arguments = ("idx", idx, output)
    summary = preprocess.run(*arguments, rows_per_shard=ROWS_PER_SHARD, beam_args=cluster.beam_args)
    assert summary.rows == ROWS and summary.units_done == summary.units == UNITS
    assert artifacts(output) == artifacts(prepared)
    assert cluster.last_job() == ("FINISHED", [])


def test_embeddings_are_the_same(cluster, prepared, model, truth, embedded, place):
    told: list[State] = []
    arguments = (model.path, prepared, str(place / "embedded"))
    embed.run(*arguments, split="all", beam_args=cluster.beam_args, progress=told.append)
    assert_whole(place / "embedded", model, truth)
    ours, theirs = (embed.read_embeddings(output) for output in (embedded, arguments[-1]))
    assert ours["key"].to_pylist() == theirs["key"].to_pylist()
    values = [np.stack(table["embedding"].to_numpy()) for table in (ours, theirs)]
    np.testing.assert_allclose(*values, atol=1e-6)
    assert told[-1] == State(units_done=UNITS, units=UNITS, rows_done=14_000, rows=14_000, rejected=0)


def test_a_killed_worker_is_replaced(cluster, prepared, model, truth, place):
    """The runner does again what failed, and of that only what was not committed is done a second time."""
    running = Running(cluster, model.path, prepared, str(place / "killed"))
    os.kill(cluster.workers()[0], signal.SIGKILL)
    assert running.job.result(JOB_SECONDS).rows == ROWS
    assert_made_good(cluster)
    running.assert_untouched()
    assert_whole(running.output, model, truth)


def test_a_killed_executor_is_replaced(cluster, prepared, model, truth, place):
    """As when a machine dies and whoever keeps the cluster starts another."""
    running = Running(cluster, model.path, prepared, str(place / "lost"))
    cluster.lose_an_executor()
    assert running.job.result(JOB_SECONDS).units == UNITS
    assert_made_good(cluster)
    running.assert_untouched()
    assert_whole(running.output, model, truth)


def test_a_job_that_is_given_up_is_finished_by_a_second_run(cluster, prepared, model, truth, place):
    """Workers that die more often than the cluster tries again fail a job; the second run does what is missing."""
    arguments = (model.path, prepared, str(place / "given-up"))
    running = Running(cluster, *arguments)
    while not running.job.done():
        for worker in cluster.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.05)
    with pytest.raises(PipelineError):
        running.job.result(JOB_SECONDS)
    assert cluster.last_job().state == "FAILED" and not (running.output / "manifest.json").exists()
    cluster.wait_for(lambda: not cluster.workers(), "the last worker to end", JOB_SECONDS)
    committed = Output(str(running.output / "generations" / "000001")).committed()
    assert running.committed.keys() <= committed and len(committed) < UNITS
    summary = embed.run(*arguments, split="all", beam_args=cluster.beam_args)
    assert summary.units_done == UNITS - len(committed)
    running.assert_untouched()
    assert_whole(running.output, model, truth)
