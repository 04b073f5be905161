"""The JSON records of a run, read with care and without TensorFlow: a run may come from a stranger.

A record says of which model it is, by the checksum of ``model.keras``; of another model it says nothing.
"""

import json
import pathlib
import stat
from typing import Any

RUN, EVALUATION = "run.json", "evaluation.json"
_LARGEST = 1 << 20  # bytes


def read(path: pathlib.Path) -> dict[str, Any]:
    """A record; an empty one where there is no file.

    Raises:
        ValueError: If the file is large, no plain file, or holds no JSON object.

    Example:
        >>> read(pathlib.Path("nowhere/run.json"))
        {}
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise ValueError(f"{path} is no plain file of at most {_LARGEST} bytes: train or evaluate again.")
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds a JSON {type(record).__name__}, expected an object: train or evaluate again.")
    return record


def of_model(path: pathlib.Path, model_sha256: str) -> dict[str, Any]:
    """A record, if it is of the model with that checksum; else an empty one. Raises as ``read`` does."""
    record = read(path)
    return record if record.get("model_sha256") == model_sha256 else {}
