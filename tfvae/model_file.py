"""A model of the user's own: a Python file that the user names, with a function that builds a VAE.

The file is run as a program is: whoever names it trusts it. Nothing here finds a file by itself, so that the folder of
a run, which may be a stranger's, runs no code that the user has not named.
"""

import dataclasses
import hashlib
import inspect
import os
import pathlib
import signal
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tfvae.pipelines import errors, stops

if TYPE_CHECKING:
    from tfvae.models.vae import VAE

_MODULE = "tfvae_model_file"
_FACTS = {
    "event_shape": "the shape of one observation",
    "condition_shape": "of its condition, None where the data have none",
    "rows": "how many there are to train on",
    "missing": "whether numbers may be missing, NaN, by prepare --missing",
    "data": "the prepared dataset's folder, for tfvae.data.load",
    "latent_dim": "what --latent-dim says, 20 where nothing does",
    "seed": "what --seed says",
}
_LATENT_DIM = 20


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A Python file that has been run.

    Attributes:
        path: Where it lies.
        function: The name of the function that builds the model.
        source: The bytes that were run.
        module: What the file defines.
    """

    path: pathlib.Path
    function: str
    source: bytes
    module: types.ModuleType

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def names(self) -> dict[str, Any]:
        """The classes and functions that the file itself defines, as ``custom_objects`` of Keras."""
        own = vars(self.module).items()
        return {name: value for name, value in own if getattr(value, "__module__", None) == _MODULE}

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters of the function that builds the model.

        Raises:
            ValueError: If the file has no such function.
        """
        found = self.names.get(self.function)
        if not inspect.isfunction(found):
            functions = [name for name, value in self.names.items() if inspect.isfunction(value)]
            there = f"only {', '.join(functions)}" if functions else "nor any other"
            raise ValueError(f"{self.path} has no function {self.function}, {there}.")
        return dict(inspect.signature(found).parameters)

    def build(self, **facts: Any) -> "VAE":
        """The model: the function is called with those facts that it has parameters for.

        A ``latent_dim`` of None is not passed where the function has a default of its own.

        Raises:
            ValueError: If the function asks for something else, fails, or returns something else than a VAE.
        """
        arguments: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            optional = parameter.default is not parameter.empty
            if name == "latent_dim" and facts.get(name) is None:
                arguments |= {} if optional else {name: _LATENT_DIM}
            elif name in facts:
                arguments[name] = facts[name]
            elif not optional:
                known = ", ".join(f"{fact} ({meaning})" for fact, meaning in _FACTS.items())
                raise ValueError(f"{self._place} asks for {name}, but is given what it names of {known}.")
        from tfvae.models.vae import VAE  # here, so that the command line reads the name of a file without TensorFlow

        with _told(self.path):
            vae = getattr(self.module, self.function)(**arguments)
        if not isinstance(vae, VAE):
            raise ValueError(f"{self._place} returned {type(vae).__name__}, expected a tfvae.VAE.")
        self._check_loads(vae)
        return vae

    def _check_loads(self, vae: "VAE") -> None:
        """Raise ValueError where the model, once saved, could not be loaded: that is told before it is trained."""
        import keras

        try:
            with keras.saving.custom_object_scope(self.names):
                keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(vae))
        except Exception as error:
            reason = str(error).split("Exception encountered: ")[-1]  # Keras tells the whole configuration before it
            said = errors.first_line(ValueError(reason))
            raise ValueError(
                f"{self._place} returned a model that Keras cannot load once it is saved: {said}"
            ) from error

    @property
    def _place(self) -> str:
        return f"{self.function} of {self.path}"


def names_a_file(model: str) -> bool:
    """Whether this is FILE.py or FILE.py:FUNCTION.

    Example:
        >>> names_a_file("model.py:build"), names_a_file("mlp")
        (True, False)
    """
    return _split(model)[0].endswith(".py")


def _split(model: str) -> tuple[str, str]:
    path, colon, function = model.rpartition(":")
    return (path, function) if colon and function.isidentifier() else (model, "build")


def read(model: str | os.PathLike[str]) -> ModelFile:
    """Run FILE.py, or that of FILE.py:FUNCTION; the function is ``build`` where none is named.

    Raises:
        ValueError: If there is no such file, or it fails; the message names the line.
    """
    given, function = _split(os.fspath(model))
    path = pathlib.Path(given)
    if path.suffix != ".py":
        raise ValueError(f"{given} is no model file, expected FILE.py or FILE.py:FUNCTION.")
    if not path.is_file():
        raise ValueError(f"There is no file {given}.")
    source = path.read_bytes()
    module = types.ModuleType(_MODULE)
    module.__file__ = str(path.resolve())
    sys.modules[_MODULE] = module  # where dataclasses and others look for what a class is made of
    with _told(path):
        exec(compile(source, str(path), "exec"), vars(module))
    return ModelFile(path, function, source, module)


@contextmanager
def _told(path: pathlib.Path) -> Iterator[None]:
    """Whatever goes wrong in the file ends as a sentence that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == stops.EXIT_CODES[signal.SIGTERM]:
            raise  # who ends the command means it
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = " (a model file stands alone: what it imports must be installed)"
        if isinstance(error, SystemExit):
            hint = " (a model file defines a function, and must not end the program)"
        raise ValueError(f"{place}: {type(error).__name__}: {error}{hint}") from error
