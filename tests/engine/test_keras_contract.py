"""Keras's contract, clause by clause: plain Keras and a VAE are asked the same, and what is on purpose not the same.

``test_hooks.py`` has the hooks of batches and ``steps_per_epoch``, ``test_model.py`` the streams and the numbers.
"""

import contextlib
import copy
import itertools
import pickle
import warnings

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfvae import VAE, likelihoods, networks, objectives, posteriors

pytestmark = pytest.mark.slow  # a large table, each row quick

X = (np.random.default_rng(0).random([5, 4]) < 0.5).astype(np.float32)  # three batches of two, the last of one
NAMES = ["loss", "elbo", "log_likelihood", "kl"]


def vae(optimizer="sgd", **parts) -> VAE:
    keras.utils.set_random_seed(0)
    layers = {"posterior": posteriors.diagonal_normal(2), "likelihood": likelihoods.bernoulli([4])}
    model = VAE(**{"encoder": networks.mlp([3]), "decoder": networks.mlp([3]), **layers, "seed": 0, **parts})
    model.compile(optimizer, run_eagerly=True)
    return model


def plain(optimizer="sgd") -> keras.Model:
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3), keras.layers.Dense(4)])
    model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=True)
    return model


class Batches(keras.utils.PyDataset):
    """X in batches of two."""

    def __init__(self, targets: bool):
        super().__init__()
        self.targets = targets

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int):
        batch = X[2 * index : 2 * index + 2]
        return (batch, batch) if self.targets else (batch,)


def dataset(targets: bool) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, X) if targets else X).batch(2)


def generator(targets: bool):
    def batches():
        for index in itertools.cycle(range(3)):
            yield Batches(targets)[index]

    return batches()


# Kind: what fit and evaluate are given, with or without targets.
SOURCES = {
    "array": lambda targets: {"x": X, "batch_size": 2} | ({"y": X} if targets else {}),
    "dataset": lambda targets: {"x": dataset(targets)},
    "unknown length": lambda targets: {"x": dataset(targets).filter(lambda *batch: True)},
    "endless": lambda targets: {"x": dataset(targets).repeat()},
    "py_dataset": lambda targets: {"x": Batches(targets)},
    "generator": lambda targets: {"x": generator(targets)},
}
ENDLESS = ("endless", "generator")


class Hears(keras.callbacks.Callback):
    """Every hook, with its number and whether its logs hold what they are about; validation's apart."""

    HOOKS = tuple(f"on_{what}_{when}" for what in ("train", "test", "epoch") for when in ("begin", "end"))
    HOOKS += tuple(f"on_{what}_batch_{when}" for what in ("train", "test") for when in ("begin", "end"))

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []
        for hook in self.HOOKS:
            setattr(self, hook, lambda *given, hook=hook, **logs: self._hear(hook, *given, **logs))

    def _hear(self, hook: str, *given, logs=None):
        numbers = [each for each in given if isinstance(each, int)]
        held = logs or next((each for each in given if isinstance(each, dict)), {})
        assert all(type(value) is float for value in held.values())
        self.calls.append((hook, *numbers, "loss" in held, "val_loss" in held))


@pytest.fixture(scope="module")
def ours() -> VAE:
    return vae()


@pytest.fixture(scope="module")
def theirs() -> keras.Model:
    return plain()


def both(ours: VAE, theirs: keras.Model, kind: str, **more) -> tuple[list, list]:
    """What each model's callbacks hear of the same fit."""
    heard = []
    for model, targets in ((ours, False), (theirs, True)):
        hears = Hears()
        given = {name: value(targets) if callable(value) else value for name, value in more.items()}
        model.fit(**SOURCES[kind](targets), verbose=0, callbacks=[hears], **given)
        heard.append(hears.calls)
    return heard[0], heard[1]


# Epochs and steps


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("steps", [None, 2, 3])
def test_hooks_and_their_logs_are_keras_s(kind, steps, ours, theirs):
    if kind in ENDLESS and steps is None:
        return  # trains for ever, with Keras too
    # Two steps of three in a second epoch differ on purpose, and a second epoch of unknown length: see below.
    epochs = 1 if steps == 2 or (steps and kind == "unknown length") else 2
    heard, expected = both(ours, theirs, kind, steps_per_epoch=steps, epochs=epochs)
    assert heard == expected


@pytest.mark.parametrize(("kind", "steps"), [("dataset", 2), ("unknown length", 2), ("unknown length", 3)])
def test_finite_data_begin_anew_within_an_epoch_where_keras_breaks_it_off(kind, steps, ours, theirs):
    """On purpose: ``steps_per_epoch`` batches are what was asked for; Keras has epochs without any. ``fit`` says so."""
    both_heard = both(ours, theirs, kind, steps_per_epoch=steps, epochs=3)
    done = [sum(hook == "on_train_batch_end" for hook, *_ in heard) for heard in both_heard]
    assert done[0] == 3 * steps > done[1]
    assert "begin anew" in VAE.fit.__doc__


@pytest.mark.parametrize(
    "more",
    [
        {"epochs": 2, "initial_epoch": 1},
        {"epochs": 3, "initial_epoch": 3},
        {"epochs": 0},
        {"epochs": 2, "validation_freq": 2, "validation_data": lambda targets: (X, X) if targets else X},
        {"epochs": 2, "validation_freq": [1], "validation_data": lambda targets: (X, X) if targets else (X,)},
        {"validation_data": lambda targets: (X, X) if targets else (X, None)},
        {"validation_data": lambda targets: (X, X, np.ones(5)) if targets else (X, None, np.ones(5))},
        {"validation_data": dataset},
        {"epochs": 2, "validation_data": dataset, "validation_steps": 2},
        {"validation_data": lambda targets: dataset(targets).repeat(), "validation_steps": 4},
        {"validation_data": Batches},
        {"validation_split": 0.4},
        {"validation_split": 0.4, "validation_batch_size": 1},
    ],
    ids=lambda more: "-".join(more),
)
def test_epochs_and_validation_are_keras_s(more, ours, theirs):
    heard, expected = both(ours, theirs, "array", **more)
    assert heard == expected


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end", "on_epoch_begin", "on_train_begin"])
def test_stop_training_stops_where_it_does_in_keras(hook, ours, theirs):
    heard = []
    for model, targets in ((ours, False), (theirs, True)):

        class Stops(Hears):
            def _hear(self, name, *given, logs=None):
                super()._hear(name, *given, logs=logs)
                if name == hook:
                    self.model.stop_training = True

        stops = Stops()
        model.fit(**SOURCES["array"](targets), epochs=3, verbose=0, callbacks=[stops])
        heard.append(stops.calls)
    assert heard[0] == heard[1]


def test_two_fits_are_one_training():
    models = vae(), plain()
    for model, targets in zip(models, (False, True), strict=True):
        for _ in range(2):
            history = model.fit(**SOURCES["array"](targets), epochs=2, verbose=0)
            assert model.history is history and history.epoch == [0, 1]
    assert [int(model.optimizer.iterations) for model in models] == [12, 12]


# What comes back


@pytest.mark.parametrize("kind", ["array", "dataset", "py_dataset"])
@pytest.mark.parametrize("eagerly", [True, False])
def test_callbacks_of_predict_hear_what_they_hear_in_keras(kind, eagerly):
    heard = []
    for model in (vae(), plain()):
        model.run_eagerly = eagerly
        calls: list[tuple] = []
        hears = keras.callbacks.LambdaCallback()
        for hook in ("on_predict_batch_begin", "on_predict_batch_end"):
            setattr(
                hears, hook, lambda batch, logs=None, hook=hook, calls=calls: calls.append((hook, batch, *(logs or ())))
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.predict(
                SOURCES[kind](False)["x"], batch_size=2 if kind == "array" else None, verbose=0, callbacks=[hears]
            )
        heard.append(calls)
    assert heard[0] == heard[1] and len(heard[0]) == 6


def test_predict_takes_as_many_steps_as_it_is_told():
    model, x = vae(), np.resize(X, [20, *X.shape[1:]])
    expected = model.reconstruct(x)
    model.fit(x, batch_size=5, verbose=0)  # which runs several as one program
    repeated = tf.data.Dataset.from_tensor_slices(x).batch(5).repeat()
    for steps, given in ((1, x), (3, x), (2, repeated), (6, repeated), (1, (x[i : i + 5] for i in (0, 5)))):
        heard = []
        hears = keras.callbacks.LambdaCallback()
        hears.on_predict_batch_end = lambda step, logs=None, heard=heard: heard.append(step)
        batch_size = 5 if given is x else None
        found = model.predict(given, batch_size=batch_size, steps=steps, verbose=0, callbacks=[hears])
        assert len(found) == 5 * steps and heard == list(range(steps))
    assert expected.shape == x.shape
    assert model.steps_per_execution > 1, "what fit has chosen stays"


@pytest.mark.parametrize("eagerly", [True, False])
def test_predict_of_a_stream_without_rows_has_none(eagerly):
    model = vae()
    model.run_eagerly = eagerly
    assert model.predict(dataset(False).take(0), verbose=0).shape == (0, 4)


def forms(model: keras.Model, **targets) -> dict[str, object]:
    evaluated, trained = model.evaluate(X, **targets, verbose=0), model.train_on_batch(X, **targets)
    return {
        "evaluate": {type(evaluated), *map(type, evaluated)},
        "train_on_batch": {type(trained), *map(type, trained)},
        "as dict": {
            type(value)
            for ask in (model.train_on_batch, model.test_on_batch)
            for value in ask(X, **targets, return_dict=True).values()
        },
        "names": model.metrics_names == list(dict(zip(model.metrics_names, evaluated, strict=True))),
        "predict": [
            model.predict(x, verbose=0, **more).shape
            for x, more in (
                (X, {}),
                (X, {"batch_size": 2, "steps": 2}),
                (dataset(False), {}),
                (dataset(False), {"steps": 2}),
                (Batches(False), {}),
            )
        ],
        "predict_on_batch": (type(model.predict_on_batch(X)), model.predict_on_batch(X).shape),
    }


def test_results_have_keras_s_forms(ours, theirs):
    assert forms(ours) == forms(theirs, y=X)
    assert ours.metrics_names == NAMES and set(ours.evaluate(X, return_dict=True, verbose=0)) == set(NAMES)


@pytest.mark.parametrize("kind", ["array", "dataset", "endless"])
def test_evaluate_takes_keras_s_steps(kind, ours, theirs):
    heard = []
    for model, targets in ((ours, False), (theirs, True)):
        hears = Hears()
        model.evaluate(**SOURCES[kind](targets), steps=2, verbose=0, callbacks=[hears])
        heard.append(hears.calls)
    assert heard[0] == heard[1]


def test_reset_metrics_forgets_what_was_seen(ours, theirs):
    for model, targets in ((ours, ()), (theirs, (X,))):
        model.test_on_batch(X, *targets)
        assert any(float(value) for value in model.get_metrics_result().values())
        model.reset_metrics()
        assert not any(float(value) for value in model.get_metrics_result().values())


# Weights


@pytest.mark.parametrize("when", ["before compile", "after compile"])
def test_frozen_weights_do_not_move(when):
    model = vae()
    model.encoder.trainable = False
    if when == "before compile":
        model.compile("sgd", run_eagerly=True)
    before = [weight.numpy() for weight in model.weights]
    model.fit(X, verbose=0)
    moved = [bool(np.any(old != weight.numpy())) for old, weight in zip(before, model.weights, strict=True)]
    assert moved == [weight.trainable for weight in model.weights]
    assert sum(moved) == len(model.weights) - len(model.encoder.weights) > 0


def test_a_frozen_layer_takes_effect_in_a_made_program_when_compiled_again_as_in_keras():
    moved = []
    for model, layer, targets in ((vae(), "encoder", ()), (plain(), "layers", (X,))):
        model.compile("sgd", **({} if not targets else {"loss": "mse"}), jit_compile=False)
        model.fit(X, *targets, verbose=0)
        frozen = model.encoder if layer == "encoder" else model.layers[0]
        frozen.trainable = False
        found = []
        for compiles in (False, True):
            if compiles:
                model.compile("sgd", **({} if not targets else {"loss": "mse"}), jit_compile=False)
            before = [weight.numpy() for weight in frozen.weights]
            told = not targets and not compiles  # Keras says nothing
            with pytest.warns(UserWarning, match="are frozen, which cha") if told else contextlib.nullcontext():
                model.fit(X, *targets, verbose=0)
            found.append(any(np.any(old != new.numpy()) for old, new in zip(before, frozen.weights, strict=True)))
        moved.append(found)
    assert moved == [[True, False]] * 2


@pytest.mark.parametrize("of", ["another model", "a frozen model"])
def test_an_optimiser_that_was_built_for_other_weights_is_told(of):
    optimizer, model = keras.optimizers.SGD(), vae()
    model.encoder.trainable = of == "another model"
    model.compile(optimizer, run_eagerly=True)
    model.fit(X, verbose=0)
    model = vae() if of == "another model" else model
    model.encoder.trainable = True
    model.compile(optimizer, run_eagerly=True)
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=r"^The optimiser does not know .*/kernel: it was built for another"):
            train(X)


def test_a_made_program_is_kept_whoever_trains():
    """What was put around it anew by each batch of ``train_on_batch`` was too deep for Python after a thousand."""
    model = vae()
    model.train_on_batch(X)
    made = model.train_function
    model.train_on_batch(X)
    model.fit(X, verbose=0)
    assert model.train_function is made
    model.make_train_function(force=True)
    assert model.train_function is not made


def test_an_average_of_weights_is_kept_and_put_in_place_at_the_end_as_in_keras():
    model = vae(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    seen: list[list[np.ndarray]] = []
    see = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append([weight.numpy() for weight in model.trainable_variables])
    )
    first = [weight.numpy() for weight in model.trainable_variables]
    model.fit(X, batch_size=2, verbose=0, callbacks=[see])
    assert len(seen) == 3 and any(np.any(old != new) for old, new in zip(first, seen[0], strict=True))
    for i, weight in enumerate(model.trainable_variables):
        average = seen[0][i]  # Keras begins with the weights of the first step
        for step in seen:
            average = 0.5 * average + 0.5 * step[i]
        np.testing.assert_allclose(weight.numpy(), average, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_gradients_are_accumulated_as_in_keras(jit_compile):
    def made(accumulated: int | None) -> VAE:
        model = vae()
        optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=accumulated)
        model.compile(optimizer, jit_compile=jit_compile, run_eagerly=jit_compile is None)
        return model

    def moved(model: VAE, x: np.ndarray) -> list[np.ndarray]:
        before = [weight.numpy() for weight in model.trainable_variables]
        model.train_on_batch(x)
        return [new.numpy() - old for new, old in zip(model.trainable_variables, before, strict=True)]

    one, two = made(None), made(2)
    first = [weight.numpy() for weight in one.trainable_variables]
    steps = []
    for x in (X[:2], X[2:4]):
        steps.append(moved(one, x))
        for weight, value in zip(one.trainable_variables, first, strict=True):
            weight.assign(value)
    assert not any(np.any(step) for step in moved(two, X[:2]))
    for step, *parts in zip(moved(two, X[2:4]), *steps, strict=True):
        np.testing.assert_allclose(step, sum(parts) / 2, atol=1e-6)
    assert int(two.optimizer.iterations) == 1


def test_rows_are_shuffled_anew_in_each_epoch_where_gradients_are_accumulated():
    model = vae(keras.optimizers.SGD(0.1, gradient_accumulation_steps=100))
    orders = set()
    see = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: orders.add(tuple(model._shuffle_seed())))
    model.fit(X, batch_size=2, epochs=3, verbose=0, callbacks=[see])
    assert len(orders) == 3


def copies(folder) -> dict:
    def of_weights(model: VAE, name: str) -> VAE:
        model.save_weights(folder / name)
        other = vae()
        other.load_weights(folder / name)
        return other

    def of_file(model: VAE) -> VAE:
        model.save(folder / "model.keras")
        return keras.models.load_model(folder / "model.keras")

    return {
        "keras": of_file,
        "weights": lambda model: of_weights(model, "m.weights.h5"),
        "pickle": lambda model: pickle.loads(pickle.dumps(model)),
        "deepcopy": copy.deepcopy,
        "set_weights": lambda model: [other := vae(), other.set_weights(model.get_weights())][0],
    }


@pytest.mark.parametrize("way", ["keras", "weights", "pickle", "deepcopy", "set_weights"])
def test_a_copy_is_the_model_and_goes_on_training(way, tmp_path):
    model = vae()
    model.fit(X, verbose=0)
    other = copies(tmp_path)[way](model)
    np.testing.assert_array_equal(other.embed(X), model.embed(X))
    before = model.embed(X)
    other.fit(X, verbose=0)
    np.testing.assert_array_equal(model.embed(X), before)  # nothing is shared
    assert np.any(other.embed(X) != before)


def test_a_clone_has_weights_of_its_own(ours):
    clone = keras.models.clone_model(ours)
    assert [weight.shape for weight in clone.weights] == [weight.shape for weight in ours.weights]
    assert np.any(clone.embed(X) != ours.embed(X))
    again = keras.models.model_from_json(ours.to_json())
    assert again.get_config().keys() == ours.get_config().keys() and again.count_params() == ours.count_params()


# What is told in a sentence

NOT_ROWS = {
    "scipy": lambda: scipy.sparse.csr_matrix(X),
    "sparse tensor": lambda: tf.sparse.from_dense(X),
    "ragged tensor": lambda: tf.ragged.constant([[1.0, 0.0], [1.0]]),
    "text": lambda: np.array([["a", "b", "c", "d"]]),
    "objects": lambda: np.array([[1, "b", None, 2]], object),
    "None": lambda: None,
    "a path": lambda: "x.npy",
}


@pytest.mark.parametrize("door", ["fit", "evaluate", "predict", "embed", "train_on_batch"])
@pytest.mark.parametrize("kind", NOT_ROWS)
def test_what_is_no_array_of_rows_is_told_in_a_sentence(kind, door, ours):
    quiet = {} if door in ("embed", "train_on_batch") else {"verbose": 0}
    with pytest.raises(ValueError) as told:
        getattr(ours, door)(NOT_ROWS[kind](), **quiet)
    assert str(told.value).startswith("x ") and "\n" not in str(told.value), told.value


@pytest.mark.parametrize("door", ["fit", "evaluate", "predict", "embed"])
def test_lists_and_tables_are_arrays(door, ours):
    quiet = {} if door == "embed" else {"verbose": 0}
    tables = [X.tolist(), list(X)]
    with contextlib.suppress(ImportError):
        import pandas

        tables.append(pandas.DataFrame(X))
    for table in tables:
        getattr(ours, door)(table, **quiet)
        if door in ("predict", "embed"):
            np.testing.assert_array_equal(getattr(ours, door)(table, **quiet), getattr(ours, door)(X, **quiet))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda model: model.fit(X, class_weight={0: 1.0}), "trained without targets, received class_weight"),
        (lambda model: model.fit(X, X, class_weight={0: 1.0}), "received y and class_weight: call fit"),
        (lambda model: model.train_on_batch(X, class_weight={0: 1.0}), "without targets, received class_weight"),
        (lambda model: model.test_on_batch(X, X), "without targets, received y"),
        (lambda model: model.evaluate(X, X), "without targets, received y"),
        (
            lambda model: model.fit(dataset(True)),
            "^A VAE is trained without targets, but the dataset gives tuples of 2",
        ),
        (lambda model: model.fit(X, validation_data=(X, X)), "received validation_data of 2 parts: pass x alone"),
        (lambda model: model.compile("sgd", "mse"), "There is no loss to choose"),
        (
            lambda model: model.compile("sgd", loss="mse", metrics=["mae"]),
            "^compile has no argument 'loss' and no 'metrics'; it takes optimizer, .* The model's objective",
        ),
        (lambda model: model.save("model.h5"), "is an h5 file, which Keras could not load this model from"),
        (lambda model: model.export("folder"), r"write tfvae.export\(vae, 'folder'\)"),
    ],
)
def test_what_keras_has_and_a_vae_does_not_is_told_in_a_sentence(call, sentence, ours):
    with pytest.raises((TypeError, ValueError), match=sentence) as told:
        call(ours)
    assert "\n" not in str(told.value)


# Saving what Keras would not find again


def unknown_objective(terms):
    return objectives.elbo(terms)


class UnknownLayer(keras.layers.Dense):
    pass


class UnknownOptimizer(keras.optimizers.SGD):
    pass


def unknown_activation(x):
    return x


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: vae(objective=unknown_objective), "unknown_objective"),
        (lambda: vae(encoder=UnknownLayer(3)), "UnknownLayer"),
        (lambda: vae(UnknownOptimizer(0.1)), "UnknownOptimizer"),
        (lambda: vae(encoder=keras.Sequential([keras.layers.Dense(3, unknown_activation)])), "unknown_activation"),
    ],
)
def test_saving_warns_of_what_loading_will_not_find(make, name, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.warns(UserWarning, match=f"^{name} is not registered with Keras.*register_keras_serializable") as said:
        make().save(path)
    assert sum("is not registered" in str(warning.message) for warning in said) == 1
    with pytest.raises(TypeError):
        keras.models.load_model(path)
    known = {name: globals()[name]}
    keras.models.load_model(path, custom_objects=known)  # what was warned of is all that is missing
    with keras.saving.custom_object_scope(known), warnings.catch_warnings():
        warnings.filterwarnings("error", ".*is not registered with Keras")
        make().save(path)


def test_saving_says_nothing_of_what_loading_finds(tmp_path, recwarn):
    keras.saving.register_keras_serializable("tests")(known_objective)
    functional = keras.Model(inputs := keras.Input([4]), keras.ops.tanh(keras.layers.Dense(3, "relu")(inputs)))
    model = vae(keras.optimizers.Adam(), encoder=functional, objective=known_objective)
    model.save(tmp_path / "model.keras")
    assert [said for warning in recwarn if "egist" in (said := str(warning.message)) or "made again" in said] == []
    keras.models.load_model(tmp_path / "model.keras")


@keras.saving.register_keras_serializable("tests")
class NoKeywords(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x)


def test_saving_warns_of_a_layer_that_its_config_does_not_make(tmp_path):
    with pytest.warns(UserWarning, match=r"^NoKeywords cannot be made again of its get_config\(\).*\*\*kwargs"):
        vae(encoder=NoKeywords(3)).save(tmp_path / "model.keras")
    with pytest.raises(TypeError):
        keras.models.load_model(tmp_path / "model.keras")


@keras.saving.register_keras_serializable("tests")
class Scaled(keras.layers.Dense):
    """Forgets its scale, as Dense's config has none; what it makes of its own is no file's."""

    def __init__(self, units, scale=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.scale = scale
        self.inner = Scaled(units, scale=2 * scale, name="inner") if scale == 2.0 else None

    def call(self, x):
        return self.scale * super().call(x)


def test_saving_warns_of_a_setting_that_a_layer_s_config_lacks(tmp_path, recwarn):
    vae(encoder=Scaled(3, scale=1.0)).save(tmp_path / "default.keras")
    assert not [one for one in recwarn if "lacks" in str(one.message)]
    with pytest.warns(UserWarning) as warned:
        vae(encoder=Scaled(3, scale=2.0)).save(tmp_path / "model.keras")
    said = [text for one in warned if "lacks" in (text := str(one.message))]
    assert len(said) == 1 and said[0].startswith(
        "The get_config() of Scaled lacks scale=2.0, the default of which is 1.0, with which "
    )
    assert keras.models.load_model(tmp_path / "model.keras").encoder.scale == 1.0


@keras.saving.register_keras_serializable("tests")
class Looked(keras.layers.Dense):
    """Forgets what is no plain value to Keras: an array, or a number of NumPy's."""

    def __init__(self, units, table=None, rank=1, **kwargs):
        super().__init__(units, **kwargs)
        self.table, self.rank = table, rank


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"table": np.arange(3)}, ["table=array([0, 1, 2]), the default of which is None"]),
        ({"table": np.arange(3.0), "rank": np.int64(2)}, ["rank=np.int64(2), the ", "table=array([0., 1., 2.]), the "]),
        ({"rank": np.int64(1)}, []),
    ],
)
def test_saving_warns_of_arrays_that_a_layer_s_config_lacks(tmp_path, recwarn, setting, told):
    vae(encoder=Looked(3, **setting)).save(tmp_path / "model.keras")
    said = [text for one in recwarn if "lacks" in (text := str(one.message))]
    assert len(said) == len(told)
    assert all(f"Looked lacks {one}" in text for one, text in zip(told, said, strict=True))


def known_objective(terms):
    return objectives.elbo(terms)


# Keras's settings


def test_channels_first_is_keras_s_default_and_not_the_networks():
    pictures = np.zeros([3, 5, 4, 2], np.float32)
    keras.config.set_image_data_format("channels_first")
    try:
        parts = {"encoder": networks.conv_encoder([2]), "decoder": networks.conv_decoder([5, 4, 2], [3])}
        model = vae(**parts, likelihood=likelihoods.bernoulli([5, 4, 2]))
        model.fit(pictures, verbose=0)
        shown = model.reconstruct(pictures)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert shown.shape == pictures.shape
    np.testing.assert_allclose(model.reconstruct(pictures), shown, atol=1e-6)


@pytest.mark.xla
@pytest.mark.parametrize(
    ("chosen", "jit"),
    [({}, True), ({"jit_compile": "auto"}, True), ({"jit_compile": False}, False), ({"run_eagerly": True}, False)],
)
def test_compile_chooses_how_programs_run(chosen, jit):
    model = vae()
    model.compile("sgd", **chosen)
    assert model.jit_compile is jit and model.run_eagerly is chosen.get("run_eagerly", False)
