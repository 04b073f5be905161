"""Full variational Bayes against a model whose posterior and evidence are known, finite differences, and the VAE."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests.baselines.test_wake_sleep import ROWS, SIZE, assert_same, make_vae, train
from tests.objectives.test_objectives import reference_bound
from tfvae import VAE, DistributionLayer, objectives
from tfvae.baselines import FullVB
from tfvae.engine.replicas import Rows
from tfvae.priors import WeightPrior

X = np.random.default_rng(0).uniform(size=[ROWS, SIZE]).astype(np.float32)


def make(vae: VAE | None = None, num_rows: int = ROWS, **more) -> FullVB:
    return FullVB(vae or make_vae(), num_rows, **more)


def spread(model: FullVB) -> FullVB:
    """The same model with every weight and every scale of q(θ) different from the others."""
    rng = np.random.default_rng(1)
    for loc, log_scale in zip(model.vae.generative_weights, model.log_scales, strict=True):
        loc.assign(rng.normal(size=loc.shape))
        log_scale.assign(rng.uniform(-2.0, -0.5, size=loc.shape))
    return model


def loss_and_gradients(model: keras.Model, weights: np.ndarray | None = None):
    """The loss of X as one batch, and its gradient by the identity of each variable."""
    rows = tf.ones([ROWS]) if weights is None else tf.constant(weights)
    with tf.GradientTape() as tape:
        loss = model.total_loss({"x": tf.constant(X)}, Rows.of_one_device(rows), training=True)
    gradients = tape.gradient(loss, model.trainable_variables)
    return float(loss), dict(zip(map(id, model.trainable_variables), gradients, strict=True))


def seeds_of(model: FullVB) -> list[tf.Tensor]:
    """The seeds of θ~ and z that the next training batch will use."""
    kept = model.seed_generator.state.numpy()
    seeds = tf.unstack(tf.random.experimental.stateless_split(model.next_seed(True), 2))
    model.seed_generator.state.assign(kept)
    return seeds


# KL(q(θ)‖p(θ)), appendix F.1


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_kl_of_the_weights_is_the_appendix_and_its_monte_carlo(scale):
    model = spread(make(scale=scale))
    locs = np.concatenate([w.numpy().ravel() for w in model.vae.generative_weights]).astype(np.float64)
    log_scales = np.concatenate([w.numpy().ravel() for w in model.log_scales]).astype(np.float64)
    # -KL = ½ Σ 1 + log σ² - μ² - σ² for N(0, I); a scale s measures θ in units of s.
    exact = -0.5 * np.sum(1 + 2 * (log_scales - np.log(scale)) - (locs**2 + np.exp(2 * log_scales)) / scale**2)
    assert float(model.weights_kl()) == pytest.approx(exact, rel=1e-5)
    draws = [q.sample(4000, seed=[3, i]).numpy() for i, q in enumerate(model.weights_posterior())]
    log_q = sum(q.log_prob(theta).numpy() for q, theta in zip(model.weights_posterior(), draws, strict=True))
    theta = np.concatenate([d.reshape([4000, -1]) for d in draws], axis=1).astype(np.float64)
    difference = log_q - stats.norm(0, scale).logpdf(theta).sum(axis=1)
    assert abs(difference.mean() - exact) < 4 * difference.std() / np.sqrt(4000)


def test_draws_of_the_weights_have_the_mean_and_scale_of_q():
    model = spread(make())
    draw = tf.function(model.draw_weights, autograph=False)
    draws = [draw(tf.constant([i, 0])) for i in range(400)]
    noise = [
        (np.stack([d[k] for d in draws]) - w.numpy()) / np.exp(s.numpy())
        for k, (w, s) in enumerate(zip(model.vae.generative_weights, model.log_scales, strict=True))
    ]
    assert stats.kstest(np.concatenate([n.ravel() for n in noise]), stats.norm.cdf).pvalue > 1e-3
    joint = np.concatenate([n.reshape([400, -1]) for n in noise], axis=1)
    assert np.abs(np.corrcoef(joint.T) - np.eye(joint.shape[1])).max() < 5 / np.sqrt(400)  # each weight its own ζ


# What it learns


def test_it_finds_the_exact_posterior_and_the_exact_evidence():
    """x = θ + noise with θ ~ N(0, scale²): the likelihood's bias is θ, and z and the kernel touch nothing."""
    rows, noise, scale = 64, 1.5, 2.0
    theta = np.array([2.0, -1.0, 0.3])
    x = (theta + noise * np.random.default_rng(0).normal(size=[rows, 3])).astype(np.float32)
    vae = VAE(
        encoder=keras.layers.Identity(),
        decoder=keras.layers.Rescaling(0.0),
        posterior=DistributionLayer("Normal", [1], loc=0.0, scale=1.0),
        likelihood=DistributionLayer("Normal", [3], scale=noise),
        seed=1,
    )
    model = FullVB(vae, rows, scale=scale, initial_scale=0.05)
    decay = keras.optimizers.schedules.CosineDecay(0.05, 6000)
    model.compile(keras.optimizers.Adam(decay), steps_per_execution=500)
    model.fit(np.tile(x, [6000, 1]), batch_size=rows, shuffle=False, verbose=0)  # each batch is the whole data

    covariance = 1 / (1 / scale**2 + rows / noise**2)
    kernel, bias = model.weights_posterior()
    np.testing.assert_allclose(bias.mean(), covariance * x.sum(axis=0) / noise**2, atol=0.1 * np.sqrt(covariance))
    np.testing.assert_allclose(bias.stddev(), np.full(3, np.sqrt(covariance)), rtol=0.05)
    np.testing.assert_allclose(kernel.mean(), np.zeros([1, 3]), atol=0.1)  # it returns to the prior
    np.testing.assert_allclose(kernel.stddev(), np.full([1, 3], scale), rtol=0.05)

    marginal = stats.multivariate_normal(np.zeros(rows), noise**2 * np.eye(rows) + scale**2)
    evidence = sum(marginal.logpdf(column) for column in x.T.astype(np.float64))
    many = np.tile(x, [400, 1])  # 400 draws of θ~ for each number
    bounds = [-rows * model.evaluate(many, batch_size=rows, return_dict=True, verbose=0)["loss"] for _ in range(10)]
    error = np.std(bounds, ddof=1) / np.sqrt(10)
    assert error < 0.05
    assert evidence - 0.1 - 4 * error < np.mean(bounds) < evidence + 4 * error
    # At a point, without KL(q(θ)‖p(θ)), the data look likelier than they are.
    model.vae.compile()
    assert -rows * model.vae.evaluate(x, return_dict=True, verbose=0)["loss"] > evidence + 5


# The loss of a batch


def test_the_terms_are_those_of_a_vae_that_has_the_drawn_weights():
    model = spread(make())
    model.compile()
    first, second = seeds_of(model)
    before = model.vae.get_weights()
    loss, _ = loss_and_gradients(model)
    for weight, kept in zip(model.vae.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    result = {k: float(v) for k, v in model.get_metrics_result().items()}
    assert result["weights_kl"] == pytest.approx(float(model.weights_kl()) / ROWS, rel=1e-6)
    assert loss == pytest.approx(result["loss"], rel=1e-6)
    for weight, value in zip(model.vae.generative_weights, model.draw_weights(first), strict=True):
        weight.assign(value)
    terms = model.vae.terms(X, 1, second)
    elbo = float(tf.reduce_mean(objectives.elbo(terms).bound))
    assert result["elbo"] == pytest.approx(elbo, rel=1e-5)
    assert result["log_likelihood"] == pytest.approx(float(tf.reduce_mean(terms.log_likelihood)), rel=1e-5)
    assert result["kl"] == pytest.approx(float(tf.reduce_mean(terms.kl)), rel=1e-5)
    assert result["loss"] == pytest.approx(result["weights_kl"] - elbo, rel=1e-5)


@pytest.mark.parametrize("objective", [objectives.elbo_a, objectives.elbo_b, objectives.importance_weighted])
def test_gradients_against_central_differences(objective):
    """At fixed ζ and ε, of a float64 reference of the whole model; rows past the first nine do not count."""
    scale, num_rows, rows = 0.7, 40, 9
    model = spread(make(make_vae(objective=objective, num_samples=3), num_rows, scale=scale))
    model.compile()
    vae = model.vae
    first, second = seeds_of(model)
    loss, gradients = loss_and_gradients(model, np.float32([1] * rows + [0] * (ROWS - rows)))

    def numbers(variables):
        return [np.asarray(v, np.float64) for v in variables]

    locs, log_scales, drawn = map(numbers, (vae.generative_weights, model.log_scales, model.draw_weights(first)))
    zeta = [(t - m) / np.exp(s) for t, m, s in zip(drawn, locs, log_scales, strict=True)]
    q = vae.encode(X).distribution
    noise = np.asarray((vae.terms(X, 3, second).z - q.loc) / q.scale, np.float64)[:, :rows]
    recognition = numbers(vae.recognition_weights)

    def reference() -> float:
        theta = [m + np.exp(s) * e for m, s, e in zip(locs, log_scales, zeta, strict=True)]
        kl = sum(
            np.sum(np.log(scale) - s + (np.exp(2 * s) + m**2) / (2 * scale**2) - 0.5)
            for m, s in zip(locs, log_scales, strict=True)
        )
        return kl / num_rows - reference_bound([*recognition, *theta], X[:rows].astype(np.float64), noise, objective)

    assert loss == pytest.approx(reference(), rel=1e-5)
    variables = [*vae.recognition_weights, *vae.generative_weights, *model.log_scales]
    assert {id(v) for v in variables} == set(gradients)
    for variable, values in zip(variables, [*recognition, *locs, *log_scales], strict=True):
        numeric = np.zeros_like(values)
        for index in np.ndindex(*values.shape):
            kept, found = values[index], []
            for step in (1e-5, -1e-5):
                values[index] = kept + step
                found.append(reference())
            values[index] = kept
            numeric[index] = (found[0] - found[1]) / 2e-5
        np.testing.assert_allclose(gradients[id(variable)], numeric, atol=3e-5, rtol=1e-3, err_msg=variable.path)


def test_without_spread_it_is_the_map_estimate():
    """σ -> 0: the loss of the VAE with a weight prior up to a constant, and its gradient but for the biases."""
    num_rows, scale, sigma = 7, 0.5, 1e-7
    model = spread(make(num_rows=num_rows, scale=scale))
    for log_scale in model.log_scales:
        log_scale.assign(np.full(log_scale.shape, np.log(sigma)))
    vae = make_vae(weight_prior=WeightPrior(num_rows, scale))
    vae.set_weights(model.vae.get_weights())
    for one in (model, vae):
        one.compile()
    _, second = seeds_of(model)
    loss, gradients = loss_and_gradients(model)
    with tf.GradientTape() as tape:
        map_loss = vae.penalty() - tf.reduce_mean(objectives.elbo(vae.terms(X, 1, second)).surrogate)
    map_gradients = tape.gradient(map_loss, vae.trainable_variables)

    weights = [w.numpy().astype(np.float64) for w in vae.generative_weights]
    size = sum(w.size for w in weights)
    biases = [w for w in weights if w.ndim == 1]
    # KL = -Σ log p(μ) - H(q), and H(q) = ½ log 2πe σ² for each weight.
    constant = -size * 0.5 * np.log(2 * np.pi * np.e * sigma**2)
    constant += sum(0.5 * (b**2).sum() / scale**2 + b.size * np.log(scale * np.sqrt(2 * np.pi)) for b in biases)
    assert loss == pytest.approx(float(map_loss) + constant / num_rows, rel=1e-5)
    for variable, own, gradient in zip(
        vae.trainable_variables, model.vae.trainable_variables, map_gradients, strict=True
    ):
        is_bias = any(own is w for w in model.vae.generative_weights) and len(own.shape) == 1
        shift = own.numpy() / (num_rows * scale**2) if is_bias else 0.0
        np.testing.assert_allclose(gradients[id(own)], gradient + shift, rtol=1e-4, atol=1e-5, err_msg=variable.path)


def test_layers_that_keep_state_and_penalties_work_at_the_drawn_weights():
    decoder = keras.Sequential(
        [
            keras.layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.1), activity_regularizer="l2"),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.BatchNormalization(),
        ]
    )
    vae = make_vae()
    vae = VAE(vae.encoder, decoder, vae.posterior, vae.likelihood, seed=3)
    model = spread(make(vae))
    model.compile()
    _, dropout, norm = decoder.layers
    first, second = seeds_of(model)
    loss, _ = loss_and_gradients(model)
    moved = norm.moving_mean.numpy()
    assert np.abs(moved).max() > 0 and int(dropout.seed_generator.state[1]) == 1

    z = vae.terms(X, 1, second).z[0]
    kernel, bias = model.draw_weights(first)[:2]
    features = np.tanh(z @ kernel + bias)
    penalty = 0.1 * np.sum(np.square(kernel)) + 0.01 * np.sum(np.square(features)) / ROWS
    result = {k: float(v) for k, v in model.get_metrics_result().items()}
    assert loss == pytest.approx(result["weights_kl"] - result["elbo"] + penalty, rel=1e-4)
    loss_and_gradients(model)
    assert not np.array_equal(norm.moving_mean, moved)


# As a Keras model


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])  # whose noise differs
def test_the_engine_equals_single_steps(jit):
    single, four = (train(make(), X, steps=steps, jit=jit) for steps in (1, 4))
    assert_same(four, single, 1e-5)
    if not jit:
        assert_same(train(make(), X, eager=True), single, 1e-5)


@pytest.mark.slow
def test_a_loaded_model_trains_on_as_if_nothing_had_happened(tmp_path):
    def run(resume: bool):
        model = make(make_vae(num_samples=2), scale=0.5, initial_scale=0.1)
        train(model, X)
        if resume:
            model.save(tmp_path / "model.keras")
            model = keras.models.load_model(tmp_path / "model.keras")
            assert isinstance(model, FullVB) and model.vae.num_samples == 2
            assert (model.num_rows, model.scale, model.initial_scale, model.seed) == (ROWS, 0.5, 0.1, 3)
        return model.fit(X, batch_size=3, epochs=2, verbose=0).history, model.get_weights()

    assert_same(run(True), run(False), 0)


@pytest.mark.slow
def test_its_seed_repeats_a_fit_bit_for_bit_whether_it_is_validated_or_not():
    first, again, other = (
        train(make(make_vae(seed=seed)), X, **more) for seed, more in ((3, {}), (3, {"validation_data": X}), (4, {}))
    )
    assert {"val_loss", "val_elbo", "val_weights_kl"} <= set(again[0])
    assert_same(({k: again[0][k] for k in first[0]}, again[1]), first, 0)
    assert not np.allclose(first[1][0], other[1][0])
    assert make(seed=8).seed == 8


def test_a_sampled_vae_has_weights_of_its_own():
    model = spread(make())
    sampled, again, other = (model.sample_vae(seed) for seed in (1, 1, 2))
    drawn = model.draw_weights(tf.constant([0, 1]))
    for theta, one, two, three in zip(drawn, *(v.generative_weights for v in (sampled, again, other)), strict=True):
        np.testing.assert_array_equal(one, theta)
        np.testing.assert_array_equal(two, theta)
        assert not np.allclose(three, theta)
    np.testing.assert_array_equal(sampled.embed(X), model.vae.embed(X))  # q(z|x) is not drawn
    np.testing.assert_array_equal(model(X), model.vae(X))
    assert not np.allclose(sampled(X), model(X))


@pytest.mark.parametrize("numbers", [{"num_rows": 0}, {"scale": 0.0}, {"initial_scale": -1.0}])
def test_it_needs_rows_and_scales(numbers):
    with pytest.raises(ValueError, match="num_rows >= 1, scale > 0 and initial_scale > 0"):
        make(**numbers)


def test_the_prior_counts_once_and_observations_are_checked():
    with pytest.raises(ValueError, match="count p\\(θ\\) twice"):
        make(make_vae(weight_prior=WeightPrior(ROWS)))
    model = make()
    model.compile()
    with pytest.raises(ValueError, match="scores values in"):
        model.fit(X * 255, verbose=0)


def test_a_regulariser_on_the_encoder_counts_once():
    results = []
    for factor in (0.0, 0.1):
        regularizer = keras.regularizers.L2(factor) if factor else None
        encoder = keras.layers.Dense(6, "tanh", kernel_regularizer=regularizer)
        parts = make_vae()
        model = spread(make(VAE(encoder, parts.decoder, parts.posterior, parts.likelihood, seed=3)))
        encoder.kernel.assign(np.random.default_rng(2).normal(size=encoder.kernel.shape))
        model.compile()
        loss, gradients = loss_and_gradients(model)
        results.append((loss, gradients[id(encoder.kernel)].numpy()))
    kernel = encoder.kernel.numpy()
    assert results[1][0] - results[0][0] == pytest.approx(0.1 * np.sum(np.square(kernel)), rel=1e-4)
    np.testing.assert_allclose(results[1][1] - results[0][1], 2 * 0.1 * kernel, atol=1e-5)
