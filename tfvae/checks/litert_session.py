"""A LiteRT file run as a device would: as ``CSession`` a SavedModel, in a process of its own, for it may crash."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from tfvae.checks.wire import CSessionError, Tensors
from tfvae.pipelines import contract


class LiteRTSession:
    """A version's LiteRT file in TensorFlow's interpreter, from one thread at a time."""

    def __init__(self, model_dir: str | os.PathLike[str]) -> None:
        """Reads the file; one that cannot be opened raises CSessionError."""
        from tfvae.exporting import interpreter  # TensorFlow, which the other session's process never has

        try:
            self._interpreter = interpreter.opened(pathlib.Path(model_dir, contract.LITERT).read_bytes())
        except (ValueError, RuntimeError) as error:
            raise CSessionError("INVALID_ARGUMENT", str(error)) from error

    def __enter__(self) -> "LiteRTSession":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Tensors:
        """Outputs of a signature; whatever the interpreter refuses raises CSessionError."""
        try:
            return self._interpreter.get_signature_runner(signature)(**inputs)
        except (ValueError, RuntimeError) as error:
            raise CSessionError("INVALID_ARGUMENT", str(error)) from error


def holds(folder: str | os.PathLike[str]) -> bool:
    """Whether a version's folder is of this kind.

    Example:
        >>> holds("nowhere")
        False
    """
    return os.path.exists(os.path.join(folder, contract.LITERT)) and not os.path.exists(
        os.path.join(folder, contract.SAVED_MODEL)
    )
