"""TF Serving's gRPC interface: the real PredictionService, with tensors as bytes.

The protos come with ``tensorflow-serving-api`` and import TensorFlow: this module is imported only for ``grpc://``.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..pipelines import extras
from .answers import Signature, TensorInfo, Tensors, bad_answer, free
from .retries import ServingError

with extras.needed("grpc"):
    import grpc
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
_DTYPES = {"float32": types_pb2.DT_FLOAT, "uint8": types_pb2.DT_UINT8}


class Rpc:
    """One model at ``host:port``; arguments as in ``rest.Rest``, ``secure`` for TLS."""

    def __init__(
        self, target: str, model: str, version: int | None, timeout: float, most_bytes: int, secure: bool = False
    ):
        self._spec = model_pb2.ModelSpec(name=model)
        if version is not None:
            self._spec.version.value = version
        self._timeout, self._most_bytes = timeout, most_bytes
        options = [("grpc.max_receive_message_length", most_bytes), ("grpc.max_send_message_length", -1)]
        self._channel = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
            if secure
            else grpc.insecure_channel(target, options)
        )
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def predict(self, signature: str, inputs: dict[str, Any], outputs: tuple[str, ...]) -> Tensors:
        """See ``rest.Rest.predict``."""
        request = predict_pb2.PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(_proto(value))
        answer = self._ask(self._predictions.Predict, request)
        return {name: _array(name, answer.outputs[name]) for name in outputs if name in answer.outputs}

    def signatures(self) -> dict[str, Signature]:
        """See ``rest.Rest.signatures``."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        answer = self._ask(self._predictions.GetModelMetadata, request)
        found = get_model_metadata_pb2.SignatureDefMap()
        if not answer.metadata["signature_def"].Unpack(found):
            raise bad_answer("GetModelMetadata answered without signatures.")
        return {
            name: Signature(_infos(each.inputs), _infos(each.outputs))
            for name, each in sorted(found.signature_def.items())
            if not name.startswith("__")
        }

    def status(self) -> dict[int, str]:
        """See ``rest.Rest.status``."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec)
        states = get_model_status_pb2.ModelVersionStatus.State
        answer = self._ask(self._models.GetModelStatus, request)
        return {each.version: states.Name(each.state) for each in answer.model_version_status}

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, words = error.code(), error.details() or "no reason given"
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in words:  # our own limit, not load
                limit = f"The answer is longer than {self._most_bytes:,} bytes (max_answer_bytes): {words}."
                raise bad_answer(limit) from error
            raise ServingError(code.name, words, passing=code in _PASSING) from error


def _proto(value: Any) -> tensor_pb2.TensorProto:
    shape = value.shape if isinstance(value, np.ndarray) else (len(value),)
    sizes = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape])
    if not isinstance(value, np.ndarray):
        return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=sizes, string_val=value)
    content = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return tensor_pb2.TensorProto(dtype=_DTYPES[value.dtype.name], tensor_shape=sizes, tensor_content=content)


def _array(name: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    """float32 values of an answer. A few bytes may declare any shape: nothing is made that did not come."""
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.dtype != types_pb2.DT_FLOAT:
        raise bad_answer(f"{name} came as {types_pb2.DataType.Name(proto.dtype)}, expected DT_FLOAT.")
    came = len(proto.tensor_content) // 4 if proto.tensor_content else len(proto.float_val)
    if min(shape, default=0) < 0 or came != math.prod(shape) or len(proto.tensor_content) % 4:
        raise bad_answer(f"{name} came with {came} numbers for shape {shape}.")
    values = np.frombuffer(proto.tensor_content, "<f4") if proto.tensor_content else np.array(proto.float_val)
    return values.astype(np.float32).reshape(shape)


def _infos(tensors: Any) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            types_pb2.DataType.Name(info.dtype),
            None if info.tensor_shape.unknown_rank else free(dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(tensors.items())
    }
