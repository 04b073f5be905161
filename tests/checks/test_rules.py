"""Each rule of check-export, on a SavedModel that breaks it and on one that keeps them all."""

import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

import tfvae
from tests.exporting.test_saved_model import image_model
from tfvae.checks import graph as graphs
from tfvae.checks import rules

WIDTH = 10_000  # so that the file's own few hundred bytes are little beside the weights
X = tf.TensorSpec([None, 4], tf.float32, "x")
WARMUP = "assets.extra/tf_serving_warmup_requests"


class Linear(tf.Module):
    """A model that keeps every rule: one weight, one signature."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=[4, WIDTH]).astype(np.float32))


def record(signature: str = "serving_default", version: int | None = None, **inputs: Any) -> bytes:
    """By the server's own protos, not by ours."""
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "m", signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log.SerializeToString()


def write_warmup(folder: pathlib.Path, *records: bytes) -> None:
    (folder / "assets.extra").mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        for one in records:
            writer.write(one)


def save(folder: pathlib.Path, function: Callable, spec: tf.TensorSpec = X, module: Any = None, **options: Any) -> Any:
    module = module or Linear()
    traced = tf.function(lambda x: function(module, x), input_signature=[spec], autograph=False, **options)
    path = folder / "1"
    tf.saved_model.save(module, str(path), signatures={"serving_default": traced.get_concrete_function()})
    shape = [2, *(size or 1 for size in spec.shape[1:])]
    write_warmup(path, record(x=np.zeros(shape, spec.dtype.as_numpy_dtype) if spec.dtype != tf.string else [b"a"]))
    return path


def product(module: Any, x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": x @ module.kernel}


def failed(path: pathlib.Path) -> dict[str, str]:
    return {check.name: check.detail for check in rules.check_export(path) if check.passed is False}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_our_own_exports_keep_every_rule(tmp_path, kind):
    tfvae.export(image_model(kind), tmp_path / "m")
    checks = rules.check_export(tmp_path / "m")
    assert len(checks) == 12 and all(check.passed for check in checks), [c for c in checks if not c.passed]


def test_a_plain_model_keeps_every_rule(tmp_path):
    assert failed(save(tmp_path, product)) == {}


def test_a_folder_that_the_runtime_does_not_find_is_told(good, tmp_path):
    where = tmp_path / "run [1]"
    where.mkdir()
    shutil.copytree(good, where / "1")
    tfvae.export(image_model("mlp"), where / "m")
    found = failed(where / "1")
    assert {"layout", "C++ equals Python"} <= set(found) and "serve a copy of it from a folder" in found["layout"]


def counting(module: Any, x: tf.Tensor) -> dict[str, tf.Tensor]:
    with tf.control_dependencies([module.count.assign_add(1.0)]):
        return {"y": x @ module.kernel + 0 * module.count}


def stateful_generator(module: Any, x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": x @ module.kernel + 0 * module.generator.normal([])}


def with_attribute(name: str, value: Callable[[], Any]) -> Callable[[], Linear]:
    def build() -> Linear:
        module = Linear()
        setattr(module, name, value())
        return module

    return build


def slots() -> list[tf.Variable]:
    optimizer = keras.optimizers.Adam()
    optimizer.build([keras.Variable(np.ones([4, WIDTH], np.float32))])
    return [variable.value for variable in optimizer.variables]


STRINGS = tf.TensorSpec([None], tf.string, "x")
RUNS = {"warm-up", "C++ equals Python"}
BROKEN: dict[str, tuple[set[str], str, dict[str, Any]]] = {
    "jit_compile": ({"no XLA", *RUNS}, "compiled by XLA", {"function": product, "jit_compile": True}),
    "tf.random.normal": (
        {"no state", "C++ equals Python", "independent rows"},
        "RandomStandardNormal draws by itself",
        {"function": lambda m, x: {"y": x @ m.kernel + tf.random.normal([])}},
    ),
    "a seeded draw in a loop": (
        {"no state"},
        "RandomUniform draws by itself",
        {"function": lambda m, x: {
            "y": tf.while_loop(
                lambda i, _: i < 1, lambda i, y: (i + 1, y + 0 * tf.random.uniform([], seed=1)), [0, x @ m.kernel],
            )[1]
        }},
    ),
    "a generator": (
        {"no state"},
        "RngReadAndSkip draws by itself",
        {"function": stateful_generator,
         "module": with_attribute("generator", lambda: tf.random.Generator.from_seed(1))},
    ),
    "a counter": (
        {"no state"},
        "AssignAddVariableOp writes a variable",
        {"function": counting, "module": with_attribute("count", lambda: tf.Variable(0.0))},
    ),
    "py_function": (
        {"self-contained"},
        "EagerPyFunc (in ",
        {"function": lambda m, x: {
            "y": tf.ensure_shape(tf.py_function(lambda v: v, [x @ m.kernel], tf.float32), [None, WIDTH])
        }},
    ),
    "no batch axis": ({"batch dimensions"}, "x has shape [4]", {
        "function": lambda m, x: {"y": x[None] @ m.kernel}, "spec": tf.TensorSpec([4], tf.float32, "x")
    }),
    "a fixed batch": ({"batch dimensions"}, "x has shape [2, 4]", {
        "function": product, "spec": tf.TensorSpec([2, 4], tf.float32, "x")
    }),
    "a total": ({"batch dimensions"}, "y has shape []", {"function": lambda m, x: {"y": tf.reduce_sum(x @ m.kernel)}}),
    "a free rank": ({"batch dimensions"}, "y has shape None", {
        "function": lambda m, x: {"y": tf.raw_ops.PlaceholderWithDefault(input=x @ m.kernel, shape=None)}
    }),
    "float64": ({"dtypes"}, "y is float64", {"function": lambda m, x: {"y": tf.cast(x @ m.kernel, tf.float64)}}),
    "a string without _bytes": ({"string outputs"}, "the string label must end in _bytes", {
        "function": lambda m, x: {"label": tf.strings.as_string((x @ m.kernel)[:, 0] > 0)}
    }),
    "an optimiser": ({"variables", "size"}, "/learning_rate is stored but no signature reads it", {
        "function": product, "module": with_attribute("slots", slots)
    }),
    "a copy of a weight": ({"variables"}, "hold the same values", {
        "function": lambda m, x: {"y": x @ m.kernel, "z": x @ m.again},
        "module": with_attribute("again", lambda: tf.Variable(Linear().kernel)),
    }),
    "the batch's mean": ({"independent rows"}, "y depends on the other rows", {
        "function": lambda m, x: {"y": x @ m.kernel - tf.reduce_mean(x)}
    }),
    "a row too few": ({"C++ equals Python"}, "expected a row for each row", {
        "function": lambda m, x: {"y": (x @ m.kernel)[:1]}
    }),
    "an unknown string": ({"C++ equals Python", "warm-up"}, "no signature says of what shape", {
        "function": lambda m, x: {"y": tf.io.decode_raw(x, tf.float32) @ m.kernel}, "spec": STRINGS
    }),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_found_and_no_other(tmp_path, case):
    rules, sentence, options = BROKEN[case]
    options = {**options, "module": options["module"]()} if "module" in options else options
    found = failed(save(tmp_path, **options))
    assert set(found) == rules, found
    assert sentence in "; ".join(found.values())


def test_a_model_that_reaches_outside_is_not_run(tmp_path):
    target = tmp_path / "written"
    path = save(tmp_path, lambda m, x: {"y": _with_file(x @ m.kernel, str(target))})
    target.unlink(missing_ok=True)
    checks = {check.name: check for check in rules.check_export(path)}
    assert checks["self-contained"].passed is False and "WriteFile" in checks["self-contained"].detail
    assert {checks[name].result for name in (*RUNS, "independent rows")} == {"not run"}
    assert not target.exists()


def _with_file(y: tf.Tensor, path: str) -> tf.Tensor:
    with tf.control_dependencies([tf.io.write_file(path, "x")]):
        return tf.identity(y)


def keras_model() -> keras.Model:
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(WIDTH)])
    model.compile("adam", "mse")
    model.fit(np.ones([4, 4]), np.ones([4, WIDTH]), verbose=0)
    return model


def test_keras_by_its_own_save_does_not_load_in_cpp(tmp_path):
    model = keras_model()
    found = failed(save(tmp_path, lambda _, x: {"y": model(x)}, module=model))
    assert set(found) == {"variables", "size", *RUNS}
    assert "read but never restored" in found["variables"] and "Could not find variable" in found["warm-up"]


def test_an_export_archive_stores_each_weight_twice(tmp_path):
    archive, model = keras.export.ExportArchive(), keras_model()
    archive.track(model)
    archive.add_endpoint("serving_default", lambda x: {"y": model(x)}, [X])
    archive.write_out(str(tmp_path / "1"), verbose=False)
    write_warmup(tmp_path / "1", record(x=np.zeros([1, 4], np.float32)))
    found = failed(tmp_path / "1")
    assert set(found) == {"variables", "size"}
    assert "stored but no signature reads it" in found["variables"]


@pytest.fixture
def good(tmp_path) -> pathlib.Path:
    return save(tmp_path, product)


def test_layout(good, tmp_path):
    for name in ("latest", "007", "0"):
        shutil.copytree(good, tmp_path / name)
        assert "expected a whole number above 0" in failed(tmp_path / name)["layout"]
    (good / "variables/elsewhere").symlink_to(tmp_path)
    (good / "assets/more").symlink_to(good / "saved_model.pb")
    shutil.rmtree(good / "assets.extra")
    found = failed(good)
    assert set(found) == {"layout", "warm-up"}
    assert all(part in found["layout"] for part in ("variables/elsewhere is no plain", "assets/more", f"{WARMUP} is"))


def test_the_largest_version_of_a_folder_is_taken(good, tmp_path):
    shutil.copytree(good, tmp_path / "10")
    shutil.rmtree(tmp_path / "10/assets.extra")
    assert set(failed(tmp_path)) == {"layout", "warm-up"} and failed(good) == {}


def test_what_is_no_saved_model_is_said_so(good, tmp_path, monkeypatch):
    path = good / "saved_model.pb"
    whole = path.read_bytes()
    model = saved_model_pb2.SavedModel.FromString(whole)
    model.meta_graphs[0].meta_info_def.tags.append("gpu")
    for content, sentence in ((whole[: len(whole) // 2], "damaged"), (model.SerializeToString(), "expected one with")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            rules.check_export(good)
    os.truncate(path, graphs.LARGEST_GRAPH + 1)  # takes no room on the disk, and must take none in memory
    with pytest.raises(ValueError, match="no plain file of at most"):
        rules.check_export(good)
    path.unlink()
    path.symlink_to(__file__)
    with pytest.raises(ValueError, match="no plain file"):
        rules.check_export(good)
    with pytest.raises(ValueError, match="holds no SavedModel"):
        rules.check_export(tmp_path / "absent")


def test_a_checkpoint_shorter_than_it_declares(good):
    (data,) = good.glob("variables/variables.data*")
    os.truncate(data, 1000)
    found = failed(good)
    assert {"variables", *RUNS} <= set(found)
    assert "the checkpoint declares" in found["variables"] and "does not load" in found["warm-up"]


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([record(x=np.zeros([1, 4], np.float32), version=3)], "names a version"),
        ([record(x=np.zeros([1, 5], np.float32))], "fails in the C++ runtime: INVALID_ARGUMENT"),
        ([record("other", x=np.zeros([1, 4], np.float32))], "no record for serving_default"),
        ([record(x=np.zeros([1, 4], np.float32))] * 1001, "more than 1000 records"),
        ([], "no record for serving_default"),
        ([b"no proto"], "cannot be read"),
        ([b"\x32\x7f\x0a"], "cannot be read"),
    ],
)
def test_warm_up_records(good, records, sentence):
    write_warmup(good, *records)
    found = failed(good)
    assert set(found) == {"warm-up"} and sentence in found["warm-up"], found


def test_a_warm_up_tensor_may_not_be_larger_than_it_is(good):
    log = prediction_log_pb2.PredictionLog.FromString(record(x=np.zeros([1, 4], np.float32)))
    tensor = log.predict_log.request.inputs["x"]
    tensor.Clear()
    tensor.dtype = 1
    tensor.float_val.append(0.0)  # one value, to be repeated 2^40 times
    tensor.tensor_shape.dim.add(size=1 << 40)
    write_warmup(good, log.SerializeToString())
    assert "is larger than" in failed(good)["warm-up"]


def test_a_damaged_warm_up_file(good):
    content = (good / WARMUP).read_bytes()
    for damaged in (content[:-1], b"\xff" * 20 + content, bytes(8) + content):
        (good / WARMUP).write_bytes(damaged)
        assert "cannot be read" in failed(good)["warm-up"]
