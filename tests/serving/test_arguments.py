"""What the client refuses before it asks, how it persists, and what it needs: no server here."""

import subprocess
import sys

import numpy as np
import pytest

from tfvae import serving
from tfvae.serving import retries


def unreached() -> serving.Client:
    """A client of a port on which nothing listens: a request would raise another error than the expected."""
    return serving.Client("http://127.0.0.1:1", "pictures", retries=0)


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://localhost", "http://", "", "file:///etc/passwd"])
def test_an_address_names_its_protocol(url):
    with pytest.raises(ValueError, match="expected http://"):
        serving.Client(url, "pictures")


@pytest.mark.parametrize(
    "bad",
    [
        *({"batch_size": wrong} for wrong in (0, 64.0, float("nan"), True, "64")),
        *({"retries": wrong} for wrong in (-1, 2.5)),
        *({"timeout": wrong} for wrong in (0, float("nan"), True, "1")),
        *({"version": wrong} for wrong in (1.0, -1, "1")),
        {"max_answer_bytes": "x"},
        {"by_rows": "no"},
        {"missing": 1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} is "):
        serving.Client("http://localhost:8501", "pictures", **bad)


def test_what_is_no_array_of_floats_bytes_or_files_is_refused():
    client = unreached()
    for x in (b"a file without its list", "text", [1.0, 2.0], [b"", "text"], None):
        with pytest.raises(TypeError, match="x is a "):
            client.embed(x)
    for x in (np.zeros([2, 3], np.int64), np.zeros([2], bool), np.array([b"ab"]), np.zeros([2, 3], complex)):
        with pytest.raises(TypeError, match=f"x is of {x.dtype}"):
            client.embed(x)
    for kind in (np.float32, np.uint8):
        with pytest.raises(TypeError, match="x has masked cells, which are not sent"):
            client.embed(np.ma.masked_equal(np.eye(3, dtype=kind), 1))
    with pytest.raises(TypeError, match="x is of uint8"):
        client.reconstruct(np.zeros([2, 3], np.uint8))


def test_rows_that_would_fail_the_batches_of_others_are_not_sent():
    z = np.zeros([5, 2])
    for bad in (np.nan, np.inf, -np.inf, 1e300):  # the last is infinite as float32
        z[3, 1] = bad
        with pytest.raises(ValueError, match="row 3"):
            unreached().decode(z)


def test_inputs_need_the_same_number_of_rows():
    with pytest.raises(ValueError, match="'x': 3, 'noise': 2"):
        unreached().score(np.zeros([3, 4]), np.zeros([2, 1, 2]))
    with pytest.raises(ValueError, match=r"scalars: \['z'\]"):
        unreached().decode(np.array(1.0))


def test_pauses_double_are_bounded_and_differ(monkeypatch):
    pauses = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)

    def ask():
        raise serving.ServingError("UNAVAILABLE", "for a test", passing=True)

    with pytest.raises(serving.ServingError, match="for a test"):
        retries.persist(ask, retries=12)
    highest = np.minimum(0.1 * 2.0 ** np.arange(12), 10)
    assert np.all(np.array(pauses) <= highest) and np.all(np.array(pauses) >= highest / 2)
    assert len(set(np.round(pauses[-4:], 6))) == 4


def test_an_error_that_does_not_pass_is_raised_at_once():
    asked = []

    def ask():
        asked.append(1)
        raise serving.ServingError("HTTP 400", "no")

    with pytest.raises(serving.ServingError, match="HTTP 400: no"):
        retries.persist(ask, retries=9)
    assert len(asked) == 1


def test_rest_needs_no_tensorflow():
    """Where TensorFlow and Keras cannot be found the client is imported and asks all the same."""
    code = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
hidden = ("tensorflow", "keras", "tensorflow_probability", "tensorflow_serving", "grpc")
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None: None if name.split(".")[0] in hidden else find(name, path, target))
import numpy as np
from tfvae import serving
try:
    serving.Client("http://127.0.0.1:1", "pictures", retries=0).decode(np.zeros([1, 2]))
except serving.ServingError as error:
    print(error.code, [name for name in hidden if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "CONNECTION []"
