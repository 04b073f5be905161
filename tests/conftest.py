"""Where the real data lie, equal random numbers for every test, in whichever order tests run, and quick programs."""

import gc
import os
import pathlib
import random
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests import garbage

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = pathlib.Path(os.environ.get("TFVAE_DATA", ROOT.parent / "shared" / "data"))


def pytest_collection_finish() -> None:
    """See ``garbage``."""
    garbage.seldom()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Models run as graphs, which are made in a third of the time, unless a test is marked ``xla``.

    That XLA makes the same of every program is looked at where it is the subject: in ``engine`` and ``conformance``, of
    the numbers in ``unchanged.json``, of each baseline and each judge. Pages and commands run as they do for a user.
    """
    with pytest.MonkeyPatch.context() as patched:
        if "tfvae.engine.xla" in sys.modules and not item.get_closest_marker("xla"):
            patched.setattr("tfvae.engine.xla.pays_off", lambda model: False)
        return (yield)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What a file's tests have left goes with the file: graphs hold more memory than Python's counts know of."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Layers without a seed of their own begin with the same weights; fixtures are made after this.

    Keras draws such seeds from Python's generator. TensorFlow's own seed stays: to set it is to throw away every kernel
    and function that is ready to run, an eighth of the suite's time; what draws by it has a seed in its test.
    """
    random.seed(0)


def _existing(path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        pytest.skip(f"{path} is absent: set TFVAE_DATA to the folder that holds the real data")
    return path


@pytest.fixture(scope="session")
def mnist_dir() -> pathlib.Path:
    return _existing(DATA / "mnist")


@pytest.fixture(scope="session")
def frey_faces() -> pathlib.Path:
    return _existing(DATA / "freyface" / "frey_faces.npy")


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> str:
    """scikit-learn's digits as a prepared dataset, 1,797 rows in the splits train and test."""
    from pipelines import preprocess

    path = str(tmp_path_factory.mktemp("prepared") / "digits")
    preprocess.run("digits", None, path)
    return path


@pytest.fixture(scope="session")
def s3_endpoint():
    """Moto's S3 server on loopback."""
    from tests.stores import s3_server

    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """An empty bucket there, which the environment leads to."""
    from pipelines import stores
    from tests.stores import S3_CREDENTIALS, Bucket

    for name, value in {**S3_CREDENTIALS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    stores.forget_clients()
    return Bucket(s3_endpoint, f"bucket-{uuid.uuid4().hex}").make()


@pytest.fixture
def google_bucket(monkeypatch):
    """The same of an emulator of Google's store."""
    from pipelines import stores
    from tests.stores import GoogleBucket, google_server

    with google_server() as endpoint:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        stores.forget_clients()
        yield GoogleBucket(endpoint, f"bucket-{uuid.uuid4().hex}").make()
