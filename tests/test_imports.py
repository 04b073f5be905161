"""The rooms: a module imports only from those before it, and a Beam worker never pays for Keras or TFP."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROOMS = (
    *(
        "xla",
        "replicas",
        "families",
        "distribution_layer",
        "priors",
        "posteriors",
        "likelihoods",
        "networks",
        "objectives",
        "batches",
        "training",
        "vae",
        "posterior_sampling",
    ),
    *(
        "baselines",
        "evaluation",
        "callbacks",
        "plots",
        "data",
        "provenance",
        "model_card",
        "versions",
        "saved_model",
        "cc_session",
        "saved_graph",
        "export_runs",
        "export_checks",
        "serving",
        "optimizers",
        "experiments",
        "runs",
    ),
    *("quickstart", "cli"),
)

SHARED = ("pipelines.contract",)  # what both sides of the disk must agree on


def imported(path: pathlib.Path) -> set[str]:
    """Full names of every module that the file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: pathlib.Path) -> str:
    return path.relative_to(ROOT / "tfvae").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted((ROOT / "tfvae").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_rooms_before_its_own(path):
    if path == ROOT / "tfvae" / "__init__.py":
        return
    assert room(path) in ROOMS, f"{path} belongs to no room: add it to the map"
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("tfvae.")}
    later = [name for name in rooms if name in ROOMS and ROOMS.index(name) > ROOMS.index(room(path))]
    allowed = {"cli"} if room(path) == "quickstart" else set()  # it types the commands, as its name says
    assert set(later) <= allowed
    pipelines = [n for n in imported(path) if n.split(".")[0] == "pipelines" and not n.startswith(SHARED)]
    assert not pipelines or room(path) == "cli", "only the command line knows both sides"


def test_the_contract_imports_nothing():
    assert not imported(ROOT / "pipelines" / "contract.py")


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_pipelines_import_nothing_of_the_model(path):
    assert not [
        n for n in imported(path) if n.split(".")[0] in ("tfvae", "keras", "tf_keras", "tensorflow_probability")
    ]


@pytest.mark.parametrize("module", ["tfvae.cli", "tfvae.serving"])
def test_the_command_line_and_the_client_import_no_tensorflow(module):
    """Beside an installed TensorFlow too: only the package's own registration with Keras loads that."""
    code = (
        f"import sys; sys.argv[0] = 'bin/tfvae'; import {module};"
        "print([m for m in ('tensorflow', 'keras', 'apache_beam', 'grpc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_imports_nothing_but_itself_beside_tensorflow_keras_and_tfp():
    """So that its own import takes no longer than theirs; plots, data sets and pipelines wait until they are used."""
    code = """
import sys, tensorflow, keras, tensorflow_probability
before = set(sys.modules)
import tfvae
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
print(*sorted({"tfvae.plots", "tfvae.data", "tfvae.evaluation", "tfvae.cli", "pipelines"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["tfvae", "", ""]


def test_importing_the_package_is_enough_to_load_a_model(tmp_path):
    code = """
import sys, tfvae, keras
vae = tfvae.VAE(tfvae.networks.mlp([4]), tfvae.networks.mlp([4]), tfvae.posteriors.diagonal_normal(2),
                tfvae.likelihoods.bernoulli([3]))
model = tfvae.baselines.WakeSleep(vae)
model.compile(tfvae.optimizers.WarmAdagrad())
model.save(sys.argv[1])
"""
    load = """
import sys, tfvae, keras
model = keras.models.load_model(sys.argv[1])
print(*(type(part).__name__ for part in (model, model.vae, model.optimizer)))
"""
    path = str(tmp_path / "model.keras")
    subprocess.run([sys.executable, "-c", code, path], check=True)
    done = subprocess.run([sys.executable, "-c", load, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "WakeSleep VAE WarmAdagrad"
