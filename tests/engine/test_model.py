"""The engine against loops written out by hand, and as Keras's ``fit`` that everyone knows."""

import functools
import itertools
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tfvae import VAE, DistributionLayer, networks, posteriors
from tfvae.engine import batches as engine
from tfvae.engine.batches import Data
from tfvae.engine.replicas import Rows

pytestmark = pytest.mark.xla

ROWS, SIZE = 11, 5
ANY = (lambda inputs: tf.zeros([1]), lambda measured: True)  # a stream whose values nobody judges


def make_vae(seed: int = 3, encoder: keras.layers.Layer | None = None, **more) -> VAE:
    keras.utils.set_random_seed(0)
    return VAE(
        encoder=encoder or networks.mlp([6]),
        decoder=networks.mlp([6]),
        posterior=DistributionLayer("Normal", [2]),
        likelihood=DistributionLayer("Bernoulli", [SIZE]),
        seed=seed,
        **more,
    )


def train(vae: VAE, x, optimizer=None, steps: int | None = 2, jit: bool = False, eager: bool = False, **more):
    """The history of a fit and the weights after it; plain graph mode where XLA is not the point."""
    vae.compile(optimizer or keras.optimizers.Adam(0.01), steps, jit_compile=jit, run_eagerly=eager)
    history = vae.fit(x, **{"batch_size": 3, "epochs": 2, "verbose": 0, **more}).history
    return history, vae.get_weights()


def assert_same(first, second, tolerance: float = 1e-6) -> None:
    (history, weights), (other_history, other_weights) = first, second
    assert history.keys() == other_history.keys()
    for key in history:
        np.testing.assert_allclose(history[key], other_history[key], rtol=tolerance, atol=tolerance, err_msg=key)
    for weight, other in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=tolerance)


def mean_kl(vae: VAE, x: np.ndarray) -> float:
    """A number that each row enters once and that no noise enters."""
    return float(np.mean(vae.terms(x, 1).kl))


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=[ROWS, SIZE]).astype(np.float32)


def dataset(x: np.ndarray, batch_size: int = 3) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(x).batch(batch_size)


@pytest.fixture(scope="module")
def plain(x):
    """Single steps in graph mode, in order: what the other ways are compared with."""
    return train(make_vae(num_samples=2), x, steps=1, shuffle=False)


# The engine and loops by hand


def test_it_is_a_plain_training_loop(x, plain):
    vae = make_vae(num_samples=2)
    optimizer = keras.optimizers.Adam(0.01)
    history = []
    for _ in range(2):
        numbers = []
        for start in range(0, ROWS, 3):
            # A short batch is filled with its own rows, which count for nothing then.
            count = min(3, ROWS - start)
            batch = x[start + np.arange(3) % count]
            with tf.GradientTape() as tape:
                terms = vae.terms(batch, 2, seed=tf.cast(vae.seed_generator.next(), tf.int32), training=True)
                bounds = (tf.reduce_mean(terms.log_likelihood, axis=0) - terms.kl)[:count]
                loss = -tf.reduce_mean(bounds)
            optimizer.apply(tape.gradient(loss, vae.trainable_variables), vae.trainable_variables)
            numbers.extend(bounds.numpy())
        assert len(numbers) == ROWS
        history.append(np.mean(numbers))
    np.testing.assert_allclose(plain[0]["elbo"], history, rtol=1e-5)
    np.testing.assert_allclose(plain[0]["loss"], -np.array(history), rtol=1e-5)
    for weight, other in zip(plain[1], vae.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-5)


@pytest.mark.parametrize("given", ["array", "stream"])
@pytest.mark.parametrize(("size", "own"), [(6, 3), (8, 1), (9, 9)])
def test_a_batch_statistic_sees_the_rows_of_a_short_batch_alone(given, size, own):
    """Where the short one divides the others; nine rows that drift, as those of a table do."""
    x = np.linspace(-1, 1, 27).reshape(9, 3).astype(np.float32)
    norm = keras.layers.BatchNormalization(momentum=0.0)
    parts = keras.Sequential([norm, keras.layers.Dense(3)]), networks.mlp([4]), posteriors.diagonal_normal(2)
    vae = VAE(*parts, DistributionLayer("Normal", [3]), seed=0)
    vae.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    if given == "array":
        vae.fit(x, batch_size=size, shuffle=False, verbose=0)
    else:
        vae.fit(dataset(x, size), verbose=0)
    np.testing.assert_allclose(norm.moving_mean, x[-own:].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, x[-own:].var(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("steps", "eager"), [(7, False), (3, False), (None, False), (2, True)])
def test_k_steps_are_k_single_steps(steps, eager, x, plain):
    # Four steps an epoch: one group that is never full, a full and a short one, the default, and plain Python.
    assert_same(plain, train(make_vae(num_samples=2), x, steps=steps, eager=eager, shuffle=False), 1e-5)


@pytest.mark.slow
def test_k_steps_are_k_single_steps_under_xla_and_the_default(x):
    single, seven = (train(make_vae(), x, steps=steps, jit=True) for steps in (1, 7))
    assert_same(single, seven, 1e-6)
    vae = make_vae()
    vae.compile(keras.optimizers.Adam(0.01))
    assert vae.jit_compile
    history = vae.fit(x, batch_size=3, epochs=2, verbose=0).history
    assert vae.steps_per_execution > 1
    assert_same(single, (history, vae.get_weights()), 1e-6)


def test_xla_computes_what_the_graph_does(x):
    """XLA draws other normals from the same seed: compare where the noise is too small to see."""
    results = []
    for jit in (True, False):
        vae = VAE(
            encoder=keras.layers.Dense(6, "tanh", kernel_initializer=keras.initializers.GlorotUniform(1)),
            decoder=keras.layers.Dense(6, "tanh", kernel_initializer=keras.initializers.GlorotUniform(2)),
            posterior=DistributionLayer(
                "Normal", [2], scale=1e-6, kernel_initializer=keras.initializers.GlorotUniform(3)
            ),
            likelihood=DistributionLayer("Bernoulli", [SIZE], kernel_initializer=keras.initializers.GlorotUniform(4)),
            seed=3,
        )
        results.append(train(vae, x, jit=jit))
    assert_same(*results, 1e-4)


def test_history_keys(x, plain):
    assert sorted(plain[0]) == ["elbo", "kl", "log_likelihood", "loss"]
    history, _ = train(make_vae(), x, validation_data=x)
    names = ["elbo", "kl", "log_likelihood", "loss"]
    assert sorted(history) == names + [f"val_{name}" for name in names]
    # The bound is its two parts, the loss its negative: the KL is counted once.
    for prefix in ("", "val_"):
        elbo, kl, log_likelihood, loss = (np.array(history[prefix + name]) for name in names)
        np.testing.assert_allclose(elbo, log_likelihood - kl, rtol=1e-5)
        np.testing.assert_allclose(loss, -elbo, rtol=1e-5)


@pytest.mark.parametrize("floatx", [pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
def test_what_is_reported_is_a_sum_in_float32_whatever_keras_is_set_to(floatx, x):
    bits = np.repeat(x, 200, axis=0)  # of so many rows a sum in half precision has lost all that was after the point
    told = {"verbose": 0, "batch_size": 100}
    vaes = [make_vae(), make_vae()]
    vaes[0].compile(jit_compile=False)
    expected = vaes[0].evaluate(bits, return_dict=True, **told)
    keras.config.set_floatx(floatx)
    try:
        vaes[1].compile(jit_compile=False)
        found = vaes[1].evaluate(bits, return_dict=True, **told)
        history = vaes[1].fit(bits, **told).history
    finally:
        keras.config.set_floatx("float32")
    assert found == pytest.approx(expected, rel=1e-5)
    assert all(type(value) is float for value in (*found.values(), *(values[0] for values in history.values())))


def test_a_row_of_weight_zero_counts_for_nothing(x):
    vae = make_vae()
    vae.compile(run_eagerly=True)
    other = x.copy()
    other[-1] = 1 - x[-1]
    weights = tf.constant([1.0] * (ROWS - 1) + [0.0])
    results = []
    for rows in (x, other):
        vae.seed_generator.state.assign([1, 2])
        vae.reset_metrics()
        with tf.GradientTape() as tape:
            loss = vae.total_loss({"x": tf.constant(rows)}, Rows.of_one_device(weights), training=True)
        results.append([loss, *tape.gradient(loss, vae.trainable_variables), *vae.get_metrics_result().values()])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
    none = Rows.of_one_device(tf.zeros([ROWS]))
    assert np.isfinite(vae.total_loss({"x": tf.constant(x)}, none, training=True))


def test_noise_is_new_in_each_step(x):
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0), 4, jit_compile=False)
    same = np.repeat(x[:1], 12, axis=0)
    seen: list[float] = []
    for _ in range(3):
        seen.extend(vae.fit(same, batch_size=3, epochs=2, verbose=0).history["log_likelihood"])
    assert len(set(seen)) == 6
    # Within one program as well: equal rows in equal batches have equal bounds only if the noise is the same.
    vae.reset_metrics()
    single = [vae.train_on_batch(same[:3], return_dict=True)["log_likelihood"] for _ in range(4)]
    assert len(set(single)) == 4
    spread = np.std([np.mean(vae.terms(same[:3]).log_likelihood) for _ in range(120)])
    means = [vae.fit(same, batch_size=3, verbose=0).history["log_likelihood"][0] for _ in range(120)]
    assert np.std(means) < 0.8 * spread  # the mean of four independent batches varies half as much


# Repeating


def test_fit_repeats_bit_for_bit_under_a_seed(x):
    first, second = (train(make_vae(seed=7), x) for _ in range(2))
    assert first[0] == second[0]
    for weight, other in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(weight, other)
    assert train(make_vae(seed=8), x)[0] != first[0]
    assert train(make_vae(seed=7), x, shuffle=False)[0] != first[0]


def test_passes_that_start_within_one_group_are_shuffled_apart():
    """A dataset that is short beside a group: its seed is asked for again before a step has been counted."""
    batches = engine.ArrayBatches(Data(tf.range(10)), 5, 8, steps_per_epoch=8, seed=lambda: [7])
    rows = next(iter(batches)).rows.reshape(4, 10)
    assert len({tuple(order) for order in rows}) == 4
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(10), (4, 1)))


def test_each_epoch_has_a_shuffle_of_its_own_and_every_row_once():
    seeds: Iterator[int] = iter(range(100))
    batches = engine.ArrayBatches(Data(tf.range(10)), 4, 2, seed=lambda: [next(seeds)])
    epochs = []
    for _ in range(5):
        groups = list(batches)
        assert [group.num_steps for group in groups] == [2, 1]
        assert {group.rows.shape for group in groups} == {(2, 4)}
        rows = [row for g in groups for k in range(g.num_steps) for row in g.rows[k, : g.counts[k]]]
        assert sorted(rows) == list(range(10))
        epochs.append(tuple(rows))
    assert len(set(epochs)) == 5


def test_every_row_counts_once_an_epoch(x):
    vae = make_vae()
    history, _ = train(vae, x, keras.optimizers.SGD(0.0), steps=3, epochs=3)
    np.testing.assert_allclose(history["kl"], mean_kl(vae, x), rtol=1e-5)


def test_fit_in_parts_is_fit_at_once(x):
    whole = train(make_vae(), x, epochs=4)
    vae = make_vae()
    first, _ = train(vae, x, epochs=1)
    rest = vae.fit(x, batch_size=3, epochs=4, initial_epoch=1, verbose=0).history
    assert_same(whole, ({key: first[key] + rest[key] for key in first}, vae.get_weights()), 0.0)


# Streams


def unknown(x: np.ndarray) -> tf.data.Dataset:
    return dataset(x).filter(lambda batch: True)


class Batches(keras.utils.PyDataset):
    """Batches of x by index."""

    def __init__(self, x: np.ndarray):
        super().__init__()
        self.x = x

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        return (self.x[3 * index : 3 * index + 3],)


@pytest.mark.parametrize("source", [dataset, unknown, Batches])
def test_a_stream_equals_the_array(source, x, plain):
    assert_same(plain, train(make_vae(num_samples=2), source(x), steps=3, batch_size=None, shuffle=False), 1e-5)


def test_a_generator_equals_the_array(x):
    def batches():
        while True:
            for start in range(0, 9, 3):
                yield (x[start : start + 3],)

    expected = train(make_vae(), x[:9], shuffle=False)
    assert_same(expected, train(make_vae(), batches(), batch_size=None, steps_per_epoch=3), 1e-5)


def test_batches_of_any_size_count_by_their_rows(x):
    sizes = [2, 1, 5, 3]
    starts = np.cumsum([0, *sizes])

    def batches():
        for start, end in itertools.pairwise(starts):
            yield x[start:end]

    unequal = tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec([None, SIZE], tf.float32))
    vae = make_vae()
    history, _ = train(vae, unequal, keras.optimizers.SGD(0.0), steps=2, batch_size=None)
    np.testing.assert_allclose(history["kl"], mean_kl(vae, x), rtol=1e-5)
    result = vae.evaluate(unequal, verbose=0, return_dict=True)
    assert result["kl"] == pytest.approx(mean_kl(vae, x), rel=1e-5)
    # A single step on them is the mean over each batch's rows, not over its filling.
    moved = make_vae()
    train(moved, unequal, keras.optimizers.SGD(0.1), steps=4, batch_size=None)
    assert all(np.isfinite(weight).all() for weight in moved.get_weights())


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps"),
    [
        (lambda rows: rows.batch(100, drop_remainder=True), None, 81),
        (lambda rows: rows.batch(2000, drop_remainder=True), None, 4),
        (lambda rows: rows.batch(100), 100, 81),
        (lambda rows: rows.batch(100), None, 16),  # it does not say how large its batches are, only how many
        (lambda rows: rows.batch(1000), None, 10),
        (lambda rows: rows.filter(lambda row: True).batch(100), None, 16),  # nor how many
    ],
)
def test_a_stream_runs_as_many_steps_at_once_as_8192_rows_make(rows, batch_size, steps):
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    x = np.random.default_rng(0).uniform(size=[10_000, SIZE]).astype(np.float32)
    source = rows(tf.data.Dataset.from_tensor_slices(x))
    history = vae.fit(source, batch_size=batch_size, verbose=0).history
    assert vae.steps_per_execution == steps
    assert history["kl"][0] == pytest.approx(mean_kl(vae, x), rel=1e-4)
    assert vae.evaluate(source, verbose=0, return_dict=True)["kl"] == pytest.approx(mean_kl(vae, x), rel=1e-4)


def test_a_generator_and_an_endless_dataset_train_by_default(x):
    def batches():
        while True:
            yield (x[:3],)

    for source in (batches(), dataset(x[:3]).repeat()):
        vae = make_vae()
        vae.compile(jit_compile=False)
        vae.fit(source, steps_per_epoch=5, epochs=2, verbose=0)
        assert int(vae.optimizer.iterations) == 10


@pytest.mark.parametrize("chosen", [None, True, False])
def test_a_dataset_keeps_the_autotuner_that_it_asks_for(chosen, monkeypatch):
    stream, options = tf.data.Dataset.range(8).batch(2), tf.data.Options()
    if chosen is not None:
        options.autotune.enabled = chosen
    seen = []
    iterate = type(stream).__iter__
    monkeypatch.setattr(tf.data.Dataset, "__iter__", lambda self: seen.append(self.options()) or iterate(self))
    assert len(list(engine.StreamBatches(stream.with_options(options), Data, *ANY, 2))) == 2
    assert seen[-1].autotune.enabled is bool(chosen)


def test_steps_per_epoch_need_not_divide_anything():
    stream = tf.data.Dataset.range(7).batch(2).map(lambda n: tf.cast(n, tf.float32)[:, None]).repeat()
    batches = engine.StreamBatches(stream, Data, *ANY, steps_per_execution=2, steps_per_epoch=5)
    groups, iterator = [], iter(batches)
    for _ in range(6):
        group = next(iterator)
        picked = tf.gather(group.data.inputs, group.rows)[..., 0].numpy()
        groups.append([picked[k, : group.counts[k]].tolist() for k in range(group.num_steps)])
    assert groups == [
        [[0, 1], [2, 3]],
        [[4, 5], [6]],
        [[0, 1]],
        [[2, 3], [4, 5]],
        [[6], [0, 1]],
        [[2, 3]],
    ]


@pytest.mark.parametrize("kind", ["stream", "array"])
def test_fit_on_an_endless_stream_or_array(kind, x):
    source, batch_size = (dataset(x).repeat(), None) if kind == "stream" else (x, 3)
    vae = make_vae()
    steps: list[int] = []
    counted = keras.callbacks.LambdaCallback(on_epoch_end=lambda e, logs: steps.append(int(vae.optimizer.iterations)))
    more = {"batch_size": batch_size, "steps_per_epoch": 5, "epochs": 3, "callbacks": [counted]}
    history, _ = train(vae, source, steps=3, **more)
    assert steps == [5, 10, 15]
    assert np.isfinite(history["loss"]).all()


def test_an_epoch_of_few_steps_goes_on_where_the_last_one_stopped(x):
    for source, more in ((dataset(x).repeat(), {"batch_size": None}), (x, {})):
        vae = make_vae()
        nothing = keras.optimizers.SGD(0.0)
        history, _ = train(vae, source, nothing, steps=3, steps_per_epoch=2, epochs=4, shuffle=False, **more)
        first, second = mean_kl(vae, x[:6]), mean_kl(vae, x[6:])
        np.testing.assert_allclose(history["kl"], [first, second, first, second], rtol=1e-5)


# Validation and evaluation


def test_every_validation_row_is_evaluated(x):
    vae = make_vae()
    other = np.random.default_rng(1).uniform(size=[7, SIZE]).astype(np.float32)
    for validation, more in ((other, {}), (other, {"validation_batch_size": 4}), (dataset(other, 2), {})):
        history, _ = train(vae, x, validation_data=validation, epochs=1, **more)
        np.testing.assert_allclose(history["val_kl"], mean_kl(vae, other), rtol=1e-5)
    history, _ = train(vae, x, validation_split=0.4, epochs=1)
    np.testing.assert_allclose(history["val_kl"], mean_kl(vae, x[6:]), rtol=1e-5)


def test_validation_does_not_change_training(x):
    alone = train(make_vae(), x)
    history, weights = train(make_vae(), x, validation_data=x[:5])
    assert_same(alone, ({key: value for key, value in history.items() if not key.startswith("val_")}, weights), 0.0)


def test_evaluate_is_the_mean_elbo(x):
    vae = make_vae(num_samples=400)
    train(vae, x, epochs=1)
    expected = float(np.mean(vae.elbo(x, 4000)))
    for source, more in ((x, {"batch_size": 4}), (dataset(x), {})):
        result = vae.evaluate(source, verbose=0, return_dict=True, **more)
        assert result["elbo"] == pytest.approx(expected, abs=0.03)
        assert result["loss"] == pytest.approx(-result["elbo"], rel=1e-6)
    before = vae.get_weights()
    vae.evaluate(x, verbose=0)
    for weight, other in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_single_batches(x):
    vae, other = make_vae(), make_vae()
    for model in (vae, other):
        model.compile(keras.optimizers.Adam(0.01), 1, jit_compile=False)
    history = vae.fit(x, batch_size=ROWS, shuffle=False, verbose=0).history
    result = other.train_on_batch(x, return_dict=True)
    assert {key: [pytest.approx(value, rel=1e-5)] for key, value in result.items()} == history
    assert other.test_on_batch(x, return_dict=True)["kl"] == pytest.approx(mean_kl(other, x), rel=1e-5)
    with pytest.raises(ValueError, match="trained without targets"):
        other.train_on_batch(x, x)


# Callbacks


def test_callbacks(x, tmp_path):
    batches: list[int] = []
    vae = make_vae()
    history, _ = train(
        vae,
        x,
        keras.optimizers.SGD(0.0),
        steps=3,
        epochs=9,
        validation_data=np.zeros([2, SIZE], np.float32),
        callbacks=[
            keras.callbacks.EarlyStopping("val_kl", mode="min", patience=2),
            keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), monitor="val_loss", save_best_only=True),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch)),
        ],
    )
    assert len(history["loss"]) == 3  # nothing is learned, so it stops after its patience
    assert len(batches) == 6  # a full and a short group an epoch
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,elbo,kl,log_likelihood,loss,val_") and len(lines) == 4
    best = keras.models.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(best.embed(x), vae.embed(x))


def test_a_learning_rate_set_between_epochs_reaches_the_compiled_program(x):
    frozen = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate if epoch == 0 else 0.0)
    after_one = train(make_vae(), x, epochs=1)[1]
    after_three = train(make_vae(), x, epochs=3, callbacks=[frozen])[1]
    for weight, other in zip(after_one, after_three, strict=True):
        np.testing.assert_array_equal(weight, other)
    vae = make_vae()
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    train(vae, x, epochs=3, callbacks=[plateau])
    assert float(vae.optimizer.learning_rate) == pytest.approx(0.0025)


# Programs


@keras.saving.register_keras_serializable("tests")
class Counted(keras.layers.Layer):
    """The identity, which counts how often Python passes."""

    def __init__(self, **more):
        super().__init__(**more)
        self.calls = 0

    def call(self, x):
        self.calls += 1
        return x


@pytest.mark.parametrize("source", [lambda x: x, dataset, unknown], ids=["array", "dataset", "unknown"])
def test_nothing_is_traced_twice(source: Callable, x):
    counted = Counted()
    vae = make_vae(encoder=counted)
    vae.compile(steps_per_execution=3, jit_compile=False)
    counted.calls = 0
    calls = []
    for _ in range(3):
        vae.fit(source(x), batch_size=3 if source(x) is x else None, epochs=2, validation_data=x[:4], verbose=0)
        calls.append(counted.calls)
    assert calls == [2, 2, 2]  # one program to train and one to evaluate, partial batches and short groups included


def test_regularisers_enter_the_loss(x):
    losses = []
    for factor in (0.0, 0.01):
        keras.utils.set_random_seed(0)  # a layer's initial weights are those of the seed it was made under
        encoder = keras.layers.Dense(6, kernel_regularizer=keras.regularizers.L2(factor) if factor else None)
        vae = make_vae(encoder=encoder)
        history, _ = train(vae, x, keras.optimizers.SGD(0.0), epochs=1)
        losses.append(history)
    penalty = 0.01 * np.sum(np.square(vae.encoder.kernel))
    assert losses[1]["loss"][0] - losses[0]["loss"][0] == pytest.approx(penalty, rel=1e-3)
    assert losses[1]["elbo"] == pytest.approx(losses[0]["elbo"], rel=1e-6)
    # And the gradient: with nothing else to learn from, the weights shrink as they should.
    gradients = []
    for factor in (0.0, 0.5):
        encoder = keras.layers.Dense(6, kernel_regularizer=keras.regularizers.L2(factor) if factor else None)
        vae = make_vae(encoder=encoder)
        before = vae.encoder.kernel.numpy()
        train(vae, x, keras.optimizers.SGD(0.1), epochs=1, batch_size=ROWS)
        gradients.append((before - vae.encoder.kernel.numpy()) / 0.1)
    np.testing.assert_allclose(gradients[1] - gradients[0], 2 * 0.5 * before, atol=1e-4)


def test_batch_normalisation_and_dropout_train(x):
    layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dropout(0.3, seed=1)]
    vae = make_vae(encoder=keras.Sequential(layers))
    moving = layers[1].moving_mean.numpy()
    first = train(vae, x, epochs=3)
    assert np.any(layers[1].moving_mean.numpy() != moving)
    np.testing.assert_array_equal(vae.embed(x), vae.embed(x))  # neither acts outside of training
    assert np.isfinite(first[0]["loss"]).all()


@functools.cache
def digits() -> np.ndarray:
    return (load_digits().data / 16.0).astype(np.float32)


def test_the_loss_curve_is_that_of_a_plain_keras_loop():
    """A Keras model with a train_step of its own, other noise and other shuffles, from the same initial weights."""

    def make(seed: int) -> VAE:
        keras.utils.set_random_seed(0)
        return VAE(
            encoder=networks.mlp([32]),
            decoder=networks.mlp([32]),
            posterior=DistributionLayer("Normal", [4]),
            likelihood=DistributionLayer("Bernoulli", [64]),
            seed=seed,
        )

    class Plain(keras.Model):
        def __init__(self, vae: VAE):
            super().__init__()
            self.vae, self.tracker = vae, keras.metrics.Mean(name="loss")

        def train_step(self, x):
            vae = self.vae
            with tf.GradientTape() as tape:
                loc, raw = tf.split(vae.posterior.projection(vae.encoder(x)), 2, axis=-1)
                scale = tf.nn.softplus(raw)
                logits = vae.likelihood.projection(vae.decoder(loc + scale * tf.random.normal(tf.shape(loc))))
                error = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, logits), axis=-1)
                kl = 0.5 * tf.reduce_sum(loc**2 + scale**2 - 1 - 2 * tf.math.log(scale), axis=-1)
                loss = tf.reduce_mean(error + kl)
            variables = vae.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            self.tracker.update_state(loss, sample_weight=tf.shape(x)[0])
            return {"loss": self.tracker.result()}

    vae = make(1)
    vae.compile(keras.optimizers.Adam(3e-3))
    curve = vae.fit(digits(), epochs=6, verbose=0).history["loss"]
    loop = Plain(make(1))
    loop.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    stream = tf.data.Dataset.from_tensor_slices(digits()).shuffle(2000, seed=1).batch(100)
    expected = loop.fit(stream, epochs=6, verbose=0).history["loss"]
    np.testing.assert_allclose(curve, expected, atol=0.4)
    assert curve[0] - curve[-1] > 10


def parts_of(x: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(x), 4):
        yield {"x": x[start : start + 4], "label": np.zeros(len(x[start : start + 4]), int)}


def cut(name: str, axis: int, one: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows; of the last batch, of three, a part without the last along an axis."""
    return {**one, name: np.delete(one[name], -1, axis=axis)} if len(one["x"]) == 3 else one


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("x", 1), r"x has shape \[3 4\], expected \(N, 5\)"),
        (("x", 0), "in equal numbers, received x: 2, label: 3 rows"),
        (("label", 0), "in equal numbers, received x: 3, label: 2 rows"),
    ],
)
def test_a_batch_of_another_shape_is_told_and_not_filled_up(wrong, sentence, x):
    """Batches of a group are stacked, by filling up with zeros what is smaller: rows alone, never columns or parts."""
    vae = make_vae()
    vae.compile(run_eagerly=True)
    stream = tf.data.Dataset.from_generator(
        lambda: (cut(*wrong, one) for one in parts_of(x)),
        output_signature={"x": tf.TensorSpec([None, None]), "label": tf.TensorSpec([None], tf.int32)},
    )
    for see in (vae.fit, vae.evaluate):
        with pytest.raises(ValueError, match=sentence):
            see(stream, verbose=0)


def test_a_generator_may_change_the_shape_of_its_batches_no_more_than_a_dataset(x):
    vae = make_vae()
    vae.compile(run_eagerly=True)
    for widths in ([4, 5, 5], [5, 5, 4], [5, 5, 5, 5, 4]):
        for see in (lambda given: vae.fit(given, verbose=0), vae.embed):
            with pytest.raises(ValueError, match="shape"):
                see(np.zeros([2, width], np.float32) for width in widths)


@pytest.mark.parametrize("source", [Batches, lambda x: (batch for batch in np.split(x, [3, 6, 9]))])
def test_what_reads_rows_reads_streams_of_any_kind(source, x):
    vae = make_vae()
    vae.compile(run_eagerly=True)
    np.testing.assert_allclose(vae.embed(source(x)), vae.embed(x), atol=1e-6)
    seed = tf.constant([0, 1])
    np.testing.assert_allclose(vae.elbo(source(x), seed=seed), vae.elbo(x, seed=seed), atol=1e-5)


def test_a_number_of_fit_is_a_whole_number(x):
    vae = make_vae()
    vae.compile(run_eagerly=True)
    for name in ("steps_per_epoch", "batch_size", "epochs", "validation_freq", "validation_steps"):
        for value in (-1, 2.5, "a", *([0] if name != "epochs" else [])):  # no steps would be an epoch without an end
            with pytest.raises(ValueError, match=f"{name} must be"):
                vae.fit(x, validation_data=x, verbose=0, **{name: value})


def test_a_stream_may_give_tables(x):
    """What has ``to_numpy``, as pandas' and Polars' tables do."""

    class Table:
        shape = x.shape

        def to_numpy(self):
            return x

    vae = make_vae()
    np.testing.assert_allclose(vae.embed((Table(),) for _ in range(1)), vae.embed(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("z", "sentence"),
    [
        ([[np.nan, 0.0]], "z holds NaN or infinite values"),
        (np.zeros([1, 2], complex), r"z is array\(\[\[0.*expected numbers"),
        ("a", "z is 'a', expected numbers"),
        ([[1.0], [1.0, 2.0]], "expected numbers"),
    ],
)
def test_a_code_is_finite_numbers(z, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_vae().decode(z)


def test_masked_cells_are_no_numbers_and_classes_no_callbacks(x):
    vae = make_vae()
    vae.compile(run_eagerly=True)
    for see in (vae.fit, vae.predict, vae.embed, vae.elbo, vae.train_on_batch):
        with pytest.raises(ValueError, match="masked array with 1 cell masked"):
            see(np.ma.masked_equal(x, x[0, 0]))
    masked = np.ma.masked_equal(x, x[0, 0])

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return (masked,)

    for see in (
        lambda: vae.embed((masked,) for _ in range(1)),
        lambda: vae.fit(((masked,) for _ in range(1)), verbose=0),
        lambda: vae.fit(Batches(), verbose=0),
        lambda: vae.elbo([*masked]),
        lambda: vae(masked),
        lambda: vae.decode(np.ma.masked_equal(np.eye(vae.latent_dim), 1)),
    ):
        with pytest.raises(ValueError, match=r"masked array with \d+ cells? masked"):
            see()
    for wrong in ("EarlyStopping", [None], [keras.callbacks.EarlyStopping]):
        with pytest.raises(ValueError, match="callbacks holds"):
            vae.fit(x, callbacks=wrong)


def _of_kind(**methods):
    parts = (DistributionLayer("Normal", [size]) for size in (2, 4))
    return type("Mine", (VAE,), methods)(networks.mlp([4]), networks.mlp([4]), *parts)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("train_step", "as objective="),
        ("test_step", "as objective="),
        ("compute_loss", "as objective="),
        ("compute_metrics", "a callback of yours"),
        ("predict_step", "override call"),
    ],
)
def test_a_method_that_would_never_be_called_is_refused(name, instead):
    vae = _of_kind(**{name: lambda self, *data: {}})
    with pytest.raises(ValueError, match=rf"Mine\.{name} would never be called: .* {instead}"):
        vae.compile()
    if name == "predict_step":
        with pytest.raises(ValueError, match=r"Mine\.predict_step would never"):
            vae.predict(np.zeros([3, 4], "float32"), verbose=0)


@pytest.mark.parametrize("name", ["call", "encode", "terms", "elbo"])
def test_a_method_that_training_does_not_call_is_warned_of(name):
    def one_s_own(self, *args, **kwargs):
        return getattr(VAE, name)(self, *args, **kwargs)

    with pytest.warns(UserWarning, match=rf"fit and evaluate never call Mine\.{name}\. ") as told:
        _of_kind(**{name: one_s_own}).compile()
    assert len(told) == 1 and told[0].filename == __file__


@pytest.mark.filterwarnings("error")
def test_what_is_called_or_new_is_not_told_of():
    def bound_of_many(self, x):
        return super(type(self), self).elbo(x, 64)

    def decode(self, *args, **kwargs):
        return VAE.decode(self, *args, **kwargs)

    _of_kind(decode=decode, bound_of_many=bound_of_many).compile()
    VAE(networks.mlp([4]), networks.mlp([4]), *(DistributionLayer("Normal", [n]) for n in (2, 4))).compile()


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_weights_beyond_float32_are_refused_and_a_loss_beyond_it_is_told(method, x):
    vae = make_vae()
    vae.compile(jit_compile=False)
    with pytest.raises(ValueError, match="sample_weight holds numbers whose sum float32 does not hold: divide them"):
        getattr(vae, method)(x, sample_weight=np.full(len(x), 1e38), verbose=0)
    with pytest.warns(UserWarning, match=r"The loss (of epoch 1 )?is inf\. "):
        getattr(vae, method)(x, sample_weight=np.full(len(x), 3e38 / len(x)), verbose=0)


@pytest.mark.slow
def test_a_list_of_x_and_none_is_validated_as_a_tuple_is(x):
    found = []
    for kind in (tuple, list):
        vae = make_vae()
        vae.compile(jit_compile=False)
        found.append(vae.fit(x, verbose=0, validation_data=kind([x[:9], None, np.ones(9)])).history)
    assert found[0] == found[1] and "val_elbo" in found[0]
