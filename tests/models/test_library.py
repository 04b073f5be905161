"""Counts of a library the whole way: trained, saved, scored, exported, asked again, embedded and drawn."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from scipy import special, stats

import tfvae
from pipelines import embed
from tfvae import evaluation, likelihoods, models, networks, plots, posteriors
from tfvae.models.vae import VAE

pytestmark = pytest.mark.slow  # a training, an export and a job

G = 6
RNG = np.random.default_rng(0)
SHARES = RNG.dirichlet(np.ones(G), 2)
LIBRARY = RNG.integers(20, 400, 60)
X = np.stack([RNG.multinomial(n, SHARES[i % 2]) for i, n in enumerate(LIBRARY)]).astype(np.float32)


def made() -> VAE:
    keras.utils.set_random_seed(0)
    parts = networks.mlp([8]), networks.mlp([8]), posteriors.diagonal_normal(2)
    return VAE(*parts, likelihoods.library_counts([G]), seed=0)


@pytest.fixture(scope="module")
def vae() -> VAE:
    model = made()
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    model.fit(X, epochs=30, batch_size=20, verbose=0)
    return model


def test_the_bound_is_of_the_rows_own_library(vae):
    z = vae.embed(X)
    log_prob = vae.decode(z).log_prob(X)
    np.testing.assert_allclose(vae.decode(z, library=X.sum(1)).log_prob(X), log_prob, rtol=1e-6)
    np.testing.assert_allclose(vae.terms(X, seed=1).log_likelihood.shape, [1, 60])
    # A cell read twice as deeply has the same shares, its mean counts twice as large.
    twice, once = (vae.decode(z, library=n * LIBRARY).mean() for n in (2, 1))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)
    bound = vae.elbo(X, num_samples=50, seed=1).numpy()
    found = evaluation.log_marginal(vae, X, num_samples=200, seed=1)
    assert (bound.mean() <= found.mean + 0.1) and abs(bound.mean() - found.mean) < 5


def test_many_samples_are_decoded_some_at_a_time(vae, monkeypatch):
    calls = {}, {"library": np.arange(1, 6)}, {"library": 3}
    whole = [vae.sample(5, seed=1, **more) for more in calls]
    monkeypatch.setattr(models.vae, "_DECODED", 2)
    for once, more in zip(whole, calls, strict=True):
        np.testing.assert_allclose(vae.sample(5, seed=1, **more), once, rtol=1e-5)
    assert vae.sample(0).shape == (0, *vae.event_shape)


def test_a_reconstruction_is_as_large_as_its_row_and_a_sample_as_is_asked(vae):
    np.testing.assert_allclose(vae.reconstruct(X).sum(1), LIBRARY, rtol=1e-4)
    np.testing.assert_allclose(vae.predict(X, verbose=0).sum(1), LIBRARY, rtol=1e-4)
    np.testing.assert_allclose(vae.sample(4, seed=1).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        vae.sample(4, seed=1, library=[1, 10, 100, 0]).sum(1), [1, 10, 100, 0], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(vae.sample(3, seed=1, library=7).sum(1), 7.0, rtol=1e-5)
    error = np.abs(vae.reconstruct(X) / LIBRARY[:, None] - SHARES[np.arange(60) % 2]).mean()
    assert error < 0.5 * np.abs(SHARES[0] - SHARES[1]).mean()
    x = vae.decode(vae.embed(X), library=LIBRARY).sample(200, seed=[1, 2]).numpy()
    assert (np.abs(x.sum(-1).mean(0) / LIBRARY - 1) < 0.2).all()


def test_saved_and_loaded_it_is_the_same(vae, tmp_path):
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.elbo(X, seed=3), vae.elbo(X, seed=3))
    np.testing.assert_array_equal(loaded.reconstruct(X), vae.reconstruct(X))
    uint8 = np.minimum(X, 255).astype(np.uint8)  # counts, no pixels
    np.testing.assert_array_equal(vae.elbo(uint8, seed=3), vae.elbo(uint8.astype(np.float32), seed=3))


def test_an_export_decodes_for_the_library_that_it_is_told_and_scores_in_the_job(vae, tmp_path):
    folder = pathlib.Path(tfvae.export(vae, tmp_path / "counts"))
    signatures = tf.saved_model.load(str(folder)).signatures
    z = vae.embed(X[:3])
    library = tf.constant([10.0, 200.0, 0.0])
    answer = signatures["decode"](z=tf.constant(z), library=library)["reconstruction"]
    np.testing.assert_allclose(answer, vae.decode(z, library=library).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        signatures["sample"](noise=tf.zeros([3, 2]), library=library)["sample"].numpy().sum(1),
        library,
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        signatures["reconstruct"](x=tf.constant(X))["reconstruction"], vae.reconstruct(X), rtol=1e-5
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="library holds negative numbers: it is a row"):
        signatures["decode"](z=tf.constant(z), library=-library)
    assert "the total count that the answer shall have" in (folder / "assets.extra" / "model_card.md").read_text()

    rows = pa.table({"key": [f"{i:02}" for i in range(60)], "x": pa.array(X.tolist(), pa.list_(pa.float32(), G))})
    pq.write_table(rows, tmp_path / "x.parquet")
    embed.run(str(folder), str(tmp_path / "x.parquet"), str(tmp_path / "out"), score=200)
    found = pq.read_table(tmp_path / "out" / "parts").sort_by("key")
    np.testing.assert_allclose(np.stack(found["embedding"].to_pylist()), vae.embed(X), rtol=1e-4, atol=1e-5)
    assert np.abs(np.array(found["score"]) - vae.elbo(X, num_samples=200, seed=1)).mean() < 0.5


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_in_half_precision_counts_are_scored_exactly_for_the_features_as_they_are(precision):
    """Counts up to 300,000, which float16 has not; z = 0."""
    keras.config.set_dtype_policy(precision)
    try:
        model = made()
    finally:
        keras.config.set_dtype_policy("float32")
    x = X * np.float32([1, 1000] * 3)
    layer = model.likelihood
    z = np.zeros([60, 2], np.float32)
    features = model.decoder(tf.constant(z))
    assert str(features.dtype.name) == precision.removeprefix("mixed_")
    kernel, bias = (weight.numpy().astype(np.float64) for weight in layer.projection.weights)
    logits = tf.cast(features, tf.float64).numpy() @ kernel + bias
    rate = x.sum(1, keepdims=True).astype(np.float64) * special.softmax(logits, axis=1)
    (theta,) = (np.exp(weight.numpy().astype(np.float64)) for weight in layer.shared_weights.values())
    expected = stats.nbinom(theta, theta / (theta + rate)).logpmf(x).sum(1)
    np.testing.assert_allclose(model.decode(z).log_prob(x), expected, rtol=2e-5)
    embedded = model.embed(x)
    assert np.isfinite(embedded).all() and embedded.dtype == np.float32
    np.testing.assert_allclose(model.reconstruct(x).sum(1), x.sum(1), rtol=1e-4)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    losses = model.fit(X, epochs=12, batch_size=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_two_replicas_learn_what_one_device_learns():
    """Each of the four kinds, in a process that has two devices: history and weights."""
    done = subprocess.run(
        [sys.executable, "-c", _TWO_REPLICAS], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0 and done.stdout.count("the same") == 4, done.stderr[-3000:]


_TWO_REPLICAS = """
import contextlib, keras, numpy as np, tensorflow as tf
from tfvae import VAE, likelihoods, networks, posteriors
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
x = np.random.default_rng(0).poisson(9.0, [12, 4]).astype("float32")
both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for kind in ("Poisson", "NegativeBinomial", "ZeroInflatedPoisson", "ZeroInflatedNegativeBinomial"):
    found = []
    for strategy in (None, both):
        keras.utils.set_random_seed(0)
        with strategy.scope() if strategy else contextlib.nullcontext():
            parts = networks.mlp([5]), networks.mlp([5]), posteriors.diagonal_normal(2)
            vae = VAE(*parts, likelihoods.library_counts([4], kind), seed=0)
            vae.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        history = vae.fit(x, batch_size=8, epochs=2, verbose=0).history  # the last batch is half full
        found.append([*history.values(), *(weight.numpy() for weight in vae.weights)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=2e-5)
    assert found[0][0][0] != found[0][0][1]
    print("the same")
"""


def test_what_does_not_fit_is_told(vae):
    with pytest.raises(ValueError, match=r"library has shape \(3,\), expected one number, or \(60,\)"):
        vae.decode(vae.embed(X), library=np.ones(3))
    with pytest.raises(ValueError, match="library holds negative or infinite numbers, or NaN"):
        vae.sample(2, library=[-1.0, 2.0])
    with pytest.raises(ValueError, match="library has dtype string, expected numbers"):
        vae.sample(2, library="many")
    with pytest.raises(ValueError, match="holds other than whole numbers, but a LibraryNegativeBinomial likelihood"):
        vae.elbo(X / 7)
    with pytest.raises(ValueError, match="scored given the total of their row, which nothing here draws"):
        evaluation.simulation_based_calibration(vae, num_rows=100, num_draws=9, num_bins=5)
    plain = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.normal([3]))
    with pytest.raises(ValueError, match="A library came, but a Normal likelihood has none"):
        plain.decode(np.zeros([1, 2]), library=1.0)


def test_a_latent_space_is_drawn(vae, tmp_path):
    plots.latent_space(vae, X, tmp_path / "z.png")
    assert (tmp_path / "z.png").stat().st_size > 1000
