"""Wake-sleep against gradients taken by hand, and as a Keras model."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tfvae import VAE, DistributionLayer, networks, objectives, posteriors
from tfvae.baselines import FullVB, MonteCarloEM, WakeSleep
from tfvae.engine.replicas import Rows
from tfvae.models.vae import Batch
from tfvae.priors import WeightPrior

ROWS, SIZE = 11, 5


def make_vae(likelihood: str = "Bernoulli", size: int = SIZE, units: int = 6, latent: int = 2, **more) -> VAE:
    keras.utils.set_random_seed(0)
    return VAE(
        encoder=networks.mlp([units]),
        decoder=networks.mlp([units]),
        posterior=DistributionLayer("Normal", [latent]),
        likelihood=DistributionLayer(likelihood, [size]),
        **{"seed": 3, **more},
    )


def make(likelihood: str = "Bernoulli", **more) -> WakeSleep:
    return WakeSleep(make_vae(likelihood, **more))


def train(model: keras.Model, x: np.ndarray, steps: int | None = 2, **more):
    """The history of a fit and the weights after it; plain graph mode where XLA is not the point."""
    jit, eager = more.pop("jit", False), more.pop("eager", False)
    model.compile(keras.optimizers.Adam(0.01), steps, jit_compile=jit, run_eagerly=eager)
    history = model.fit(x, **{"batch_size": 3, "epochs": 2, "verbose": 0, **more}).history
    return history, model.get_weights()


def assert_same(first, second, tolerance: float) -> None:
    (history, weights), (other_history, other_weights) = first, second
    assert history.keys() == other_history.keys()
    for key in history:
        np.testing.assert_allclose(history[key], other_history[key], rtol=tolerance, atol=tolerance, err_msg=key)
    for weight, other in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(weight, other, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=[ROWS, SIZE]).astype(np.float32)


def weights_of(vae: VAE) -> list[keras.Variable]:
    return [*vae.generative_weights, *vae.recognition_weights]


# The two phases


@pytest.mark.parametrize("likelihood", ["Bernoulli", "Normal"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_gradients_are_those_of_the_two_phases(x, likelihood, num_samples):
    """Of the loss of a batch, against densities evaluated at the same z and the same dream, held as constants."""
    model = make(likelihood, num_samples=num_samples)
    model.compile()
    vae, weights = model.vae, tf.constant([1.0] * (ROWS - 2) + [0.0] * 2)
    state = model.seed_generator.state.numpy()
    with tf.GradientTape() as tape:
        loss = model.total_loss({"x": tf.constant(x)}, Rows.of_one_device(weights), training=True)
    gradients = tape.gradient(loss, weights_of(vae))
    assert all(gradient is not None for gradient in gradients)

    model.seed_generator.state.assign(state)
    z = model._wake(vae.batch(x), training=True).z.numpy()
    first, second = tf.unstack(tf.random.experimental.stateless_split(model.next_seed(True), 2))
    dream_z = vae.prior().sample(ROWS, seed=first).numpy()
    dream_x = np.asarray(vae.decode(dream_z).sample(seed=second), np.float32)
    with tf.GradientTape() as tape:
        log_joint = vae.decode(z).log_prob(x) + vae.prior().log_prob(z)
        value = tf.reduce_mean(log_joint[:, : ROWS - 2])
    generative = tape.gradient(value, vae.generative_weights)
    with tf.GradientTape() as tape:
        log_posterior = tf.reduce_mean(vae.encode(dream_x).log_prob(dream_z))
    recognition = tape.gradient(log_posterior, vae.recognition_weights)
    assert float(loss) == pytest.approx(-float(model.get_metrics_result()["elbo"]), rel=1e-5)
    for variable, gradient, expected in zip(weights_of(vae), gradients, [*generative, *recognition], strict=True):
        np.testing.assert_allclose(gradient, -expected, rtol=1e-4, atol=1e-6, err_msg=variable.path)


@pytest.mark.parametrize("likelihood", ["Bernoulli", "Normal"])  # a normal's draws carry gradients of their own
def test_neither_phase_touches_the_other_network(x, likelihood):
    model = make(likelihood)
    vae = model.vae
    with tf.GradientTape(persistent=True) as tape:
        terms = model._wake(vae.batch(x), training=True)
        wake = tf.reduce_mean(terms.log_likelihood + terms.log_prior)
        sleep = tf.reduce_mean(model._sleep(vae.batch(x)))
    assert all(gradient is None for gradient in tape.gradient(wake, vae.recognition_weights))
    assert all(gradient is None for gradient in tape.gradient(sleep, vae.generative_weights))
    assert all(gradient is not None for gradient in tape.gradient(wake, vae.generative_weights))
    assert all(gradient is not None for gradient in tape.gradient(sleep, vae.recognition_weights))


def test_a_dream_of_words_has_as_many_as_its_row(monkeypatch):
    likelihood = DistributionLayer("BagOfWords", [3])
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    seen, encode = [], vae.encode
    monkeypatch.setattr(vae, "encode", lambda batch, **more: seen.append(batch.x) or encode(batch, **more))
    WakeSleep(vae)._sleep(vae.batch(np.float32([[2, 0, 0], [3, 4, 5], [0, 0, 0]])))
    assert seen[0].numpy().sum(1).tolist() == [2, 12, 0]


def test_a_dream_is_the_model_s_own_draw():
    """log q at dreams has the mean that q has under p(x, z), sampled by other means."""
    model = make("Normal")
    got = model._sleep(Batch(tf.zeros([20_000, 1]))).numpy().astype(np.float64)
    z = model.vae.prior().sample(20_000, seed=(5, 6))
    expected = model.vae.encode(model.vae.decode(z).sample(seed=(7, 8))).log_prob(z).numpy().astype(np.float64)
    error = np.sqrt((got.var() + expected.var()) / 20_000)
    assert abs(got.mean() - expected.mean()) < 4 * error


def test_the_weight_prior_acts_on_the_decoder_alone(x):
    gradients = []
    for prior in (None, WeightPrior(7)):
        model = make(weight_prior=prior)
        model.compile()
        with tf.GradientTape() as tape:
            loss = model.total_loss({"x": tf.constant(x)}, Rows.of_one_device(tf.ones([ROWS])), training=True)
        gradients.append(tape.gradient(loss, weights_of(model.vae)))
    kernels = {id(w) for w in model.vae.generative_weights if len(w.shape) > 1}
    for variable, without, with_prior in zip(weights_of(model.vae), *gradients, strict=True):
        shift = variable.numpy() / 7 if id(variable) in kernels else 0.0
        np.testing.assert_allclose(with_prior - without, shift, atol=1e-6, err_msg=variable.path)


# What it learns


def test_it_learns_a_linear_gaussian_model():
    """x = w z + noise: the bound comes close to the exact log p(x) of the fitted Gaussian."""
    rng = np.random.default_rng(0)
    w, noise = np.array([1.5, -1.0, 0.5]), 0.5
    x = (rng.normal(size=[2000, 1]) * w + noise * rng.normal(size=[2000, 3])).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = WakeSleep(
        VAE(
            encoder=keras.layers.Identity(),
            decoder=keras.layers.Identity(),
            posterior=DistributionLayer("Normal", [1]),
            likelihood=DistributionLayer("Normal", [3], scale=noise),
            seed=1,
        )
    )
    model.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    elbo = model.fit(x, epochs=60, verbose=0).history["elbo"]
    covariance = np.outer(w, w) + noise**2 * np.eye(3)
    exact = -0.5 * np.mean(np.sum(x @ np.linalg.inv(covariance) * x, axis=1)) - 0.5 * np.linalg.slogdet(covariance)[1]
    exact -= 1.5 * np.log(2 * np.pi)
    final = model.evaluate(x, return_dict=True, verbose=0)["elbo"]
    assert exact - 0.15 < final < exact + 0.02
    assert elbo[0] < exact - 0.5
    # The sign of z is free; its posterior's scale is 1 / √(1 + w·w / noise²).
    learned = model.vae.likelihood.projection.kernel.numpy()[0]
    np.testing.assert_allclose(learned * np.sign(learned[0]), w, atol=0.15)
    scale = model.vae.encode(x[:200]).stddev().numpy().mean()
    assert scale == pytest.approx(1 / np.sqrt(1 + w @ w / noise**2), rel=0.15)


def test_the_bound_rises_on_digits():
    digits = (load_digits().data / 16.0).astype(np.float32)
    model = make(size=64, units=32, latent=3)
    model.compile(keras.optimizers.Adam(3e-3))
    elbo = model.fit(digits, epochs=8, verbose=0).history["elbo"]
    assert all(later > earlier for earlier, later in itertools.pairwise(elbo))
    assert elbo[-1] > elbo[0] + 8


# As a Keras model


def test_it_reports_the_bound_of_its_vae(x):
    model, vae = make(), make_vae()
    for one in (model, vae):
        one.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    assert model.seed == vae.seed == 3
    assert model.evaluate(x, return_dict=True, verbose=0) == vae.evaluate(x, return_dict=True, verbose=0)
    np.testing.assert_array_equal(model(x), vae(x))
    assert WakeSleep(make_vae(), seed=8).seed == 8
    # In training as well, at the first step: later ones have taken another seed for the dream.
    first = [one.train_on_batch(x, return_dict=True) for one in (model, vae)]
    assert first[0] == first[1]


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])  # whose noise differs
def test_the_engine_equals_single_steps(x, jit):
    single, four = (train(make(), x, steps=steps, jit=jit) for steps in (1, 4))
    assert_same(four, single, 1e-5)
    if not jit:
        assert_same(train(make(), x, eager=True), single, 1e-5)


def test_a_loaded_model_trains_on_as_if_nothing_had_happened(x, tmp_path):
    def run(resume: bool):
        model = make(weight_prior=WeightPrior(ROWS), num_samples=2)
        train(model, x)
        if resume:
            model.save(tmp_path / "model.keras")
            model = keras.models.load_model(tmp_path / "model.keras")
            assert isinstance(model, WakeSleep) and isinstance(model.vae, VAE)
            assert model.vae.num_samples == 2 and model.vae.weight_prior.num_rows == ROWS
        return model.fit(x, batch_size=3, epochs=2, verbose=0).history, model.get_weights()

    assert_same(run(True), run(False), 0)


@pytest.mark.slow
def test_its_seed_repeats_a_fit_bit_for_bit(x):
    first, again, other = (train(make(seed=seed), x, jit=True) for seed in (3, 3, 4))
    assert_same(first, again, 0)
    assert not np.allclose(first[1][0], other[1][0])


def test_it_has_no_more_weights_than_its_vae(x):
    model = make()
    assert [id(w) for w in model.trainable_variables] == [id(w) for w in model.vae.trainable_variables]
    with pytest.raises(ValueError, match="scores values in"):
        model.compile()
        model.fit(x * 255, verbose=0)


def test_an_objective_that_is_not_used_is_told():
    """By its name; of the ELBO, which is reported, and of full variational Bayes, which learns by it, nothing is."""
    weighted = lambda **more: make_vae(objective=objectives.Weighted(2.0), **more)  # noqa: E731
    for baseline in (WakeSleep, lambda vae: MonteCarloEM(vae, ROWS)):
        with pytest.warns(UserWarning, match="and the objective of the VAE, Weighted, is not used: leave it out"):
            baseline(weighted())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WakeSleep(make_vae())
        FullVB(weighted(), ROWS)


@pytest.mark.parametrize("baseline", [WakeSleep, lambda vae: FullVB(vae, ROWS + 1)], ids=["wake-sleep", "full vb"])
def test_other_rows_than_a_part_was_told_of_are_warned_of(baseline, x):
    told = "FullVB" if baseline is not WakeSleep else "WeightPrior"
    model = baseline(make_vae(weight_prior=WeightPrior(ROWS + 1)) if baseline is WakeSleep else make_vae())
    model.compile(run_eagerly=True)
    with pytest.warns(UserWarning, match=rf"{told} has num_rows=12, but fit has 11 rows to train on"):
        model.fit(x, verbose=0)
