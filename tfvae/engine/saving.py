"""What a saved model needs in order to be loaded: every class and function in it must be registered with Keras."""

import warnings
from collections.abc import Iterator
from typing import Any

import keras


def warn_of_unregistered(model: keras.Model, filepath: Any) -> None:
    """Warn of each class and function of a model by whose name Keras will find nothing when it loads the file."""
    for name in sorted(set(_unregistered(keras.saving.serialize_keras_object(model)))):
        warnings.warn(
            f"{name} is not registered with Keras, so that {filepath} is loaded only with custom_objects="
            f"{{{name!r}: {name}}}: put @keras.saving.register_keras_serializable() before its definition and save "
            "again.",
            stacklevel=3,
        )


def _unregistered(config: Any) -> Iterator[str]:
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _unregistered(part)
    elif isinstance(config, dict):
        if {"module", "class_name", "registered_name"} <= config.keys() and not _is_found(config):
            yield config["config"] if config["class_name"] == "function" else config["class_name"]
        yield from _unregistered(list(config.values()))


def _is_found(config: dict[str, Any]) -> bool:
    """Whether Keras finds the class or function of a serialised object by its name."""
    if config["class_name"] == "function":
        try:
            return keras.saving.deserialize_keras_object(config) is not None
        except (TypeError, ValueError):
            return False
    of_keras = (config["module"] or "").split(".")[0] == "keras"
    return of_keras or keras.saving.get_registered_object(config["registered_name"]) is not None
