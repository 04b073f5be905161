"""A SavedModel run as a check: every signature in the C++ runtime, beside Python's, and its warm-up file replayed.

The C++ runtime comes first, in a process of its own with a time limit, so that a model which hangs or crashes does so
there.
"""

import math
import pathlib
import stat
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2

from tfvae.checks import process, wire
from tfvae.checks.graph import SavedGraph
from tfvae.pipelines import contract
from tfvae.pipelines.messages import PredictionLog

Answer = wire.Tensors | wire.CSessionError

BATCHES = (1, 3, 8)

_ROW_TOLERANCE = 1e-5  # another batch size may take another kernel
_FREE_SIZE = 5  # of a free dimension that is not the batch, such as K
_LARGEST_WARMUP = 256 << 20  # bytes: the file, and each of its tensors
_SECONDS = 300.0


def requests(graph: SavedGraph, seed: int = 0, warmup: Sequence[wire.Request] = ()) -> list[wire.Request]:
    """Every signature at every batch size of ``BATCHES``; a smaller batch holds the first rows of the larger.

    Observations are those of the warm-up file, where it has any but zeros, for a model may refuse others. Else floats
    named ``noise`` or ``z`` are standard normal, all others uniform in [0, 1); strings are PNG files of the shape that
    the other signatures take.

    Raises:
        ValueError: If an input is of no known shape or kind.
    """
    rng = np.random.default_rng(seed)
    sent: list[wire.Request] = []
    image_shape, known = _image_shape(graph), _observations(warmup)
    for name, signature in sorted(graph.signatures.items()):
        rows = {key: _rows(key, info, image_shape, rng) for key, info in signature.inputs.items()}
        rows.update({key: value for key, value in known.get(name, {}).items() if key in rows})
        sent += [(name, {key: value[:batch] for key, value in rows.items()}) for batch in BATCHES]
    return sent


def _observations(warmup: Sequence[wire.Request]) -> dict[str, wire.Tensors]:
    """By signature, the x of its longest record, a row or more for each row of the largest batch."""
    known: dict[str, wire.Tensors] = {}
    for name, inputs in sorted(warmup, key=lambda request: _batch(request[1])):
        x = inputs.get(contract.X)
        if x is not None and x.dtype.kind in "fu" and x.any():
            known[name] = {contract.X: np.resize(x, (max(BATCHES), *x.shape[1:]))}
    return known


def _rows(name: str, info: wire.TensorInfo, image_shape: tuple[int, ...] | None, rng: Any) -> np.ndarray:
    if not info.shape:
        raise ValueError(f"input {name} has no batch dimension, so no batch can be made for it.")
    shape = (max(BATCHES), *(_FREE_SIZE if size is None else size for size in info.shape[1:]))
    if info.dtype == "string":
        if image_shape is None or len(shape) != 1:
            raise ValueError(f"input {name} takes strings, but no signature says of what shape an image would be.")
        images = rng.integers(1, 255, [*shape, *image_shape], np.uint8)
        return np.array([tf.io.encode_png(image).numpy() for image in images], object)
    if info.dtype == "uint8":
        return rng.integers(1, 255, shape, np.uint8)  # a density of values above 0 and below 1 takes no ends
    if info.dtype in ("int32", "int64"):
        return rng.integers(0, 2, shape).astype(info.dtype)
    if not info.dtype.startswith("float"):
        raise ValueError(f"input {name} is of {info.dtype}, for which there is no request.")
    draw = rng.normal if name in (contract.NOISE, contract.Z) else rng.random
    return draw(size=shape).astype(info.dtype)


def _image_shape(graph: SavedGraph) -> tuple[int, ...] | None:
    """[H, W, C] of the first input, uint8 before float32, that is a batch of such images."""
    infos = [info for signature in graph.signatures.values() for info in signature.inputs.values()]
    for dtype in ("uint8", "float32"):
        for info in infos:
            shape = info.shape or ()
            if info.dtype == dtype and len(shape) == 4 and None not in shape[1:] and shape[3] in (1, 3, 4):
                return tuple(size or 0 for size in shape[1:])
    return None


def answers(folder: pathlib.Path, sent: Sequence[wire.Request], runtime: str = "the C++ runtime") -> list[Answer]:
    """Answers of the C++ runtime, XLA disabled, or of LiteRT, by what lies in the folder.

    Raises:
        ValueError: If the model does not load, or the process crashes or runs out of time.
    """
    try:
        return process.run_in_subprocess(folder, sent, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{runtime} did not answer within {_SECONDS:.0f} s") from None
    except (wire.CSessionError, RuntimeError) as error:
        raise ValueError(f"{runtime} does not load it: {error}") from error


def failures(sent: Sequence[wire.Request], answers: Sequence[Answer], runtime: str = "the C++ runtime") -> list[str]:
    """The requests that were refused, and why."""
    return [
        f"{name} at batch {_batch(inputs)} fails in {runtime}: {answer}"
        for (name, inputs), answer in zip(sent, answers, strict=True)
        if isinstance(answer, wire.CSessionError)
    ]


def in_python(graph: SavedGraph, sent: Sequence[wire.Request]) -> list[wire.Tensors]:
    """Answers of Python's loader.

    Raises:
        ValueError: If the model does not load or a request fails.
    """
    try:
        signatures = tf.saved_model.load(str(graph.folder)).signatures
        return [
            {key: value.numpy() for key, value in signatures[name](**_tensors(inputs)).items()} for name, inputs in sent
        ]
    except Exception as error:  # TensorFlow raises many kinds
        raise ValueError(f"Python's loader fails: {error}") from error


def _tensors(inputs: Any) -> dict[str, tf.Tensor]:
    return {key: tf.constant(value) for key, value in inputs.items()}


def _batch(inputs: Any) -> int:
    return len(next(iter(inputs.values()), ()))


def compare(
    sent: Sequence[wire.Request],
    answers: Sequence[Answer],
    expected: Sequence[wire.Tensors],
    runtimes: tuple[str, str] = ("C++", "Python"),
    tolerance: float = 1e-6,
) -> list[str]:
    """Where two runtimes' answers to the same requests differ by more than that, or are not a row for each row."""
    problems = failures(sent, answers, f"the {runtimes[0]} runtime")
    for (name, inputs), one, other in zip(sent, answers, expected, strict=True):
        where = f"{name} at batch {_batch(inputs)}"
        if isinstance(one, wire.CSessionError):
            continue
        if set(one) != set(other):
            problems.append(f"{where} answers {sorted(one)} in {runtimes[0]} and {sorted(other)} in {runtimes[1]}")
            continue
        for key, value in one.items():
            if not value.shape or len(value) != _batch(inputs):
                problems.append(f"{where}: {key} has shape {list(value.shape)}, expected a row for each row")
            elif not _close(value, other[key], tolerance):
                problems.append(f"{where}: {key} differs between {' and '.join(runtimes)}")
    return problems


def mixed_rows(sent: Sequence[wire.Request], answers: Sequence[wire.Tensors]) -> list[str]:
    """Outputs whose rows depend on the rest of their batch: the server pads batches with copies of a row."""
    largest = {name: answer for (name, inputs), answer in zip(sent, answers, strict=True) if _batch(inputs) == 8}
    return sorted(
        {
            f"{name}: a row of {key} depends on the other rows of its batch"
            for (name, inputs), answer in zip(sent, answers, strict=True)
            for key, value in answer.items()
            if name in largest and not _close(value, largest[name][key][: _batch(inputs)], _ROW_TOLERANCE)
        }
    )


def _close(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def warmup_requests(folder: pathlib.Path) -> list[wire.Request]:
    """The requests in a SavedModel's warm-up file.

    Raises:
        ValueError: If it cannot be read, is too long, or pins a version.
    """
    return [request for request, _ in recorded(folder / contract.EXTRA / contract.WARMUP, "warm-up file")]


def recorded(path: pathlib.Path, what: str) -> list[tuple[wire.Request, wire.Tensors]]:
    """Requests, with the answers that are recorded beside them, from a file of PredictionLogs.

    Raises:
        ValueError: If it cannot be read, is too long, or pins a version.
    """
    if not path.exists():
        raise ValueError(f"there is no {what}")
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_WARMUP:
        raise ValueError(f"the {what} is no plain file of at most {_LARGEST_WARMUP} bytes")
    read = []
    try:
        for record in tf.data.TFRecordDataset(str(path)).take(contract.MOST_WARMUP_RECORDS + 1):
            read.append(_request_and_answer(record.numpy()))
    except (tf.errors.OpError, DecodeError, TypeError) as error:
        raise ValueError(f"the {what} cannot be read: {error}") from error
    if len(read) > contract.MOST_WARMUP_RECORDS:
        raise ValueError(f"the {what} has more than {contract.MOST_WARMUP_RECORDS} records, the server's limit")
    return read


def _request_and_answer(record: bytes) -> tuple[wire.Request, wire.Tensors]:
    """A PredictionLog that holds a PredictRequest: see ``exporting.warmup``, which writes them."""
    log = PredictionLog.FromString(record)
    if not log.HasField("predict_log") or not log.predict_log.HasField("request"):
        raise DecodeError("a record holds no request to predict")
    request = log.predict_log.request
    if request.model_spec.WhichOneof("kind"):
        raise ValueError("a warm-up record names a version or a label: the next export would not load with it")
    name = request.model_spec.signature_name or contract.SERVING_DEFAULT
    return (name, _arrays(request.inputs)), _arrays(log.predict_log.response.outputs)


def _arrays(entries: Any) -> wire.Tensors:
    return dict(sorted((entry.key, _array(entry.value)) for entry in entries))


def _array(message: bytes) -> np.ndarray:
    proto = tensor_pb2.TensorProto.FromString(message)
    size = math.prod(dim.size for dim in proto.tensor_shape.dim) * max(1, tf.DType(proto.dtype).size or 1)
    if not 0 <= size <= _LARGEST_WARMUP:
        raise ValueError(f"a warm-up tensor of {size} bytes is larger than {_LARGEST_WARMUP}")
    return tf.make_ndarray(proto)
