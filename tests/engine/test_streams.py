"""What a stream's own code raises reaches the user as it is; batches that do not fit are told in a sentence."""

import itertools
import re

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tfvae import VAE, evaluation, likelihoods, networks, posteriors
from tfvae.engine import batches

pytestmark = pytest.mark.xla

X = np.random.default_rng(0).integers(0, 2, [8, 3]).astype(np.float32)
SPEC = tf.TensorSpec([None, 3], tf.float32)


class DiskError(Exception):
    """Of the user's own."""


class Rows(keras.utils.PyDataset):
    """Four batches, of which those from ``bad`` on cannot be read."""

    def __init__(self, error: Exception, bad: int, **more):
        super().__init__(**more)
        self._error, self._bad = error, bad

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i >= self._bad:
            raise self._error
        return (X,)


def generator(error: Exception, bad: int):
    for _ in range(bad):
        yield X
    raise error


@pytest.fixture(scope="module")
def vae() -> VAE:
    parts = networks.mlp([2]), networks.mlp([2]), posteriors.diagonal_normal(2), likelihoods.bernoulli([3])
    made = VAE(*parts, seed=0)
    made.compile(jit_compile=False)
    return made


DOORS = {
    "fit": lambda vae, x: vae.fit(x, verbose=0),
    "steps_per_epoch": lambda vae, x: vae.fit(x, steps_per_epoch=4, verbose=0),
    "evaluate": lambda vae, x: vae.evaluate(x, verbose=0),
    "predict": lambda vae, x: vae.predict(x, verbose=0),
    "embed": lambda vae, x: vae.embed(x),
    "log_marginal": lambda vae, x: evaluation.log_marginal(vae, x, num_samples=2),
}
SOURCES = {
    "generator": (generator, DOORS),
    "PyDataset": (Rows, ("evaluate", "predict", "embed")),
    "PyDataset, two threads": (lambda error, bad: Rows(error, bad, workers=2), ("embed",)),
}


@pytest.mark.parametrize(
    ("source", "door"), [(source, door) for source, (_, doors) in SOURCES.items() for door in doors]
)
@pytest.mark.parametrize(("kind", "bad"), [(DiskError, 3), (ValueError, 0), (ValueError, 3)])
def test_what_a_stream_raises_is_raised(vae, door, source, kind, bad):
    error = kind("disk 7 is gone")
    with pytest.raises(kind) as caught:
        DOORS[door](vae, SOURCES[source][0](error, bad))
    assert caught.value is error and str(error) == "disk 7 is gone"


@pytest.mark.parametrize("door", ["fit", "predict"])
def test_a_cause_is_kept_where_keras_keeps_it(vae, door):
    error = DiskError("disk 7 is gone")
    error.__cause__ = OSError("unplugged")
    with pytest.raises(DiskError) as caught:
        DOORS[door](vae, generator(error, 3))
    assert door == "fit" or isinstance(caught.value.__cause__, OSError)  # Keras's fit drops every cause


@pytest.mark.parametrize("door", ["evaluate", "predict"])
@pytest.mark.parametrize("kind", ["from_generator", "numpy_function"])
def test_what_a_function_in_a_dataset_raises_is_told_in_a_sentence(vae, door, kind):
    if kind == "from_generator":
        x = tf.data.Dataset.from_generator(lambda: generator(DiskError("disk 7\nis gone"), 3), output_signature=SPEC)
    else:
        read = tf.autograph.experimental.do_not_convert(lambda row: next(generator(DiskError("disk 7 is gone"), 0)))
        x = tf.data.Dataset.from_tensor_slices(X).map(
            lambda row: tf.ensure_shape(tf.numpy_function(read, [row], tf.float32), [3])
        )
        x = x.batch(4)
    place = re.escape(f"({__file__}, line ") + r"\d+, in generator\)"
    with pytest.raises(RuntimeError, match=f"^A function that makes x raised DiskError: disk 7 is gone {place}\\.$"):
        DOORS[door](vae, x)


class Batches(keras.utils.PyDataset):
    def __init__(self, *made):
        super().__init__()
        self._batches = made

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, i):
        return (self._batches[i],)


CHANGED = {
    "width": (X[:, :2], r"float32 \[N, 2\]"),
    "rank": (X[None], r"float32 \[N, 8, 3\]"),
    "two parts": ((X, X), r"float32 \[N, 3\], y float32 \[N, 3\]"),
    "mapping": ({"x": X}, r"x float32 \[N, 3\]"),
    "text": (np.full([8, 3], "a"), r"str32 \[N, 3\]"),
    "nothing": (None, "NoneType"),
    "one number": (3.0, "float"),
}


@pytest.mark.parametrize(
    ("source", "door"),
    [
        (lambda last: Batches(X, X, X, last), "evaluate"),
        *((lambda last: (x for x in [X, X, X, last]), door) for door in ("predict", "embed")),
    ],
)
@pytest.mark.parametrize("kind", CHANGED)
@pytest.mark.slow
def test_batches_that_change_are_told_in_a_sentence(vae, door, source, kind):
    last, told = CHANGED[kind]
    sentence = r"^x gives batches of different shapes, dtypes or parts: first float32 \[N, 3\], later "
    with pytest.raises(ValueError, match=sentence + told + r"; make each like the first\.$"):
        DOORS[door](vae, source(last))


@pytest.mark.parametrize("kind", CHANGED)
@pytest.mark.slow
def test_a_dataset_from_a_generator_too(vae, kind):
    x = tf.data.Dataset.from_generator(lambda: iter([X, X, X, CHANGED[kind][0]]), output_signature=SPEC)
    with pytest.raises(ValueError, match=r"^x gives batches (of different|that are not made alike)[^{}\n]*\.$"):
        vae.predict(x, verbose=0)


@pytest.mark.parametrize("first", [np.uint8, np.int32, np.bool_, np.float16])
def test_later_batches_are_not_cut_to_the_dtype_of_the_first(vae, first):
    """Keras reads every batch as the first: 0.9 would become 0."""
    x = (255 * X if first is np.uint8 else X).astype(first)
    for door in ("evaluate", "embed"):
        with pytest.raises(ValueError, match=r"later float32 \[N, 3\]; make each like"):
            DOORS[door](vae, (batch for batch in [x, x, np.full([8, 3], 0.9, np.float32)]))


@pytest.mark.parametrize(
    ("made", "door"),
    [("PyDataset", "fit"), ("PyDataset", "evaluate"), ("generator", "predict"), ("generator", "embed")],
)
def test_bytes_after_floats_are_refused(vae, made, door):
    """As floats they would be 255 times what they are."""
    given = [X, X, (255 * X).astype(np.uint8)]
    with pytest.raises(ValueError, match=r"first float32 \[N, 3\], later uint8 \[N, 3\]; make each like"):
        DOORS[door](vae, Batches(*given) if made == "PyDataset" else (batch for batch in given))


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        (scipy.sparse.dok_matrix(X), r"^x is a dok_matrix, .* pass \.toarray\(\) of it"),
        ({"x": scipy.sparse.csr_array(X)}, r"^x is a csr_array, .* pass \.toarray\(\) of it"),
        (X.astype(np.longdouble), r"^x is a ndarray of float128, .* pass \.astype\('float32'\) of it"),
        ({"x": X.astype(object)}, "^x is a ndarray of object, which is no array of numbers: pass numbers alone"),
        ({"x": X, 1: X}, "^x gives batches with the parts 'x', 1, expected names of strings"),
    ],
    ids=["dok", "csr", "long", "objects", "names"],
)
def test_batches_that_tensorflow_cannot_go_through_are_told(vae, batch, told):
    with pytest.raises(ValueError, match=told):
        vae.embed(one for one in [batch])


class Bare(Batches):
    def __getitem__(self, i):
        return self._batches[i]


@pytest.mark.parametrize("source", [Batches, Bare])
def test_a_sparse_batch_of_a_dataset_is_told_before_keras_looks_at_it(vae, source):
    with pytest.raises(ValueError, match=r"^x is a csr_matrix, .* pass \.toarray\(\) of it"):
        vae.embed(source(X, scipy.sparse.csr_matrix(X)))


def test_bytes_of_other_parts_than_x_are_numbers(vae):
    """Of weights a byte is the number that it is, whatever came first to be cast to; floats are not cut to bytes."""
    ones = np.ones(8, np.uint8)
    vae.evaluate(((X, None, weight) for weight in (ones.astype(np.float32), ones)), verbose=0)
    with pytest.raises(ValueError, match=r"first .*, y NoneType, sample_weight uint8 \[N\], later .*; make each like"):
        vae.evaluate(((X, None, weight) for weight in (ones, 0.5 * ones)), verbose=0)


@pytest.mark.parametrize("last", [0.9, 1.0])
def test_a_shuffle_does_not_hide_the_dtype_that_all_are_made(vae, last, monkeypatch):
    """Keras takes the dtype from the front, and may then begin with the last."""
    monkeypatch.setattr("random.shuffle", lambda order: order.reverse())
    x = (255 * X).astype(np.uint8)
    with pytest.raises(ValueError, match=r"first uint8 \[N, 3\], later float32 \[N, 3\]; make each like"):
        vae.fit(Batches(x, x, np.full([8, 3], last, np.float32)), verbose=0)


def test_batches_of_other_dtypes_become_float32(vae):
    mixed = [X, X.astype(np.float64), X.astype(np.int32), X.astype(np.bool_)]
    expected = vae.embed(np.concatenate([X] * 4))
    np.testing.assert_allclose(vae.embed(batch for batch in mixed), expected, atol=1e-6)


def test_a_generator_is_left_open(vae):
    x = (X for _ in itertools.count())
    for _ in range(2):
        vae.fit(x, steps_per_epoch=2, verbose=0)
    assert next(x).shape == (8, 3)


# A stream that goes on where a state was taken


def counted(source, state=None) -> batches.StreamBatches:
    made = batches.StreamBatches(source, batches.Data, lambda data: tf.zeros([1]), lambda measured: True, 2)
    if state is not None:
        made.set_state(state)
    return made


def values_of(groups) -> list[np.ndarray]:
    """Of those that are not done already."""
    return [leaf.numpy() for group in groups for leaf in tf.nest.flatten(group.data)]


def rows(values, seed: int | None) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(values).shuffle(24, seed=seed).batch(2)


STREAMS = {
    "the same": (lambda values: rows(values, 1), 0, False),
    "other values": (lambda values: rows(values, 1), 1, True),
    "no seed": (lambda values: rows(values, None), 0, True),
    "the same generator": (lambda values: (values[i : i + 2] for i in range(0, 24, 2)), 0, False),
    "another generator": (lambda values: (values[i : i + 2] for i in range(0, 24, 2)), 1, True),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_gives_other_batches_than_before_is_told(name, caplog):
    make, more, differs = STREAMS[name]
    values = np.arange(24.0)
    once = counted(make(values))
    groups = iter(once)
    within = [once.get_state(done, True) for group in itertools.islice(groups, 2) for done in (1, 2)]
    rest = values_of(groups)
    for state in within[1:]:  # one step into a group, and at its end
        caplog.clear()
        again = values_of(counted(make(values + more), state))
        assert ("gives other batches than before" in caplog.text) == differs
    assert np.array_equal(again, rest) != differs
    if "generator" not in name:  # which has no second pass
        caplog.clear()
        list(counted(make(values + more), once.get_state(None, False)))
        assert ("gives other batches than before" in caplog.text) == differs


@pytest.mark.parametrize(
    ("how", "steps"),
    [({"jit_compile": True}, 4), ({"jit_compile": False}, 1), ({"jit_compile": False}, 4), ({"run_eagerly": True}, 4)],
)
def test_a_batch_without_rows_is_no_step(how, steps):
    """Not even one of the optimiser's alone: it is as if the stream had not given it."""
    found = []
    for gives in ([X, X[:0], X[:5], X[:0], X[:0], X[5:], X[:0]], [X, X[:5], X[5:]]):
        keras.utils.set_random_seed(0)
        parts = networks.mlp([2]), networks.mlp([2]), posteriors.diagonal_normal(2), likelihoods.bernoulli([3])
        vae = VAE(*parts, seed=0)
        vae.compile("adam", steps_per_execution=steps, **how)
        data = tf.data.Dataset.from_generator(lambda gives=gives: iter(gives), output_signature=SPEC)
        history = vae.fit(data, validation_data=data, epochs=2, verbose=0).history
        found.append([*history.values(), *vae.get_weights(), vae.optimizer.iterations.numpy()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
