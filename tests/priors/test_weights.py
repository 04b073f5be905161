"""p(θ) against scipy, and what it does to a fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfvae import VAE, DistributionLayer, networks
from tfvae.engine.replicas import Rows
from tfvae.priors import WeightPrior


def make_vae(weight_prior: WeightPrior | None = None, decoder: keras.layers.Layer | None = None) -> VAE:
    keras.utils.set_random_seed(0)
    return VAE(
        encoder=networks.mlp([6]),
        decoder=decoder or networks.mlp([6]),
        posterior=DistributionLayer("Normal", [2]),
        likelihood=DistributionLayer("Bernoulli", [5]),
        weight_prior=weight_prior,
        seed=3,
    )


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=[12, 5]).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_it_is_the_normal_density_of_the_weights_for_each_row(scale):
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=shape).astype(np.float32) for shape in ([3, 4], [2, 2, 1, 5])]
    biases = [rng.normal(size=[n]).astype(np.float32) for n in (4, 5)]
    expected = sum(stats.norm(0, scale).logpdf(w.astype(np.float64)).sum() for w in kernels) / 40
    prior = WeightPrior(40, scale)
    assert float(prior(map(tf.constant, kernels))) == pytest.approx(expected, rel=1e-5)
    assert float(prior([*kernels, *biases])) == pytest.approx(expected, rel=1e-5)  # no biases
    assert float(prior([keras.Variable(w) for w in [*biases, *kernels]])) == pytest.approx(expected, rel=1e-5)
    assert float(prior(biases)) == 0.0


@pytest.mark.parametrize(("num_rows", "scale"), [(0, 1.0), (10, 0.0), (10, -1.0)])
def test_it_needs_rows_and_a_scale(num_rows, scale):
    with pytest.raises(ValueError, match=r"num_rows must be at least 1|scale is .*, expected a number above 0"):
        WeightPrior(num_rows, scale)


def test_the_penalty_is_that_of_the_generative_weights_alone():
    vae = make_vae(WeightPrior(12))
    kernels = [vae.decoder.layers[-1].kernel, vae.likelihood.projection.kernel]
    expected = -sum(stats.norm.logpdf(kernel.numpy().astype(np.float64)).sum() for kernel in kernels)
    assert float(vae.penalty()) * 12 == pytest.approx(expected, rel=1e-5)
    assert float(make_vae().penalty()) == 0.0
    generative, recognition = ({id(w) for w in ws} for ws in (vae.generative_weights, vae.recognition_weights))
    assert not generative & recognition
    assert generative | recognition == {id(w) for w in vae.trainable_variables}
    assert {id(kernel) for kernel in kernels} <= generative


def test_a_regulariser_and_the_prior_add_up():
    dense = keras.layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))
    vae = make_vae(WeightPrior(12), keras.Sequential([dense]))
    prior = -float(vae.weight_prior(vae.generative_weights))
    squares = float(np.sum(dense.kernel.numpy() ** 2))
    assert float(vae.penalty()) == pytest.approx(prior + 0.1 * squares, rel=1e-5)


def test_the_gradient_of_the_loss_is_shifted_by_the_weights(x):
    rows, scale = 7, 0.5
    gradients = []
    for prior in (None, WeightPrior(rows, scale)):
        vae = make_vae(prior)
        vae.compile()
        with tf.GradientTape() as tape:
            loss = vae.total_loss({"x": tf.constant(x)}, Rows.of_one_device(tf.ones([len(x)])), training=True)
        gradients.append(tape.gradient(loss, vae.trainable_variables))
    kernels = {id(w) for w in vae.generative_weights if len(w.shape) > 1}
    for variable, without, with_prior in zip(vae.trainable_variables, *gradients, strict=True):
        # -log p(w) / N = w² / (2 N scale²) + ...
        shift = variable.numpy() / (rows * scale**2) if id(variable) in kernels else 0.0
        np.testing.assert_allclose(with_prior - without, shift, atol=1e-6, err_msg=variable.path)


def test_with_many_rows_it_fades(x):
    kernels, weights, losses = [], [], []
    for prior in (None, WeightPrior(10**12), WeightPrior(1)):
        vae = make_vae(prior)
        vae.compile(keras.optimizers.SGD(0.01), jit_compile=False)
        losses.append(vae.fit(x, batch_size=4, epochs=2, verbose=0).history)
        weights.append(vae.get_weights())
        kernels.append(np.linalg.norm(vae.likelihood.projection.kernel))
    for without, faint in zip(*weights[:2], strict=True):
        np.testing.assert_allclose(faint, without, atol=1e-6)
    assert kernels[2] < 0.97 * kernels[0]
    # The reported bound is that of the data; the loss has the penalty on top.
    np.testing.assert_allclose(losses[0]["elbo"], losses[1]["elbo"], atol=1e-5)
    assert losses[2]["loss"][0] > -losses[2]["elbo"][0] + 10


def test_it_travels_with_the_model(x, tmp_path):
    vae = make_vae(WeightPrior(30, 0.7))
    vae.compile(jit_compile=False)
    vae.fit(x, verbose=0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.models.load_model(tmp_path / "vae.keras")
    assert loaded.weight_prior.get_config() == {"num_rows": 30, "scale": 0.7}
    assert float(loaded.penalty()) == float(vae.penalty())
    # A configuration from before there was a prior on weights has none.
    config = {k: v for k, v in make_vae().get_config().items() if k != "weight_prior"}
    assert VAE.from_config(config).weight_prior is None
