"""What the engine uses of Keras that Keras does not export, all of it; read in Keras 3.15.

``tests/engine/test_keras_private.py`` asks the installed Keras for each by name, so that a release that changes one
fails there and says which.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.utils import tracking

__all__ = [
    "EVALUATED_BY_FIT",
    "BuiltModel",
    "DataAdapter",
    "adapter",
    "children",
    "clear_losses",
    "given",
    "has_workers",
    "in_own_words",
    "is_first",
    "is_first_worker",
    "is_of_workers",
    "is_writing_h5",
    "layers",
    "loss_tracker",
    "note_raised",
    "report_in_float32",
    "seed_states",
    "steps_taken",
    "strategy",
    "unknown",
]


EVALUATED_BY_FIT = frozenset({"_use_cached_eval_dataset"})  # what ``fit`` alone passes to ``evaluate``


_STANDARDIZE = "_standardize_batch"  # a PyDatasetAdapter's, of what a ``PyDataset`` gives
# The method of an adapter that ``get_tf_dataset`` calls for its batches, in TensorFlow's threads.
_ITERATE = {"PyDatasetAdapter": "_get_iterator", "TorchDataLoaderAdapter": "get_numpy_iterator"}


def in_own_words(call: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's ``call`` whose errors Keras leaves as they are: it would write its own words around each.

    Example:
        >>> in_own_words(int)("7")
        7
    """

    @functools.wraps(call)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            error._keras_call_info_injected = True  # type: ignore[attr-defined]
            raise

    return told


class BuiltModel(keras.Model):
    """A model that its constructor has built: Keras takes no first batch to build it with."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        pass


def adapter(source, steps_per_epoch: int | None, shuffle: bool) -> DataAdapter:
    """Keras's reader of a stream: a ``tf.data.Dataset``, a ``PyDataset``, a generator or a PyTorch DataLoader."""
    return data_adapters.get_data_adapter(source, steps_per_epoch=steps_per_epoch, shuffle=shuffle)


def note_raised(adapter: DataAdapter, noted: Callable[[Callable], Callable], read: Callable[[Any], Any]) -> None:
    """Reads the batches of a ``PyDataset`` or a PyTorch DataLoader through ``noted``.

    A batch of a ``PyDataset`` is ``read`` before Keras looks at it.
    """
    if standardize := getattr(adapter, _STANDARDIZE, None):
        setattr(adapter, _STANDARDIZE, lambda batch: standardize(read(batch)))
    for kind, iterate in _ITERATE.items():
        if type(adapter).__name__ == kind:
            setattr(adapter, iterate, noted(getattr(adapter, iterate)))


def clear_losses(model: keras.Model) -> None:
    """Forget the penalties of the last forward pass."""
    model._clear_losses()


def layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The model and every layer in it."""
    return model._flatten_layers()


def children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers right within a layer."""
    return layer._flatten_layers(include_self=False, recursive=False)


def given(layer: keras.layers.Layer) -> dict[str, Any]:
    """What a layer's constructor was given, defaults among it; nothing where some of it is no plain value."""
    found = getattr(layer, "_auto_config", None)
    return {} if found is None else found.config


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """The metric that Keras reports as ``loss``, there once the model is compiled."""
    return model._loss_tracker


def report_in_float32(model: keras.Model) -> None:
    """Makes the loss a mean in float32, whatever ``keras.config.floatx()`` is, by which Keras makes it."""
    if model._loss_tracker.dtype != "float32":
        with tracking.DotNotTrackScope():  # as in Keras's compile, or a model that is built would refuse it
            model._loss_tracker = keras.metrics.Mean(name="loss", dtype="float32")


def is_writing_h5() -> bool:
    """Whether Keras is writing a whole model to an h5 file, or reading one, as Keras 2 did."""
    return bool(global_state.get_global_attribute("use_legacy_config", False))


def strategy(model: keras.Model) -> tf.distribute.Strategy | None:
    """The strategy in whose scope the model was made."""
    return model._distribute_strategy


def has_workers(model: keras.Model) -> bool:
    """Whether it is trained by several processes."""
    return is_of_workers(strategy(model))


def is_of_workers(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether a strategy is of several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_first_worker(model: keras.Model) -> bool:
    """Whether this process is the one of several, or the only one, that writes what all of them have."""
    return is_first(strategy(model))


def is_first(strategy: tf.distribute.Strategy | None) -> bool:
    """See ``is_first_worker``."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if not is_of_workers(strategy) or resolver is None:
        return True
    leads = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (leads, 0)


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """The state of every random stream in the model, its own and its layers'."""
    return [generator.state for layer in layers(model) for generator in layer._seed_generators]


def steps_taken(model: keras.Model) -> keras.Variable:
    """How many batches the model's optimiser has seen: more than its ``iterations`` where it accumulates gradients."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)._iterations


def unknown(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> list[keras.Variable]:
    """Those weights that an optimiser, which is built, was not built for."""
    known = {id(weight) for weight in getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables}
    return [weight for weight in weights if id(weight) not in known]


@contextlib.contextmanager
def summed_gradients(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Within it the optimiser takes its gradients as they are.

    It would sum them over the replicas itself, but only after clipping, and each replica would clip its own.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    try:
        yield
    finally:
        del inner._all_reduce_sum_gradients
