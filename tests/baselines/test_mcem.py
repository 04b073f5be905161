"""Monte Carlo EM against exact posteriors, the closed-form maximum likelihood, and weight updates taken by hand."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfvae import VAE, DistributionLayer, likelihoods, networks, observations, posteriors
from tfvae.baselines import MonteCarloEM
from tfvae.engine import keras_private
from tfvae.engine.replicas import Rows
from tfvae.experiments.aevb.adagrad import WarmAdagrad
from tfvae.priors import Family, WeightPrior

ROWS, SIZE = 11, 5
NOISE = 0.8


def make(rows: int = ROWS, weight_prior: WeightPrior | None = None, **more) -> MonteCarloEM:
    keras.utils.set_random_seed(0)
    parts = posteriors.diagonal_normal(2), likelihoods.bernoulli([SIZE])
    vae = VAE(networks.mlp([6]), networks.mlp([6]), *parts, seed=3, weight_prior=weight_prior)
    return MonteCarloEM(vae, rows, **more)


def linear(rows: int, weights: np.ndarray, bias: np.ndarray, **more) -> MonteCarloEM:
    """p(x|z) = N(z W + b, NOISE² I), z ~ N(0, I)."""
    vae = VAE(
        encoder=keras.layers.Identity(),
        decoder=keras.layers.Identity(),
        posterior=DistributionLayer("Normal", [weights.shape[0]]),
        likelihood=DistributionLayer("Normal", [weights.shape[1]], scale=NOISE),
        seed=1,
        weight_prior=more.pop("weight_prior", None),
    )
    vae.likelihood.projection.set_weights([weights, bias])
    return MonteCarloEM(vae, rows, **more)


def random_linear(rows: int, **more) -> tuple[MonteCarloEM, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=[2, SIZE]), rng.normal(size=[SIZE])
    return linear(rows, weights, bias, **more), weights, bias


def linear_data(rows: int, latent_dim: int = 2) -> np.ndarray:
    rng = np.random.default_rng(2)
    signal = rng.normal(size=[rows, latent_dim]) @ rng.normal(size=[latent_dim, SIZE]) * 1.3
    return (signal + NOISE * rng.normal(size=[rows, SIZE]) + 0.5).astype(np.float32)


def arrays(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def train(model: MonteCarloEM, x: np.ndarray, steps: int | None = 2, jit: bool = False, eager: bool = False, **more):
    """The history of a fit and everything it leaves; plain graph mode where XLA is not the point."""
    model.compile(keras.optimizers.Adam(0.01), steps, jit_compile=jit, run_eagerly=eager)
    history = model.fit(x, **{"batch_size": 3, "verbose": 0, **more}).history
    return history, model.get_weights()


def assert_same(first, second, tolerance: float) -> None:
    for values, others in ((first[0].values(), second[0].values()), (first[1], second[1])):
        for value, other in zip(values, others, strict=True):
            np.testing.assert_allclose(value, other, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=[ROWS, SIZE]).astype(np.float32)


# E: the chains


def test_held_weights_leave_chains_in_the_exact_posterior():
    """N rows by shuffled minibatches under XLA: every row's chain runs in its own posterior, none in another's."""
    rows, kept = 300, []
    model, weights, bias = random_linear(rows)
    x = linear_data(rows)
    model.compile(keras.optimizers.SGD(0.0), steps_per_execution=3)
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.chains.z.numpy()))
    history = model.fit(x, batch_size=64, epochs=160, verbose=0, callbacks=[keep]).history
    np.testing.assert_array_equal(model.vae.likelihood.projection.get_weights()[0], weights.astype(np.float32))
    # p(z|x) = N((x - b) Wᵀ S / NOISE², S), S = (I + W Wᵀ / NOISE²)⁻¹
    covariance = np.linalg.inv(np.eye(2) + weights @ weights.T / NOISE**2)
    mean = (x - bias) @ weights.T @ covariance / NOISE**2
    noise = np.linalg.solve(np.linalg.cholesky(covariance), (np.stack(kept[40:]) - mean)[..., None])[..., 0]
    np.testing.assert_allclose(noise.mean(axis=(0, 1)), 0.0, atol=0.03)  # N(0, I) if the draws are right
    np.testing.assert_allclose(np.einsum("sbi,sbj->ij", noise, noise) / (120 * rows), np.eye(2), atol=0.05)
    assert np.abs(noise.mean(axis=0)).max() < 0.8
    assert noise.std(axis=0).min() > 0.6
    assert noise.std(axis=0).max() < 1.5
    assert np.mean(history["acceptance_rate"][40:]) == pytest.approx(0.9, abs=0.03)


def test_acceptance_settles_at_the_target():
    """While the weights move, from steps far too long."""
    rng = np.random.default_rng(0)
    data = (rng.normal(size=[200, 2]) @ rng.normal(size=[2, SIZE]) > 0).astype(np.float32)
    model = make(rows=200)
    model.chains.step_size.assign(8.0)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    rates = model.fit(data, epochs=60, verbose=0).history["acceptance_rate"]
    assert rates[0] < 0.3
    assert np.mean(rates[30:]) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(("rows", "factor", "target"), [(3, 1.02**3, 0.9), (64, 1.25, 0.7)])
def test_the_step_size_follows_the_authors_rule(rows, factor, target):
    model, _, _ = random_linear(rows, target_accept=target)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    x, step_size, signs = linear_data(rows), 0.1, set()
    for _ in range(60):
        rate = model.train_on_batch(x, return_dict=True)["acceptance_rate"]
        step_size *= factor if rate > target else 1 / factor
        signs.add(bool(rate > target))
        assert float(model.chains.step_size.value) == pytest.approx(step_size, rel=1e-4)
    assert signs == {True, False}


def test_chains_start_from_the_prior_and_move_only_when_visited(x):
    model = make(rows=20_000)
    start = model.chains.z.numpy()
    assert stats.kstest(start.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(start.T)[0, 1]) < 0.03
    np.testing.assert_array_equal(make(rows=20_000).chains.z, start)
    assert not np.any(make(rows=20_000, seed=4).chains.z.numpy() == start)
    model = make()
    start = model.chains.z.numpy()
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    model.fit(x, batch_size=4, steps_per_epoch=1, shuffle=False, verbose=0)
    moved = np.any(model.chains.z.numpy() != start, axis=1)
    assert moved[:4].sum() >= 3  # one of them may have been refused
    assert not moved[4:].any()


def test_filling_rows_change_nothing(x):
    """Neither their values (at 1e4 each transition is refused) nor their numbers, of the batch's own rows or not."""
    model, left = make(), []
    model.compile(keras.optimizers.Adam(0.01))
    model.optimizer.build(model.trainable_variables)

    @functools.partial(tf.function, jit_compile=True, autograph=False)
    def step(batch: tf.Tensor, counts: tf.Tensor, numbers: tf.Tensor) -> None:
        model.step({"x": batch}, Rows.of_one_device(counts)._replace(numbers=numbers))

    state = [*model.variables, *model.optimizer.variables]  # with the chains, the step size and seeds
    start, chains = arrays(state), model.chains.z.numpy()
    for filling, numbers in ((0.0, [1, 3]), (1e4, [9, 10]), (1e4, [0, 0])):
        for variable, value in zip(state, start, strict=True):
            variable.assign(value)
        model.reset_metrics()
        batch = np.concatenate([x[:4], np.full([2, SIZE], filling, np.float32)])
        step(tf.constant(batch), tf.constant([1.0] * 4 + [0.0] * 2), tf.constant([0, 1, 2, 3, *numbers]))
        moved = np.any(model.chains.z.numpy() != chains, axis=1)
        assert moved[:4].all() and not moved[4:].any()
        assert float(model.chains.step_size.value) == pytest.approx(0.1 * 1.02**4, rel=1e-5)
        left.append([*arrays(state), *(value.numpy() for value in model.get_metrics_result().values())])
    for other in left[1:]:
        for value, expected in zip(other, left[0], strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)


def test_a_bounded_prior_keeps_its_chains_inside():
    """p(x|z) that does not depend on z, so that p(z|x) = p(z), on a simplex: the chains' law never changes."""
    vae = VAE(
        keras.layers.Identity(),
        keras.layers.Identity(),
        DistributionLayer("Dirichlet", [3]),
        DistributionLayer("Normal", [SIZE]),
        prior=Family("Dirichlet", [3], concentration=[2.0, 3.0, 5.0]),
        seed=1,
    )
    vae.likelihood.projection.set_weights([np.zeros_like(w) for w in vae.likelihood.projection.get_weights()])
    model = MonteCarloEM(vae, 5000)
    start = model.chains.z.numpy()
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    model.fit(linear_data(5000), batch_size=2500, epochs=15, verbose=0)
    z = model.chains.z.numpy()
    np.testing.assert_allclose(z.sum(axis=1), 1.0, atol=1e-5)
    prior = stats.dirichlet([2.0, 3.0, 5.0])
    np.testing.assert_allclose(z.mean(axis=0), prior.mean(), atol=0.01)
    np.testing.assert_allclose(z.var(axis=0), prior.var(), rtol=0.1)
    assert abs(np.corrcoef(z[:, 0], start[:, 0])[0, 1]) < 0.1  # and they have left where they stood


# M: the weights


@pytest.mark.parametrize("num_updates", [1, 5])
def test_the_updates_are_gradient_steps_on_log_p_x_z(num_updates):
    """In closed form and float64, on a batch with a filling row: d log p(x|z) / dW = zᵀ(x - zW - b) / NOISE²."""
    rows, rate = 6, 0.05
    model, weights, bias = random_linear(rows, num_updates=num_updates, weight_prior=WeightPrior(7))
    model.compile(keras.optimizers.SGD(rate), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    x = linear_data(rows)
    model.step({"x": tf.constant(x)}, Rows.of_one_device(tf.constant([1.0] * 5 + [0.0])))
    z, losses, log_likelihoods = model.chains.z.numpy().astype(np.float64)[:5], [], []
    for _ in range(num_updates):
        error = x[:5] - z @ weights - bias
        log_likelihoods.append(stats.norm(0, NOISE).logpdf(error).sum() / 5)
        losses.append(-log_likelihoods[-1] - stats.norm.logpdf(z).sum() / 5)
        weights = weights + rate * (z.T @ error / 5 / NOISE**2 - weights / 7)
        bias = bias + rate * error.mean(axis=0) / NOISE**2
    for got, expected in zip(model.vae.likelihood.projection.get_weights(), (weights, bias), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert int(model.optimizer.iterations) == model.num_updates == num_updates
    results = model.get_metrics_result()
    assert set(results) == {"loss", "log_likelihood", "acceptance_rate"}
    assert float(results["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(results["log_likelihood"]) == pytest.approx(np.mean(log_likelihoods), rel=1e-5)


def test_it_reaches_the_likelihood_of_probabilistic_pca():
    """max over W, b of log N(b, W Wᵀ + σ² I) with σ known: W Wᵀ = U (Λ - σ²) Uᵀ (Tipping & Bishop, 1999, eq. 15)."""
    x = linear_data(500)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    top = vectors[:, -2:] * np.sqrt(values[-2:] - NOISE**2)
    best = stats.multivariate_normal(x.mean(axis=0), top @ top.T + NOISE**2 * np.eye(SIZE)).logpdf(x).mean()
    model = linear(500, 0.1 * np.random.default_rng(5).normal(size=[2, SIZE]), np.zeros(SIZE))
    model.compile(keras.optimizers.Adam(0.03))
    model.fit(x, epochs=60, verbose=0)
    model.optimizer.learning_rate = 0.003
    model.fit(x, epochs=60, verbose=0)
    weights, bias = model.vae.likelihood.projection.get_weights()
    reached = stats.multivariate_normal(bias, weights.T @ weights + NOISE**2 * np.eye(SIZE)).logpdf(x).mean()
    assert best - 0.01 < reached < best + 1e-5


def test_encoder_and_posterior_stay_untouched(x):
    model = make()
    recognition, generative = model.vae.recognition_weights, model.vae.generative_weights
    before = arrays(recognition), arrays(generative)
    train(model, x)
    for weight, start in zip(arrays(recognition), before[0], strict=True):
        np.testing.assert_array_equal(weight, start)
    assert all(np.any(weight != start) for weight, start in zip(arrays(generative), before[1], strict=True))
    assert [id(w) for w in model.trainable_variables] == [id(w) for w in generative]
    assert len(model.optimizer.variables) == 2 + 2 * len(generative)  # Adam's two moments, iterations, learning rate
    # As a recognition network it is still the user's to train.
    model.vae.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    model.vae.fit(x, verbose=0)
    assert all(np.any(weight != start) for weight, start in zip(arrays(recognition), before[0], strict=True))


def test_activity_penalties_count_once(x):
    """HMC runs the networks as well: what their layers add there is no part of the loss."""
    keras.utils.set_random_seed(0)
    encoder, decoder = (keras.layers.Dense(6, "tanh", activity_regularizer=keras.regularizers.L2(0.1)) for _ in "ed")
    vae = VAE(encoder, decoder, posteriors.diagonal_normal(2), likelihoods.bernoulli([SIZE]), seed=3)
    model = MonteCarloEM(vae, ROWS)
    train(model, x)
    z, weights = tf.zeros([ROWS, 2]), decoder.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        keras_private.clear_losses(model)
        loss = model.record(model._loss_at(vae.batch(x), z, tf.zeros([ROWS])), Rows.of_one_device(tf.ones([ROWS])))
        log_joint = vae.decode(z).log_prob(x) + vae.prior().log_prob(z)
        keras_private.clear_losses(model)
        decoder(z)
        expected = decoder.losses[0] - tf.reduce_mean(log_joint)
    assert float(loss) == pytest.approx(-float(tf.reduce_mean(log_joint)), rel=1e-5)  # the history's, without penalty
    for gradient, other in zip(tape.gradient(loss, weights), tape.gradient(expected, weights), strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-6)


# As a Keras model


@pytest.mark.slow
def test_the_engine_equals_single_steps_and_the_graph_plain_python(x):
    single, four = (train(make(), x, steps=steps, jit=True) for steps in (1, 4))
    assert_same(four, single, 1e-5)
    graph, eager = train(make(), x, steps=4), train(make(), x, eager=True)  # whose noise is not XLA's
    assert_same(graph, eager, 1e-5)


def test_a_loaded_model_trains_on_as_if_nothing_had_happened(x, tmp_path):
    def run(resume: bool):
        model = make(weight_prior=WeightPrior(ROWS), num_leapfrog_steps=4, num_updates=3, target_accept=0.8)
        model.compile(WarmAdagrad(0.1, warmup_steps=5), 2, jit_compile=False)
        model.fit(x, batch_size=3, steps_per_epoch=5, verbose=0)
        if resume:
            model.save(tmp_path / "model.keras")
            chains = model.chains.z.numpy()
            model = keras.models.load_model(tmp_path / "model.keras")
            assert isinstance(model, MonteCarloEM)
            assert (model.num_rows, model.num_leapfrog_steps, model.num_updates) == (ROWS, 4, 3)
            assert model.target_accept == 0.8 and model.vae.weight_prior.num_rows == ROWS
            np.testing.assert_array_equal(model.chains.z, chains)
            assert int(model.optimizer.iterations) == 5 * 3
        return model.fit(x, batch_size=3, steps_per_epoch=5, verbose=0).history, model.get_weights()

    assert_same(run(True), run(False), 0)


def test_its_seed_repeats_a_fit_bit_for_bit(x):
    assert_same(train(make(), x), train(make(), x), 0)


# What it refuses


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros([ROWS - 1, SIZE]), r"each of 11 training rows, received 10 rows.*hmc_log_marginal"),
        (np.zeros([ROWS + 1, SIZE]), r"each of 11 training rows, received 12 rows"),
        (tf.data.Dataset.from_tensor_slices(np.zeros([ROWS, SIZE])).batch(4), r"Dataset does not say which row"),
        (np.full([ROWS, SIZE], 7.0), "scores values in"),
    ],
)
def test_data_without_a_chain_is_an_error(data, message):
    model = make()
    model.compile(jit_compile=False)
    with pytest.raises(ValueError, match=message):
        model.fit(data, verbose=0)
    assert int(model.optimizer.iterations) == 0


def test_there_is_no_bound_to_evaluate(x):
    model = make()
    model.compile(jit_compile=False)
    with pytest.raises(ValueError, match=r"no bound to evaluate.*hmc_log_marginal\(model\.vae, x\)"):
        model.evaluate(x, verbose=0)
    for more in ({"validation_data": x[:4]}, {"validation_split": 0.5}):
        with pytest.raises(ValueError, match="Other rows have no chain"):
            model.fit(x, verbose=0, **more)
    with pytest.raises(ValueError, match="received 4 rows"):
        model.train_on_batch(x[:4])


def test_chains_live_on_one_device_and_belong_to_rows_that_stay(x):
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = make()
        model.compile(jit_compile=False)
    with pytest.raises(ValueError, match=r"without tf\.distribute"):
        model.fit(x, verbose=0)
    noise = {"noise": keras.saving.serialize_keras_object(observations.Binarized())}
    with pytest.raises(ValueError, match="put the noise into x itself"):
        MonteCarloEM(type(model.vae).from_config(model.vae.get_config() | noise), ROWS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 0}, "num_rows must be at least 1, received 0"),
        ({"num_updates": 0}, "num_updates must be at least 1, received 0"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps must be at least 1, received 0"),
        ({"target_accept": 90}, "between 0 and 1, received 90"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_an_argument_that_changes_is_refused_and_not_ignored():
    model, *_ = random_linear(ROWS)
    model.compile("sgd", jit_compile=False)
    x = linear_data(ROWS)
    model.fit(x, batch_size=ROWS, verbose=0)
    model.num_leapfrog_steps += 1
    with pytest.raises(ValueError, match=r"^num_leapfrog_steps of the MonteCarloEM changed after the program was made"):
        model.fit(x, batch_size=ROWS, verbose=0)
