"""An export in the C++ runtimes before ours: TF Serving's newest release trails the wheel.

The wheels of ``tensorflow-cpu`` are unpacked once into ``.cache/``; the test fails where they cannot be had, for then
nobody knows whether those servers load what we write.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest

import tfvae
from tests.exporting.test_saved_model import image_model, requests
from tfvae.checks.process import run_in_subprocess
from tfvae.checks.wire import CSessionError

CACHE = pathlib.Path(__file__).resolve().parents[2] / ".cache" / "runtimes"
OLDER = ("2.20.0", "2.19.1")


def installed(version: str) -> pathlib.Path:
    """The folder with the C++ libraries of that release, downloaded (250 MB) where it is not in the cache."""
    final = CACHE / f"tensorflow-{version}"
    if not final.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            what = ["install", "--no-deps", "--target", scratch, f"tensorflow-cpu=={version}"]
            uv = [sys.executable, "-m", "uv", "pip", *what, "--quiet", "--python", sys.executable]
            # uv finds no way out behind a proxy with certificates of its own, where pip does
            tried = [subprocess.run(uv, capture_output=True, text=True)]
            if tried[0].returncode:
                pip = [sys.executable, "-m", "pip", *what, "--quiet", "--upgrade"]
                tried.append(subprocess.run(pip, capture_output=True, text=True))
            if tried[-1].returncode:
                reasons = "\n".join(one.stderr[-1000:] for one in tried)
                pytest.fail(f"tensorflow-cpu {version} cannot be had, so its runtime is untested:\n{reasons}")
            keep(pathlib.Path(scratch, "tensorflow"), final)
    return final


def keep(package: pathlib.Path, final: pathlib.Path) -> None:
    """The two libraries alone, 745 MB of 1.2 GB."""
    libraries = package.parent / "libraries"
    libraries.mkdir()
    for name in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2"):
        shutil.move(package / name, libraries / name)
    try:
        os.rename(libraries, final)
    except OSError:  # another worker of the same run was quicker
        if not final.exists():
            raise


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A convolutional export, which has every operation that a dense one has; requests, and our runtime's answers."""
    path = tfvae.export(image_model("conv"), tmp_path_factory.mktemp("models") / "conv", warmup_batch_sizes=[1])
    sent = [one for batch in (1, 3, 8) for one in requests(batch)]
    return path, sent, run_in_subprocess(path, sent)


@pytest.mark.slow
@pytest.mark.parametrize("version", OLDER)
def test_answers_are_those_of_our_own_runtime(ours, version):
    path, sent, expected = ours
    answers = run_in_subprocess(path, sent, library=installed(version))
    for (name, _), answer, own in zip(sent, answers, expected, strict=True):
        assert not isinstance(answer, CSessionError), f"{version}, {name}: {answer}"
        assert set(answer) == set(own)
        for key, value in own.items():
            np.testing.assert_allclose(answer[key], value, rtol=1e-5, atol=1e-5, err_msg=f"{version}, {name}/{key}")


@pytest.mark.slow
@pytest.mark.parametrize("version", OLDER)
def test_the_library_is_that_release(version):
    library = installed(version) / "libtensorflow_cc.so.2"
    code = (
        "import ctypes, sys; c = ctypes.CDLL(sys.argv[1]); c.TF_Version.restype = ctypes.c_char_p;"
        "print(c.TF_Version().decode())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version
