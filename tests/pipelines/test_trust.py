"""Models of strangers: what reaches outside is refused by name before it is run, and what we export is not."""

import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from pipelines import embed, operations, trust
from pipelines.embedding.saved_models import find_model, load
from pipelines.errors import PipelineError

MADE_BEFORE = pathlib.Path(__file__).parents[1] / "made_by_0_1" / "saved_model" / "1"
X = tf.TensorSpec([None, 2], tf.float32, "x")


def save(folder: pathlib.Path, evil: Callable[[], object], module: tf.Module | None = None) -> str:
    """A SavedModel of the contract's form that runs ``evil`` beside each answer; its version's folder."""
    module = module or tf.Module()
    module.kernel = tf.Variable(np.ones([2, 3], np.float32))

    def body(x: tf.Tensor) -> dict[str, tf.Tensor]:
        made = evil()
        with tf.control_dependencies(
            [one for one in (made if isinstance(made, tuple) else (made,)) if one is not None]
        ):
            z = x @ module.kernel
        return {"embedding": z, "embedding_stddev": tf.ones_like(z)}

    function = tf.function(body, input_signature=[X], autograph=False).get_concrete_function()
    tf.saved_model.save(module, str(folder / "1"), {"serving_default": function, "embed": function})
    return str(folder / "1")


def in_a_loop(op: Callable[[], object]) -> Callable[[], tf.Tensor]:
    def step(i: tf.Tensor) -> tuple[tf.Tensor]:
        with tf.control_dependencies([op()]):
            return (i + 1,)

    return lambda: tf.while_loop(lambda i: i < 1, step, [tf.constant(0)])[0]


def hidden_graph() -> tf.Tensor:
    """A dataset that reads a file, serialised into a constant."""
    with tf.init_scope():
        dataset = tf.data.TextLineDataset("/etc/hostname")
        graph = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor).numpy()
    variant = tf.raw_ops.DatasetFromGraph(graph_def=tf.constant(graph))
    return tf.raw_ops.DatasetCardinality(input_dataset=variant)


def summary() -> tf.Tensor:
    writer = tf.raw_ops.SummaryWriter(shared_name="w", container="")
    return tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir="touched", max_queue=1, flush_millis=1, filename_suffix="x"
    )


def table_of_a_file() -> tf.Tensor:
    table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    return tf.raw_ops.InitializeTableFromTextFileV2(
        table_handle=table, filename="/etc/hostname", key_index=-2, value_index=-1
    )


def csv() -> tf.Tensor:
    dataset = tf.data.experimental.CsvDataset("/etc/hostname", [tf.string])
    return tf.raw_ops.DatasetCardinality(input_dataset=dataset._variant_tensor)


EVIL: dict[str, Callable[[], object]] = {
    "PrintV2": lambda: tf.print("written", output_stream="file://touched"),
    "WriteFile": lambda: tf.io.write_file("touched", "written"),
    "ReadFile": lambda: tf.io.read_file("/etc/hostname"),
    "MatchingFiles": lambda: tf.io.matching_files("/etc/*"),
    "SaveV2": lambda: tf.raw_ops.SaveV2(
        prefix="touched", tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
    ),
    "RestoreV2": lambda: tf.raw_ops.RestoreV2(
        prefix="elsewhere", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0],
    "Save": lambda: tf.raw_ops.Save(filename="touched", tensor_names=["a"], data=[tf.constant(1.0)]),
    "MergeV2Checkpoints": lambda: tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=["a"], destination_prefix="touched", delete_old_dirs=True
    ),
    "CreateSummaryFileWriter": summary,
    "InitializeTableFromTextFileV2": table_of_a_file,
    "CSVDatasetV2": csv,
    "DatasetFromGraph": hidden_graph,
    "EagerPyFunc": lambda: tf.py_function(lambda: 1.0, [], tf.float32),
    "PyFunc": lambda: tf.numpy_function(lambda: np.float32(1), [], tf.float32),
    "ImmutableConst": lambda: tf.raw_ops.ImmutableConst(
        dtype=tf.float32, shape=[1], memory_region_name="/etc/hostname"
    ),
    "Abort": lambda: tf.raw_ops.Abort(error_msg="gone", exit_without_error=True),
    "TFRecordReaderV2": lambda: tf.raw_ops.TFRecordReaderV2(),
    "WholeFileReaderV2": lambda: tf.raw_ops.WholeFileReaderV2(),
    "ReaderReadUpToV2": lambda: tf.raw_ops.ReaderReadUpToV2(
        reader_handle=tf.raw_ops.TextLineReaderV2(),
        queue_handle=tf.raw_ops.FIFOQueueV2(component_types=[tf.string]),
        num_records=1,
    ).keys,
    "WriteAudioSummary": lambda: tf.raw_ops.WriteAudioSummary(
        writer=tf.raw_ops.SummaryWriter(), step=tf.constant(0, tf.int64), tag="a", tensor=tf.zeros([1, 1]),
        sample_rate=1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_an_operation_that_reaches_outside_is_refused_by_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "m", EVIL[name])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PipelineError, match=rf"{name} \(in .*--trust-model"):
        load(find_model(path))
    assert sorted(tmp_path.rglob("*")) == before and name not in operations.PURE


def test_it_is_found_in_a_function_of_a_function(tmp_path):
    nested = in_a_loop(in_a_loop(EVIL["WriteFile"]))
    path = save(tmp_path / "m", nested)
    with pytest.raises(PipelineError, match="WriteFile"):
        trust.check(path)
    uncalled = tf.Module()  # loading may run functions that no signature calls
    uncalled.extra = tf.function(EVIL["ReadFile"], input_signature=[])
    path = save(tmp_path / "n", lambda: None, uncalled)
    with pytest.raises(PipelineError, match="ReadFile"):
        trust.check(path)


def test_embed_runs_nothing_of_it_unless_told_to(tmp_path):
    target = tmp_path / "touched"
    save(tmp_path / "m", lambda: tf.io.write_file(str(target), "written"))
    target.unlink(missing_ok=True)  # tracing writes nothing, but saving may
    rows = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"key": ["a"], "x": rows}), tmp_path / "rows.parquet")
    with pytest.raises(PipelineError, match="WriteFile"):
        embed.run(str(tmp_path / "m"), str(tmp_path / "rows.parquet"), str(tmp_path / "out"))
    assert not target.exists()
    done = embed.run(str(tmp_path / "m"), str(tmp_path / "rows.parquet"), str(tmp_path / "out"), trust_model=True)
    assert sum(done.rows.values()) == 1 and target.exists()


def changed(path: str, change: Callable[[saved_model_pb2.SavedModel], None]) -> list[str]:
    """What is refused of a model whose file was edited."""
    model = saved_model_pb2.SavedModel.FromString(pathlib.Path(path, "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    return trust.refusals(model.meta_graphs[0])


def saver(graph: saved_model_pb2.SavedModel, operation: str):
    (function,) = (f for f in graph.graph_def.library.function if any(n.op == operation for n in f.node_def))
    return function


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("plain"), lambda: None)


def test_an_ordinary_model_and_one_of_0_1_pass(plain):
    trust.check(plain)
    trust.check(str(MADE_BEFORE))


def test_a_saver_that_something_else_can_call_is_refused(plain):
    def signature_takes_the_path(graph):
        graph.signature_def["embed"].inputs["x"].name = graph.saver_def.filename_tensor_name

    def answer_waits_for_saving(graph):
        call = graph.signature_def["embed"].outputs["embedding"].name.partition(":")[0]
        node = next(node for node in graph.graph_def.node if node.name == call)
        node.input.append("^" + graph.saver_def.save_tensor_name.partition(":")[0])

    def second_call(graph):
        node = graph.graph_def.node.add(name="again", op="StatefulPartitionedCall")
        node.attr["f"].func.name = saver(graph, "SaveV2").signature.name

    def called_on_loading(graph):
        graph.object_graph_def.concrete_functions[saver(graph, "SaveV2").signature.name].bound_inputs.append(0)

    def path_of_its_own(graph):
        node = next(node for node in graph.graph_def.node if node.name == "saver_filename")
        node.op = "Const"

    for change in (signature_takes_the_path, answer_waits_for_saving, second_call, called_on_loading, path_of_its_own):
        assert any("SaveV2" in refusal for refusal in changed(plain, change)), change.__name__


def test_a_restore_from_another_file_is_refused(plain):
    def elsewhere(graph):
        function = saver(graph, "RestoreV2")
        node = next(node for node in function.node_def if node.op == "RestoreV2")
        node.input[0] = "another:output:0"
        function.node_def.add(name="another", op="Const")

    assert [refusal.split(" ")[0] for refusal in changed(plain, elsewhere)] == ["RestoreV2"]


def test_a_name_an_object_and_an_unknown_call_do_not_hide_an_operation(plain):
    def named_as_an_operation(graph):
        graph.graph_def.library.function.add().signature.name = "WriteFile"
        graph.graph_def.node.add(name="w", op="WriteFile")

    def object_in_a_constant(graph):
        node = graph.graph_def.node.add(name="c", op="Const")
        node.attr["value"].tensor.dtype = 21
        node.attr["value"].tensor.variant_val.add(type_name="tensorflow::DatasetVariantWrapper")

    def call_by_attribute(graph):
        node = graph.graph_def.node.add(name="p", op="PartitionedCall")
        node.attr["f"].func.attr["inner"].func.name = "ReadFile"
        node.attr["f"].func.name = graph.graph_def.library.function[0].signature.name

    for change, words in (
        (named_as_an_operation, "takes an operation's name"),
        (object_in_a_constant, "holds an object"),
        (call_by_attribute, "calls ReadFile"),
    ):
        assert any(words in refusal for refusal in changed(plain, change)), change.__name__


def test_a_second_form_of_the_file_is_refused(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "1")
    (tmp_path / "1" / "saved_model.cpb").write_bytes(b"")
    with pytest.raises(PipelineError, match="not known which is run"):
        trust.check(str(tmp_path / "1"))


def test_what_is_listed_is_an_operation_and_touches_no_file():
    assert [name for name in operations.PURE if op_def_registry.get(name) is None] == []
    words = "File Reader Dataset Iterator PyFunc Summary Save Restore Checkpoint Print Rpc Remote Send Recv Collective "
    words += "Xla Tpu Proto ParseTensor Abort Dump Debug"
    assert [name for name in operations.PURE for word in words.split() if word in name] == []
