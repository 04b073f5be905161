"""A checkout has the pipelines under two names, an installed package under one that no folder of the user's hides."""

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

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


def test_what_setup_file_ships_holds_every_module(tmp_path):
    """As Beam packs it for workers: ``python setup.py sdist``, here in a folder that has built nothing before."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tfvae", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    line = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", "packed"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    (packed,) = (tmp_path / "packed").iterdir()
    with tarfile.open(packed) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    ours = {f"tfvae/{path.relative_to(ROOT)}" for path in (ROOT / "pipelines").rglob("*.py")}
    ours |= {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tfvae").rglob("*.py")
        if ROOT / "tfvae/pipelines" not in path.parents
    }
    assert {name for name in held if name.endswith(".py")} == ours | {"setup.py"}
    assert {"tfvae/py.typed", "tfvae/experiments/reference/aevb_figure2.csv", "pyproject.toml", "LICENSE"} <= held


def test_modules_of_the_pipelines_import_each_other_by_relative_names():
    """An absolute ``pipelines`` is there in a checkout alone."""
    wrong = [
        path
        for path in (ROOT / "pipelines").rglob("*.py")
        if re.search(r"^\s*(from|import) pipelines\b", path.read_text("utf-8"), re.M)
    ]
    assert not wrong
