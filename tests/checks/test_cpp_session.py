"""The C++ session against Python's: the same outputs, the server's errors, and XLA off."""

import itertools
import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfvae.checks.cpp_session import CSession, find_library
from tfvae.checks.process import run_in_subprocess
from tfvae.checks.wire import CSessionError, SignatureDef, TensorInfo, parse_signatures

FREE, SIDE, WIDTH = None, 4, 3
FLOATS = tf.TensorSpec([FREE, SIDE], tf.float32, name="x")
STRINGS = tf.TensorSpec([FREE], tf.string, name="image_bytes")
BATCHES = (1, 3, 8)


class Model(tf.Module):
    """Raw variables and one signature per kind of tensor."""

    def __init__(self) -> None:
        super().__init__()
        kernel = np.random.default_rng(0).normal(size=(SIDE, WIDTH))
        self.kernel = tf.Variable(kernel, dtype=tf.float32)

    @tf.function(input_signature=[FLOATS])
    def floats(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"product": x @ self.kernel, "total": tf.reduce_sum(x)}

    @tf.function(input_signature=[FLOATS], jit_compile=True)
    def compiled(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"product": x @ self.kernel}

    @tf.function(input_signature=[tf.TensorSpec([FREE, FREE], tf.uint8, name="x")])
    def integers(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"doubled": tf.cast(x, tf.int32) * 2, "inverted": 255 - x, "size": tf.size(x, tf.int64)}

    @tf.function(input_signature=[STRINGS])
    def images(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(lambda png: tf.io.decode_png(png, 1), image_bytes, fn_output_signature=tf.uint8)
        return {"pixels": tf.ensure_shape(pixels, [FREE, SIDE, SIDE, 1])}

    @tf.function(input_signature=[STRINGS])
    def strings(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "same_bytes": tf.identity(image_bytes),
            "marked_bytes": tf.strings.join([image_bytes, "\0mark"]),
            "lengths": tf.strings.length(image_bytes),
        }

    @tf.function(input_signature=[FLOATS])
    def checked(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x)[1], SIDE, "x is not [B, 4]")]):
            return {"product": x @ self.kernel}


SIGNATURES = ("floats", "compiled", "integers", "images", "strings", "checked")


def text(*values: bytes) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def inputs(signature: str, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    match signature:
        case "integers":
            return {"x": rng.integers(0, 256, (batch, 5), np.uint8)}
        case "images":
            images = rng.integers(0, 256, (batch, SIDE, SIDE, 1), np.uint8)
            return {"image_bytes": text(*(tf.io.encode_png(image).numpy() for image in images))}
        case "strings":  # short ones lie inside the tensor, long ones outside; zeros must not end them
            return {"image_bytes": text(*(bytes([i, 0]) * (7**i % 1000) for i in range(batch)))}
    return {"x": rng.normal(size=(batch, SIDE)).astype(np.float32)}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def model_dir(model: Model, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("saved_model")
    tf.saved_model.save(model, str(path), signatures={name: getattr(model, name) for name in SIGNATURES})
    return path


def assert_equal_tensors(got: Any, expected: dict[str, tf.Tensor]) -> None:
    assert isinstance(got, dict), got
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        array = np.asarray(tensor.numpy())
        assert got[name].dtype == (object if tensor.dtype == tf.string else array.dtype)
        assert got[name].shape == tensor.shape
        if array.dtype == np.float32:
            np.testing.assert_allclose(got[name], array, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize("threads", [1, 8])
def test_equals_python(model: Model, model_dir: pathlib.Path, threads: int) -> None:
    names = [name for name in SIGNATURES if name != "compiled"]
    # Several threads run each request often enough to overlap.
    requests = [(name, inputs(name, b)) for name, b in itertools.product(names, BATCHES)] * (5 * threads - 4)
    answers = run_in_subprocess(model_dir, requests, threads=threads)
    assert len(answers) == len(requests)
    for (name, given), answer in zip(requests, answers, strict=True):
        assert_equal_tensors(answer, getattr(model, name)(*map(tf.constant, given.values())))


def test_errors_come_through(model: Model, model_dir: pathlib.Path) -> None:
    x = inputs("floats", 3)["x"]
    cases = [
        ("checked", {"x": x[:, :2]}, "INVALID_ARGUMENT", "x is not [B, 4]"),
        ("floats", {"x": x[:, :2]}, "INVALID_ARGUMENT", "Matrix size-incompatible"),
        ("floats", {"x": x.astype(np.float64)}, "INVALID_ARGUMENT", "to be float but double is provided"),
        ("floats", {"x": x > 0}, "INVALID_ARGUMENT", "to be float but bool is provided"),
        ("floats", {"x": x.astype(np.longdouble)}, "UNIMPLEMENTED", "no tensor is made of"),
        ("floats", {"y": x}, "INVALID_ARGUMENT", "['y'] given for ['x']"),
        ("images", {"image_bytes": text(b"no image")}, "INVALID_ARGUMENT", "Unknown image"),
        ("absent", {"x": x}, "FAILED_PRECONDITION", "absent"),
        ("compiled", {"x": x}, "INTERNAL", "XLA compilation disabled"),
    ]
    *errors, last = run_in_subprocess(model_dir, [case[:2] for case in cases] + [("floats", {"x": x})])
    for (*_, code, message), error in zip(cases, errors, strict=True):
        assert isinstance(error, CSessionError), error
        assert error.code == code
        assert message in error.message
    assert_equal_tensors(last, model.floats(x))  # and the session lives on


def test_only_the_switch_stops_xla(model: Model, model_dir: pathlib.Path) -> None:
    given = inputs("compiled", 3)
    (answer,) = run_in_subprocess(model_dir, [("compiled", given)], xla=True)
    assert_equal_tensors(answer, model.compiled(given["x"]))


def test_a_model_that_does_not_load(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CSessionError, match="NOT_FOUND: Could not find SavedModel"):
        run_in_subprocess(tmp_path, [])


def test_reads_signatures(model_dir: pathlib.Path) -> None:
    (meta_graph,) = saved_model_pb2.SavedModel.FromString((model_dir / "saved_model.pb").read_bytes()).meta_graphs
    signatures = parse_signatures(meta_graph.SerializeToString())
    assert signatures.keys() == set(SIGNATURES)
    for name, signature in signatures.items():
        definition = meta_graph.signature_def[name]
        for side, expected in zip(signature, (definition.inputs, definition.outputs), strict=True):
            assert {key: info.tensor for key, info in side.items()} == {k: v.name for k, v in expected.items()}
    named = SignatureDef(*({k: v._replace(tensor="") for k, v in side.items()} for side in signatures["integers"]))
    assert named == SignatureDef(
        inputs={"x": TensorInfo("", "uint8", (None, None))},
        outputs={
            "doubled": TensorInfo("", "int32", (None, None)),
            "inverted": TensorInfo("", "uint8", (None, None)),
            "size": TensorInfo("", "int64", ()),
        },
    )
    assert signatures["images"].inputs["image_bytes"][1:] == ("string", (None,))


def test_refuses_a_process_with_python_tensorflow(model_dir: pathlib.Path) -> None:
    with pytest.raises(RuntimeError, match="without Python TensorFlow"):
        CSession(model_dir)


@pytest.mark.parametrize("name", ["libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib"])
def test_the_library_is_found_under_the_name_of_linux_and_of_macos(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="no C\\+\\+ library of TensorFlow"):
        find_library(tmp_path)
    (tmp_path / name).touch()
    assert find_library(tmp_path) == find_library(tmp_path / name) == tmp_path / name
