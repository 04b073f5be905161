"""Protocol buffers that cross the disk and whose classes come only with TensorFlow, or with its server in no wheel.

They are declared here at run time, with the few fields that are needed, so that neither a worker nor the client of a
server imports TensorFlow to read or write one. They live in a pool of their own: in one process with TensorFlow's own
classes of the same messages, neither knows of the other.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_KINDS = descriptor_pb2.FieldDescriptorProto.Type
Field = tuple[int, str]


def declared(package: str, messages: Mapping[str, Mapping[str, Field]]) -> dict[str, Any]:
    """The classes of some messages, by name.

    Args:
        package: What errors call them together.
        messages: The fields of each message: number, and the type as a ``.proto`` file spells it, ``repeated`` before
            it or not. A type with a capital letter is another of these messages. Fields whose names begin with
            ``one_`` exclude one another.

    Example:
        >>> Point = declared("plane", {"Point": {"x": (1, "int64"), "tags": (2, "repeated string")}})["Point"]
        >>> Point(x=3, tags=["a"]).SerializeToString()
        b'\\x08\\x03\\x12\\x01a'
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"tfvae/{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated, _, kind = kind.rpartition(" ")
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in messages:
                added.type, added.type_name = _KINDS.Value("TYPE_MESSAGE"), f".{package}.{kind}"
            else:
                added.type = _KINDS.Value(f"TYPE_{kind.upper()}")
            if field.startswith("one_"):
                added.oneof_index = 0
        if any(field.startswith("one_") for field in fields):
            message.oneof_decl.add(name="kind")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


# tensorflow/core/example/example.proto and feature.proto. The map from name to feature is spelt out as the list of
# entries that it is on the wire, for ``formats`` refuses an entry with fields that no map has.
_EXAMPLE = {
    "Example": {"features": (1, "Features")},
    "Features": {"feature": (1, "repeated Entry")},
    "Entry": {"key": (1, "string"), "value": (2, "Feature")},
    "Feature": {"one_bytes": (1, "BytesList"), "one_floats": (2, "FloatList"), "one_integers": (3, "Int64List")},
    "BytesList": {"value": (1, "repeated bytes")},
    "Int64List": {"value": (1, "repeated int64")},
}
_classes = declared("example", _EXAMPLE | {"FloatList": {"value": (1, "repeated float")}})
Example, Features, Int64List = (_classes[name] for name in ("Example", "Features", "Int64List"))
# The same with its floats as the bytes in which they are packed, for NumPy reads them in place.
PackedExample = declared("packed", _EXAMPLE | {"FloatList": {"value": (1, "repeated bytes")}})["Example"]

# tensorflow_serving/apis: prediction_log.proto, predict.proto and model.proto. A tensor is left as its bytes.
PredictionLog = declared(
    "serving",
    {
        "PredictionLog": {"predict_log": (6, "PredictLog")},
        "PredictLog": {"request": (1, "PredictRequest"), "response": (2, "PredictResponse")},
        "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "repeated Tensor")},
        "PredictResponse": {"outputs": (1, "repeated Tensor")},
        "Tensor": {"key": (1, "string"), "value": (2, "bytes")},
        "ModelSpec": {
            "name": (1, "string"),
            "one_version": (2, "Version"),
            "signature_name": (3, "string"),
            "one_label": (4, "string"),
        },
        "Version": {"value": (1, "int64")},
    },
)["PredictionLog"]

# tensorflow/core/protobuf/meta_graph.proto and tensorflow/core/framework/tensor_shape.proto: the signatures.
MetaGraph = declared(
    "meta_graph",
    {
        "MetaGraph": {"signature_def": (5, "repeated NamedSignature")},
        "NamedSignature": {"key": (1, "string"), "value": (2, "Signature")},
        "Signature": {"inputs": (1, "repeated NamedTensor"), "outputs": (2, "repeated NamedTensor")},
        "NamedTensor": {"key": (1, "string"), "value": (2, "Tensor")},
        "Tensor": {"name": (1, "string"), "dtype": (2, "int32"), "tensor_shape": (3, "Shape")},
        "Shape": {"dim": (2, "repeated Dim"), "unknown_rank": (3, "bool")},
        "Dim": {"size": (1, "int64")},
    },
)["MetaGraph"]
