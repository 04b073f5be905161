"""In the graph that TensorFlow runs, after all of its rewriting, a weight is read before it is updated."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tests.baselines.test_wake_sleep import make_vae
from tfvae import objectives
from tfvae.baselines import WakeSleep
from tfvae.engine.model import gradients_of

pytestmark = pytest.mark.xla

UPDATES = ("AssignVariableOp", "AssignSubVariableOp", "AssignAddVariableOp")


class Graph:
    """The nodes of one graph and what each waits for."""

    def __init__(self, graph):
        self.nodes = {node.name: node for node in graph.node}
        self.inputs = {node.name: [name.lstrip("^").split(":")[0] for name in node.input] for node in graph.node}

    def of(self, *operations: str) -> list[str]:
        return [name for name, node in self.nodes.items() if node.op in operations]

    def variable(self, name: str) -> str:
        """The argument of the program that a read or an update is of."""
        name = self.inputs[name][0]
        while self.nodes[name].op in ("Enter", "Switch", "Merge", "Identity"):
            name = self.inputs[name][0]
        return name

    def before(self, name: str) -> set[str]:
        """What is done before a node in the same turn of the loop."""
        seen, waiting = set(), [name]
        while waiting:
            new = {} if self.nodes[waiting[-1]].op == "Merge" else self.inputs[waiting[-1]]
            waiting.pop()
            waiting += [each for each in new if each not in seen]
            seen.update(new)
        return seen


def program_that_runs(model: keras.Model, x: np.ndarray) -> Graph:
    context.context().enable_graph_collection()
    try:
        model.fit(x, batch_size=3, verbose=0)
        collected = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    graphs = [Graph(each.post_optimization_graph) for each in collected]
    # What was collected may hold another model's program as well; each optimiser has a name of its own.
    (own,) = [graph for graph in graphs if any(f"/{model.optimizer.name}/Assign" in name for name in graph.nodes)]
    return own


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [WakeSleep, lambda vae: vae, "wake phase"])
def test_every_weight_is_read_before_it_is_updated(trainer):
    if trainer == "wake phase":
        model = make_vae(objective=objectives.WakePhase(), num_samples=2)
    else:
        model = trainer(make_vae(num_samples=2))
    model.compile(keras.optimizers.Adam(0.01), 1, jit_compile=False)
    graph = program_that_runs(model, np.random.default_rng(0).uniform(size=[11, 5]).astype(np.float32))
    turn = {name for name in graph.of("ReadVariableOp", *UPDATES) if "while/" in name}
    reads, updates = turn & set(graph.of("ReadVariableOp")), turn & set(graph.of("AssignSubVariableOp"))
    assert len(updates) == len(model.trainable_variables)
    for update in updates:
        earlier, variable = graph.before(update), graph.variable(update)
        of_it = {read for read in reads if graph.variable(read) == variable}
        assert of_it and of_it <= earlier, f"{sorted(of_it - earlier)} may be read after {update}"


def test_gradients_that_are_not_there_stay_away():
    used, idle = keras.Variable(2.0), keras.Variable(3.0)
    with tf.GradientTape() as tape:
        loss = used.value**2
    first, second = gradients_of(loss, [used.value, idle.value], tape)
    assert float(first) == 4.0 and second is None
    with tf.GradientTape() as tape:
        loss = tf.constant(1.0)
    assert gradients_of(loss, [used.value], tape) == [None]
