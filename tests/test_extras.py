"""The base is light, an extra brings what it says, and code that needs one says which."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import tfvae

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# A module, and the requirement that brings it, where the two have different names.
BROUGHT_BY = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "google": "protobuf",
    "grpc": "grpcio",
    "tensorflow_serving": "tensorflow-serving-api",
    "requests": "tensorflow",  # TensorFlow's own requirements
    "urllib3": "tensorflow",
    "h5py": "keras",
}
# What a pipeline's module imports once its job, which needs the extra, has been imported; the rest is for all.
FOR_ALL = ("contract", "messages", "errors", "storage", "extras", "trust", "operations", "command_line", "checkout")


def names(requirements: list[str]) -> set[str]:
    """The distributions, those of extras of extras too."""
    found: set[str] = set()
    for requirement in requirements:
        name, inner = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement).groups()
        found |= {name} if name != "tfvae" else set().union(*(names(EXTRAS[one]) for one in inner.split(",")))
    return found


def imports(tree: ast.AST, extra: str | None = None):
    """Each top-level module that is imported, with the extra in whose ``with`` it stands; not what is tried."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], extra) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0], extra
        elif isinstance(node, ast.With) and ast.unparse(node.items[0]).startswith("extras.needed("):
            yield from imports(node, ast.literal_eval(node.items[0].context_expr.args[0]))
        elif not isinstance(node, ast.Try):
            yield from imports(node, extra)


def of_the_base(path: pathlib.Path) -> bool:
    of_another_python = path.name == "scvi_side.py"  # which tfvae starts, and never imports
    return (path.is_relative_to(ROOT / "tfvae") and not of_another_python) or path.stem in FOR_ALL


def test_whatever_is_imported_is_of_the_base_or_stands_under_its_extra():
    base = {name.replace("-", "_") for name in names(PROJECT["dependencies"])}
    known = set(sys.stdlib_module_names) | base | {"tfvae", "pipelines"}
    files = [path for room in ("tfvae", "pipelines") for path in (ROOT / room).rglob("*.py") if of_the_base(path)]
    assert len(files) > 60
    wrong = []
    for path in files:
        for module, extra in imports(ast.parse(path.read_text(encoding="utf-8"))):
            brought = BROUGHT_BY.get(module, module.replace("_", "-"))
            allowed = names(EXTRAS[extra]) if extra else base
            if module not in known and brought not in allowed | names(PROJECT["dependencies"]):
                wrong.append(f"{path.relative_to(ROOT)}: {module} under {extra}")
    assert not wrong


# One Python without any of them, which imports TensorFlow once.
HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "apache_beam", "tensorflow_datasets", "pyarrow", "google_crc32c", "PIL", "matplotlib", "scipy", "sklearn",
            "tensorboard", "orjson", "tensorflow_serving", "pandas", "importlib_resources",
        }:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import numpy as np, tfvae
from tfvae import cli, serving

def told(call, *arguments):
    try:
        call(*arguments)
    except SystemExit:
        pass
    except ModuleNotFoundError as error:
        print(error)

told(__import__, "tfvae.pipelines.embed")
told(__import__, "tfvae.pipelines.preprocess")
told(cli.main, ["prepare", "--source", "digits", "--output", "prepared"])
told(cli.main, ["quickstart", "--output", "quickstart"])
told(lambda: tfvae.plots)
open("dataset_info.json", "w").close()
told(tfvae.data.open_dataset, ".")
told(tfvae.priors.Mixture(2, num_components=1).initialize, np.zeros([3, 2]), 0)
told(serving.Client, "grpc://localhost:1", "m")
serving.Client("http://localhost:1", "m").close()
tfvae.evaluation, tfvae.baselines, tfvae.export
"""


@pytest.mark.slow
def test_code_that_needs_an_extra_says_which(tmp_path):
    done = subprocess.run([sys.executable, "-c", HIDDEN], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "apache_beam is not installed: pip install 'tfvae[pipelines]'",
        "apache_beam is not installed: pip install 'tfvae[pipelines]'",
        "matplotlib is not installed: pip install 'tfvae[plots]'",
        "tensorflow_datasets is not installed: pip install 'tfvae[pipelines]'",
        "sklearn is not installed: pip install 'tfvae[sklearn]'",
        "tensorflow_serving is not installed: pip install 'tfvae[grpc]'",
    ]
    said = [line for line in done.stderr.splitlines() if "rror: " in line]
    assert said == [
        "error: apache_beam is not installed: pip install 'tfvae[pipelines]'",
        "error: matplotlib is not installed: pip install 'tfvae[quickstart]'",
    ]


def test_the_readme_shows_extras_that_there_are_and_the_version_is_said_once_more_only():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`(\w+)`(?: \(|,|;)", readme.split("## Install")[1].split("\n## ")[0]))
    assert shown >= {"pipelines", "plots", "tensorboard", "gpu", "all"}
    assert shown - {"prepare"} <= EXTRAS.keys()
    assert f"\nversion: {tfvae.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {tfvae.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_all_is_what_a_user_may_want():
    assert names(EXTRAS["all"]) == set().union(
        *(names(EXTRAS[name]) for name in EXTRAS.keys() - {"gpu", "bench", "test", "docs"})
    )
    assert names(EXTRAS["all"]) < names(EXTRAS["test"])
