"""What the summary says of a run: by its commit records, and of the model by Beam's metrics."""

import json
import types

import numpy as np
import pytest

from pipelines import embed, jobs, preprocess
from pipelines.jobs import metrics

from ..conftest import read_dataset


@pytest.fixture
def with_bad_rows(tmp_path):
    """60 rows of which 2 are bad, as `x.npy`."""
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    x[[7, 41], 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    return str(tmp_path / "x.npy")


def test_rows_of_this_run_are_counted_by_commit_records(with_bad_rows, tmp_path):
    arguments = {"test_fraction": 0, "rows_per_shard": 20}
    whole = preprocess.run("npy", with_bad_rows, str(tmp_path / "out"), **arguments)
    assert (whole.rows_read, whole.rows_written, whole.rows_rejected) == (60, 58, 2) and whole.latency is None
    path = tmp_path / "out" / "_work" / "commits" / "train-00001-of-00003.json"
    lost = json.loads(path.read_text())
    path.unlink()
    again = preprocess.run("npy", with_bad_rows, str(tmp_path / "out"), **arguments)
    assert (again.rows_read, again.rows_written) == (20, lost["rows"]) and again.rows_rejected == lost["rejected"]
    assert again.rejected == 2 and again.rows_per_second == pytest.approx(20 / again.seconds)
    bad = lost["rejected"]
    assert f"rows read now    20 ({20 - bad} written, {bad} rejected)" in again.table()


def test_calls_of_the_model_are_in_the_summary(prepared_digits, linear_digits, tmp_path):
    rows = len(read_dataset(prepared_digits, "test"))
    summary = embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"), batch_size=50)
    calls = -(-rows // 50)  # one shard, one block
    assert summary.latency is not None and summary.latency.calls == calls
    assert 0 <= summary.latency.mean <= summary.latency.maximum < 1000 * summary.seconds
    assert f"model calls      {calls}, mean " in summary.table()
    assert "model calls" not in embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out")).table()


def test_a_runner_without_metrics_changes_nothing_else(prepared_digits, linear_digits, tmp_path, monkeypatch):
    run = jobs.execution.beam.Pipeline.run

    def without(self):
        result = run(self)
        return types.SimpleNamespace(wait_until_finish=result.wait_until_finish)

    monkeypatch.setattr(jobs.execution.beam.Pipeline, "run", without)
    summary = embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"))
    assert summary.latency is None and "model calls" not in summary.table()
    assert summary.rows_written == len(read_dataset(prepared_digits, "test"))


class Recorder(list):
    update = list.append


def test_timing_is_in_milliseconds_and_counts_failures(monkeypatch):
    seconds = iter([10.0, 10.0124, 20.0, 20.3])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(seconds))
    recorder = Recorder()
    with metrics.timing(recorder):
        pass
    with pytest.raises(ValueError), metrics.timing(recorder):
        raise ValueError
    assert recorder == [12, 300]


def test_latency_is_added_up_over_steps():
    def entry(count, total, maximum):
        told = types.SimpleNamespace(count=count, sum=total, max=maximum)
        return types.SimpleNamespace(committed=None, attempted=told)

    found = {"distributions": [entry(3, 30, 15), entry(1, 50, 50)]}
    result = types.SimpleNamespace(metrics=lambda: types.SimpleNamespace(query=lambda _: found))
    assert metrics.latency(result) == metrics.Latency(calls=4, mean=20.0, maximum=50)
    assert str(metrics.latency(result)) == "4, mean 20.0 ms, max 50 ms"
