"""Files of a model: what must be registered to be loaded, whose weights they are, and that they are whole.

Every class and function in a saved model must be registered with Keras, and weights are loaded into a model like the
one that had them.
"""

import contextlib
import inspect
import json
import os
import pathlib
import reprlib
import uuid
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import h5py
import keras
import numpy as np

from tfvae.engine import keras_private

_IN_ZIP = "model.weights.h5"
_OTHERS = "optimizer/"  # whose numbers Keras leaves out where they do not fit, and says so
NO_H5 = (
    "an h5 file, which Keras could not load this model from: save to a .keras file, or the weights alone with "
    "save_weights('m.weights.h5')."
)
_FROM_CONFIG = keras.layers.Layer.from_config.__func__  # Operation's
Layout = dict[str, tuple[int, ...]]


def warn_of_unregistered(model: keras.Model, filepath: Any) -> None:
    """Warn of each class and function of a model that Keras will not find, or not make, when it loads the file."""
    config = config_of(model)
    if any(one.get("class_name") == "__lambda__" for one in _mappings(config)):
        warnings.warn(
            f"A lambda is saved as code, so that {filepath} is loaded only with safe_mode=False, by who trusts it: "
            "define a function, put @keras.saving.register_keras_serializable() before it, and save again.",
            stacklevel=3,
        )
    for told in sorted(set(_forgotten(model, config))):
        warnings.warn(
            f"The get_config() of {told}, with which {filepath} is loaded: let it hold that setting, and save again.",
            stacklevel=3,
        )
    for name in sorted(set(_unmade(config))):
        warnings.warn(
            f"{name} cannot be made again of its get_config(), so that {filepath} cannot be loaded: let its __init__ "
            "take what get_config() gives, and **kwargs for super().__init__(**kwargs), and save again.",
            stacklevel=3,
        )
    for name in sorted(set(_unregistered(config))):
        warnings.warn(
            f"{name} is not registered with Keras, so that {filepath} is loaded only with custom_objects="
            f"{{{name!r}: {name}}}: put @keras.saving.register_keras_serializable() before its definition and save "
            "again.",
            stacklevel=3,
        )


def config_of(model: keras.Model) -> dict[str, Any]:
    """How Keras writes a model, without its warning of each lambda.

    Raises:
        ValueError: It has no words for a part, of which an author did not tell it, or for a lambda's code.

    Example:
        >>> config_of(keras.Sequential())["class_name"]
        'Sequential'
    """
    try:
        with without_lambda_warning():
            return keras.saving.serialize_keras_object(model)
    except OSError as error:  # Keras would show the source in its warning
        raise ValueError(
            "The model holds a lambda whose source Python does not find: define a function in a file, put "
            "@keras.saving.register_keras_serializable() before it."
        ) from error


@contextlib.contextmanager
def without_lambda_warning() -> Iterator[None]:
    """Within it, Keras does not warn of lambdas that it writes: see ``warn_of_unregistered``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        yield


def _mappings(config: Any) -> Iterator[dict[str, Any]]:
    """A config's dicts, at any depth."""
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _mappings(part)
    elif isinstance(config, dict):
        yield config
        yield from _mappings(list(config.values()))


def _unregistered(config: Any) -> Iterator[str]:
    for one in _mappings(config):
        if {"module", "class_name", "registered_name"} <= one.keys() and not _is_found(one):
            yield one["config"] if one["class_name"] == "function" else one["class_name"]


def _unmade(config: Any) -> Iterator[str]:
    """The classes of a user's own whose arguments are not what their configs hold; no layer is made to see it."""
    for one in _mappings(config):
        found = keras.saving.get_registered_object(one.get("registered_name"))
        if isinstance(found, type) and _is_plain(found) and not _takes(found, one["config"]):
            yield one["class_name"]


def _forgotten(model: keras.Model, config: Any) -> Iterator[str]:
    """Settings of a user's own layers that are not the default and that their configs lack, so that others are loaded.

    A layer whose config is in no other's is made by the one around it.
    """
    layers = keras_private.layers(model)
    by_name: dict[Any, keras.layers.Layer] = {(type(layer).__name__, layer.name): layer for layer in layers}
    for one in _mappings(config):
        held: Any = one.get("config")
        layer = by_name.get((one.get("class_name"), held.get("name"))) if isinstance(held, dict) else None
        if layer is None or _room(type(layer)) in ("keras", "tfvae") or _room(type(layer).from_config) != "keras":
            continue
        parameters = inspect.signature(type(layer).__init__).parameters
        for name, value in (keras_private.given(layer) or _arrays_of(layer, parameters)).items():
            default = parameters[name].default if name in parameters else value
            if name not in held and default is not inspect.Parameter.empty and not _is_equal(value, default):
                shown = " ".join(reprlib.repr(value).split())
                yield f"{type(layer).__name__} lacks {name}={shown}, the default of which is {default!r}"


def _arrays_of(layer: keras.layers.Layer, names: Iterable[str]) -> dict[str, Any]:
    """Arrays and NumPy's numbers that a layer has under these names: where it was given one, Keras keeps nothing."""
    held = vars(layer)
    return {name: held[name] for name in names if isinstance(held.get(name), (np.ndarray, np.generic))}


def _is_equal(value: Any, default: Any) -> bool:
    return np.array_equal(value, default) if isinstance(value, (np.ndarray, np.generic)) else value == default


def _room(named: Any) -> str:
    return named.__module__.split(".")[0]


def _is_plain(kind: Any) -> bool:
    """Whether it is made as Keras makes a layer: of its config alone, by ``__init__``."""
    return issubclass(kind, keras.layers.Layer) and getattr(kind.from_config, "__func__", None) is _FROM_CONFIG


def _takes(kind: Any, config: dict[str, Any]) -> bool:
    try:
        inspect.signature(kind.__init__).bind(None, **config)
    except TypeError:
        return False
    return True


def _is_found(config: dict[str, Any]) -> bool:
    """Whether Keras finds the class or function of a serialised object by its name."""
    if config["class_name"] == "function":
        try:
            return keras.saving.deserialize_keras_object(config) is not None
        except (TypeError, ValueError):
            return False
    of_keras = (config["module"] or "").split(".")[0] == "keras"
    return of_keras or keras.saving.get_registered_object(config["registered_name"]) is not None


@contextlib.contextmanager
def told(filepath: Any, verb: str) -> Iterator[None]:
    """Within it, whatever stands in the way of a file is told in a sentence, an OSError of the same kind.

    Example:
        >>> with told("a.keras", "read"):
        ...     open("a.keras")
        Traceback (most recent call last):
        FileNotFoundError: a.keras cannot be read: No such file or directory.
    """
    try:
        yield
    except ValueError:  # a sentence already
        raise
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "it is damaged, or of another format"
        raise type(error)(f"{filepath} cannot be {verb}: {why}.") from error
    except zipfile.BadZipFile as error:
        raise OSError(f"{filepath} cannot be {verb}: it is damaged, or of another format.") from error
    except Exception as error:  # of a store, or of the hub
        why = (str(error).splitlines() or [""])[0]
        raise OSError(f"{filepath} cannot be {verb}: {type(error).__name__}: {why}") from error


def refuse_h5() -> None:
    """Raise ValueError where Keras writes a model's config to an h5 file: such a file holds no part of it."""
    if keras_private.is_writing_h5():
        raise ValueError(f"This is {NO_H5}")


def check_free(filepath: Any, overwrite: bool) -> None:
    """Raise FileExistsError where a file must not be overwritten: Keras would ask, and nobody may be there."""
    if not overwrite and os.path.exists(filepath):
        raise FileExistsError(f"{filepath} is there already, and overwrite is False: choose another name.")


@contextlib.contextmanager
def written(filepath: Any, overwrite: bool) -> Iterator[Any]:
    """A name for a file that takes its own when the block ends well; a folder, or what lies elsewhere, has it at once.

    Example:
        >>> with written("a.txt", overwrite=True) as draft:
        ...     _ = draft.write_text("whole")
        >>> open("a.txt").read(), draft.exists()
        ('whole', False)
    """
    check_free(filepath, overwrite)
    with told(filepath, "written"):
        if "://" in str(filepath) or not str(filepath).endswith((".keras", ".h5", ".txt")):
            yield filepath
            return
        path = pathlib.Path(os.path.realpath(filepath))  # a link goes on leading there
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        draft = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
        try:
            yield draft
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def check_layout(filepath: Any, own: Layout) -> None:
    """Raise ValueError where a file holds other weights than ``own``, those of the model that they are for."""
    if "://" in str(filepath):
        return
    there = _layout_of(pathlib.Path(filepath))
    differ = sorted(name for name in own.keys() | there.keys() if own.get(name) != there.get(name))
    if differ:
        name = differ[0]
        sides = ["none" if shape is None else f"of shape {shape}" for shape in (there.get(name), own.get(name))]
        raise ValueError(
            f"{filepath} holds weights of another model: {name} is {sides[0]} there and {sides[1]} in this one. Make "
            "the model as it was when they were saved, or load what fits with skip_mismatch=True."
        )


def _layout_of(path: pathlib.Path) -> Layout:
    if path.name.endswith(".keras"):
        with zipfile.ZipFile(path) as archive, _member(archive, path) as file:
            return layout(file)
    if path.name.endswith(".json"):
        return {name: shape for shard in _shards(path) for name, shape in layout(shard).items()}
    return layout(path)


def _member(archive: zipfile.ZipFile, path: pathlib.Path) -> Any:
    try:
        return archive.open(_IN_ZIP)
    except KeyError:
        raise ValueError(f"{path} holds no {_IN_ZIP}: it is no file that save has written.") from None


def _shards(path: pathlib.Path) -> list[pathlib.Path]:
    try:
        names = {name for held in json.loads(path.read_bytes())["weight_map"].values() for name in held}
        if any(os.path.basename(name) != name for name in names):
            raise ValueError("a shard lies elsewhere")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} lists no files of weights: it is damaged, or nothing that save_weights wrote."
        ) from error
    return [path.with_name(name) for name in sorted(names)]


def layout(file: pathlib.Path | BinaryIO) -> Layout:
    """The shape of each array of weights in an h5 file, by its place in the model; links are not followed."""
    found: Layout = {}

    def note(name: str, held: Any) -> None:
        if isinstance(held, h5py.Dataset) and not name.startswith(_OTHERS):
            found[name] = tuple(held.shape)

    with h5py.File(file, "r") as opened:
        opened.visititems(note)
    return found
