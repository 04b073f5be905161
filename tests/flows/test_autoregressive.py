"""Flows of networks: masks, Jacobians, the way back, calls of the network, and posteriors that learn an exact one."""

import functools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests import linear_gaussian
from tests.families import flow_truths
from tfvae import VAE, DistributionLayer, families, flows, networks, objectives, posteriors, priors
from tfvae.families.flow import Inverted

ROWS, WIDTH = 4, 6
SEED = tf.constant([3, 4])
KINDS = {
    "inverse autoregressive": functools.partial(posteriors.inverse_autoregressive, num_flows=2, hidden=[12]),
    "RealNVP": functools.partial(posteriors.coupling, num_flows=2, hidden=[12]),
    "spline": functools.partial(posteriors.coupling, num_flows=2, transform="spline", hidden=[12]),
}
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind == "spline" else []) for kind in KINDS]
)


def features(rows: int = ROWS) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=[rows, WIDTH]), tf.float32)


def layer(kind: str, size: int, spread: float = 0.2) -> flows.FlowPosterior:
    """With outputs that are far from the identity's."""
    keras.utils.set_random_seed(1)
    made = KINDS[kind](size)
    made(features())
    rng = np.random.default_rng(1)
    for weight in made.trainable_variables:
        weight.assign(spread * rng.normal(size=weight.shape))
    return made


# networks.Masked


@pytest.mark.parametrize("hidden", [[], [7], [7, 9]])
@pytest.mark.parametrize("degrees", [None, [3, 1, 2, 4], [1, 1, 2, 2], [1, 1, 1, 1]])
def test_an_output_sees_the_units_of_lower_degree_and_the_context(hidden, degrees):
    network, context = networks.Masked(3, hidden, degrees), tf.ones([1, 2])
    z = tf.constant(np.random.default_rng(0).normal(size=[1, 4]), tf.float32)
    network.build(z.shape, context.shape)
    for weight in network.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([z, context])
        y = network(z, context)
    seen = np.any(tape.jacobian(y, z)[0, :, :, 0] != 0, axis=1)
    order = np.array(degrees or [1, 2, 3, 4])
    np.testing.assert_array_equal(seen, order[:, None] > order[None, :])
    if hidden:
        assert np.all(tape.jacobian(y, context)[0, :, :, 0] != 0)


def test_a_masked_network_is_a_keras_layer(tmp_path):
    inputs = keras.Input([4])
    model = keras.Model(inputs, networks.Masked(2, [5], name="made")(inputs))
    model.save(tmp_path / "model.keras")
    z = np.random.default_rng(0).normal(size=[3, 4]).astype("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(z), model(z))
    assert [tuple(weight.shape) for weight in loaded.trainable_variables] == [(4, 5), (5,), (5, 8), (8,)]
    assert np.ptp(model(z), axis=0)[0].max() == 0  # the first output sees nothing
    with pytest.raises(ValueError, match="degrees holds 3 numbers, expected one for each of the 4 units"):
        networks.Masked(2, degrees=[1, 2, 3])(z)


# The distributions


@every_kind
@pytest.mark.parametrize("size", [1, 6])
def test_the_density_of_a_draw_is_that_of_the_jacobian_and_of_the_way_back(kind, size):
    q = layer(kind, size)(features())
    flow_truths.check_jacobian(q, q.base.sample(5, seed=SEED), rtol=2e-4)
    z, log_q = posteriors.draw(q, 5, SEED)
    np.testing.assert_allclose(q.log_prob(tf.identity(z)), log_q, rtol=1e-3, atol=2e-3)
    noise, _ = families.Flow(q.base, [Inverted(step) for step in reversed(q.steps)]).forward(z)
    np.testing.assert_allclose(noise, q.base.sample(5, seed=SEED), rtol=1e-2, atol=2e-3)


@every_kind
def test_a_density_in_the_plane_integrates_to_one(kind):
    flow_truths.check_integral(layer(kind, 2)(features(1)))


def test_a_density_is_found_for_every_pair_of_numbers_and_rows():
    """As the aggregate posterior asks for it."""
    q = layer("inverse autoregressive", 6)(features())
    z = posteriors.draw(q, 1, SEED)[0][0]
    of_pairs = q.log_prob(z[:, tf.newaxis])
    assert of_pairs.shape == (ROWS, ROWS)
    np.testing.assert_allclose(np.diag(of_pairs), q.log_prob(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["RealNVP", "spline"])
def test_networks_of_zero_leave_the_diagonal_normal(kind):
    made = layer(kind, 5)
    for flow in made.flows:
        for weight in flow.network.weights:
            weight.assign(tf.zeros_like(weight))
    q, z = made(features()), tf.constant(np.random.default_rng(2).normal(size=[3, ROWS, 5]), tf.float32)
    np.testing.assert_allclose(q.log_prob(z), q.base.log_prob(z), rtol=1e-4, atol=1e-4)


def test_an_inverse_autoregressive_flow_starts_as_a_narrower_diagonal_normal():
    made = posteriors.inverse_autoregressive(5, 2, [8])
    made(features())
    for flow in made.flows:
        for weight in flow.network.weights:
            weight.assign(tf.zeros_like(weight))
    q, z = made(features()), np.random.default_rng(2).normal(size=[3, ROWS, 5])
    kept = (1 / (1 + np.exp(-1.5))) ** 2
    loc, scale = (np.asarray(value, np.float64) for value in (q.base.mean(), q.base.stddev()))
    expected = scipy.stats.norm(kept * loc, kept * scale).logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(q.log_prob(tf.constant(z, tf.float32)), expected, rtol=1e-4)


@pytest.mark.parametrize(("kind", "back"), [("inverse autoregressive", 2 * 20), ("RealNVP", 2 * 2)])
def test_a_draw_with_its_density_calls_each_network_once(kind, back, monkeypatch):
    made, calls, call = layer(kind, 20), [], networks.Masked.call
    monkeypatch.setattr(networks.Masked, "call", lambda self, *args: calls.append(1) or call(self, *args))
    z, _ = posteriors.draw(made(features()), 3, SEED)
    assert len(calls) == 2  # two flows; TFP's own takes two calls a flow, and 21 for a copy of z
    calls.clear()
    made(features()).log_prob(z)
    assert len(calls) == back


@every_kind
def test_held_parameters_leave_the_gradient_in_z_alone(kind):
    made, z = layer(kind, 3), tf.constant(np.random.default_rng(2).normal(size=[2, ROWS, 3]), tf.float32)
    x = features()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, z])
        free, held = (q.log_prob(z) for q in made.with_held(x))
    np.testing.assert_allclose(held, free, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(held, z), tape.gradient(free, z), rtol=1e-5, atol=1e-6)
    assert all(gradient is None for gradient in tape.gradient(held, [x, *made.trainable_variables]))
    assert all(np.any(gradient != 0) for gradient in tape.gradient(free, [x, *made.trainable_variables]))


# In a model

LOADINGS = np.array([[1.0, 1.0, 0.0, 0.5], [0.8, 1.0, 0.5, 0.3]])  # whose posterior's units are tied


def linear_vae(posterior: DistributionLayer) -> VAE:
    networks = [keras.layers.Identity() for _ in range(2)]
    vae = VAE(*networks, posterior, DistributionLayer("Normal", [4], scale=0.7), seed=0)
    vae.likelihood.projection.set_weights([LOADINGS, np.zeros(4)])
    vae.likelihood.trainable = False
    return vae


@pytest.mark.slow
def test_flows_reach_the_log_density_that_a_diagonal_normal_does_not():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=[400, 2]) @ LOADINGS + 0.7 * rng.normal(size=[400, 4])).astype(np.float32)
    covariance = LOADINGS.T @ LOADINGS + 0.49 * np.eye(4)
    truth = scipy.stats.multivariate_normal(np.zeros(4), covariance).logpdf(x).mean()
    gaps = {}
    for name, posterior in {
        "diagonal": posteriors.diagonal_normal(2),
        "linear steps": posteriors.inverse_autoregressive(2, 1, hidden=[]),
        "coupling": posteriors.coupling(2, 2, hidden=[16]),
        "planar": posteriors.planar(2, 4),
        "Sylvester": posteriors.sylvester(2, 2),
    }.items():
        keras.utils.set_random_seed(0)
        vae = linear_vae(posterior)
        schedule = keras.optimizers.schedules.CosineDecay(0.05, 400)
        vae.compile(keras.optimizers.Adam(schedule), jit_compile=True)
        vae.fit(x, batch_size=200, epochs=200, verbose=0)
        gaps[name] = truth - float(np.mean(vae.elbo(x, num_samples=50, seed=0)))
    assert gaps["diagonal"] > 0.3
    for name in gaps.keys() - {"diagonal"}:
        assert -0.01 < gaps[name] < 0.25 * gaps["diagonal"], gaps
    assert abs(gaps["linear steps"]) < 0.01, gaps


def test_sticking_the_landing_has_no_variance_where_the_flow_is_exact():
    """The gradient through z alone vanishes for every draw where q(z|x) is p(z|x)."""
    vae = linear_gaussian.vae()
    of_flow = VAE(
        vae.encoder, vae.decoder, posteriors.coupling(2, 2, hidden=[4]), vae.likelihood,
        objective=objectives.sticking_the_landing, seed=0,
    )  # fmt: skip
    of_flow.posterior.projection.set_weights(vae.posterior.projection.get_weights())
    for flow in of_flow.posterior.flows:
        for weight in flow.network.weights:
            weight.assign(tf.zeros_like(weight))
    x = tf.constant(linear_gaussian.rows(5)[0])
    with tf.GradientTape() as tape:
        terms = of_flow.terms(x, 4, SEED)
        total = tf.reduce_sum(objectives.sticking_the_landing(terms).surrogate)
    for gradient in tape.gradient(total, of_flow.posterior.trainable_variables, unconnected_gradients="zero"):
        np.testing.assert_allclose(gradient, np.zeros(gradient.shape), atol=1e-3)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_the_flow_is_that_of_the_features_as_they_are(precision):
    keras.config.set_dtype_policy(precision)
    try:
        parts = networks.mlp([WIDTH]), networks.mlp([4]), KINDS["inverse autoregressive"](3)
        vae = VAE(*parts, DistributionLayer("Normal", [4]), prior=priors.Flow(3, 2, hidden=[8]), seed=0)
    finally:
        keras.config.set_dtype_policy("float32")
    x = linear_gaussian.rows(5)[0]
    encoded = vae.encoder(x)
    assert encoded.dtype == precision.removeprefix("mixed_")
    terms, q = vae.terms(x, 4, SEED), vae.posterior(tf.cast(encoded, tf.float32))
    assert terms.z.dtype == terms.log_prior.dtype == terms.log_posterior.dtype == tf.float32
    np.testing.assert_allclose(terms.log_posterior, q.log_prob(terms.z), rtol=1e-4, atol=1e-4)
    assert {weight.dtype for part in (vae.posterior, vae.prior) for weight in part.weights} == {"float32"}
