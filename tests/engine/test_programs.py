"""What is compiled for a model is kept with it, and goes where the model is another one."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import linear_gaussian
from tfvae import VAE, evaluation, likelihoods, networks, posteriors
from tfvae.engine import programs

pytestmark = pytest.mark.xla

X = np.random.default_rng(0).normal(size=[5, 4]).astype(np.float32)


@keras.saving.register_keras_serializable("tests")
class Cooled(keras.layers.Layer):
    """Divides by a number that its configuration does not tell."""

    temperature = 1.0

    def call(self, x):
        return x / self.temperature


def small(layer: keras.layers.Layer | None = None) -> VAE:
    encoder = keras.Sequential([keras.layers.Dense(3), layer or Cooled()])
    vae = VAE(encoder, networks.mlp([3]), posteriors.diagonal_normal(2), likelihoods.bernoulli([4]), seed=0)
    vae.elbo(np.eye(4, dtype=np.float32))
    return vae


@pytest.fixture
def made():
    """A maker of new objects, and how many it has made."""
    count: list[int] = []
    maker = programs.kept(lambda model, *settings: count.append(1) or object())
    return maker, count


def test_it_is_made_once_for_the_same_settings(made):
    maker, count = made
    vae, other = small(), small()
    assert maker(vae, 1) is maker(vae, 1) and len(count) == 1
    found = {maker(vae, 1), maker(vae, 2), maker(other, 1)}
    assert len(found) == 3 and len(count) == 3
    assert maker(vae, 1) in found and len(count) == 3


def set_attribute(vae):
    vae.encoder.layers[1].temperature = 2.0


def set_argument(vae):
    vae.encoder.layers[0].activation = keras.activations.relu


def replace_layer(vae):
    vae.encoder.pop()


@pytest.mark.parametrize("change", [set_attribute, set_argument, replace_layer, VAE.compile, VAE.forget_programs])
def test_a_model_that_has_changed_gets_another(made, change):
    maker, count = made
    vae = small()
    before = maker(vae)
    change(vae)
    assert maker(vae) is not before and len(count) == 2


def test_a_training_is_no_change_nor_what_is_called_while_it_runs(made):
    maker, count = made
    vae, x = small(), np.eye(4, dtype=np.float32)
    vae.compile("adam", run_eagerly=True)
    before = maker(vae)
    measured = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: maker(vae))
    vae.fit(x, validation_data=x, epochs=2, verbose=0, callbacks=[measured, keras.callbacks.TerminateOnNaN()])
    vae.evaluate(x, verbose=0)
    vae.predict(x, verbose=0)
    vae.set_weights([weight + 1 for weight in vae.get_weights()])
    vae.optimizer.learning_rate = 0.5
    assert maker(vae) is before and len(count) == 1


def test_nothing_is_kept_of_what_has_no_configuration(made):
    class Unknown(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    maker, count = made
    vae = small(Unknown(tf.nn.relu))
    assert maker(vae) is not maker(vae) and len(count) == 2


def test_few_are_kept_the_last_used_the_longest(made):
    maker, _ = made
    vae = small()
    first = maker(vae, 0)
    for i in range(1, 8):
        maker(vae, i)
        assert maker(vae, 0) is first
    second = maker(vae, 1)
    for i in range(8, 15):
        maker(vae, i)
    assert maker(vae, 1) is second and maker(vae, 0) is not first


def test_they_go_with_the_model(made):
    vae = small()
    programs.kept(lambda model: lambda: model)(vae)
    alive = weakref.ref(vae)
    del vae
    gc.collect()
    assert alive() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "measure",
    [
        lambda vae: evaluation.log_marginal(vae, X, num_samples=50),
        lambda vae: evaluation.annealed_log_marginal(vae, X, 8, 2, 2),
        lambda vae: evaluation.hmc_log_marginal(vae, X, num_samples=16, num_leapfrog_steps=2, num_burnin_steps=3),
    ],
    ids=["importance", "annealing", "hmc"],
)
def test_a_second_measurement_compiles_nothing_and_sees_the_new_weights(measure, monkeypatch):
    vae = linear_gaussian.vae(wider=1.5)
    first = measure(vae)
    vae.set_weights([1.1 * weight for weight in vae.get_weights()])
    with monkeypatch.context() as patched:
        patched.setattr(tf.Graph, "_create_op_internal", None)  # whoever traces makes operations
        second = measure(vae)
    assert not np.allclose(second.log_marginal, first.log_marginal, rtol=1e-3)
    vae.forget_programs()
    np.testing.assert_allclose(measure(vae).log_marginal, second.log_marginal, rtol=1e-5)
