"""What the README shows is run: its Python, and its commands from raw data to an export, on fewer images."""

import pathlib
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def write_idx(path: pathlib.Path, values: np.ndarray) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> pathlib.Path:
    """A folder with ``data/mnist`` in MNIST's own format and size of image, and few of them."""
    folder = tmp_path_factory.mktemp("readme")
    digits = load_digits()
    images = np.zeros([300, 28, 28], np.uint8)
    images[:, 2:26, 2:26] = np.kron(np.round(digits.images[:300] * 255 / 16), np.ones([3, 3]))
    (folder / "data/mnist").mkdir(parents=True)
    for prefix, chosen in (("train", slice(0, 250)), ("t10k", slice(250, 300))):
        write_idx(folder / f"data/mnist/{prefix}-images-idx3-ubyte", images[chosen])
        write_idx(folder / f"data/mnist/{prefix}-labels-idx1-ubyte", digits.target[:300][chosen])
    return folder


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(workplace):
    scripts = "\n".join(blocks("bash"))
    lines = scripts.replace("\\\n", " ").splitlines()
    commands = [line for line in lines if re.match(r"(tfvae|python) ", line)]
    named = {command.split()[1] for command in commands if command.startswith("tfvae")}
    assert {"prepare", "train", "evaluate", "export", "embed", "plot"} <= named
    environment = {"PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(workplace)}
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=workplace, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_python_runs():
    code = "\n".join(blocks("python"))
    assert "fit(" in code and "VAE(" in code
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_make_does_what_the_readme_says():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for target, command in (("quickstart", "tfvae quickstart"), ("test", "pytest"), ("bench", "benchmarks.training")):
        assert f"make {target}" in README
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert command in planned


def test_every_path_it_names_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    folder_map = re.search(r"## The folders\n.*?```\n(.*?)```", README, re.DOTALL).group(1)
    for name in re.findall(r"^(\S+)", folder_map, re.MULTILINE):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("package", ["tfvae", "pipelines"])
def test_the_map_names_every_room_and_no_other(package):
    block = re.search(rf"^{package}/ .*\n((?:  .*\n)+)", README, re.MULTILINE).group(1)
    shown = [name.rstrip("/") for line in block.splitlines() for name in re.split(r" {2,}", line)[1].split(", ")]
    names = {path.name for path in (ROOT / package).iterdir() if path.name not in ("__init__.py", "__pycache__")}
    names -= {"pipelines"}  # the link
    assert sorted(shown) == sorted(name.removesuffix(".py") for name in names)
    folders = {name.rstrip("/") for name in re.findall(r"\w+/", block)}
    assert {name for name in shown if (ROOT / package / name).is_dir()} <= folders


def test_every_path_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:tfvae|pipelines|tests|saved_models)/[\w/.]*)`", text)
    assert len(paths) > 25
    assert not [path for path in paths if not (ROOT / path).exists()]
