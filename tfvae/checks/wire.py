"""What crosses between a caller and the C++ session: requests, answers, errors, and what a signature takes and gives.

Nothing here needs TensorFlow, because the session's process must never import it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tfvae.pipelines.messages import MetaGraph

Tensors = dict[str, np.ndarray]
Request = tuple[str, Mapping[str, np.ndarray]]

# Those that NumPy has too; the server's REST interface carries a few of them, and a client may send any by mistake.
DTYPES = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "string": 7, "complex64": 8,
    "int64": 9, "bool": 10, "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23,
}  # fmt: skip
DTYPE_NAMES = {number: name for name, number in DTYPES.items()}


class CSessionError(Exception):
    """A status other than OK: `code` is its canonical name, such as INVALID_ARGUMENT."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class TensorInfo(NamedTuple):
    """A signature's input or output. None stands for a free dimension, and as `shape` for a free rank."""

    tensor: str
    dtype: str
    shape: tuple[int | None, ...] | None


class SignatureDef(NamedTuple):
    """A signature's inputs and outputs, by their names."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


def parse_signatures(meta_graph_def: bytes) -> dict[str, SignatureDef]:
    """The signatures in a serialized MetaGraphDef, but for the loader's own `__saved_model_init_op`, sorted by name."""
    found = {entry.key: entry.value for entry in MetaGraph.FromString(meta_graph_def).signature_def}
    return {
        name: SignatureDef(_tensor_infos(signature.inputs), _tensor_infos(signature.outputs))
        for name, signature in sorted(found.items())
        if not name.startswith("__saved_model_")
    }


def _tensor_infos(entries: Iterable[Any]) -> dict[str, TensorInfo]:
    return dict(sorted((entry.key, _tensor_info(entry.value)) for entry in entries))


def _tensor_info(message: Any) -> TensorInfo:
    sizes = tuple(None if dim.size < 0 else dim.size for dim in message.tensor_shape.dim)
    return TensorInfo(
        tensor=message.name,
        dtype=DTYPE_NAMES.get(message.dtype, f"DataType({message.dtype})"),
        shape=None if message.tensor_shape.unknown_rank else sizes,
    )
