"""A training that turns NaN stops at the step, and names the layer, that a layer which breaks on purpose has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae import VAE, DistributionLayer, baselines, callbacks, likelihoods, networks, posteriors

X = np.random.default_rng(0).random([60, 6]).astype(np.float32)
BROKEN_AT = 9


class Breaks(keras.layers.Layer):
    """The identity, whose output or gradient is NaN from its ``BROKEN_AT``-th call in training on."""

    def __init__(self, what: str):
        super().__init__(name="breaks")
        self.what = what

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
        wrong = tf.where(self.calls >= (BROKEN_AT if self.what != "none" else np.inf), np.nan, 1.0)
        if self.what == "output":
            return x * wrong

        @tf.custom_gradient
        def through(x):
            return tf.identity(x), lambda upstream: upstream * wrong

        return through(x)


def vae(what: str, inside: str, jit_compile: bool = False) -> VAE:
    keras.utils.set_random_seed(0)

    def network(name: str):
        layers = [keras.layers.Dense(5, "tanh", name="first"), keras.layers.Dense(4, "tanh", name="second")]
        return keras.Sequential([*layers[:1], *([Breaks(what)] if name == inside else []), *layers[1:]])

    parts = posteriors.diagonal_normal(2), likelihoods.bernoulli([6])
    made = VAE(network("encoder"), network("decoder"), *parts, seed=0)
    made.compile(keras.optimizers.Adam(0.01), jit_compile=jit_compile)
    return made


@pytest.mark.parametrize(
    ("what", "inside", "jit_compile", "names"),
    [
        # 6 steps an epoch, all of them one program: the ninth is the third of the second epoch.
        ("output", "encoder", True, "the output of encoder/breaks is not finite"),
        ("gradient", "decoder", False, "that comes back to the output of decoder/first is not finite"),
    ],
)
def test_the_step_and_the_layer_are_named_and_the_weights_are_those_before(what, inside, jit_compile, names):
    model, same = vae(what, inside, jit_compile), vae("none", inside, jit_compile)
    with pytest.raises(FloatingPointError, match=f"At step {BROKEN_AT} of the training.*{names}"):
        model.fit(X, batch_size=10, epochs=3, verbose=0, callbacks=[callbacks.StopAtNaN()])
    assert model.optimizer.iterations.numpy() == BROKEN_AT - 1
    same.fit(X, batch_size=10, verbose=0)
    same.fit(X, batch_size=10, steps_per_epoch=BROKEN_AT - 1 - 6, verbose=0)
    for weight, expected in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
def test_a_training_that_goes_well_is_not_changed():
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(10)
    watched, plain = (
        vae("none", "encoder").fit(dataset, epochs=2, verbose=0, callbacks=chosen).history
        for chosen in ([callbacks.StopAtNaN()], [])
    )
    assert watched == plain


def test_a_density_that_overflows_is_told_with_its_parameters():
    likelihood = DistributionLayer("Normal", [6], scale=0.5)
    model = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    model.compile(jit_compile=False)
    with pytest.raises(
        FloatingPointError, match=r"At step 1 .*log_likelihood is not finite.*likelihood's scale from 0.5 to 0.5"
    ):
        model.fit(1e25 * X, verbose=0, callbacks=[callbacks.StopAtNaN()])


def test_a_model_with_steps_of_its_own_is_told_the_step():
    model = baselines.MonteCarloEM(vae("none", "decoder"), num_rows=60)
    model.compile(keras.optimizers.SGD(1e38), jit_compile=False)
    with pytest.raises(FloatingPointError, match=r"At step \d .*MonteCarloEM makes steps of its own"):
        model.fit(X, batch_size=60, epochs=3, verbose=0, callbacks=[callbacks.StopAtNaN()])


def test_weights_that_were_no_numbers_before_are_told_as_such():
    model = vae("none", "encoder")
    model.posterior.projection.bias.assign(np.full(4, np.nan))
    with pytest.raises(FloatingPointError, match=r"Before step 1 .*weights were not finite: .*bias"):
        model.fit(X, verbose=0, callbacks=[callbacks.StopAtNaN()])
    model.fit(X, verbose=0)  # without it nothing is watched


def told_by_fit(likelihood, x, recwarn, **fit) -> list[str]:
    model = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    model.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
    model.fit(x, epochs=3, verbose=0, **fit)
    return [str(warning.message) for warning in recwarn if "loss of epoch" in str(warning.message)]


def test_fit_says_once_that_x_lies_beyond_learned_ends(recwarn):
    [told] = told_by_fit(DistributionLayer("Uniform", [6]), X, recwarn)
    assert told.startswith("The loss of epoch 1 is inf. Uniform learns its low and high, beyond which x has no density")
    assert told.endswith("DistributionLayer('Uniform', [6], low=..., high=...).")
    part = likelihoods.mixed([DistributionLayer("Normal", [3]), DistributionLayer("HalfCauchy", [3])])
    told = told_by_fit(part, X, recwarn)[-1]
    assert "HalfCauchy learns its loc," in told


def test_fit_says_once_that_a_loss_is_no_number(recwarn):
    [told] = told_by_fit(likelihoods.bernoulli([6]), X, recwarn, sample_weight=np.full(60, 5e36, np.float32))
    assert told.endswith(
        "callbacks.StopAtNaN() ends a training there, and names the first step and the layer that made it so."
    )


def test_fit_says_nothing_of_a_loss_that_is_a_number(recwarn):
    assert told_by_fit(DistributionLayer("Uniform", [6], low=0.0, high=1.0), X, recwarn) == []


def test_fit_says_once_that_the_loss_of_validation_alone_is_no_number(recwarn):
    far = {"validation_data": np.full([9, 6], 3e19, np.float32)}  # whose squares are beyond float32
    [told] = told_by_fit(DistributionLayer("Normal", [6]), X, recwarn, **far)
    assert told == (
        "The val_loss of epoch 1 is inf. The loss is a number: evaluate(rows) of parts of validation_data says which "
        "rows make it so."
    )
