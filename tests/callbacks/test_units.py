"""What the callback says of latent units is what evaluation says, and a collapse is told once."""

import csv
import warnings

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from tfvae import VAE, callbacks, evaluation, likelihoods, networks, objectives, observations, posteriors

X = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)


def vae(**more) -> VAE:
    keras.utils.set_random_seed(0)
    likelihood = more.pop("likelihood", None) or likelihoods.bernoulli([4])
    made = VAE(networks.mlp([8]), networks.mlp([8]), posteriors.diagonal_normal(3), likelihood, seed=0, **more)
    made.compile(keras.optimizers.Adam(0.03), jit_compile=False)
    return made


def test_the_history_the_file_and_tensorboard_hold_what_was_measured(tmp_path):
    model, units = vae(), callbacks.Units(X, log_dir=tmp_path / "logs")
    written = [units, keras.callbacks.CSVLogger(str(tmp_path / "history.csv"))]
    history = model.fit(X, epochs=3, verbose=0, callbacks=written).history
    kl = evaluation.kl_by_unit(model, X)
    np.testing.assert_allclose(units.kl_by_unit, kl, rtol=1e-5)
    assert history["kl_of_units"][-1] == pytest.approx(kl.sum(), rel=1e-5)
    assert history["active_units"][-1] == evaluation.active_units(model, X)
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["kl_of_units"]) for row in rows] == pytest.approx(history["kl_of_units"])
    reader = EventAccumulator(str(tmp_path / "logs"), {"tensors": 0})
    reader.Reload()
    events = reader.Tensors("kl_by_unit")
    assert [event.step for event in events] == [0, 1, 2]
    left, right, count = tensor_util.make_ndarray(events[-1].tensor_proto).T  # TensorBoard's buckets
    assert count.sum() == 3 and left[0] <= kl.min() and right[-1] >= kl.max()


def test_a_collapse_is_told_once_after_the_warm_up():
    model, units = vae(objective=objectives.Weighted(100.0)), callbacks.Units(X, warm_up=10)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        history = model.fit(X, epochs=40, verbose=0, callbacks=[units]).history
    said = [str(one.message) for one in told if "collapsed" in str(one.message)]
    assert len(said) == 1 and "of 3 are active" in said[0] and "KL(q‖p) is" in said[0]
    assert history["kl_of_units"][-1] < 0.1
    first = next(i for i in range(10, 40) if history["active_units"][i] == 0 or history["kl_of_units"][i] < 0.1)
    assert f"after epoch {first + 1} " in said[0]


def test_a_model_that_uses_its_units_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        vae().fit(X, batch_size=10, epochs=40, verbose=0, callbacks=[callbacks.Units(X, warm_up=35)])


def test_bits_stand_beside_nats():
    x = np.random.default_rng(0).integers(0, 256, [20, 4], dtype=np.uint8)
    model = vae(likelihood=likelihoods.sigmoid_normal([4]), noise=observations.Dequantized())
    history = model.fit(x, validation_data=x, epochs=2, verbose=0, callbacks=[callbacks.BitsPerDimension()]).history
    for prefix in ("", "val_"):
        expected = 8 - np.array(history[f"{prefix}elbo"]) / (4 * np.log(2))
        np.testing.assert_allclose(history[f"{prefix}bits_per_dimension"], expected, rtol=1e-6)


def test_greys_under_a_bernoulli_have_no_bits():
    with pytest.raises(ValueError, match="scores no 8-bit levels"):
        vae().fit(X, verbose=0, callbacks=[callbacks.BitsPerDimension()])


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (lambda: callbacks.StopAtNaN(), "The model that is trained is <Sequential.*expected a tfvae.VAE or one of"),
        (lambda: callbacks.Pictures(X, "unused"), "vae is <Sequential.*expected a tfvae.VAE"),
    ],
    ids=["StopAtNaN", "Pictures"],
)
def test_a_model_of_another_kind_is_refused(callback, told):
    other = keras.Sequential([keras.Input([4]), keras.layers.Dense(4)])
    other.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=told):
        other.fit(X, X, batch_size=40, verbose=0, callbacks=[callback()])
