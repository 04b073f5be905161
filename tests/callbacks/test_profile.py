"""Keras's own profile of a training is written where a batch, to its callback, is a program of many steps."""

import keras
import numpy as np
import pytest

from tfvae import VAE, likelihoods, networks, posteriors


@pytest.mark.parametrize("batches", [2, (2, 3)])
def test_a_profile_of_programs_is_written(tmp_path, batches):
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([6]), seed=0)
    vae.compile(jit_compile=False)
    tensorboard = keras.callbacks.TensorBoard(str(tmp_path), profile_batch=batches)
    vae.fit(np.zeros([500, 6], np.float32), batch_size=5, epochs=3, verbose=0, callbacks=[tensorboard])
    assert vae.steps_per_execution == 100
    (profile,) = (tmp_path / "train" / "plugins" / "profile").rglob("*.xplane.pb")
    assert b"MatMul" in profile.read_bytes()
