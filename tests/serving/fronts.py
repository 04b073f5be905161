"""What a client connects to: PredictionService and ModelService over gRPC with the real protos, and REST."""

import contextlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving import json_tensor
from tests.serving.rules import DEFAULT_SIGNATURE, Faults, ServedModel
from tfvae.checks.wire import CSessionError, TensorInfo

# model_servers/http_server.cc (ToHTTPStatusCode)
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
SLOW = 1.5  # seconds that the fault "slow" takes


def signature_def(sides: Any) -> meta_graph_pb2.SignatureDef:
    found = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")

    def fill(into: Any, info: TensorInfo) -> None:
        into.name, into.dtype = info.tensor, types_pb2.DataType.Value(f"DT_{_dtype(info.dtype)}")
        for size in info.shape:
            into.tensor_shape.dim.add(size=-1 if size is None else size)

    for side, into in zip(sides, (found.inputs, found.outputs), strict=True):
        for name, info in side.items():
            fill(into[name], info)
    return found


def _dtype(name: str) -> str:
    return {"float32": "FLOAT"}.get(name, name.upper())


def metadata(model: ServedModel) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """servables/tensorflow/get_model_metadata_impl.cc (SavedModelGetSignatureDef)."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, sides in model.signatures.items():
        signatures.signature_def[name].CopyFrom(signature_def(sides))
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name, response.model_spec.version.value = model.name, model.version
    response.metadata["signature_def"].Pack(signatures)
    return response


def status(model: ServedModel, name: str, version: int | None) -> get_model_status_pb2.GetModelStatusResponse:
    """model_servers/get_model_status_impl.cc (GetModelStatusWithModelSpec)."""
    if name != model.name:
        raise CSessionError("NOT_FOUND", f"Could not find any versions of model {name}")
    if version not in (None, model.version):
        raise CSessionError("NOT_FOUND", f"Could not find version {version} of model {name}")
    state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=model.version, state=state).status.SetInParent()
    return response


class Services(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """Both services over one model."""

    def __init__(self, model: ServedModel, faults: Faults) -> None:
        self._model, self._faults = model, faults

    def Predict(self, request, context):
        with self._answering(context):
            self._break(context)
            self._check(request.model_spec)
            inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
            response = predict_pb2.PredictResponse(model_spec=request.model_spec)
            for name, value in self._model.run(request.model_spec.signature_name, inputs).items():
                response.outputs[name].CopyFrom(as_proto_field(value))
            return response

    def GetModelMetadata(self, request, context):
        with self._answering(context):
            self._check(request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise CSessionError("INVALID_ARGUMENT", "Metadata field %s is not supported")
            return metadata(self._model)

    def GetModelStatus(self, request, context):
        with self._answering(context):
            spec = request.model_spec
            return status(self._model, spec.name, spec.version.value if spec.HasField("version") else None)

    def _check(self, spec) -> None:
        # model_servers/server_core.cc (ServableRequestFromModelSpec)
        if not spec.name:
            raise CSessionError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        self._model.check_served(spec.name, spec.version.value if spec.HasField("version") else None)

    def _break(self, context) -> None:
        fault = self._faults.next()
        if fault == "slow":
            time.sleep(SLOW)
        elif fault:
            raise CSessionError(fault, "for a test")

    @contextlib.contextmanager
    def _answering(self, context) -> Iterator[None]:
        """model_servers/grpc_status_util.cc (ToGRPCStatus): the same codes, and messages of 1024 bytes at most."""
        try:
            yield
        except CSessionError as error:
            short = error.message if len(error.message) <= 1024 else error.message[:1024] + "...TRUNCATED"
            context.abort(grpc.StatusCode[error.code], short)


def as_proto_field(value: np.ndarray) -> tensor_pb2.TensorProto:
    """predict_util.cc (PostProcessPredictionResult, kAsProtoField): every value in a field of its own."""
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=value.reshape(-1))
    for size in value.shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@contextlib.contextmanager
def serve_grpc(model: ServedModel, faults: Faults, port: int = 0) -> Iterator[int]:
    """The port on which gRPC is answered."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    services = Services(model, faults)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


# model_servers/http_rest_api_util.cc (kPredictionApiGegex, kModelStatusApiRegex)
_PREDICT = re.compile(r"(?i)/v1/models/([^/:]+)(?:/versions/(\d+))?:(classify|regress|predict)")
_STATUS = re.compile(r"(?i)/v1/models(?:/([^/:]+))?(?:/versions/(\d+))?(?:/(metadata))?")


class Rest(http.server.BaseHTTPRequestHandler):
    """model_servers/http_rest_api_handler.cc."""

    protocol_version = "HTTP/1.1"
    location = ""
    model: ServedModel
    faults: Faults

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(_PREDICT, lambda name, version, method: self._predict(body, name, version, method))

    def do_GET(self) -> None:
        self._answer(_STATUS, self._describe)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def _answer(self, pattern: re.Pattern[str], handler: Any) -> None:
        code, text = 200, ""
        try:
            found = pattern.fullmatch(self.path)
            if found is None:
                raise CSessionError("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
            name, version, rest = found.groups()
            text = handler(urllib.parse.unquote(name or ""), int(version) if version else None, rest)
        except CSessionError as error:
            # http_rest_api_handler.cc (ProcessRequest), json_tensor.cc (MakeJsonFromStatus)
            code, text = HTTP_STATUS.get(error.code, 500), json.dumps({"error": error.message}, indent=4)
        self._send(code, text.encode())

    def _send(self, code: int, contents: bytes, cut: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(contents)))
        if self.location:
            self.send_header("Location", self.location)
        self.end_headers()
        self.wfile.write(contents[:cut])
        self.close_connection = cut is not None

    def _predict(self, body: bytes, name: str, version: int | None, method: str) -> str:
        fault = self.faults.next()
        if fault == "slow":
            time.sleep(SLOW)
        elif fault:
            raise CSessionError(fault, "for a test")
        document = json_tensor.parse(body)
        signature = document.get("signature_name", "")
        if not isinstance(signature, str):
            raise json_tensor.invalid("'signature_name' key must be a string value.")
        self.model.check_served(name, version)
        # GetInfoMap: over REST an unknown signature is INVALID_ARGUMENT.
        if (signature or DEFAULT_SIGNATURE) not in self.model.signatures:
            raise json_tensor.invalid(f'Serving signature name: "{signature}" not found in signature def')
        infos = self.model.signatures[signature or DEFAULT_SIGNATURE].inputs
        inputs, by_rows = json_tensor.tensors(document, infos)
        if method != "predict":
            raise json_tensor.invalid(f"Expected {method} signature method_name")
        return json_tensor.document(self.model.run(signature, inputs), by_rows)

    def _describe(self, name: str, version: int | None, subresource: str | None) -> str:
        if not name:
            raise json_tensor.invalid("Missing model name in request.")
        options = {"always_print_fields_with_no_presence": True, "preserving_proto_field_name": True}
        if subresource is None:
            return json_format.MessageToJson(status(self.model, name, version), indent=1, **options)
        # http_rest_api_util.cc (ToJsonString): the signatures are unpacked out of their Any.
        self.model.check_served(name, version)
        answer, signatures = metadata(self.model), get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        spec = json_format.MessageToDict(answer.model_spec, **options)
        found = {"signature_def": json_format.MessageToDict(signatures, **options)}
        return json.dumps({"model_spec": spec, "metadata": found}, indent=1)


class Broken(Rest):
    """A REST front that answers every request with the given contents, or dies after ``cut`` bytes of them."""

    contents: bytes = b""
    code: int = 200
    cuts: list[int]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        self.faults.next()
        self._send(self.code, self.contents, self.cuts.pop(0) if self.cuts else None)


@contextlib.contextmanager
def serve_http(handler: type[http.server.BaseHTTPRequestHandler], **attributes: Any) -> Iterator[int]:
    """The port on which the handler answers."""
    bound = type("Bound", (handler,), attributes)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
