"""What the README and the pages of docs/ show is run, page by page, and every link leads somewhere.

Notebooks are run where they are built, by `make docs`, but for those whose libraries no extra brings.
"""

import importlib.util
import inspect
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import tfvae
from tfvae.cli import main
from tfvae.engine import xla

pytestmark = pytest.mark.xla

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "saved_models/README.md")] + DOCS
README = PAGES[0].read_text(encoding="utf-8")

NOT_RUN = {
    "docs/howto/runners.md",  # needs a cluster: tests/cluster
    "docs/howto/storage.md",  # needs a store: tests/pipelines/test_store_jobs.py
    "saved_models/README.md",  # tests/serving/test_configuration.py
}
SLOW = {
    "docs/howto/pipelines.md",
    "docs/howto/commands.md",
    "docs/explain/coming_from.md",
    "docs/explain/paper.md",
    "docs/howto/training.md",
    "docs/howto/objectives.md",
    "docs/howto/watch.md",
    "docs/howto/judges.md",
    "docs/start/tasks.md",
    "docs/howto/tuning.md",
    "docs/howto/mlflow.md",
    "docs/howto/search.md",
    "docs/howto/ray.md",
    "docs/howto/schedule.md",
    "docs/howto/runtimes.md",
}

# Of many trainings, whose parts tests/conformance compiles one by one: XLA, half of their time, is left out here.
AS_GRAPHS = {
    "docs/explain/coming_from.md",
    "docs/howto/judges.md",
    "docs/howto/training.md",
    "docs/howto/tuning.md",
    "docs/start/tasks.md",
}

# What `make pages-test` has installed, and no extra brings.
NO_EXTRA = re.findall(r"^(?:apache-)?(\w+)", (ROOT / "tests/pages.txt").read_text(), re.MULTILINE)


def name_of(page: pathlib.Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of what a page shows, in its order; a notebook's cells are Python."""
    found = re.findall(r"^```(bash|python|\{code-cell\}[^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [("bash" if language == "bash" else "python", re.sub(r"\A(:.*\n)+", "", code)) for language, code in found]


def needed(page: pathlib.Path) -> list[str]:
    """What a page imports that no extra brings."""
    return sorted(set(re.findall(rf"^(?:import|from) ({'|'.join(NO_EXTRA)})\b", page.read_text(), re.MULTILINE)))


def runnable() -> list:
    shown = [page for page in PAGES if name_of(page) not in NOT_RUN and blocks(page.read_text(encoding="utf-8"))]
    return [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if name_of(page) in SLOW else [])
        for page in shown
        if needed(page) or "file_format: mystnb" not in page.read_text(encoding="utf-8")
    ]


def write_idx(path: pathlib.Path, values: np.ndarray) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder with ``data/mnist`` in MNIST's own format and size of image, few of them, and ``photos``."""
    digits = load_digits()
    images = np.zeros([300, 28, 28], np.uint8)
    images[:, 2:26, 2:26] = np.kron(np.round(digits.images[:300] * 255 / 16), np.ones([3, 3]))
    (tmp_path / "data/mnist").mkdir(parents=True)
    for prefix, chosen in (("train", slice(0, 250)), ("t10k", slice(250, 300))):
        write_idx(tmp_path / f"data/mnist/{prefix}-images-idx3-ubyte", images[chosen])
        write_idx(tmp_path / f"data/mnist/{prefix}-labels-idx1-ubyte", digits.target[:300][chosen])
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images[:60]):
        Image.fromarray(image).save(tmp_path / f"photos/{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))  # it writes its settings when it is imported
    return tmp_path


def run_commands(script: str) -> int:
    """Runs the lines that begin with tfvae or python; returns how many those were."""
    lines = script.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if re.match(r"(tfvae|python) ", line)]
    for words in commands:
        if words[0] == "tfvae":  # in this process, which has imported TensorFlow
            code = main(words[1:], standalone_mode=False)
        else:
            code = subprocess.run([sys.executable, *words[1:]]).returncode
        assert not code, shlex.join(words)
    return len(commands)


@pytest.mark.parametrize("page", runnable())
def test_what_a_page_shows_runs(page, workplace, monkeypatch):
    if missing := [name for name in needed(page) if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{name_of(page)} needs {', '.join(missing)}, which `make pages-test` installs")
    if name_of(page) in AS_GRAPHS:
        monkeypatch.setattr(xla, "pays_off", lambda model: False)
    known, ran = {"__name__": "page"}, 0
    for language, code in blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(code, str(page), "exec"), known)
        ran += run_commands(code) if language == "bash" else 1
    assert ran


def test_the_pages_show_the_whole_workflow():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"^tfvae ([\w-]+) ", text, re.MULTILINE))
    assert {
        "prepare",
        "train",
        "evaluate",
        "export",
        "check-export",
        "embed",
        "plot",
        "reproduce",
        "init",
        "runs",
    } <= named


def test_make_does_what_the_readme_says():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for target, command in (("quickstart", "tfvae quickstart"), ("test", "pytest"), ("docs", "sphinx")):
        assert f"make {target}" in README
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert command in planned


def test_no_page_is_skipped_where_its_libraries_should_be():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    planned = subprocess.run(["make", "-n", "pages-test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"import {', '.join(NO_EXTRA)}'" in planned
    used = [page for page in PAGES if needed(page)]
    assert used and all(page.name in planned for page in used)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def table(start: str) -> list[list[str]]:
    """The rows of the README's table whose head begins so, without the head."""
    lines = README[README.index(f"| {start}") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_speed_in_the_readme_is_what_was_measured():
    measured = (ROOT / "benchmarks/results/peers.md").read_text(encoding="utf-8")
    for batch, rate, *ratios in table("training, 784-500-20"):
        assert f"| {batch} | `fit` | {rate} (" in measured
        sides = ("plain Keras", "PyTorch, compiled", "pythae", "JAX, scan over the epoch")
        for side, ratio in zip(sides, ratios, strict=True):
            assert re.search(rf"^\| {batch} \| {side} \| [^|]*\| {ratio} \|", measured, re.MULTILINE), (batch, side)


def test_the_bounds_in_the_readme_are_those_of_the_curves():
    shown = {row[0].split(" ([")[0]: row[1:] for row in table("MNIST, test bound")}
    page = (ROOT / "docs/results/aevb.md").read_text(encoding="utf-8")
    for name, there in (("the paper's AEVB", "paper"), ("ours", "ours")):
        assert f"| AEVB, {there} | {' | '.join(shown[name])} |" in page


def test_no_task_takes_more_than_ten_lines():
    page = re.sub(r"<!--.*?-->", "", (ROOT / "docs/start/tasks.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    tasks = re.split(r"^## \d+\. ", page, flags=re.MULTILINE)[1:]
    shown = ["".join(re.findall(r"^```\w*\n(.*?)^```", task, re.MULTILINE | re.DOTALL)) for task in tasks]
    assert len(tasks) == 10 and all(len([line for line in code.splitlines() if line]) <= 10 for code in shown)


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in slugs(there.read_text(encoding="utf-8")), target


def test_the_reference_has_every_public_name():
    """What ``make docs`` checks name by name: each module is taken whole, each name outside of one by itself."""
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS if "reference/api" in name_of(page))
    modules = set(re.findall(r"^\.\. automodule:: (\S+)\n   :members:$", text, re.MULTILINE))
    names = set(re.findall(r"^\.\. (?:autoclass|autofunction):: (\S+)", text, re.MULTILINE))
    for name in tfvae.__all__:
        member = getattr(tfvae, name)
        if not inspect.ismodule(member):
            assert f"tfvae.{name}" in names
        elif member.__name__ not in modules:
            missing = [f"{member.__name__}.{one}" for one in member.__all__ if getattr(tfvae, one, None) is None]
            assert not set(missing) - names, member.__name__
    assert "tfvae.observations" in modules


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_map_names_what_is_there():
    folder_map = re.search(r"## The folders\n.*?```\n(.*?)```", CONTRIBUTING, re.DOTALL).group(1)
    for name in re.findall(r"^(\S+)", folder_map, re.MULTILINE):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("package", ["tfvae", "pipelines"])
def test_the_map_names_every_room_and_no_other(package):
    block = re.search(rf"^{package}/ .*\n((?:  .*\n)+)", CONTRIBUTING, re.MULTILINE).group(1)
    shown = [name.rstrip("/") for line in block.splitlines() for name in re.split(r" {2,}", line)[1].split(", ")]
    names = {path.name for path in (ROOT / package).iterdir() if path.name not in ("__init__.py", "__pycache__")}
    names -= {"pipelines", "py.typed"}  # the link; a marker
    assert sorted(shown) == sorted(name.removesuffix(".py") for name in names)
    folders = {name.rstrip("/") for name in re.findall(r"\w+/", block)}
    assert {name for name in shown if (ROOT / package / name).is_dir()} <= folders


def test_every_path_that_contributing_names_exists():
    paths = re.findall(r"`((?:tfvae|pipelines|tests|saved_models|docs)/[\w/.]*)`", CONTRIBUTING)
    assert len(paths) > 25
    assert not [path for path in paths if not (ROOT / path).exists()]
