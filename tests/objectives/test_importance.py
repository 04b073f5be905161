"""STL and DReG: their gradients have the right mean and less variance, on a model whose every number is known."""

import functools
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import linear_gaussian
from tfvae import VAE, objectives
from tfvae.engine import xla

X = tf.constant(linear_gaussian.rows(3)[0])
RUNS = 1000


def flat(gradients: list) -> tf.Tensor:
    return tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)


@functools.cache
def program(objective, num_samples: int, exact: bool):
    """Gradients of the encoder's and the decoder's weights, ``[R, n]`` each, for R seeds: of the engine's own loss."""
    vae = model(objective, num_samples, exact)

    @tf.function(autograph=False, jit_compile=True)
    def run(seeds):
        def one(seed):
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean(-vae.loss_of_draw({"x": X}, tf.ones([3]), seed, True, None).rows)
            return tuple(flat(tape.gradient(loss, side)) for side in (vae.recognition_weights, vae.generative_weights))

        return tf.map_fn(one, seeds, fn_output_signature=(tf.float32, tf.float32))

    return run


@functools.cache
def gradients(objective, num_samples: int = 1, exact: bool = False, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Those of ``RUNS`` draws, numbered from ``first``."""
    seeds = tf.constant([[first + i, 3] for i in range(RUNS)], tf.int32)
    return tuple(side.numpy().astype(np.float64) for side in program(objective, num_samples, exact)(seeds))


def assert_same_mean(one: np.ndarray, other: np.ndarray) -> None:
    """Within four standard errors of the difference in each weight, where there is a gradient to be equal to."""
    error = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / RUNS)
    assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) <= 4 * error + 1e-6).all()
    assert np.linalg.norm(one.mean(axis=0)) > 3 * np.linalg.norm(error)


def model(objective, num_samples: int = 1, exact: bool = False) -> VAE:
    """With q(z|x) = p(z|x), or well beside it."""
    quality = {} if exact else {"wider": 1.5, "shift": 0.4}
    return linear_gaussian.vae(objective=objective, num_samples=num_samples, **quality)


def exact_gradient() -> np.ndarray:
    """d ELBO / d q's weights by central differences in float64: the ELBO is log p(x) - KL(q‖p(z|x)), both normal."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model(objectives.elbo).recognition_weights)
    x, variance = X.numpy().astype(np.float64), linear_gaussian.VARIANCE

    def bound(weights: np.ndarray) -> float:
        raw = x @ weights[:16].reshape(4, 4) + weights[16:]
        off = raw[:, :2] - (x - linear_gaussian.LOC) @ linear_gaussian.KERNEL
        ratio = np.logaddexp(0, raw[:, 2:]) ** 2 / variance
        return -float(np.mean(0.5 * np.sum(ratio + off**2 / variance - 1 - np.log(ratio), axis=-1)))

    start = np.concatenate([kernel.ravel(), bias])
    return np.array([(bound(start + h) - bound(start - h)) / 2e-5 for h in 1e-5 * np.eye(len(start))])


def test_sticking_the_landing_has_the_exact_gradient_in_the_mean():
    encoder, decoder = gradients(objectives.sticking_the_landing)
    error, exact = encoder.std(axis=0, ddof=1) / np.sqrt(RUNS), exact_gradient()
    assert (np.abs(encoder.mean(axis=0) - exact) < 4 * error + 1e-6).all()
    assert np.linalg.norm(exact) > 10 * np.linalg.norm(error)
    # The decoder's is estimator A's, draw for draw.
    np.testing.assert_allclose(decoder, gradients(objectives.elbo_a)[1], rtol=1e-3, atol=1e-3)


def test_its_variance_vanishes_at_the_exact_posterior():
    encoder, _ = gradients(objectives.sticking_the_landing, exact=True)
    assert encoder.var(axis=0).max() < 1e-10
    assert np.abs(encoder.mean(axis=0)).max() < 1e-5
    assert gradients(objectives.elbo_a, exact=True)[0].var(axis=0).max() > 1e-2


def test_doubly_reparameterized_has_the_mean_of_the_importance_weighted_gradient_and_less_variance():
    dreg, iwae = (gradients(f, 5) for f in (objectives.doubly_reparameterized, objectives.importance_weighted))
    for one, other in zip(dreg, gradients(objectives.importance_weighted, 5, first=RUNS), strict=True):
        assert_same_mean(one, other)
    assert dreg[0].var(axis=0).sum() < 0.8 * iwae[0].var(axis=0).sum()
    # Draw for draw the decoder's is the importance-weighted bound's own.
    np.testing.assert_allclose(dreg[1], iwae[1], rtol=1e-3, atol=1e-3)


def test_doubly_reparameterized_of_one_sample_is_sticking_the_landing():
    one, other = (gradients(f) for f in (objectives.doubly_reparameterized, objectives.sticking_the_landing))
    for side, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(side, expected, rtol=1e-4, atol=1e-4)


def two_passes(vae: VAE, seed: tf.Tensor) -> list[tf.Tensor]:
    """DReG in two passes, without a late path weight: z's gradient first, then what it does to the encoder."""
    with tf.GradientTape(persistent=True) as tape:
        terms = vae.terms(X, vae.num_samples, seed, training=True)
        log_weight = tf.identity(terms.log_joint - terms.log_posterior_held)
    weights = tf.nn.softmax(log_weight, axis=0) / 3.0  # of the mean over three rows
    decoder = tape.gradient(log_weight, vae.generative_weights, output_gradients=weights)
    through_z = tape.gradient(log_weight, terms.z)  # each log w depends on its own z alone
    squared = (tf.nn.softmax(log_weight, axis=0) ** 2)[..., None] / 3.0
    encoder = tape.gradient(terms.z, vae.recognition_weights, output_gradients=squared * through_z)
    return [*encoder, *decoder]


@pytest.mark.parametrize("mode", ["eager", "graph", "XLA"])
def test_the_path_weight_is_that_of_two_passes_inside_a_loop(mode):
    vae = model(objectives.doubly_reparameterized, num_samples=5)
    variables = [*vae.recognition_weights, *vae.generative_weights]
    sizes = [tf.zeros_like(variable) for variable in variables]

    def loop(seed):
        """The sum of the gradients of three draws: what is bound late is bound anew in each turn."""

        def body(k, *totals):
            with tf.GradientTape() as tape:
                drawn = tf.random.experimental.stateless_fold_in(seed, k)
                loss = tf.reduce_mean(-vae.loss_of_draw({"x": X}, tf.ones([3]), drawn, True, None).rows)
            return k + 1, *(t + g for t, g in zip(totals, tape.gradient(loss, variables), strict=True))

        return tf.while_loop(lambda k, *_: k < 3, body, (tf.constant(0), *sizes))[1:]

    seed = tf.constant([4, 5])
    run = {"eager": loop, "graph": tf.function(loop, autograph=False), "XLA": xla.compiled(loop)}[mode]
    found = run(seed)
    drawn = [two_passes(vae, tf.random.experimental.stateless_fold_in(seed, k)) for k in range(3)]
    for gradient, *parts in zip(found, *drawn, strict=True):
        np.testing.assert_allclose(gradient, sum(parts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "num_samples"), [(objectives.sticking_the_landing, 1), (objectives.doubly_reparameterized, 4)]
)
def test_it_trains_to_the_truth_inside_the_engine(objective, num_samples):
    """From a wrong posterior to p(z|x), where log w is log p(x) whatever the sample."""
    x, _ = linear_gaussian.rows(50, seed=4)
    expected = linear_gaussian.Exact(False).log_marginal(x)
    vae = model(objective, num_samples)
    vae.decoder.trainable = vae.likelihood.trainable = False
    vae.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 600)), jit_compile=False)
    vae.fit(x, batch_size=50, epochs=15, steps_per_epoch=40, verbose=0)
    gaps = vae.log_weights(x, 20, tf.constant([0, 1])) - expected
    assert np.abs(gaps).max() < 0.02


def kl_to_posterior_gradient() -> np.ndarray:
    """d -KL(p(z|x)‖q(z|x)) / d q's weights by central differences in float64, both normal."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model(objectives.elbo).recognition_weights)
    x, variance = X.numpy().astype(np.float64), linear_gaussian.VARIANCE

    def gain(weights: np.ndarray) -> float:
        raw = x @ weights[:16].reshape(4, 4) + weights[16:]
        off = raw[:, :2] - (x - linear_gaussian.LOC) @ linear_gaussian.KERNEL
        q = np.logaddexp(0, raw[:, 2:]) ** 2
        return -float(np.mean(0.5 * np.sum(variance / q + off**2 / q - 1 - np.log(variance / q), axis=-1)))

    start = np.concatenate([kernel.ravel(), bias])
    return np.array([(gain(start + h) - gain(start - h)) / 2e-5 for h in 1e-5 * np.eye(len(start))])


WAKE = objectives.WakePhase()
WAKE_BY_SCORE = objectives.WakePhase(doubly_reparameterized=False)


def test_the_wake_phase_moves_q_towards_the_posterior():
    """With 100 samples w̃ is nearly p(z|x) on the draws: both gradients are then those of -KL(p(z|x)‖q(z|x))."""
    exact = kl_to_posterior_gradient()
    for objective in (WAKE, WAKE_BY_SCORE):
        encoder, decoder = gradients(objective, 100)
        error = encoder.std(axis=0, ddof=1) / np.sqrt(RUNS)
        assert (np.abs(encoder.mean(axis=0) - exact) < 4 * error + 0.05 * np.abs(exact).max()).all()
        assert np.linalg.norm(exact) > 10 * np.linalg.norm(error)
        np.testing.assert_allclose(decoder, gradients(objectives.importance_weighted, 100)[1], rtol=1e-3, atol=1e-3)


def test_both_wake_phases_have_one_mean_and_the_reparameterised_less_variance():
    (path, _), (score, _) = gradients(WAKE, 5), gradients(WAKE_BY_SCORE, 5, first=RUNS)
    assert_same_mean(path, score)
    assert path.var(axis=0).sum() < 0.8 * score.var(axis=0).sum()


@pytest.mark.slow
def test_each_side_of_piwae_has_its_own_bound_s_gradient():
    encoder, decoder = gradients(objectives.PartiallyImportanceWeighted(3), 6)
    np.testing.assert_allclose(decoder, gradients(objectives.importance_weighted, 6)[1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(encoder, gradients(objectives.MultiplyImportanceWeighted(3), 6)[0], rtol=1e-3, atol=1e-3)
    assert np.abs(encoder - gradients(objectives.importance_weighted, 6)[0]).max() > 0.1


def by_hand(log_weight) -> objectives.Terms:
    """Terms with those log w ``[K, B]``."""
    log_weight = tf.constant(log_weight, tf.float32)
    zero = tf.zeros_like(log_weight)
    q = linear_gaussian.vae().encode(np.zeros([log_weight.shape[1], 4], "float32"))
    latent = objectives.Latent(tf.zeros([*log_weight.shape, 2]), q, q, zero, zero, zero[0], True, q)
    return objectives.Terms((latent,), log_weight)


LOG_WEIGHT = np.random.default_rng(0).normal(scale=30.0, size=[8, 5])


def value(objective) -> np.ndarray:
    estimate = objective(by_hand(LOG_WEIGHT))
    return np.asarray(estimate.bound if estimate.objective is None else estimate.objective, np.float64)


def log_mean(log_weight: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(log_weight, axis=0) - np.log(len(log_weight))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (objectives.Renyi(1.0), LOG_WEIGHT.mean(axis=0)),
        (objectives.Renyi(0.0), log_mean(LOG_WEIGHT)),
        (objectives.Renyi(-np.inf), LOG_WEIGHT.max(axis=0)),
        (objectives.Renyi(0.5), 2.0 * log_mean(0.5 * LOG_WEIGHT)),
        (objectives.Renyi(-1.0), 0.5 * log_mean(2.0 * LOG_WEIGHT)),
        (objectives.Renyi(3.0), -0.5 * log_mean(-2.0 * LOG_WEIGHT)),
        (objectives.MultiplyImportanceWeighted(1), log_mean(LOG_WEIGHT)),
        (objectives.MultiplyImportanceWeighted(8), LOG_WEIGHT.mean(axis=0)),
        (objectives.MultiplyImportanceWeighted(2), (log_mean(LOG_WEIGHT[:4]) + log_mean(LOG_WEIGHT[4:])) / 2),
        (objectives.PartiallyImportanceWeighted(2), log_mean(LOG_WEIGHT)),
        (objectives.CombinationImportanceWeighted(0.25), 0.25 * LOG_WEIGHT.mean(axis=0) + 0.75 * log_mean(LOG_WEIGHT)),
    ],
)
def test_the_value_is_the_definition_at_weights_hundreds_of_nats_apart(objective, expected):
    np.testing.assert_allclose(value(objective), expected, rtol=1e-5, atol=1e-4)


def test_renyi_s_objective_falls_with_alpha():
    values = np.stack([value(objectives.Renyi(alpha)) for alpha in (-np.inf, -2.0, -0.5, 0.0, 0.5, 1.0, 2.0)])
    assert (np.diff(values, axis=0) < 0).all()


def test_renyi_s_objective_rises_with_the_samples_up_to_alpha_1_and_falls_beyond():
    """Li & Turner's theorem 2, without noise: the mean over all K of eight weights, K = 1, 2, 4, 8."""
    subsets = [[list(one) for one in itertools.combinations(range(8), k)] for k in (1, 2, 4, 8)]
    some = [by_hand(np.concatenate([LOG_WEIGHT[one] for one in of_size], axis=1)) for of_size in subsets]

    def steps(alpha: float) -> np.ndarray:
        means = [objectives.Renyi(alpha)(terms).objective.numpy().reshape(-1, 5).mean(axis=0) for terms in some]
        return np.diff(means, axis=0)

    for alpha in (-np.inf, -1.0, 0.0, 0.5):
        assert (steps(alpha) > 0).all(), alpha
    np.testing.assert_allclose(steps(1.0), 0.0, atol=1e-4)
    assert (steps(2.0) < 0).all()


def test_a_gradient_at_weights_that_underflow_is_finite():
    weights = tf.Variable(LOG_WEIGHT * 10, dtype=tf.float32)
    for objective in (objectives.PartiallyImportanceWeighted(2), WAKE, objectives.Renyi(-1.0), objectives.Renyi(3.0)):
        terms = by_hand(LOG_WEIGHT)
        with tf.GradientTape() as tape:
            estimate = objective(objectives.Terms(terms.latents, weights + 0.0))
            total = tf.reduce_sum(estimate.surrogate)
        assert np.isfinite(tape.gradient(total, weights)).all()
        if estimate.path_weight is not None:
            assert np.isfinite(estimate.path_weight).all()


@pytest.mark.parametrize(
    "objective",
    [
        objectives.Renyi(-np.inf),
        objectives.WakePhase(False),
        objectives.PartiallyImportanceWeighted(4),
        objectives.CombinationImportanceWeighted(0.1),
        objectives.TotalCorrelation(7, 3.0, stratified=False),
        objectives.DisentangledInferredPrior(2.0),
        objectives.MaximumMeanDiscrepancy(3.0, 0.5),
        objectives.Capacity(gamma=3.0),
        objectives.FreeBits(0.1, 2, True),
        objectives.Weighted(objectives.Cyclic(100, 2, 0.3)),
    ],
)
def test_settings_come_back_from_a_file(objective):
    config = keras.saving.serialize_keras_object(objective)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert keras.saving.serialize_keras_object(again) == config
    assert type(again) is type(objective)


def test_numbers_out_of_range_are_refused():
    for bad in (
        lambda: objectives.Renyi(float("nan")),
        lambda: objectives.Renyi(float("inf")),
        lambda: objectives.MultiplyImportanceWeighted(0),
        lambda: objectives.CombinationImportanceWeighted(1.5),
        lambda: objectives.Cyclic(3, 4),
    ):
        with pytest.raises(ValueError, match=r"expected|must be"):
            bad()
    with pytest.raises(ValueError, match="8 samples cannot be divided into 3 bounds"):
        value(objectives.MultiplyImportanceWeighted(3))
