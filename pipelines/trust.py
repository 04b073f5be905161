"""A SavedModel is a program, and this says whether it can be run without trusting whoever made it.

Every operation of its graph, and of the functions in its library whether called or not, is read from the file before
anything is loaded or run, and held against ``operations.PURE``. What is not listed there is refused by name. A graph
that hides in a constant needs no search: the operations that would run it, such as DatasetFromGraph, are not listed.

Saving and restoring variables are two functions of every SavedModel. They may touch files, if nothing but the loader
can call them and the loader alone says which file.
"""

import os
from collections.abc import Iterator
from typing import Any

from . import contract, storage
from .errors import PipelineError
from .operations import PURE

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_SAVES = {"SaveV2", "MergeV2Checkpoints", "ShardedFilename"}
_RESTORES = {"RestoreV2"}
_OTHER_FORM = "saved_model.cpb"  # which a loader would take in place of saved_model.pb
_NAMED = 5  # operations in one message


def check(folder: str) -> None:
    """Refuse a SavedModel that may reach outside of itself.

    Raises:
        PipelineError: It holds operations that are not listed, or cannot be read.

    Example:
        >>> module = tf.Module()
        >>> module.read = tf.function(tf.io.read_file, input_signature=[tf.TensorSpec([], tf.string)])
        >>> tf.saved_model.save(module, "stranger")
        >>> try:
        ...     check("stranger")
        ... except PipelineError as error:
        ...     "ReadFile" in str(error)
        True
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = os.path.join(folder, contract.SAVED_MODEL)
    if storage.exists(os.path.join(folder, _OTHER_FORM)):
        raise PipelineError(f"{folder} holds {_OTHER_FORM} beside {contract.SAVED_MODEL}: it is not known which is run")
    try:
        model = saved_model_pb2.SavedModel.FromString(storage.read(path))
    except DecodeError as error:
        raise PipelineError(f"{path} cannot be loaded: {error}") from error
    found = [refusal for meta_graph in model.meta_graphs for refusal in refusals(meta_graph)]
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise PipelineError(
            f"{folder} may reach outside of the model: {'; '.join(found[:_NAMED])}{more}. It was not loaded: if you "
            "trust whoever made it with your files, say --trust-model"
        )


def refusals(meta_graph: Any) -> list[str]:
    """What a MetaGraphDef holds beyond pure operations, a text each; nothing for every model that tfvae exports."""
    from tensorflow.python.framework import op_def_registry

    library = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    savers = _savers(meta_graph, library)
    found = [f"the function {name} takes an operation's name" for name in library if op_def_registry.get(name)]
    bodies: list[tuple[str, Any, set[str]]] = [("the graph", meta_graph.graph_def.node, set())]
    bodies += [(name, function.node_def, savers.get(name, set())) for name, function in library.items()]
    for where, nodes, more in bodies:
        for node in nodes:
            if node.op not in PURE and node.op not in library and node.op not in more:
                found.append(f"{node.op} (in {where})")
            found += [f"{node.op} (in {where}) {problem}" for problem in _problems(node, library)]
    return list(dict.fromkeys(found))


def _problems(node: Any, library: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a node beside its operation."""
    for function in _functions(node.attr):
        if function not in library:
            yield f"calls {function}, which the model does not hold"
    for value in node.attr.values():
        for tensor in [value.tensor, *value.list.tensor]:
            if tensor.variant_val or tensor.resource_handle_val:
                yield "holds an object, not numbers or text"


def _functions(attributes: Any) -> Iterator[str]:
    """Names of functions in attributes, those in the attributes of a function too."""
    for value in attributes.values():
        for function in [*([value.func] if value.HasField("func") else []), *value.list.func]:
            yield function.name
            yield from _functions(function.attr)


def _savers(meta_graph: Any, library: dict[str, Any]) -> dict[str, set[str]]:
    """The functions that may save or restore, with what each may use beside pure operations.

    Such a function is called once, by the node that the loader is told of; nothing uses that node or is called by it
    with another path than the loader's; and what it restores is read from that path alone.
    """
    saver, nodes = meta_graph.saver_def, {node.name: node for node in meta_graph.graph_def.node}
    path = _node(saver.filename_tensor_name)
    own = {_node(saver.save_tensor_name): _SAVES, _node(saver.restore_op_name): _RESTORES}
    if path not in nodes or nodes[path].op != "Placeholder":
        return {}
    ends = [info.name for one in meta_graph.signature_def.values() for side in (one.inputs, one.outputs)
            for info in side.values()]  # fmt: skip
    used = {_node(end) for end in ends} | {_node(source) for node in nodes.values() if node.name not in own
                                           for source in node.input}  # fmt: skip
    if used & {path, *own}:
        return {}
    bodies = [meta_graph.graph_def.node, *(function.node_def for function in library.values())]
    called = [name for body in bodies for node in body for name in (node.op, *_functions(node.attr))]
    called += list(meta_graph.object_graph_def.concrete_functions)
    savers = {}
    for name, more in own.items():
        node = nodes.get(name)
        if node is None or node.op not in _CALLS or not node.input or node.input[0].partition(":")[0] != path:
            continue
        function = node.attr["f"].func.name
        if called.count(function) == 1 and function in library and _reads_its_path_alone(library[function]):
            savers[function] = more
    return savers


def _reads_its_path_alone(function: Any) -> bool:
    """Whether every RestoreV2 takes the function's first argument as its path."""
    first = next((argument.name for argument in function.signature.input_arg), None)
    return all(node.input[0] == first for node in function.node_def if node.op == "RestoreV2")


def _node(tensor: str) -> str:
    """The node of a tensor: ``name:0``, or of a control dependency: ``^name``."""
    return tensor.removeprefix("^").partition(":")[0]
