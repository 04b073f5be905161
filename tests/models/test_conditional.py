"""p(x|c): a model of two-input networks, exact on a linear-Gaussian model, and a row's parts the whole way through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import linear_gaussian
from tfvae import VAE, DistributionLayer, evaluation, models, networks

EXACT = linear_gaussian.Exact(conditional=True)


@pytest.fixture(scope="module")
def xc() -> tuple[np.ndarray, np.ndarray]:
    return linear_gaussian.rows(6)


# Truth


def test_with_the_exact_posterior_every_weight_is_p_of_x_given_c(xc):
    x, c = xc
    vae = linear_gaussian.vae(conditional=True)
    expected = EXACT.log_marginal(x, c)
    assert np.ptp(expected - linear_gaussian.Exact(False).log_marginal(x)) > 1  # the condition matters
    row = {"x": x, "condition": c}
    np.testing.assert_allclose(vae.log_weights(row, 5, tf.constant([0, 1])), np.tile(expected, [5, 1]), atol=5e-5)
    found = evaluation.log_marginal(vae, row, num_samples=20, batch_size=4)
    np.testing.assert_allclose(found.log_marginal, expected, atol=5e-5)
    np.testing.assert_allclose(found.effective_sample_size, 20.0, rtol=1e-4)
    terms = vae.terms(row, 20_000, seed=tf.constant([1, 2]))
    error = np.std(terms.log_likelihood, axis=0) / np.sqrt(20_000)
    assert (np.abs(np.mean(terms.log_likelihood, axis=0, dtype=np.float64) - terms.kl - expected) < 4 * error).all()


def test_with_another_posterior_importance_sampling_finds_it_within_its_error(xc):
    x, c = xc
    vae = linear_gaussian.vae(conditional=True, wider=1.4, shift=0.2)
    found = evaluation.log_marginal(vae, {"x": x, "condition": c}, num_samples=4000)
    expected = EXACT.log_marginal(x, c)
    assert (np.abs(found.log_marginal - expected) < 4 * found.standard_error).all()
    assert (found.standard_error > 1e-4).all() and (found.standard_error < 0.03).all()
    # KL(q‖p(z|x, c)), both normal, is what the bound lacks.
    gap = 0.5 * np.sum(1.4**2 + 0.2**2 / linear_gaussian.VARIANCE - 1 - np.log(1.4**2))
    terms = vae.terms({"x": x, "condition": c}, 4000, tf.constant([0, 1]))
    error = np.std(terms.log_weight, axis=0) / np.sqrt(4000)
    assert (np.abs(np.mean(terms.log_weight, axis=0) - (expected - gap)) < 4 * error).all() and gap > 10 * error.max()


def test_the_joint_density_at_any_z(xc):
    x, c = xc
    z = np.random.default_rng(1).normal(size=[3, 6, 2]).astype(np.float32)
    found = linear_gaussian.vae(conditional=True).log_joint({"x": x, "condition": c}, z)
    np.testing.assert_allclose(found, EXACT.log_joint(x, z, c), rtol=1e-5, atol=1e-4)
    means = linear_gaussian.vae(conditional=True).decode(z, c).mean()
    np.testing.assert_allclose(means, z @ linear_gaussian.W + EXACT.mean(c), rtol=1e-4, atol=1e-5)


def test_what_a_model_says_of_rows_is_of_their_own_conditions(xc, monkeypatch):
    x, c = xc
    vae, row = linear_gaussian.vae(conditional=True), {"x": x, "condition": c}
    z = (x - EXACT.mean(c)) @ linear_gaussian.KERNEL
    reconstruction = z @ linear_gaussian.W + EXACT.mean(c)
    np.testing.assert_allclose(vae.embed(row, batch_size=4), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vae.encode(x, c).mean(), z, rtol=1e-4, atol=1e-5)
    for batches in (row, tf.data.Dataset.from_tensor_slices(row).batch(4)):
        np.testing.assert_allclose(vae.predict(batches, batch_size=4, verbose=0), reconstruction, rtol=1e-4, atol=1e-5)
    for found in (vae.reconstruct(row, batch_size=4), vae(row), vae.predict_on_batch(row)):
        np.testing.assert_allclose(found, reconstruction, rtol=1e-4, atol=1e-5)
    # A sample's mean lies in c A + b + the row space of W: what W cannot make is the condition's alone.
    for call in (lambda bad: vae.sample(6, condition=bad), lambda bad: vae.decode(z, bad)):
        with pytest.raises(ValueError, match="condition holds NaN or infinite values"):
            call(np.where(np.arange(c.size).reshape(c.shape) == 1, np.nan, c))
    monkeypatch.setattr(models.vae, "_DECODED", 4)  # fewer than the rows
    samples = vae.sample(6, seed=0, condition=c)
    blind = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.5, 0.5]]).T
    np.testing.assert_allclose(samples @ blind, EXACT.mean(c) @ blind, rtol=1e-4, atol=1e-4)
    assert np.std((samples - EXACT.mean(c)) @ linear_gaussian.W.T) > 0.5


# A condition that nothing looks at


def small(conditional: bool, two_inputs: bool = False, **more) -> VAE:
    keras.utils.set_random_seed(0)
    encoder, decoder = (
        linear_gaussian.two_inputs(n, 3, 6) if two_inputs else keras.Sequential([keras.Input([n]), networks.mlp([6])])
        for n in (4, 2)
    )
    return VAE(
        encoder,
        decoder,
        DistributionLayer("Normal", [2]),
        DistributionLayer("Normal", [4]),
        condition_shape=[3] if conditional else None,
        seed=1,
        **more,
    )


def test_a_condition_that_no_network_takes_changes_nothing(xc):
    x, c = xc
    plain, conditional = small(False), small(True)
    for vae, row in ((plain, x), (conditional, {"x": x, "condition": c})):
        vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        vae.losses_seen = vae.fit(row, batch_size=4, epochs=3, verbose=0).history["loss"]
    assert plain.losses_seen == conditional.losses_seen
    for one, other in zip(plain.get_weights(), conditional.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_condition_of_zeros_is_none(xc):
    x, _ = xc
    vae, plain = small(True, two_inputs=True), small(False)
    for ours, theirs in zip(vae.weights, plain.weights, strict=True):  # without the rows that meet the condition
        theirs.assign(ours[: theirs.shape[0]])
    seed = tf.constant([1, 2])
    row = {"x": x, "condition": np.zeros([6, 3], np.float32)}
    np.testing.assert_allclose(vae.elbo(row, 3, seed), plain.elbo(x, 3, seed), rtol=1e-5)


# Training


class Rows(keras.utils.PyDataset):
    """A dictionary for each batch."""

    def __init__(self, row: dict[str, np.ndarray], size: int):
        super().__init__()
        self._row, self._size = row, size

    def __len__(self) -> int:
        return -(-len(self._row["x"]) // self._size)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: part[index * self._size :][: self._size] for name, part in self._row.items()}


def each_way(row: dict[str, np.ndarray], size: int) -> dict:
    stream = tf.data.Dataset.from_tensor_slices(row).batch(size)
    batches = Rows(row, size)
    return {
        "arrays": row,
        "lists": {name: part.tolist() for name, part in row.items()},
        "tf.data": stream,
        "tf.data with weights": stream.map(lambda parts: (parts, None, tf.ones(tf.shape(parts["x"])[:1]))),
        "PyDataset": batches,
        "generator": ((batches[i % len(batches)],) for i in range(2 * len(batches))),
    }


@pytest.mark.slow
@pytest.mark.parametrize("condition_shape", [[], [3]])
def test_every_way_to_give_a_row_trains_alike(condition_shape):
    x, c = linear_gaussian.rows(10)
    row = {"x": x, "condition": c if condition_shape else c[:, 0], "label": np.arange(10) % 3}
    results = {}
    for name, data in each_way(row, 4).items():
        keras.utils.set_random_seed(0)
        joined = keras.layers.Concatenate() if condition_shape else Beside()
        networks_ = [keras.Sequential([layer, networks.mlp([5])]) for layer in (joined, type(joined)())]
        layers = DistributionLayer("Normal", [2]), DistributionLayer("Normal", [4])
        vae = VAE(*networks_, *layers, seed=1, condition_shape=condition_shape)
        vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        held_out = (row, None, np.ones(10, np.float32)) if "weights" in name else row
        steps = {"steps_per_epoch": 3} if name == "generator" else {}
        sizes = {"batch_size": 4} if name in ("arrays", "lists") else {}
        sizes["validation_batch_size"] = 4
        history = vae.fit(data, epochs=2, verbose=0, shuffle=False, validation_data=held_out, **steps, **sizes).history
        results[name] = [*history["loss"], *history["val_loss"], vae.evaluate(row, verbose=0)[0]]
    assert results["arrays"][0] != results["arrays"][1]
    for name, result in results.items():
        np.testing.assert_allclose(result, results["arrays"], rtol=1e-5, err_msg=name)


@keras.saving.register_keras_serializable("tests")
class Beside(keras.layers.Layer):
    """A vector and a number, side by side."""

    def call(self, inputs):
        return tf.concat([inputs[0], inputs[1][:, None]], axis=1)


@pytest.mark.slow
def test_it_learns_what_no_model_without_the_condition_can(tmp_path):
    rng = np.random.default_rng(0)
    c = rng.choice([-3.0, 3.0], size=[400, 3]).astype(np.float32)
    x = (c @ linear_gaussian.A + 0.5 * rng.normal(size=[400, 4])).astype(np.float32)
    row = {"x": x, "condition": c}
    vae = small(True, two_inputs=True)
    vae.compile(keras.optimizers.Adam(0.02))
    vae.fit(row, batch_size=50, epochs=60, verbose=0)
    best_normal = -0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(x.T))[1]  # mean log p(x) without c, at the best
    found = vae.evaluate(row, verbose=0, return_dict=True)["elbo"]
    assert found > best_normal + 1.0
    shuffled = {"x": x, "condition": c[rng.permutation(400)]}
    assert vae.evaluate(shuffled, verbose=0, return_dict=True)["elbo"] < found - 10
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.condition_shape == (3,)
    seed = tf.constant([1, 2])
    np.testing.assert_allclose(loaded.elbo(row, 1, seed), vae.elbo(row, 1, seed), rtol=1e-5)
    histories = [model.fit(row, batch_size=50, epochs=1, verbose=0).history["loss"] for model in (vae, loaded)]
    np.testing.assert_allclose(*histories, rtol=1e-6)


def test_a_label_comes_with_its_row(xc):
    x, c = xc
    vae = linear_gaussian.vae(conditional=True)
    batch = vae.batch({"x": x, "condition": c, "label": np.array([2, -1, 0, 1, 1, 5])})
    assert batch.label.dtype == tf.int32 and batch.label.numpy().tolist() == [2, -1, 0, 1, 1, 5]
    np.testing.assert_array_equal(batch.condition, c)


# Errors

X, C = np.zeros([5, 4], np.float32), np.zeros([5, 3], np.float32)


@pytest.mark.parametrize("method", ["fit", "evaluate", "embed", "reconstruct", "elbo", "encode"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (X, r"has a condition of shape \[3\].*none came"),
        ({"x": X}, r"has a condition of shape \[3\].*none came"),
        ({"x": X, "condition": C[:, :2]}, r"condition has shape \(5, 2\), expected \(N, 3\)"),
        ({"x": X, "condition": C, "labels": C}, r"has the parts x, condition, labels, expected x and"),
        ({"condition": C}, "has the parts condition, expected x"),
        ({"x": X, "condition": C, "label": C}, r"label has shape \(5, 3\), expected \(N,\)"),
        ({"x": X, "condition": C, "label": C[:, 0]}, "label has dtype float32, expected whole numbers"),
    ],
)
def test_rows_that_are_not_the_model_s(compiled, method, row, message):
    with pytest.raises(ValueError, match=message):
        getattr(compiled, method)(row)


@pytest.mark.parametrize("method", ["fit", "embed", "elbo", "encode"])
def test_parts_of_other_lengths(compiled, method):
    with pytest.raises(ValueError, match="equal numbers, received x: 5, condition: 4 rows"):
        getattr(compiled, method)({"x": X, "condition": C[:4]})


@pytest.fixture(scope="module")
def compiled() -> VAE:
    vae = linear_gaussian.vae(conditional=True)
    vae.compile(jit_compile=False)
    return vae


def test_a_condition_too_few_and_one_too_many(compiled):
    plain = linear_gaussian.vae()
    z = np.zeros([5, 2], np.float32)
    with pytest.raises(ValueError, match="has no condition, but one came"):
        plain.embed({"x": X, "condition": C})
    for call in (lambda: plain.decode(z, C), lambda: plain.sample(5, condition=C), lambda: plain.encode(X, C)):
        with pytest.raises(ValueError, match="has no condition, but one came"):
            call()
    for call in (lambda: compiled.decode(z), lambda: compiled.sample(5), lambda: compiled.predict(X, verbose=0)):
        with pytest.raises(ValueError, match=r"has a condition of shape \[3\]"):
            call()
    for call in (lambda: compiled.sample(4, condition=C), lambda: compiled.decode(z[:4], C)):
        with pytest.raises(ValueError, match="The condition has 5 rows, expected 4: one for each row of z"):
            call()
