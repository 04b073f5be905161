"""Callbacks are called as plain Keras calls them, unless the user chose otherwise."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae import VAE, likelihoods, networks, posteriors

pytestmark = pytest.mark.xla

X = (np.random.default_rng(0).random([100, 6]) < 0.5).astype(np.float32)


class Record(keras.callbacks.Callback):
    """Which hooks were called, and what the logs held; acts on every batch."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("end", batch))
        assert "loss" in logs

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(("test", batch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch", epoch))


class Looks(keras.callbacks.Callback):
    """Acts on epochs alone."""

    def on_epoch_end(self, epoch, logs=None):
        pass


def vae() -> VAE:
    keras.utils.set_random_seed(0)
    parts = posteriors.diagonal_normal(2), likelihoods.bernoulli([6])
    return VAE(networks.mlp([4]), networks.mlp([4]), *parts, seed=0)


def plain() -> keras.Model:
    model = keras.Sequential([keras.Input([6]), keras.layers.Dense(6)])
    model.compile("sgd", "mse")
    return model


def source(kind: str, targets: bool):
    if kind == "array":
        return {"x": X, "y": X} if targets else {"x": X}
    dataset = tf.data.Dataset.from_tensor_slices((X, X) if targets else X).batch(10)
    return {"x": dataset}


@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_batch_hooks_are_called_as_in_plain_keras(kind):
    ours, theirs = Record(), Record()
    model = vae()
    model.compile("sgd", jit_compile=False)
    size = {"batch_size": 10} if kind == "array" else {}
    model.fit(**source(kind, False), **size, epochs=2, verbose=0, callbacks=[ours], validation_data=X[:20])
    plain().fit(**source(kind, True), **size, epochs=2, verbose=0, callbacks=[theirs], validation_data=(X[:20], X[:20]))
    trained = [call for call in ours.calls if call[0] != "test"]
    assert trained == [call for call in theirs.calls if call[0] != "test"]
    assert len(trained) == 42


def test_a_warm_up_of_the_learning_rate_moves_at_every_batch():
    class WarmUp(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate.assign(0.001 * (batch + 1))

    model = vae()
    model.compile("sgd", jit_compile=False)
    model.fit(X, batch_size=10, verbose=0, callbacks=[WarmUp()])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_training_stops_at_the_batch_that_says_so():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 3

    model, other = vae(), plain()
    model.compile("sgd", jit_compile=False)
    for one, data in ((model, {"x": X}), (other, {"x": X, "y": X})):
        one.fit(**data, batch_size=10, epochs=3, verbose=0, callbacks=[Stop()])
    assert int(model.optimizer.iterations) == int(other.optimizer.iterations)


@pytest.mark.parametrize(
    ("callbacks", "steps"),
    [
        ([Record()], 1),
        ([Looks(), keras.callbacks.TerminateOnNaN()], 10),
        ([keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)], 1),
        ([keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)], 10),
        (None, 10),
    ],
)
def test_programs_are_long_where_nobody_acts_on_batches(callbacks, steps):
    model = vae()
    model.compile("sgd", jit_compile=False)
    model.fit(X, batch_size=10, verbose=0, callbacks=callbacks)
    assert model.steps_per_execution == steps


def test_what_the_user_chose_stays():
    model, record = vae(), Record()
    model.compile("sgd", steps_per_execution=5, jit_compile=False)
    model.fit(X, batch_size=10, verbose=0, callbacks=[record])
    assert [call for call in record.calls if call[0] == "begin"] == [("begin", 0), ("begin", 5)]


@pytest.mark.parametrize(
    ("callback", "steps"),
    [
        (lambda path: keras.callbacks.ModelCheckpoint(path + "/m.weights.h5", save_freq=2, save_weights_only=True), 1),
        (lambda path: keras.callbacks.ModelCheckpoint(path + "/m.weights.h5", save_weights_only=True), 10),
        (lambda path: keras.callbacks.TensorBoard(path, update_freq=5), 1),
        (lambda path: keras.callbacks.TensorBoard(path), 10),
    ],
)
def test_what_keras_s_own_callbacks_need(callback, steps, tmp_path):
    model = vae()
    model.compile("sgd", jit_compile=False)
    model.fit(X, batch_size=10, verbose=0, callbacks=[callback(str(tmp_path))])
    assert model.steps_per_execution == steps


# A finite stream and steps_per_epoch


class Batches(keras.utils.PyDataset):
    """X in batches of 20, with targets for plain Keras."""

    def __init__(self, targets: bool):
        super().__init__()
        self.targets = targets

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int):
        batch = X[20 * index : 20 * index + 20]
        return (batch, batch) if self.targets else (batch,)


@pytest.mark.parametrize("kind", ["dataset", "py_dataset", "endless", "array"])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_steps_per_epoch_counts_as_in_plain_keras(kind, steps):
    def data(targets: bool):
        if kind == "array":
            return {**source("array", targets), "batch_size": 20}
        if kind == "py_dataset":
            return {"x": Batches(targets)}
        dataset = tf.data.Dataset.from_tensor_slices((X, X) if targets else X).batch(20)
        return {"x": dataset.repeat() if kind == "endless" else dataset}

    model, other = vae(), plain()
    model.compile("sgd", jit_compile=False)
    history = model.fit(**data(False), steps_per_epoch=steps, epochs=4, verbose=0).history
    other.fit(**data(True), steps_per_epoch=steps, epochs=4, verbose=0)
    assert int(model.optimizer.iterations) == 4 * steps
    # Keras breaks off the epoch in which finite data end, with a warning: ours begins them anew within it.
    assert int(other.optimizer.iterations) == (4 * steps if steps == 5 or kind == "endless" else 4 * steps - 5 % steps)
    assert all(loss > 0.1 for loss in history["loss"])  # no epoch without a batch


# The values of a stream


def pictures(x: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(x).batch(10)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x: x * 255, "x ranges from 0 to 255, but a Bernoulli likelihood scores"),
        (lambda x: np.where(np.arange(100)[:, None] == 99, np.nan, x), "NaN or infinite values"),
    ],
)
def test_a_stream_is_judged_as_an_array_is(bad, message):
    x = bad(X).astype(np.float32)
    model = vae()
    model.compile("sgd", jit_compile=False)
    doors = [
        lambda: model.fit(pictures(x), verbose=0),
        lambda: model.evaluate(pictures(x), verbose=0),
        lambda: model.predict(pictures(x), verbose=0),
        lambda: model.fit(X, validation_data=pictures(x), verbose=0),
        lambda: model.train_on_batch(x),
        lambda: model.test_on_batch(x),
        lambda: model.embed(x),
        lambda: model.reconstruct(x),
        lambda: model.elbo(x),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=message):
            door()
    model.fit(pictures(X), verbose=0)  # and the right one goes on


def test_a_dataset_of_unknown_rank_trains():
    unknown = pictures(X).map(lambda x: tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), None))
    model = vae()
    model.compile("sgd", jit_compile=False)
    assert len(model.fit(unknown, verbose=0).history["loss"]) == 1


@pytest.mark.parametrize("group", [1, 2, None])
@pytest.mark.parametrize(
    ("count", "steps", "epochs", "ends"), [(3, 2, 3, 3), (2, 2, 3, 2), (3, None, 2, 3), (3, 2, 2, 0)]
)
def test_a_generator_that_ended_is_not_gone_through_again(group, count, steps, epochs, ends):
    """Plain Keras goes on with the first batch alone, or reports an epoch without a batch as a loss of 0."""
    model, batches = vae(), (X[:10] for _ in range(count))
    model.compile(steps_per_execution=group, jit_compile=False)
    if not ends:
        assert min(model.fit(batches, steps_per_epoch=steps, epochs=epochs, verbose=0).history["loss"]) > 1
        return
    with pytest.raises(ValueError, match=f"x is a generator that ended after {ends} batches"):
        model.fit(batches, steps_per_epoch=steps, epochs=epochs, verbose=0)
    assert min(model.history.history["loss"]) > 1


def test_a_dataset_of_unknown_length_begins_anew_as_one_of_known_length_does():
    signature = tf.TensorSpec([None, 6], tf.float32)
    histories = []
    for known in (True, False):
        whole = tf.data.Dataset.from_tensor_slices(X).batch(40)
        unknown = tf.data.Dataset.from_generator(lambda: iter(whole), output_signature=signature)  # noqa: B023
        model = vae()
        model.compile(jit_compile=False)
        history = model.fit(whole if known else unknown, steps_per_epoch=2, epochs=4, verbose=0).history
        histories.append(history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-5)


def test_whoever_wraps_keras_s_fit_may_add_callbacks(monkeypatch, capsys):
    """As MLflow's autolog does: it copies the callbacks that it finds into a list."""
    seen, whole = [], keras.Model.fit
    added = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_elbo"]))

    def wrapped(self, *args, callbacks=None, **more):
        return whole(self, *args, callbacks=[*callbacks, added], **more)

    told = []
    for fit in (whole, wrapped):
        monkeypatch.setattr(keras.Model, "fit", fit)
        keras.utils.set_random_seed(0)
        vae = VAE(
            networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([6]), seed=0
        )
        vae.compile(jit_compile=False)
        record = Record()
        history = vae.fit(X, batch_size=10, epochs=2, validation_data=X, verbose=2, callbacks=[record]).history
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
        told.append((history, record.calls, lines, vae.steps_per_execution))
    assert told[0] == told[1] and told[0][2] == ["Epoch 1/2", "Epoch 2/2"]
    assert seen == told[0][0]["val_elbo"]


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (keras.callbacks.EarlyStopping("val_elbo"), r"EarlyStopping watches 'val_elbo' .*: pass mode='max'\."),
        (keras.callbacks.ReduceLROnPlateau("elbo"), r"ReduceLROnPlateau watches 'elbo' .*: pass mode='max'\."),
        (
            keras.callbacks.ModelCheckpoint("m.keras", monitor="val_kl", save_best_only=True),
            r"ModelCheckpoint watches 'val_kl' .*: pass mode='max' where more is better, else mode='min'\.",
        ),
    ],
    ids=["stop", "rate", "best"],
)
def test_a_number_of_which_keras_knows_no_better_needs_a_mode(callback, told):
    """Told before the first epoch, and of ``elbo`` which; Keras itself says after it that it is one of two."""
    model = vae()
    model.compile()
    before = model.get_weights()
    with pytest.raises(ValueError, match=told):
        model.fit(X, validation_data=X, verbose=0, callbacks=[callback])
    for weight, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_the_loss_needs_no_mode(tmp_path):
    model = vae()
    model.compile()
    best = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True)
    model.fit(X, validation_data=X, verbose=0, callbacks=[best, keras.callbacks.EarlyStopping("loss")])
    assert (tmp_path / "best.keras").is_file()
