"""A SavedModel as a file, read without running any of it: its signatures, and what they reach in the graph.

A SavedModel is a program, so what is to be judged is first read as data: sizes are looked at before memory is taken,
and nothing is loaded or traced.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from tfvae.checks import wire
from tfvae.pipelines import contract

LARGEST_GRAPH = 512 << 20  # bytes of saved_model.pb; its weights lie in variables/


@dataclasses.dataclass(frozen=True)
class Reached:
    """What some nodes of the graph need: operations with the attributes they were given, and variables."""

    nodes: tuple[Any, ...]
    variables: frozenset[str]


@dataclasses.dataclass(frozen=True)
class SavedGraph:
    """The one meta graph of a SavedModel.

    Attributes:
        folder: Where it lies.
        meta_graph: A ``MetaGraphDef``.
        signatures: By name, as the C++ session has them.
    """

    folder: pathlib.Path
    meta_graph: Any
    signatures: dict[str, wire.SignatureDef]

    @functools.cached_property
    def _nodes(self) -> dict[str, Any]:
        return {node.name: node for node in self.meta_graph.graph_def.node}

    @functools.cached_property
    def functions(self) -> dict[str, Any]:
        """The functions in the graph's library, by name."""
        return {function.signature.name: function for function in self.meta_graph.graph_def.library.function}

    @functools.cached_property
    def nodes(self) -> list[Any]:
        """Every node of the graph and of its functions, reached or not: loading runs more than the signatures."""
        bodies = (function.node_def for function in self.functions.values())
        return [*self._nodes.values(), *itertools.chain.from_iterable(bodies)]

    def reached(self, names: Iterable[str]) -> Reached:
        """Everything that computing the named nodes may run, the bodies of called functions too."""
        nodes: list[Any] = []
        waiting, seen, called = [_node_name(name) for name in names], set(), set()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self._nodes:
                continue
            seen.add(name)
            nodes.append(self._nodes[name])
            waiting.extend(_node_name(source) for source in self._nodes[name].input)
        bodies = list(nodes)
        while bodies:
            for function in _called(bodies.pop()):
                if function in self.functions and function not in called:
                    called.add(function)
                    bodies.extend(self.functions[function].node_def)
                    nodes.extend(self.functions[function].node_def)
        return Reached(tuple(nodes), frozenset(node.name for node in nodes if node.op == "VarHandleOp"))

    @functools.cached_property
    def served(self) -> Reached:
        """What the signatures reach."""
        return self.reached(info.tensor for one in self.signatures.values() for info in one.outputs.values())

    @functools.cached_property
    def restored(self) -> frozenset[str]:
        """The variables that the loader fills from the checkpoint."""
        return self.reached([self.meta_graph.saver_def.restore_op_name]).variables

    def variable_bytes(self, names: Iterable[str]) -> int:
        """Bytes that the values of those variables take, by their declared shapes and dtypes."""
        attributes = (self._nodes[name].attr for name in names)
        return sum(
            tf.DType(attr["dtype"].type).size * math.prod(max(0, dim.size) for dim in attr["shape"].shape.dim)
            for attr in attributes
        )


def read(folder: pathlib.Path) -> SavedGraph:
    """The graph of the SavedModel in a folder.

    Raises:
        ValueError: If there is none, if it is too large or damaged, or has not one meta graph with the tag ``serve``.

    Example:
        >>> module = tf.Module()
        >>> module.twice = tf.function(lambda x: {"y": 2.0 * x}, input_signature=[tf.TensorSpec([None], name="x")])
        >>> tf.saved_model.save(module, "twice/1", {"serving_default": module.twice})
        >>> graph = read(pathlib.Path("twice/1"))
        >>> graph.signatures["serving_default"].inputs["x"].shape, "Mul" in {node.op for node in graph.served.nodes}
        ((None,), True)
    """
    path = folder / contract.SAVED_MODEL
    if not path.exists():
        raise ValueError(f"{folder} holds no SavedModel: it has no {contract.SAVED_MODEL}.")
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_GRAPH:
        raise ValueError(f"{path} is no plain file of at most {LARGEST_GRAPH} bytes.")
    try:
        meta_graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except DecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if len(meta_graphs) != 1 or list(meta_graphs[0].meta_info_def.tags) != [contract.TAG]:
        tags = [list(one.meta_info_def.tags) for one in meta_graphs]
        raise ValueError(
            f"{path} has meta graphs with the tags {tags}, expected one with the tag {contract.TAG} alone."
        )
    return SavedGraph(folder, meta_graphs[0], wire.parse_signatures(meta_graphs[0].SerializeToString()))


def _node_name(source: str) -> str:
    """The node of an input: ``name``, ``name:1`` or, as a control dependency, ``^name``."""
    return source.removeprefix("^").partition(":")[0]


def _called(node: Any) -> Iterator[str]:
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func.name
        yield from (function.name for function in attribute.list.func)
    yield node.op  # a function may be called by its name
