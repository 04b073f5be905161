"""What the tests of every cluster ask of a job: that it is in its middle, and that nothing is lost or doubled."""

import concurrent.futures
import json
import pathlib

import numpy as np

from pipelines import embed
from pipelines.jobs.commits import Output
from tests.cluster.processes import Cluster
from tests.pipelines.conftest import Linear

ROWS = {"train": 12_000, "test": 2_000}  # of MNIST
ROWS_PER_SHARD, UNITS = 400, 35
JOB_SECONDS = 300  # a job that takes longer hangs
SMALL_BATCHES = 2  # rows; slows a unit down to a fraction of a second, so that there is a middle to be killed in


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
    """An embedding job of all rows on the cluster, in its middle: a few units are committed, more are not.

    Attributes:
        job: The job's future.
        committed: The parts that were committed by then, with the times of their writing.
    """

    def __init__(self, cluster: Cluster, *arguments: str):
        self.output = pathlib.Path(arguments[-1])
        self._cluster, self._done = cluster, self.output / "generations" / "000001" / "_work" / "commits"
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.job = pool.submit(
            embed.run, *arguments, split="all", batch_size=SMALL_BATCHES, beam_args=cluster.beam_args
        )
        pool.shutdown(wait=False)
        cluster.wait_for(self._is_in_the_middle, "the job's first commits", JOB_SECONDS)
        assert not self.job.done(), self.job.result()
        self.committed = self._parts()

    def _is_in_the_middle(self) -> bool:
        return self.job.done() or (len(self._parts()) >= 5 and len(self._cluster.workers()) == self._cluster.slots)

    def _parts(self) -> dict[str, int]:
        names = [path.stem for path in self._done.glob("*.json")] if self._done.exists() else []
        return {name: (self._done.parents[1] / "parts" / f"{name}.parquet").stat().st_mtime_ns for name in names}

    def assert_untouched(self) -> None:
        """What was committed was not done again."""
        now = self._parts()
        assert {name: now[name] for name in self.committed} == self.committed
