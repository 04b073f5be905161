"""The rooms: one table says what each may import, and a Beam worker never pays for Keras or TFP.

A room is a name right under ``tfvae`` or ``pipelines``, a folder or a file. ``"exporting.versions"`` allows that file
of a room; to ``tfvae`` the whole of ``pipelines`` is one room, of which ``"pipelines.contract"`` is a file. To build
a room, enter it here.
"""

import ast
import graphlib
import os
import pathlib
import subprocess
import sys

import pytest

import tfvae

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The engine knows no probability; densities know the engine; p, q and the bound know densities and not one another.
_DENSITIES = {"arguments", "engine", "families"}
_LAYERS = _DENSITIES | {"distribution_layer", "mixed_layer"}
_PARTS = {
    "observations",
    "posteriors",
    "likelihoods",
    "networks",
    "flows",
    "divergences",
    "objectives",
    "priors",
}
_MODELS = _LAYERS | _PARTS | {"models"}
_ALL = _MODELS | {"optimizers", "baselines", "evaluation", "plots", "callbacks", "data", "exporting"}
_DISK = {
    "pipelines.checksums",
    "pipelines.contract",
    "pipelines.extras",
    "pipelines.manifest",
    "pipelines.messages",
    "pipelines.storage",
}  # both sides know

TFVAE: dict[str, set[str]] = {
    "arguments": set(),
    "engine": {"arguments"},
    "families": {"arguments", "engine"},
    "distribution_layer": _DENSITIES,
    "mixed_layer": _DENSITIES | {"distribution_layer"},
    "observations": _LAYERS,
    "divergences": set(),
    "objectives": {"arguments", "divergences", "engine"},
    "flows": _LAYERS | {"networks"},
    "posteriors": _LAYERS | {"flows"},
    "likelihoods": _LAYERS | {"observations"},
    "networks": {"arguments", "engine"},
    "priors": _LAYERS | {"divergences", "flows", "networks", "pipelines.extras"},
    "models": _LAYERS | _PARTS,
    "baselines": _MODELS | {"evaluation"},
    "evaluation": _MODELS | {"pipelines.extras"},
    "plots": {
        "arguments",
        "engine",
        "evaluation",
        "families",
        "models",
        "observations",
        "pipelines.extras",
        "pipelines.storage",
    },
    "callbacks": {"arguments", "engine", "evaluation", "plots", "pipelines.stops", *_DISK},
    "data": {"arguments", *_DISK},
    "exporting": _MODELS | _DISK | {"tables"},
    "checks": {"arguments", "exporting.interpreter", "exporting.versions", "pipelines.trust", *_DISK},
    "serving": _DISK,
    "presets": _MODELS,
    "records": set(),
    "model_file": {"models", "pipelines.errors", "pipelines.stops"},
    "configuration": {"model_file", "pipelines.storage"},
    "run_folder": {"records", *_DISK},
    "strategies": {"engine"},
    "runs": _ALL | _DISK | {"run_folder", "strategies", "presets", "records", "model_file", "configuration"},
    "sharing": {"arguments", "checks", "exporting", "runs", "pipelines.errors", "pipelines.trust", *_DISK},
    "experiments": _ALL
    | _DISK
    | {"sharing", "tables", "pipelines.command_line", "pipelines.formats.arrays", "pipelines.formats.idx"},
    "optimizers": set(),
    "registration": set(),
    "log_lines": set(),
    "tables": set(),
    "quickstart": {"tables", "pipelines.extras"},
    "project": {"configuration", *_DISK},
    "listing": {"records", "tables", "pipelines.storage"},
    "cli": {
        "runs",
        "run_folder",
        "configuration",
        "project",
        "listing",
        "log_lines",
        "exporting",
        "checks",
        "experiments",
        "quickstart",
        "registration",
        "sharing",
        "tables",
        "pipelines.command_line",
        "pipelines.drift",
        "pipelines.errors",
        "pipelines.jobs",
        "pipelines.mend",
        "pipelines.stops",
        "pipelines.storage",
        "pipelines.verify",
    },
    "command": {"cli"},
    "__main__": {"command"},
}
PIPELINES: dict[str, set[str]] = {
    "contract": set(),
    "messages": set(),
    "errors": set(),
    "hdfs": {"errors", "extras"},
    "stores": {"errors", "extras", "hdfs"},
    "storage": {"errors", "stores"},
    "checksums": {"errors", "storage"},
    "manifest": {"checksums", "contract", "storage"},
    "verify": {"checksums", "contract", "errors", "storage"},
    "mend": {"checksums", "contract", "errors", "storage", "jobs", "verify"},
    "formats": {"extras", "contract", "messages", "errors", "storage"},
    "jobs": {"checksums", "contract", "errors", "stops", "storage"},
    "sources": {"extras", "contract", "errors", "storage", "formats"},
    "inputs": {"checksums", "contract", "errors", "manifest", "storage", "formats", "sources"},
    "dataset": {"extras", "contract", "errors", "storage", "formats", "jobs", "sources"},
    "operations": set(),
    "trust": {"contract", "errors", "storage", "operations"},
    "embedding": {"checksums", "contract", "errors", "storage", "formats", "jobs", "inputs", "trust"},
    "drift": {"contract", "extras", "errors", "dataset", "embedding"},
    "inference": {"contract", "extras", "errors", "inputs", "embedding"},
    "stops": set(),
    "command_line": {"contract", "errors", "jobs", "stops", "storage"},
    "checkout": set(),
    "extras": set(),
    "preprocess": {"extras", "command_line", "contract", "errors", "storage", "formats", "jobs", "sources", "dataset"},
    "embed": {"extras", "command_line", "contract", "errors", "storage", "formats", "jobs", "inputs", "embedding"},
}


def imported(path: pathlib.Path) -> set[str]:
    """Full names of every module that the file imports, at any depth."""
    above = path.relative_to(ROOT).parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = above[: len(above) - node.level + 1] if node.level else ()
            names |= {".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names}
    return names


def files(package: str) -> list[pathlib.Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if path != ROOT / package / "__init__.py")


def room(name: str) -> str:
    """The room of a module's full name."""
    return name.split(".")[1]


def forbidden(name: str, mine: str, package: str, allowed: set[str]) -> bool:
    """Whether the room may not import that name; the package's own face, for what is no room, belongs to none."""
    if not name.startswith(("tfvae.", "pipelines.")) or name == "tfvae.__version__":
        return False
    of = name.split(".")[0]
    whole, inside = room(name), name.removeprefix(f"{of}.")
    if of != package:
        return True
    return whole != mine and whole not in allowed and not any(f"{inside}.".startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize(("package", "table"), [("tfvae", TFVAE), ("pipelines", PIPELINES)])
def test_a_room_imports_what_the_table_allows(package, table):
    found = {path: room(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in files(package)}
    assert not {str(path) for path, name in found.items() if name not in table}, "no room: enter it in the table"
    wrong = {
        f"{path.relative_to(ROOT)} ({found[path]}) imports {name}"
        for path in found
        for name in imported(path)
        if forbidden(name, found[path], package, table[found[path]])
    }
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize("table", [TFVAE, PIPELINES])
def test_the_table_knows_no_circle_and_no_room_that_is_none(table):
    inside = {
        name: {one.split(".")[0] for one in rooms if one.split(".")[0] not in ("pipelines", name)}
        for name, rooms in table.items()
    }
    assert set().union(*inside.values()) <= table.keys()
    graphlib.TopologicalSorter(inside).prepare()  # raises CycleError


@pytest.mark.parametrize("path", files("pipelines"), ids=lambda path: str(path.relative_to(ROOT)))
def test_pipelines_import_nothing_of_the_model(path):
    assert not [
        n for n in imported(path) if n.split(".")[0] in ("tfvae", "keras", "tf_keras", "tensorflow_probability")
    ]


def test_a_wrong_import_is_found():
    assert forbidden("tfvae.models.vae.VAE", "engine", "tfvae", TFVAE["engine"])
    assert forbidden("tfvae.models", "priors", "tfvae", TFVAE["priors"])
    assert forbidden("pipelines.contract", "exporting", "tfvae", TFVAE["exporting"])  # the name of a checkout alone
    assert forbidden("tfvae.pipelines.jobs.Job", "exporting", "tfvae", TFVAE["exporting"])
    assert forbidden("tfvae.pipelines.contractual", "exporting", "tfvae", TFVAE["exporting"])
    assert forbidden("pipelines.sources", "jobs", "pipelines", PIPELINES["jobs"])
    assert forbidden("tfvae.exporting.saved_model", "checks", "tfvae", TFVAE["checks"])
    assert not forbidden("tfvae.exporting.versions.existing", "checks", "tfvae", TFVAE["checks"])
    assert not forbidden("tfvae.pipelines.contract.EMBED", "exporting", "tfvae", TFVAE["exporting"])
    assert not forbidden("keras.layers.Layer", "engine", "tfvae", TFVAE["engine"])


def printed(code: str, *arguments: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["tfvae", "tfvae.cli", "tfvae.serving"])
def test_the_package_the_command_line_and_the_client_import_no_tensorflow(module):
    heavy = ("tensorflow", "keras", "tensorflow_probability", "apache_beam", "grpc", "numpy.random", "pyarrow")
    loaded = printed(f"import sys, {module}; print(*sorted(sys.modules))").split()
    assert not set(heavy) & (set(loaded) - ({"numpy.random"} if module == "tfvae.serving" else set()))


@pytest.mark.slow
def test_the_package_imports_nothing_but_itself_beside_tensorflow_keras_and_tfp():
    """So that its own import takes no longer than theirs; plots, data sets and pipelines wait until they are used."""
    code = """
import sys, tensorflow, keras, tensorflow_probability
before = set(sys.modules)
import tfvae
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
print(*sorted({"tfvae.plots", "tfvae.data", "tfvae.cli", "tfvae.pipelines"} & set(sys.modules)))
"""
    assert printed(code) == "tfvae"


# The orders in which a program can meet Keras, the package and one of its modules.
ORDERS = (
    "import tfvae.serving, keras",
    "import keras, tfvae",
    "from tfvae.models.vae import VAE; import keras",  # Keras is imported in the middle of the package's own import
)


@pytest.mark.slow
@pytest.mark.parametrize("imports", ORDERS)
def test_importing_the_package_is_enough_to_load_a_model(imports):
    code = f"""
import sys; {imports}
model = keras.models.load_model(sys.argv[1])
print(*(type(part).__name__ for part in (model, model.vae, model.optimizer)))
assert "tfvae.registration" not in str(sys.meta_path)
"""
    path = ROOT / "tests" / "made_by_0_1" / "wake_sleep.keras"
    assert printed(code, str(path)).startswith("WakeSleep VAE WarmAdagrad")


@pytest.mark.slow
def test_another_backend_is_answered_with_a_sentence():
    code = """
import tfvae, keras  # nothing is registered, and Keras is usable
keras.layers.Dense(1).build([1, 1])
try:
    tfvae.VAE
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
    )
    assert "Keras runs on numpy: set KERAS_BACKEND=tensorflow" in done.stdout


def test_a_name_that_is_not_public_is_answered_with_those_that_are():
    assert all(getattr(tfvae, name) for name in tfvae.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'vaes', only VAE, DistributionLayer, "):
        getattr(tfvae, "vaes")  # noqa: B009


@pytest.mark.slow
def test_check_export_loads_no_model_code():
    """Nor TFP: TensorFlow's own import is all that it waits for, which brings Keras and none of its models."""
    code = """
import contextlib, io, sys
from tfvae import cli
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    cli.main(["check-export", sys.argv[1]])
assert "C++ equals Python" in said.getvalue(), said.getvalue()
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("tfvae.")}
print(*sorted(rooms & {"models", "engine", "distribution_layer", "baselines"}), "tensorflow_probability" in sys.modules)
"""
    assert printed(code, str(ROOT / "tests" / "made_by_0_1" / "saved_model")) == "False"


@pytest.mark.slow
def test_no_module_makes_a_tensor_when_it_is_imported():
    """A process in which TensorFlow has run an operation cannot be forked, and takes no settings of devices."""
    program = """
import importlib, pkgutil, tfvae
from tensorflow.python.eager import context
for module in pkgutil.walk_packages(tfvae.__path__, "tfvae."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
    assert not context.context()._initialized, module.name
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
