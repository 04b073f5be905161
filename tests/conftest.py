"""Where the real data lie, and equal random numbers for every test, in whichever order tests run."""

import os
import pathlib
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = pathlib.Path(os.environ.get("TFVAE_DATA", ROOT.parent / "shared" / "data"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Layers without a seed of their own begin with the same weights; fixtures are made after this."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


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
