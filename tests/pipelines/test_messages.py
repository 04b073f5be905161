"""The declared messages are TensorFlow's and its server's, byte for byte, and clash with neither in one process."""

import subprocess
import sys

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

from pipelines.messages import Example, MetaGraph, PackedExample, PredictionLog


def test_an_example_of_every_kind():
    theirs = tf.train.Example()
    feature = theirs.features.feature
    feature["a"].bytes_list.value.extend([b"", b"\xff" * 300])
    feature["b"].float_list.value.extend([1.5, -0.0, float("inf")])
    feature["c"].int64_list.value.extend([0, -1, 1 << 62])
    feature["d"].CopyFrom(tf.train.Feature())
    data = theirs.SerializeToString(deterministic=True)
    ours = Example.FromString(data)
    a, b, c, d = ours.features.feature
    assert ours.SerializeToString(deterministic=True) == data
    assert list(a.value.one_bytes.value) == [b"", b"\xff" * 300]
    assert list(b.value.one_floats.value) == [1.5, 0.0, float("inf")]
    assert list(c.value.one_integers.value) == [0, -1, 1 << 62]
    assert d.value.WhichOneof("kind") is None
    [run] = PackedExample.FromString(data).features.feature[1].value.one_floats.value
    assert run == np.float32([1.5, -0.0, np.inf]).tobytes()


def test_a_prediction_log_and_what_names_a_version():
    theirs = prediction_log_pb2.PredictionLog()
    request = theirs.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "model", "embed"
    tensor = tf.make_tensor_proto(np.float32([[1, 2]]))
    request.inputs["x"].CopyFrom(tensor)
    data = theirs.SerializeToString(deterministic=True)
    ours = PredictionLog.FromString(data)
    assert ours.SerializeToString(deterministic=True) == data
    [entry] = ours.predict_log.request.inputs
    assert (entry.key, entry.value) == ("x", tensor.SerializeToString())
    assert ours.predict_log.request.model_spec.WhichOneof("kind") is None
    request.model_spec.version.SetInParent()  # though it holds nothing
    named = PredictionLog.FromString(theirs.SerializeToString()).predict_log.request.model_spec
    assert named.WhichOneof("kind") == "one_version"
    request.model_spec.version_label = ""
    named = PredictionLog.FromString(theirs.SerializeToString()).predict_log.request.model_spec
    assert named.WhichOneof("kind") == "one_label"


def test_the_signatures_of_a_meta_graph():
    theirs = meta_graph_pb2.MetaGraphDef()
    info = theirs.signature_def["embed"].inputs["x"]
    info.name, info.dtype = "x:0", 1
    for size in (-1, 28):
        info.tensor_shape.dim.add(size=size)
    theirs.signature_def["embed"].outputs["y"].tensor_shape.unknown_rank = True
    [signature] = MetaGraph.FromString(theirs.SerializeToString()).signature_def
    [x], [y] = signature.value.inputs, signature.value.outputs
    assert (signature.key, x.key, x.value.name, x.value.dtype) == ("embed", "x", "x:0", 1)
    assert [dim.size for dim in x.value.tensor_shape.dim] == [-1, 28] and y.value.tensor_shape.unknown_rank


def test_they_come_without_tensorflow():
    code = "import sys, tfvae.pipelines.messages, tfvae.pipelines.formats.tfrecords; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
