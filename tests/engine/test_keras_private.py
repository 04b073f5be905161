"""What the engine takes of Keras that Keras does not promise: each by name, with what is assumed of it.

A test that fails here says which of ``keras_private``'s assumptions an installed Keras has broken.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae.engine import keras_private


def two_layers() -> keras.Model:
    regularised = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(1.0), name="regularised")
    inner = keras.Sequential([regularised, keras.layers.Dropout(0.5, seed=3, name="dropout")], name="inner")
    model = keras.Sequential([keras.Input([3]), inner, keras.layers.GaussianNoise(1.0, seed=4, name="noise")])
    return model


@pytest.mark.parametrize(
    ("owner", "name", "arguments"),
    [
        (keras.Model, "_maybe_symbolic_build", ["self", "iterator", "data_batch"]),
        (keras.Model, "_clear_losses", ["self"]),
        (keras.Model, "_flatten_layers", ["self", "include_self", "recursive"]),
        (keras.optimizers.Adam, "_all_reduce_sum_gradients", ["self", "grads_and_vars"]),
        (keras_private.DataAdapter, "get_tf_dataset", ["self"]),
        (keras_private.DataAdapter, "on_epoch_begin", ["self"]),
        (keras_private.DataAdapter, "on_epoch_end", ["self"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_method_has_its_name_and_arguments(owner, name, arguments):
    assert list(inspect.signature(getattr(owner, name)).parameters) == arguments


@pytest.mark.parametrize("name", ["num_batches", "batch_size", "has_partial_batch", "partial_batch_size"])
def test_data_adapter_has_the_property(name):
    assert isinstance(getattr(keras_private.DataAdapter, name), property)


def test_fit_passes_evaluate_what_is_known_of_it():
    seen = []

    class Asked(keras.Sequential):
        def evaluate(self, *args, **kwargs):
            seen.extend(name for name in kwargs if name.startswith("_"))
            return super().evaluate(*args, **kwargs)

    model = Asked([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.zeros([2, 1])
    model.fit(x, x, validation_data=(x, x), verbose=0)
    assert set(seen) == keras_private.EVALUATED_BY_FIT


def test_fit_evaluate_and_train_on_batch_call_maybe_symbolic_build():
    """``BuiltModel`` overrides it: else Keras would call the model on a group of batches to build it."""
    asked = []

    class Asked(keras.Sequential):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            asked.append("iterator" if iterator is not None else "data_batch")

    model = Asked([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros([2, 1])
    model.fit(x, x, verbose=0)
    model.evaluate(x, x, verbose=0)
    model.train_on_batch(x, x)
    assert asked == ["iterator", "iterator", "data_batch"]
    assert "_maybe_symbolic_build" in vars(keras_private.BuiltModel)


def test_fit_takes_a_data_adapter_as_it_is():
    """Where x is a DistributedDataset that is a DataAdapter, Keras iterates over it and touches no batch."""

    class Adapter(keras_private.DataAdapter, tf.distribute.DistributedDataset):
        num_batches, batch_size, has_partial_batch, partial_batch_size = 3, None, False, None

        def __iter__(self):
            return iter(["a", "b", "c"])

        def get_tf_dataset(self):
            return self

    seen = []

    class Model(keras_private.BuiltModel):
        def make_train_function(self, force=False):
            self.train_function = lambda iterator: {"loss": seen.append(next(iterator)) or 0.0}

    model = Model()
    model.compile("sgd")
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model.fit(Adapter(), verbose=0)
    assert seen == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["dataset", "generator", "PyDataset"])
def test_adapter_reads_every_stream(kind):
    batches = [np.full([2, 3], i, np.float32) for i in range(3)]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return batches[index]

    stream = {
        "dataset": lambda: tf.data.Dataset.from_tensor_slices(np.concatenate(batches)).batch(2),
        "generator": lambda: ((batch,) for batch in batches),
        "PyDataset": Batches,
    }[kind]()
    adapter = keras_private.adapter(stream, None, shuffle=False)
    assert isinstance(adapter, keras_private.DataAdapter)
    found = list(adapter.get_tf_dataset())
    flat = [element[0] if isinstance(element, tuple) else element for element in found]
    np.testing.assert_array_equal(np.concatenate(flat), np.concatenate(batches))


def test_an_h5_file_is_being_written(tmp_path):
    seen = []

    class Asked(keras.Sequential):
        def get_config(self):
            seen.append(keras_private.is_writing_h5())
            return super().get_config()

    model = Asked([keras.Input([1]), keras.layers.Dense(1)])
    model.save(tmp_path / "model.h5")
    model.save(tmp_path / "model.keras")
    assert seen[0] and not seen[-1] and not keras_private.is_writing_h5()


def test_clear_losses_forgets_penalties_of_activities():
    activity = keras.layers.ActivityRegularization(l2=1.0)
    model = keras.Sequential([keras.Input([3]), activity])
    for _ in range(2):
        model(np.ones([1, 3], np.float32))
    (loss,) = model.losses
    assert float(loss) == 3.0
    keras_private.clear_losses(model)
    assert not activity._losses and not model.losses


def test_layers_are_the_model_and_all_within():
    names = [layer.name for layer in keras_private.layers(two_layers())]
    assert names[0].startswith("sequential") and {"inner", "regularised", "dropout", "noise"} <= set(names)
    assert len(names) == len(set(names))


def test_children_are_those_right_within():
    assert [layer.name for layer in keras_private.children(two_layers())][-2:] == ["inner", "noise"]


def test_steps_taken_are_all_the_batches_of_an_optimiser_that_accumulates_gradients():
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    inner = keras.optimizers.SGD(gradient_accumulation_steps=2)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse", run_eagerly=True)
    for _ in range(3):
        model.train_on_batch(np.ones([1, 2]), np.ones([1, 1]))
    assert (int(keras_private.steps_taken(model).numpy()), int(inner.iterations)) == (3, 1)


def test_seed_states_are_those_of_every_random_layer():
    model = two_layers()
    states = keras_private.seed_states(model)
    assert [state.numpy()[0] for state in states] == [3, 4]
    model(np.ones([1, 3], np.float32), training=True)
    assert [state.numpy()[1] for state in states] == [1, 1]  # each has been drawn from once
    # Of a model's own streams, those that are its attributes.
    owner = keras.Model()
    owner.stream = keras.random.SeedGenerator(7)
    assert [state.numpy()[0] for state in keras_private.seed_states(owner)] == [7]


def test_given_is_what_a_constructor_was_given():
    class Layer(keras.layers.Layer):
        def __init__(self, units, rate=0.5, sizes=(1, 2), **kwargs):
            super().__init__(**kwargs)

    assert keras_private.given(Layer(3, sizes=[4], name="a")) == {"units": 3, "rate": 0.5, "sizes": [4]}
    assert keras_private.given(Layer(np.zeros(2))) == {}


@pytest.mark.parametrize("scaled", [False, True])
def test_unknown_weights_are_those_that_an_optimiser_was_not_built_for(scaled):
    known, other = keras.Variable([1.0]), keras.Variable([2.0])
    optimizer = keras.optimizers.SGD()
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    optimizer.build([known])
    assert keras_private.unknown(optimizer, [known, other]) == [other]


def test_loss_tracker_is_the_first_metric_and_the_history_s_loss():
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    tracker = keras_private.loss_tracker(model)
    assert isinstance(tracker, keras.metrics.Mean) and tracker.name == "loss" and model.metrics[0] is tracker
    loss = model.fit(np.ones([4, 1]), np.zeros([4, 1]), verbose=0).history["loss"][-1]
    assert loss == float(tracker.result())


def test_strategy_is_that_of_the_scope_in_which_the_model_was_made():
    assert keras_private.strategy(keras.Model()) is None
    mirrored = tf.distribute.MirroredStrategy(["CPU:0"])
    with mirrored.scope():
        assert keras_private.strategy(keras.Model()) is mirrored


@pytest.mark.parametrize("scaled", [False, True])
def test_summed_gradients_are_applied_as_they_are(scaled):
    """Within it, ``apply`` in a replica asks the optimiser for no sum; after it, it does again."""
    called = []

    class Asked(keras.optimizers.SGD):
        def _all_reduce_sum_gradients(self, grads_and_vars):
            called.append(len(grads_and_vars))
            return grads_and_vars

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        variable = keras.Variable([1.0])
        inner = Asked(0.5)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0) if scaled else inner
        optimizer.build([variable])

        @tf.function(autograph=False)
        def step():
            strategy.run(lambda: optimizer.apply([tf.constant([1.0])], [variable]))

        with keras_private.summed_gradients(optimizer):
            step.get_concrete_function()
        assert called == []
        tf.function(lambda: strategy.run(lambda: optimizer.apply([tf.constant([1.0])], [variable])))()
    assert called and variable.numpy().tolist() == [0.5]
