"""Planar and Sylvester flows: Jacobians by autodiff, the way back, finite differences, the integral of 1."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests.families import flow_truths
from tfvae import DistributionLayer, families, posteriors
from tfvae.families import amortized_flows

D, FLOWS, ROWS = 3, 2, 4


def parameters(
    kind: str, size: int = D, rows: int = ROWS, dtype: type = np.float64, steep: float = 3.0
) -> dict[str, np.ndarray]:
    """Of no model in particular: steep ones, where wᵀu lies far below -1."""
    rng = np.random.default_rng(0)
    base = {"loc": rng.normal(size=[rows, size]), "scale": rng.uniform(0.5, 1.5, size=[rows, size])}
    vectors = [rows, FLOWS, size]
    more = {
        "PlanarFlow": lambda: {
            "u": steep * rng.normal(size=vectors),
            "w": 2.0 * rng.normal(size=vectors),
            "b": rng.normal(size=[rows, FLOWS]),
        },
        "SylvesterFlow": lambda: {
            "triangles": rng.normal(size=[*vectors, size]),
            "diagonals": rng.uniform(-0.99, 0.99, size=[rows, FLOWS, 2, size]),
            "b": rng.normal(size=vectors),
            "reflections": rng.normal(size=[rows, FLOWS, 2, size]),
        },
    }[kind]()
    return {name: value.astype(dtype) for name, value in (base | more).items()}


every_kind = pytest.mark.parametrize("kind", ["PlanarFlow", "SylvesterFlow"])


@every_kind
def test_the_density_of_a_draw_is_that_of_the_jacobian(kind):
    given = parameters(kind)
    flow = families.find(kind)(**given)
    flow_truths.check_jacobian(flow, flow.base.sample(5, seed=[1, 2]), rtol=1e-9)
    if kind == "PlanarFlow":
        assert (np.sum(given["u"] * given["w"], axis=-1) < -1).any()  # where the raw u has no inverse


@every_kind
def test_the_way_back_finds_the_noise_and_the_density(kind):
    flow = families.find(kind)(**parameters(kind))
    z, log_q = flow.experimental_sample_and_log_prob(200, seed=[1, 2])
    np.testing.assert_allclose(flow.log_prob(tf.identity(z)), log_q, rtol=1e-6)
    in_float32 = families.find(kind)(**parameters(kind, dtype=np.float32))
    np.testing.assert_allclose(in_float32.log_prob(tf.cast(z, tf.float32)), log_q, rtol=1e-3, atol=5e-3)


@pytest.mark.slow
@every_kind
def test_the_gradient_of_a_given_number_s_density_is_that_of_finite_differences(kind):
    given = {name: tf.constant(value) for name, value in parameters(kind).items()}
    z = tf.constant(np.random.default_rng(1).normal(size=[ROWS, D]))

    def total(**changed):
        return float(tf.reduce_sum(families.find(kind)(**{**given, **changed}).log_prob(z)))

    with tf.GradientTape() as tape:
        tape.watch([z, *given.values()])
        value = tf.reduce_sum(families.find(kind)(**given).log_prob(z))
    to_z, *gradients = tape.gradient(value, [z, *given.values()])
    rng, h = np.random.default_rng(2), 1e-5
    for name, gradient in zip(given, gradients, strict=True):
        direction = rng.normal(size=gradient.shape)
        numeric = (total(**{name: given[name] + h * direction}) - total(**{name: given[name] - h * direction})) / 2 / h
        assert numeric == pytest.approx(np.sum(gradient * direction), rel=1e-4, abs=1e-5), name
    direction = rng.normal(size=z.shape)
    moved = [float(tf.reduce_sum(families.find(kind)(**given).log_prob(z + sign * h * direction))) for sign in (1, -1)]
    assert (moved[0] - moved[1]) / 2 / h == pytest.approx(np.sum(to_z * direction), rel=1e-4)


@every_kind
def test_a_density_in_the_plane_integrates_to_one(kind):
    flow_truths.check_integral(families.find(kind)(**parameters(kind, size=2, rows=1, dtype=np.float32, steep=0.5)))


@pytest.mark.parametrize("shape", [[5, ROWS, D], [ROWS, 1, D]])
def test_many_flows_are_a_loop_of_the_same_steps(shape, monkeypatch):
    given, z = parameters("PlanarFlow"), tf.constant(np.random.default_rng(1).normal(size=shape))

    def numbers():
        with tf.GradientTape() as tape:
            flow = families.PlanarFlow(**{name: tape.watch(value) or value for name, value in tensors.items()})
            y, log_det = flow.forward(z)
            total = tf.reduce_sum(flow.log_prob(z)) + tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(log_det)
        return y, log_det, flow.log_prob(z), *tape.gradient(total, list(tensors.values()))

    tensors = {name: tf.constant(value) for name, value in given.items()}
    expected = numbers()
    monkeypatch.setattr(amortized_flows, "_UNROLLED", 1)
    for found in (numbers(), tf.function(numbers, jit_compile=True, autograph=False)()):
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-8)


def test_u_of_zero_is_the_identity_and_a_vanishing_w_has_its_own_slope():
    given = parameters("PlanarFlow")
    z = np.random.default_rng(1).normal(size=[ROWS, D])
    expected = stats.norm(given["loc"], given["scale"]).logpdf(z).sum(axis=-1)
    identity = families.PlanarFlow(**{**given, "u": np.zeros_like(given["u"])})
    np.testing.assert_allclose(identity.log_prob(z), expected, rtol=1e-9)
    for size in (0.0, 1e-5):
        tiny = families.PlanarFlow(**{**given, "w": size * given["w"]})
        flow_truths.check_jacobian(tiny, tf.constant(z)[tf.newaxis], rtol=1e-9)


def test_a_slope_that_all_but_vanishes_keeps_its_density_finite():
    given = {name: value.astype(np.float32) for name, value in parameters("PlanarFlow").items()}
    steep = families.PlanarFlow(**{**given, "u": -40.0 * given["w"], "b": 0 * given["b"]})
    z, log_q = steep.experimental_sample_and_log_prob(1000, seed=[1, 2])
    assert np.isfinite(z).all() and np.isfinite(log_q).all() and np.isfinite(steep.log_prob(tf.identity(z))).all()


@pytest.mark.parametrize("make", [posteriors.planar, posteriors.sylvester])
def test_as_posteriors_they_are_functions_of_the_features_alone(make):
    layer = make(5, 2)
    assert isinstance(layer, DistributionLayer) and layer.free == list(layer.parameters(tf.ones([1, 4])))
    assert [tuple(weight.shape)[:-1] for weight in layer.trainable_variables] == [(4,), ()]
    with pytest.raises(ValueError, match="needs num_flows=, a whole number of 1 or more, received 0"):
        make(5, 0)
