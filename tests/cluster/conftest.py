"""A cluster of each kind for all tests, one after the other, what they work on, and a folder for what they write."""

import gzip
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
import pytest

from pipelines import embed, preprocess
from tests.cluster import flink, jars, spark
from tests.cluster.jobs import ROWS, ROWS_PER_SHARD
from tests.cluster.jvms import Jvms
from tests.pipelines.conftest import Linear, read_dataset, write_idx

CLUSTERS = {"flink": (flink.Flink, flink.MAIN), "spark": (spark.Spark, spark.MAIN)}


@pytest.fixture(scope="session")
def workshop() -> Iterator[pathlib.Path]:
    """A folder that is gone in the end; Beam's own temporary files go there too, as Beam leaves them behind."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="tfvae-cluster-") as folder:
        tempfile.tempdir = folder
        yield pathlib.Path(folder)
        tempfile.tempdir = before


@pytest.fixture(scope="session")
def java() -> str:
    """Without Java or its jars the tests fail, for nothing else shows that the pipelines run there."""
    if not (found := shutil.which("java")):
        pytest.fail("java is not on the PATH: install Java 11 or 17, or leave the cluster tests out")
    return found


@pytest.fixture(scope="session", params=sorted(CLUSTERS))
def cluster(workshop: pathlib.Path, java: str, request: pytest.FixtureRequest) -> Iterator[Jvms]:
    """Each of them, started once."""
    kind, main = CLUSTERS[request.param]
    folder = workshop / request.param
    folder.mkdir()
    running = kind(folder, jars.job_server(request.param, main))
    try:
        running.start()
        yield running
    finally:
        running.stop()
        if request.session.testsfailed:
            print(running.logs())


@pytest.fixture
def place(workshop: pathlib.Path, request: pytest.FixtureRequest) -> pathlib.Path:
    """Where a test writes what its cluster makes."""
    folder = workshop / f"output-{request.node.name}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def model(workshop) -> Linear:
    return Linear(workshop / "models" / "linear" / "1", (28, 28, 1))


@pytest.fixture(scope="session")
def idx(workshop, mnist_dir) -> str:
    """The first rows of MNIST, in its own format."""
    folder = workshop / "idx"
    folder.mkdir()
    for prefix, split in (("train", "train"), ("t10k", "test")):
        for kind, start, shape in (("images-idx3", 16, [28, 28]), ("labels-idx1", 8, [])):
            content = gzip.decompress((mnist_dir / f"{prefix}-{kind}-ubyte.gz").read_bytes())[start:]
            values = np.frombuffer(content, np.uint8).reshape([-1, *shape])[: ROWS[split]]
            write_idx(folder / f"{prefix}-{kind}-ubyte", values)
    return str(folder)


@pytest.fixture(scope="session")
def prepared(workshop, idx) -> str:
    """Those, prepared in this process."""
    output = str(workshop / "prepared")
    preprocess.run("idx", idx, output, rows_per_shard=ROWS_PER_SHARD)
    return output


@pytest.fixture(scope="session")
def truth(prepared) -> dict[str, np.ndarray]:
    """Their rows by key, as TensorFlow Datasets reads them."""
    return {key: x for split in ("train", "test") for key, (x, _) in read_dataset(prepared, split).items()}


@pytest.fixture(scope="session")
def embedded(workshop, prepared, model) -> str:
    """Their embeddings, made in this process."""
    output = str(workshop / "embedded")
    embed.run(model.path, prepared, output, split="all")
    return output
