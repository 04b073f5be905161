"""Every public symbol says what it is, and every example in a docstring runs."""

import ast
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfvae
from tfvae import objectives

CORE = [
    "tfvae.distribution_layer",
    "tfvae.families.amortized_flows",
    "tfvae.families.continuous",
    "tfvae.families.counts",
    "tfvae.families.facts",
    "tfvae.families.flow",
    "tfvae.families.discrete",
    "tfvae.families.normal",
    "tfvae.families.poisson",
    "tfvae.families.random",
    "tfvae.families.registry",
    "tfvae.families.saddle_points",
    "tfvae.flows.autoregressive",
    "tfvae.flows.posterior",
    "tfvae.families.table",
    "tfvae.likelihoods",
    "tfvae.mixed_layer",
    "tfvae.networks",
    "tfvae.observations",
    "tfvae.optimizers",
    "tfvae.objectives.adversarial",
    "tfvae.objectives.constrained",
    "tfvae.objectives.elbo",
    "tfvae.objectives.importance",
    "tfvae.objectives.score",
    "tfvae.posteriors",
    "tfvae.priors",
    "tfvae.engine.batches",
    "tfvae.engine.loop",
    "tfvae.engine.model",
    "tfvae.models.vae",
]
# What a user names in six lines of Keras has an example; these are reached through those.
NO_EXAMPLE = {
    "observations.Noise",  # a protocol
    "engine.batches.Group",
    "engine.batches.ArrayBatches",  # what fit makes of its input
    "engine.batches.StreamBatches",
    "engine.loop.make_function",
    "engine.loop.on_one_device",
    "engine.model.UnsupervisedModel",
    "engine.model.Loss",
    "engine.batches.single",
    "engine.batches.Data",
    "models.vae.Batch",
    "models.vae.report",
    "models.vae.warn_of_num_rows",  # asked by fit of all models
    "posteriors.check_posterior",  # what the model asks of its parts
    "families.draws.stddev",
    "families.flow.Step",  # a protocol
    "families.flow.Inverted",
    "priors.check_prior",
}


def module_names() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages(tfvae.__path__, "tfvae.")]
    return ["tfvae", *(name for name in found if not name.endswith("__main__"))]


def public_members(module: types.ModuleType) -> dict[str, object]:
    """The public classes and functions that the module itself defines."""
    return {
        name: member
        for name, member in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(member) or inspect.isfunction(member))
        and member.__module__ == module.__name__
    }


def example_terms() -> objectives.Terms:
    """Of the examples of objectives: log p(x|z) = 3, log p(z) = 2, log q(z|x) = 1, KL = 1 nat, two rows."""
    one = tf.ones([4, 2])
    normal = tfp.distributions.Independent(tfp.distributions.Normal(tf.zeros([2, 1]), 1.0), 1)
    latent = objectives.Latent(one[..., None], normal, normal, one, 2 * one, one[0], True, held=normal)
    return objectives.Terms((latent,), 3 * one)


# Whose examples are estimates, with programs that take seconds to compile.
LONG = ("tfvae.evaluation.annealing", "tfvae.evaluation.appendix_d", "tfvae.evaluation.hmc")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in module_names()]
)
def test_module(name: str, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)  # an example may write files
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not open with its story"
    if not name.startswith("tfvae.pipelines"):
        missing = [member for member, value in public_members(module).items() if not inspect.getdoc(value)]
        assert not missing, f"{name}: no docstring on {', '.join(missing)}"
    known = {"np": np, "tf": tf, "keras": keras}
    if name == "tfvae.data":
        known["DIGITS"] = request.getfixturevalue("digits")
    if name.startswith("tfvae.objectives"):
        known["terms"] = example_terms()
    failed, _ = doctest.testmod(module, extraglobs=known)
    assert not failed, f"{name}: {failed} examples in its docstrings fail"


def docstrings(name: str) -> list[str]:
    """Every docstring in a module's source, private ones too."""
    spec = importlib.util.find_spec(name)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(spec.loader.get_source(name))) if isinstance(node, kinds)]
    return [doc for doc in map(ast.get_docstring, nodes) if doc]


@pytest.mark.parametrize("name", module_names())
def test_a_summary_is_one_line_and_an_entry_stands_alone(name: str):
    for doc in docstrings(name):
        assert "\n" not in doc.split("\n\n")[0], "the summary spills to a second line"
        for entry in re.findall(r"^    \w[\w, ]*: .*", doc, re.MULTILINE):
            assert not re.search(r"^ +[\w, ]+: Of ", entry), "an entry begins with Of: say what it is"
            assert not re.search(r"[.)] [a-z_]+: [A-Z`]", entry), "each argument starts a line of its own"


@pytest.mark.parametrize("name", CORE)
def test_the_core_shows_examples(name: str):
    finder = doctest.DocTestFinder(recurse=False)
    module = importlib.import_module(name)
    short = name.removeprefix("tfvae.")
    without = [
        member
        for member, value in public_members(module).items()
        if f"{short}.{member}" not in NO_EXAMPLE and not any(t.examples for t in finder.find(value, member))
    ]
    assert not without, f"{name}: no example in {', '.join(without)}"
