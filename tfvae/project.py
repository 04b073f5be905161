"""What ``tfvae init`` writes: a project that trains at once on prepared data, to be changed from there."""

import os
import pathlib
import shlex

from tfvae import configuration
from tfvae.pipelines import contract, storage

_MODEL = '''\
"""The model: build is called with what it names of event_shape, condition_shape, rows, missing, data, latent_dim
and seed.
"""

import keras

import tfvae


def build(event_shape, missing=False, latent_dim=10, seed=0):
    """Pictures have a Bernoulli likelihood, other rows a normal one: take the one that your data ask for."""
    family = tfvae.likelihoods.bernoulli if len(event_shape) > 1 else tfvae.likelihoods.normal
    likelihood = tfvae.likelihoods.missing(family(event_shape)) if missing else family(event_shape)
    return tfvae.VAE(
        encoder=keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(200, "relu")]),
        decoder=keras.Sequential([keras.layers.Dense(200, "relu")]),
        posterior=tfvae.posteriors.diagonal_normal(latent_dim),
        likelihood=likelihood,
        seed=seed,
    )
'''
_TEST = '''\
"""python -m pytest: the model learns two pictures that are each other's negative."""

import keras
import numpy as np
from model import build


def test_the_bound_rises():
    one = np.random.default_rng(0).integers(0, 2, [8, 8, 1]).astype("float32")
    x = np.stack([one, 1 - one] * 50)
    vae = build(x.shape[1:], latent_dim=2)
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(x, epochs=30, batch_size=20, verbose=0)
    assert np.mean(vae.elbo(x)) > -20  # nats; pixels that knew of nothing would reach -64 log 2 = -44
'''
_README = """\
# A model by tfvae

model.py builds the model, run.toml says how it is trained, test_model.py tries it.

    tfvae prepare --source images --input photos --output prepared  # where nothing is prepared yet
    tfvae train --config run.toml
    tfvae evaluate runs/first --data {data}
    tfvae plot runs/first --output runs/first/plots
    tfvae runs runs

Where model.py defines layers of its own, evaluate, plot and export are told so: --model model.py.
"""


def write(folder: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> list[pathlib.Path]:
    """Write the project's files into a folder, which may hold others; returns their paths.

    Args:
        folder: The project's folder.
        data: A prepared dataset, a path or a store's address; ``prepared`` in the folder where none is named.

    Raises:
        ValueError: If one of the files is there, or ``data`` holds no dataset.
    """
    folder = pathlib.Path(folder)
    prepared = "prepared" if not data else os.fspath(data)
    if data and not storage.is_address(prepared):
        if not storage.exists(os.path.join(prepared, contract.DATASET_INFO)):
            raise ValueError(contract.no_dataset(data))
        prepared = os.path.relpath(prepared, folder)
    flags = {"data": prepared, "output": "runs/first", "model": "model.py:build", "epochs": 20}
    texts = {
        "model.py": _MODEL,
        "run.toml": configuration.text(flags, "Flags by their names; paths from this folder. See tfvae train --help."),
        "test_model.py": _TEST,
        "README.md": _README.format(data=shlex.quote(prepared)),
    }
    if there := [name for name in texts if os.path.lexists(folder / name)]:
        raise ValueError(f"{folder} holds {', '.join(there)} already: choose another folder, nothing is overwritten.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with open(folder / name, "xb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    return [folder / name for name in texts]
