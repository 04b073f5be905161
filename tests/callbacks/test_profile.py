"""Keras's own profile of a training is written where a batch, to its callback, is a program of many steps."""

import math
import re

import keras
import numpy as np
import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tfvae import VAE, likelihoods, networks, posteriors
from tfvae.engine import pace


@pytest.mark.parametrize("batches", [2, (2, 3)])
def test_a_profile_of_programs_is_written(tmp_path, batches):
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([6]), seed=0)
    vae.compile(jit_compile=False)
    tensorboard = keras.callbacks.TensorBoard(str(tmp_path), profile_batch=batches)
    vae.fit(np.zeros([500, 6], np.float32), batch_size=5, epochs=3, verbose=0, callbacks=[tensorboard])
    assert vae.steps_per_execution == 100
    (profile,) = (tmp_path / "train" / "plugins" / "profile").rglob("*.xplane.pb")
    assert b"MatMul" in profile.read_bytes()


def test_a_batch_of_a_profile_is_a_program_of_many_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "SHORT", math.inf)
    monkeypatch.setattr(pace, "LONG", math.inf)  # the number of steps doubles, however slow they are
    vae = VAE(
        networks.mlp([4], name="seen"),
        networks.mlp([4]),
        posteriors.diagonal_normal(2),
        likelihoods.bernoulli([6]),
        seed=0,
    )
    vae.compile(jit_compile=False)
    tensorboard = keras.callbacks.TensorBoard(str(tmp_path), profile_batch=3)
    vae.fit(np.zeros([500, 6], np.float32), batch_size=5, verbose=0, callbacks=[tensorboard])
    (profile,) = (tmp_path / "train" / "plugins" / "profile").rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(profile.read_bytes())
    names = [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]
    assert names.count("Profiled batch") == names.count("program") == 1
    steps = [name for name in names if re.search(r"^while/body/.*/seen\w*/dense\w*/Tanh:", name)]
    assert len(steps) == 4  # programs of 1, 2, 4, ... steps
