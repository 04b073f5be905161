"""Registers the package's classes with Keras as soon as Keras is there, and makes nobody import Keras for it.

``keras.models.load_model`` finds a class by a name that somebody registered before; it asks nobody. So ``import tfvae``
has to see to it that the names are known. But ``import tfvae.serving`` and ``import tfvae.cli`` import the package as
well, and neither a web service nor ``tfvae embed --help`` should wait for Keras and TFP. Whoever loads a model imports
Keras, before ``tfvae`` or after it. Before: the classes are registered at once. After: when Keras has been imported,
for which ``watch`` puts a finder before Python's own; it finds nothing by itself, and leaves when its work is done.

An entry point outside of the package, or a look at ``sys.argv``, would not do: a program that imports ``tfvae.serving``
passes by both. Where Keras runs on another backend than TensorFlow, nothing is registered.
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Sequence

PROGRAMS = ("apache_beam.runners.worker.sdk_worker_main", "pipelines.embed", "pipelines.preprocess")  # load no model
ROOMS = (
    "models",
    "networks",
    "optimizers",
    "baselines",
    "experiments.aevb.adagrad",
)  # whose classes end in files, and their imports


def register() -> None:
    """Import what registers itself with Keras, where it can be imported."""
    import keras

    if keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tensorflow_probability"):
        for room in ROOMS:
            importlib.import_module(f"tfvae.{room}")


def watch() -> None:
    """Register at once where Keras has been imported, and else when it is; but never in one of ``PROGRAMS``."""
    if "keras" in sys.modules:
        register()
    elif not _loads_no_model():
        sys.meta_path.insert(0, _Watch())


def _loads_no_model() -> bool:
    """Whether ``python -m`` was called with one of ``PROGRAMS``."""
    called = [name.removeprefix("tfvae.") for flag, name in itertools.pairwise(sys.orig_argv) if flag == "-m"]
    return bool(called) and called[0] in PROGRAMS


def leave_out() -> None:
    """For a command that loads no Keras model: TensorFlow imports Keras by itself, and nothing needs to follow it."""
    sys.meta_path = [finder for finder in sys.meta_path if not isinstance(finder, _Watch)]


def check_backend() -> None:
    """Import Keras, and with it what is registered.

    Raises:
        ImportError: If Keras runs on another backend than TensorFlow.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"tfvae needs Keras on TensorFlow, but Keras runs on {keras.backend.backend()}: "
            "set KERAS_BACKEND=tensorflow before Keras is imported for the first time."
        )


class _Watch:
    """Notices that Keras has been imported, and that no module of the package is half-way through its own import."""

    def __init__(self) -> None:
        self._half_way: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """What the other finders find, with a loader that tells when it has done."""
        if name != "keras" and not name.startswith("tfvae."):
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            execute = functools.partial(self._execute, spec.loader.exec_module)
            spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec

    def _execute(self, execute: Callable[[types.ModuleType], None], module: types.ModuleType) -> None:
        self._half_way.append(module.__name__)
        try:
            execute(module)
        finally:
            self._half_way.remove(module.__name__)
        if not self._half_way and "keras" in sys.modules:
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
            register()
