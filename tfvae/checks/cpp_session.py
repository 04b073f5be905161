"""A SavedModel loaded and run as TensorFlow Serving would, by the C++ runtime alone.

A SavedModel that Python TensorFlow loads again can still fail on the server: the C++ loader restores variables by
other means, has no Python objects to fall back on, and runs in a process where XLA is off. The server's binary is in no
package registry, but the loader and the session it is built on are in TensorFlow's own wheel, which exports them
through the C API. ``CSession`` opens that library with ctypes, turns XLA off as the server does, loads the meta graph
tagged ``serve`` and runs its signatures.

All this must happen in a process that never imports TensorFlow: one process holds one copy of the library, so Python's
operators and its XLA switch would be shared with the session under test. See ``process``.
"""

import ctypes
import functools
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any

import numpy as np

from tfvae.checks.wire import DTYPE_NAMES, DTYPES, CSessionError, TensorInfo, Tensors, parse_signatures
from tfvae.pipelines import contract

_STRING_BYTES = 24  # sizeof(TF_TString)
_CODES = """OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED
RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS
UNAUTHENTICATED"""


class _Buffer(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class _Output(ctypes.Structure):
    _fields_ = (("operation", c_void_p), ("index", c_int))


_DISABLE_XLA = "_ZN10tensorflow21DisableXlaCompilationEv"  # tensorflow::DisableXlaCompilation(), which C lacks
_P, _I = c_void_p, c_int
_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # what each returns, then what it takes
    _DISABLE_XLA: (None,),
    "TF_AllocateTensor": (_P, _I, _P, _I, c_size_t),
    "TF_DeleteBuffer": (None, _P),
    "TF_DeleteGraph": (None, _P),
    "TF_DeleteSession": (None, _P, _P),
    "TF_DeleteSessionOptions": (None, _P),
    "TF_DeleteStatus": (None, _P),
    "TF_DeleteTensor": (None, _P),
    "TF_Dim": (c_int64, _P, _I),
    "TF_GetCode": (_I, _P),
    "TF_GraphOperationByName": (_P, _P, c_char_p),
    "TF_LoadSessionFromSavedModel": (_P, _P, _P, c_char_p, _P, _I, _P, _P, _P),
    "TF_Message": (c_char_p, _P),
    "TF_NewBuffer": (_P,),
    "TF_NewGraph": (_P,),
    "TF_NewSessionOptions": (_P,),
    "TF_NewStatus": (_P,),
    "TF_NumDims": (_I, _P),
    "TF_SessionRun": (None, _P, _P, _P, _P, _I, _P, _P, _I, _P, _I, _P, _P),
    "TF_StringCopy": (None, _P, c_char_p, c_size_t),
    "TF_StringDealloc": (None, _P),
    "TF_StringGetDataPointer": (_P, _P),
    "TF_StringGetSize": (c_size_t, _P),
    "TF_StringInit": (None, _P),
    "TF_TensorByteSize": (c_size_t, _P),
    "TF_TensorData": (_P, _P),
    "TF_TensorType": (_I, _P),
}


_LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib")  # on Linux, on macOS


def find_library(path: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """TensorFlow's C++ library, given itself or a folder that holds it; by default the installed wheel's."""
    if path is None:
        spec = importlib.util.find_spec("tensorflow")  # finds the package without importing it
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError("TensorFlow is not installed")
        path = next(iter(spec.submodule_search_locations))
    found = pathlib.Path(path).resolve()
    if found.is_dir():
        found = next((found / name for name in _LIBRARIES if (found / name).is_file()), found / _LIBRARIES[0])
    if not found.is_file():
        raise FileNotFoundError(f"no C++ library of TensorFlow at {found}")
    return found


@functools.cache
def _open_library(path: pathlib.Path) -> ctypes.CDLL:
    # RTLD_LOCAL: its symbols must not meet those of other libraries. Its run path names its own folder, so
    # libtensorflow_framework.so.2 is found beside it, and looking a name up here searches both.
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    for name, (returns, *takes) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returns, takes
    return library


class CSession:
    """A SavedModel in the C++ runtime. `run` may be called from several threads at once; `close` may not."""

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        library: str | os.PathLike[str] | None = None,
        xla: bool = False,
    ) -> None:
        """Loads the meta graph tagged `serve`. `xla=True` leaves XLA on, unlike a default server."""
        if "tensorflow" in sys.modules:
            raise RuntimeError("CSession needs a process without Python TensorFlow: see run_in_subprocess")
        self._c = _open_library(find_library(library))
        if not xla:
            getattr(self._c, _DISABLE_XLA)()  # for the whole process, for good
        self._session: int | None = None
        self._graph: int | None = self._c.TF_NewGraph()
        options, meta_graph = self._c.TF_NewSessionOptions(), self._c.TF_NewBuffer()
        tags = (c_char_p * 1)(contract.TAG.encode())
        try:
            self._session = self._checked(
                self._c.TF_LoadSessionFromSavedModel,
                *(options, None, os.fsencode(model_dir), tags, len(tags), self._graph, meta_graph),
            )
            buffer = _Buffer.from_address(meta_graph)
            self.signatures = parse_signatures(ctypes.string_at(buffer.data, buffer.length))
        except BaseException:
            self.close()
            raise
        finally:
            self._c.TF_DeleteBuffer(meta_graph)
            self._c.TF_DeleteSessionOptions(options)

    def __enter__(self) -> "CSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        session, self._session = self._session, None
        graph, self._graph = self._graph, None
        if session is not None:
            self._checked(self._c.TF_DeleteSession, session)
        if graph is not None:
            self._c.TF_DeleteGraph(graph)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Tensors:
        """Outputs of a signature; whatever the server refuses raises CSessionError, with the server's code.

        Inputs are sent with the dtypes and shapes they have: it is for the graph to refuse them.
        """
        if self._session is None:
            raise RuntimeError("the session is closed")
        if signature not in self.signatures:
            raise CSessionError("FAILED_PRECONDITION", f"no signature {signature!r}: {sorted(self.signatures)}")
        feeds, fetches = self.signatures[signature]
        if set(inputs) != set(feeds):
            raise CSessionError("INVALID_ARGUMENT", f"inputs {sorted(inputs)} given for {sorted(feeds)}")
        sent = (c_void_p * len(feeds))()
        got = (c_void_p * len(fetches))()
        try:
            for i, name in enumerate(feeds):
                sent[i] = self._to_tensor(np.asarray(inputs[name], order="C"))
            self._checked(
                self._c.TF_SessionRun,
                *(self._session, None, self._endpoints(feeds.values()), sent, len(sent)),
                *(self._endpoints(fetches.values()), got, len(got), None, 0, None),
            )
            return {name: self._to_array(tensor) for name, tensor in zip(fetches, got, strict=True)}
        finally:
            # Inputs after outputs, which may be views of them: the graph can pass a tensor straight through.
            for tensor in filter(None, got):
                self._c.TF_DeleteTensor(tensor)
            for tensor in filter(None, sent):
                self._delete_input(tensor)

    def _checked(self, function: Any, *arguments: Any) -> Any:
        """Calls a function whose last parameter is a TF_Status: a new one each time, for threads' sake."""
        status = self._c.TF_NewStatus()
        try:
            result = function(*arguments, status)
            code = self._c.TF_GetCode(status)
            if code:
                raise CSessionError(_CODES.split()[code], self._c.TF_Message(status).decode(errors="replace"))
            return result
        finally:
            self._c.TF_DeleteStatus(status)

    def _endpoints(self, infos: Iterable[TensorInfo]) -> ctypes.Array[_Output]:
        outputs = []
        for info in infos:
            name, _, index = info.tensor.partition(":")
            operation = self._c.TF_GraphOperationByName(self._graph, name.encode())
            if operation is None:
                raise CSessionError("NOT_FOUND", f"a signature names {info.tensor!r}, which the graph lacks")
            outputs.append(_Output(operation, int(index or 0)))
        return (_Output * len(outputs))(*outputs)

    def _to_tensor(self, array: np.ndarray) -> int:
        is_string = array.dtype.kind in "OS"
        dtype = "string" if is_string else array.dtype.name
        if dtype not in DTYPES:
            raise CSessionError("UNIMPLEMENTED", f"no tensor is made of {array.dtype}")
        strings = [bytes(memoryview(value)) for value in array.flat] if is_string else []  # refuses str
        size = array.size * _STRING_BYTES if is_string else array.nbytes
        shape = (c_int64 * array.ndim)(*array.shape)
        tensor = self._c.TF_AllocateTensor(DTYPES[dtype], shape, array.ndim, size)
        data = self._c.TF_TensorData(tensor)
        if not is_string:
            ctypes.memmove(data, array.ctypes.data, size)
        for i, value in enumerate(strings):
            self._c.TF_StringInit(data + i * _STRING_BYTES)
            self._c.TF_StringCopy(data + i * _STRING_BYTES, value, len(value))
        return tensor

    def _delete_input(self, tensor: int) -> None:
        # TF_AllocateTensor gave bare memory: what its strings own is for us to free. Outputs free theirs.
        if self._c.TF_TensorType(tensor) == DTYPES["string"]:
            data = self._c.TF_TensorData(tensor)
            for at in range(0, self._c.TF_TensorByteSize(tensor), _STRING_BYTES):
                self._c.TF_StringDealloc(data + at)
        self._c.TF_DeleteTensor(tensor)

    def _to_array(self, tensor: int) -> np.ndarray:
        dtype = DTYPE_NAMES.get(self._c.TF_TensorType(tensor))
        if dtype is None:
            raise CSessionError("UNIMPLEMENTED", f"an output has DataType({self._c.TF_TensorType(tensor)})")
        shape = [self._c.TF_Dim(tensor, i) for i in range(self._c.TF_NumDims(tensor))]
        array = np.empty(shape, object if dtype == "string" else dtype)
        data = self._c.TF_TensorData(tensor)
        if dtype != "string":
            ctypes.memmove(array.ctypes.data, data, array.nbytes)
            return array
        text, length = self._c.TF_StringGetDataPointer, self._c.TF_StringGetSize
        places = (data + i * _STRING_BYTES for i in range(array.size))
        array.reshape(-1)[:] = [ctypes.string_at(text(place), length(place)) for place in places]
        return array
