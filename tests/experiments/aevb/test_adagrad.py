"""The authors' Adagrad against their rule written out in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae import VAE, DistributionLayer, networks
from tfvae.engine.replicas import Rows
from tfvae.experiments.aevb.adagrad import WarmAdagrad


def reference(weights: np.ndarray, gradients: np.ndarray, step: float, warmup: int, scale: float) -> list[np.ndarray]:
    """w after each step, ``ada += g²; if step >= warmup: w -= step · g / √(ada + 1e-8)``, g the minibatch's sum."""
    w, total, seen = weights.astype(np.float64), np.zeros_like(weights, np.float64), []
    for i, gradient in enumerate(gradients.astype(np.float64) * scale):
        total += gradient**2
        if i >= warmup:
            w = w - step * gradient / np.sqrt(total + 1e-8)
        seen.append(w)
    return seen


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("jit", [False, True])
def test_it_is_the_authors_rule_around_the_end_of_the_warm_up(jit, scale):
    rng = np.random.default_rng(0)
    # Tiny gradients in the first column, so that epsilon counts.
    gradients = (rng.normal(size=[5, 3, 2]) * [1e-5, 1.0]).astype(np.float32)
    weights = rng.normal(size=[3, 2]).astype(np.float32)
    variable = keras.Variable(weights)
    optimizer = WarmAdagrad(0.05, warmup_steps=2, gradient_scale=scale)
    optimizer.build([variable])
    apply = tf.function(lambda g: optimizer.apply([g], [variable]), jit_compile=jit, autograph=False)
    for gradient, expected in zip(gradients, reference(weights, gradients, 0.05, 2, scale), strict=True):
        apply(tf.constant(gradient))
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-7)


def make_vae() -> VAE:
    keras.utils.set_random_seed(0)
    return VAE(
        encoder=networks.mlp([6]),
        decoder=networks.mlp([6]),
        posterior=DistributionLayer("Normal", [2]),
        likelihood=DistributionLayer("Bernoulli", [5]),
        seed=3,
    )


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=[8, 5]).astype(np.float32)


def test_under_fit_it_is_the_same_rule(x):
    """Every step of the compiled loop against gradients taken by hand at the same seeds."""
    vae, warmup, scale = make_vae(), 3, 4.0
    vae.compile()
    variables = vae.trainable_variables
    weights, totals = [v.numpy().astype(np.float64) for v in variables], [0.0] * len(variables)

    @tf.function(jit_compile=True, autograph=False)
    def gradients(batch: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = vae.total_loss({"x": batch}, Rows.of_one_device(tf.ones([4])), training=True)
        return tape.gradient(loss, variables)

    for number, start in enumerate((0, 4) * 3):
        rate = 0.1 if number >= warmup else 0.0
        for i, gradient in enumerate(gradients(tf.constant(x[start : start + 4]))):
            gradient = gradient.numpy().astype(np.float64) * scale
            totals[i] = totals[i] + gradient**2
            weights[i] = weights[i] - rate * gradient / np.sqrt(totals[i] + 1e-8)
            variables[i].assign(weights[i])
    other = make_vae()
    other.compile(WarmAdagrad(0.1, warmup, gradient_scale=scale), steps_per_execution=2)
    other.fit(x, batch_size=4, epochs=3, shuffle=False, verbose=0)
    for variable, weight in zip(other.trainable_variables, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), weight, atol=2e-5, err_msg=variable.path)


def test_the_first_hundred_steps_move_nothing(x):
    vae = make_vae()
    before = [w.numpy() for w in vae.trainable_variables]
    vae.compile(WarmAdagrad(), steps_per_execution=25, jit_compile=False)
    for steps, moved in ((100, False), (1, True)):
        vae.fit(x, batch_size=4, steps_per_epoch=steps, verbose=0)
        after = [w.numpy() for w in vae.trainable_variables]
        assert all(np.array_equal(a, b) != moved for a, b in zip(before, after, strict=True))
    assert int(vae.optimizer.iterations) == 101


def test_it_round_trips():
    optimizer = WarmAdagrad(0.02, warmup_steps=7, epsilon=1e-6, gradient_scale=50, clipnorm=3.0)
    config = keras.optimizers.serialize(optimizer)
    other = keras.optimizers.deserialize(config)
    assert isinstance(other, WarmAdagrad)
    assert other.get_config() == optimizer.get_config()
    assert (other.warmup_steps, other.epsilon, other.gradient_scale, other.clipnorm) == (7, 1e-6, 50.0, 3.0)
    assert float(other.learning_rate) == pytest.approx(0.02)


def test_its_sums_are_saved_with_the_model(x, tmp_path):
    def run(resume: bool) -> list[np.ndarray]:
        vae = make_vae()
        vae.compile(WarmAdagrad(0.1, warmup_steps=3), jit_compile=False)
        vae.fit(x, batch_size=4, epochs=2, verbose=0)
        if resume:
            vae.save(tmp_path / "vae.keras")
            vae = keras.models.load_model(tmp_path / "vae.keras")
        vae.fit(x, batch_size=4, epochs=2, verbose=0)
        return vae.get_weights()

    for straight, resumed in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(straight, resumed)
