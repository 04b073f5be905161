"""The documentation as a site: ``make docs`` builds it into build/docs, with the tutorials run.

The source folder is the checkout itself, so that a relative link between pages, README and result tables means the same
on the site as among the files.
"""

import importlib
import inspect
import os
import pathlib
import re
import sys
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The tutorials' kernels import the package, and the stand-in for a server that the tests have; they print no notes.
os.environ |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
sys.path.insert(0, str(ROOT))

project = "tfvae"
author = "the tfvae maintainers"
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "saved_models/README.md",
    "benchmarks/results/*",
]
exclude_patterns = [".*", "build", "runs", "prepared", "embeddings", "tests", "tfvae", "pipelines", "*.egg-info"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

html_theme = "furo"
html_title = "tfvae"
html_copy_source = False
html_additional_pages = {"index": "to_start.html"}
templates_path = ["templates"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # seconds a cell; a tutorial takes less than a minute of CPU
nb_output_stderr = "remove"  # TensorFlow's notes to developers
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_inherit_docstrings = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def public_modules() -> dict[str, list[str]]:
    """The public modules and the public names of each."""
    import tfvae

    found: dict[str, list[str]] = {"tfvae": []}
    for name in [*tfvae.__all__, "observations"]:
        member = getattr(importlib.import_module("tfvae"), name)
        if not inspect.ismodule(member):
            found["tfvae"].append(name)
            continue
        own = [key for key, value in vars(member).items() if getattr(value, "__module__", None) == member.__name__]
        found[member.__name__] = [key for key in getattr(member, "__all__", own) if not key.startswith("_")]
    return found


def missing_names(documented: set[str]) -> list[str]:
    """The public names that the reference lacks, by this name or by that of the module where it is defined."""
    missing = []
    for module, names in public_modules().items():
        for name in names:
            member = getattr(importlib.import_module(module), name)
            home = f"{getattr(member, '__module__', module)}.{getattr(member, '__qualname__', name)}"
            if not inspect.ismodule(member) and not {f"{module}.{name}", home} & documented:
                missing.append(f"{module}.{name}")
    return missing


def check_reference(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which fails the build, of a public name that no page of the reference documents."""
    for name in missing_names(set(env.domains["py"].data["objects"])):
        logging.getLogger(__name__).warning("%s is public and documented on no page of docs/reference/api", name)


def skip_foreign(app: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class has from Keras or TFP, whose docstrings are in other markup."""
    home = getattr(member, "__module__", None)
    return True if kind == "class" and home and not home.startswith(("tfvae", "builtins")) else None


def escape_bars(app: Sphinx, kind: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """In a docstring a bar outside of literals is a formula's, as in |KL - C|, and no substitution."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("``")
            lines[number] = "``".join(part if i % 2 else part.replace("|", r"\|") for i, part in enumerate(parts))


def check_no_network(app: Sphinx, failure: Exception | None) -> None:
    """Fail if a page would load anything from elsewhere when it is looked at."""
    elsewhere = r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"((?:https?:)?//[^\"]*)"
    for page in [] if failure else pathlib.Path(app.outdir).rglob("*.html"):
        loaded = re.findall(elsewhere, page.read_text(encoding="utf-8"))
        if loaded:
            raise RuntimeError(f"{page} loads {loaded[0]}: nothing may come from the network when a page is looked at.")


def setup(app: Sphinx) -> dict[str, Any]:
    """What the project checks of its own site."""
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", escape_bars, priority=600)  # after napoleon
    app.connect("env-check-consistency", check_reference)
    app.connect("build-finished", check_no_network)
    return {"parallel_read_safe": True}
