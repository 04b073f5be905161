"""A checkout has the pipelines under two names, an installed package under one that no folder of the user's hides."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_both_names_of_the_pipelines_give_the_same_modules():
    """In either order of imports; so what is pickled names the module that a worker has installed."""
    code = """
import pickle, sys
from pipelines.jobs import commits as first
import tfvae.pipelines.jobs.commits as second
from tfvae.pipelines import storage
import pipelines, pipelines.storage
assert first is second and pipelines.storage is storage and pipelines is sys.modules["tfvae.pipelines"]
assert b"ctfvae.pipelines.jobs.commits" in pickle.dumps(first.Unit, protocol=0)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("words", "watching"),
    [
        ("-m apache_beam.runners.worker.sdk_worker_main", False),
        ("-m pipelines.embed --model m", False),
        ("-m tfvae.pipelines.preprocess", False),
        ("-m pytest -m pipelines.embed", True),
        ("pipelines.embed", True),
    ],
)
def test_what_loads_no_model_pays_for_none(words, watching):
    """Keras, which TensorFlow imports by itself, would bring the package's classes and TFP with it."""
    code = """
import sys
sys.orig_argv = ["python", *sys.argv[1:]]
import tfvae.pipelines
print(any(type(finder).__module__ == "tfvae.registration" for finder in sys.meta_path))
"""
    done = subprocess.run([sys.executable, "-c", code, *words.split()], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode().strip() == str(watching)
