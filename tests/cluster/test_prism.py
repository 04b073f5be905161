"""Both pipelines on Prism, Beam's local runner in Go, which Go builds from its module once for each version of Beam."""

import importlib.metadata
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from pipelines import embed
from pipelines.errors import PipelineError
from pipelines.jobs.commits import Output
from tests.cluster.jobs import JOB_SECONDS, ROWS_PER_SHARD, UNITS, Running, assert_whole
from tests.cluster.prism import Prism
from tests.cluster.processes import ROOT
from tests.pipelines.conftest import artifacts, command

pytestmark = pytest.mark.cluster

VERSION = f"v{importlib.metadata.version('apache-beam')}"
BINARY = ROOT / ".cache" / f"prism-{VERSION}" / "prism"


@pytest.fixture(scope="module")
def prism() -> pathlib.Path:
    """The program."""
    if not BINARY.is_file():
        if not shutil.which("go"):
            pytest.skip("go is not on the PATH: Prism is built with it")
        line = ["go", "install", f"github.com/apache/beam/sdks/v2/go/cmd/prism@{VERSION}"]
        subprocess.run(line, env=os.environ | {"GOBIN": str(BINARY.parent)}, check=True)
    return BINARY


def test_both_outputs_are_the_same_byte_for_byte(prism, workshop, place, idx, model, prepared, embedded):
    """Commands, with which the Prism that they start ends."""
    beam_args = ["--runner", "PrismRunner", "--prism_location", str(prism)]
    outputs = [str(place / name) for name in ("prepared", "embedded")]
    prepare = ["--source", "idx", "--input", idx, "--output", outputs[0], "--rows-per-shard", str(ROWS_PER_SHARD)]
    rows = ["--model", model.path, "--input", prepared, "--output", outputs[1], "--split", "all"]
    for module, arguments in (("pipelines.preprocess", prepare), ("pipelines.embed", rows)):
        done = command(module, *arguments, *beam_args, env=os.environ | {"TMPDIR": str(workshop)})
        assert done.returncode == 0, done.stderr
    assert artifacts(outputs[0]) == artifacts(prepared)
    assert artifacts(outputs[1]) == artifacts(embedded)


def test_a_job_whose_worker_is_killed_is_finished_by_a_second_run(prism, place, model, prepared, truth):
    """Prism tries nothing again: it ends the job and says why."""
    (place / "prism").mkdir()
    cluster = Prism(place / "prism", prism)
    try:
        cluster.start()
        arguments = (model.path, prepared, str(place / "killed"))
        running = Running(cluster, *arguments)
        os.kill(cluster.workers()[0], signal.SIGKILL)
        with pytest.raises(PipelineError, match=r"SDK worker disconnected.*run the same command again"):
            running.job.result(JOB_SECONDS)
        left = UNITS - len(Output(str(running.output / "generations" / "000001")).committed())
        assert embed.run(*arguments, split="all", beam_args=cluster.beam_args).units_done == left > 0
    finally:
        cluster.stop()
    running.assert_untouched()
    assert_whole(running.output, model, truth)
