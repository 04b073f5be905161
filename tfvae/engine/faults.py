"""Where a training turned NaN: the step, of the many that a program runs, and in it the first layer.

A program gives numbers when all its steps are done. So what it starts from is kept, which costs a copy of the weights;
where its loss or its weights come back as no numbers, its steps run again one by one, noise included, and the first bad
one once more in eager mode, layer by layer, with what each gave and what gradient came back to it.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae.engine import batches, course, keras_private, replicas, scope
from tfvae.engine.batches import Group
from tfvae.engine.doors import is_finite
from tfvae.engine.model import UnsupervisedModel

_TOLD = ("call", "parameters")  # methods whose results are shown: a layer's, and those of a layer of distributions
_MEND = (
    "The model has its weights of before that step. Try a smaller learning rate or the optimiser's clipnorm, and look "
    "at that layer."
)

Train = Callable[[Iterator[Any]], dict[str, Any]]


class _Output(NamedTuple):
    name: str
    value: tf.Tensor


def watched(model: Any, train: Train) -> Train:
    """A train function that raises FloatingPointError at the first step that makes the loss or a weight no number.

    The sentence names the step, counted from 1, and the first layer whose output or gradient is not finite. The model
    is left as it was before that step.
    """

    def function(iterator: Iterator[Any]) -> dict[str, Any]:
        group = next(iterator)
        if not isinstance(group, Group):
            group = batches.single(model.checked_element(group))
        before = _state(model)
        logs = train(iter([group]))
        if not _is_finite(model, logs):
            raise FloatingPointError(_told(model, train, group, before))
        return logs

    return function


def _state(model: Any) -> list[tuple[Any, tf.Tensor]]:
    return [(variable, tf.convert_to_tensor(variable.value)) for variable in course.variables(model)]


def _restore(state: list[tuple[Any, tf.Tensor]]) -> None:
    for variable, value in state:
        variable.assign(value)


def _is_finite(model: Any, logs: Mapping[str, Any]) -> bool:
    return bool(np.isfinite(float(logs["loss"]))) and all(is_finite(w.value) for w in model.trainable_variables)


def _told(model: Any, train: Train, group: Group, before: list[tuple[Any, tf.Tensor]]) -> str:
    """The sentence about a group in which something is no number; the model is put back to before that step."""
    _restore(before)
    for k in range(group.done, group.num_steps):
        state, step = _state(model), int(keras_private.steps_taken(model).numpy()) + 1
        if not _is_finite(model, {"loss": 0.0}):
            return f"Before step {step} of the training weights were not finite: {model.weight_without_numbers()}."
        logs = train(iter([_only(group, k)]))
        if not _is_finite(model, logs):
            _restore(state)
            found = _first_layer(model, _only(group, k))
            _restore(state)
            loss = f"the loss is {float(logs['loss']):g}"
            return f"At step {step} of the training {loss}: {found}. {_MEND}"
    return "The loss was not finite, but is when the same steps run again one by one: run fit with run_eagerly=True."


def _only(group: Group, k: int) -> Group:
    """One batch of a group, in the group's own shapes, so that the same program runs it."""
    return Group(group.data, np.roll(group.rows, -k, axis=0), np.roll(group.counts, -k), 1)


def _first_layer(model: Any, group: Group) -> str:
    """What is first not finite in the loss of the group's first batch and its gradient, in words."""
    if type(model).step is not UnsupervisedModel.step:
        return f"a {type(model).__name__} makes steps of its own, in which no layer can be named"
    numbers, count = tf.constant(group.rows[0]), tf.constant(group.counts[0])
    batch = tf.nest.map_structure(lambda leaf: tf.gather(leaf, numbers), group.data)
    rows = replicas.rows_of(batch, numbers, count, count, tf.constant(1.0))
    keras_private.clear_losses(model)
    compiled = scope.as_xla() if model.jit_compile else contextlib.nullcontext()
    with _recorded(model) as outputs, compiled, tf.GradientTape() as tape:
        loss = model.batch_loss(batch.inputs, rows.weights, training=True)
        total = loss.penalty + tf.reduce_sum(loss.rows * rows.weights) / rows.total
    for output in outputs:
        if not is_finite(output.value):
            return f"the output of {output.name} is not finite, the first that is not"
    for name, value in {**loss.report, "penalty": loss.penalty, "loss": loss.rows}.items():
        if name != "elbo" and not is_finite(value):
            return f"{name} is not finite, though the output of every layer is: {_ranges(outputs)}"
    return _first_gradient(model, outputs, tape, total)


def _first_gradient(model: Any, outputs: list[_Output], tape: tf.GradientTape, total: tf.Tensor) -> str:
    weights = model.trainable_variables
    gradients = tape.gradient(total, [output.value for output in outputs] + [w.value for w in weights])
    for output, gradient in reversed(list(zip(outputs, gradients[: len(outputs)], strict=True))):
        if gradient is not None and not is_finite(gradient):
            return f"the gradient that comes back to the output of {output.name} is not finite, the first that is not"
    for weight, gradient in zip(weights, gradients[len(outputs) :], strict=True):
        if gradient is not None and not is_finite(gradient):
            return f"the gradient of the weight {weight.path} is not finite"
    return "run layer by layer, outside of its program, everything in it is finite"


def _ranges(outputs: list[_Output]) -> str:
    """Between what numbers the parameters of the distributions lie."""
    shown = {o.name: f"{o.name} from {tf.reduce_min(o.value):g} to {tf.reduce_max(o.value):g}" for o in outputs}
    return ", ".join(text for name, text in shown.items() if "'s " in name)


@contextlib.contextmanager
def _recorded(model: Any) -> Iterator[list[_Output]]:
    """Within it, what each layer gives is kept in the order in which it comes."""
    outputs: list[_Output] = []
    patched: list[tuple[Any, str]] = []
    for layer, name in _names(model):
        for method in _TOLD:
            if callable(getattr(layer, method, None)):
                object.__setattr__(layer, method, _recording(getattr(layer, method), name, outputs))
                patched.append((layer, method))
    try:
        yield outputs
    finally:
        for layer, method in patched:
            object.__delattr__(layer, method)


def _recording(method: Callable[..., Any], name: str, outputs: list[_Output]) -> Callable[..., Any]:
    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        named = result.items() if isinstance(result, Mapping) else [("", result)]
        for part, values in named:
            label = f"{name}'s {part}" if part else name
            flat = [value for value in tf.nest.flatten(values) if tf.is_tensor(value) and value.dtype.is_floating]
            outputs.extend(_Output(label, value) for value in flat)
        return result

    return recorded


def _names(layer: keras.layers.Layer, name: str = "") -> Iterator[tuple[keras.layers.Layer, str]]:
    """Every layer within, with its name: that of the attribute which holds it, else its own."""
    held = {id(v): k for k, v in vars(layer).items() if isinstance(v, keras.layers.Layer) and not k.startswith("_")}
    for child in keras_private.children(layer):
        path = "/".join(filter(None, [name, held.get(id(child), child.name)]))
        yield child, path
        yield from _names(child, path)
