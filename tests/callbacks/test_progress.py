"""The progress bar counts epochs, and shows the bound that Keras logged."""

import numpy as np

from tfvae import VAE, callbacks, likelihoods, networks, posteriors
from tfvae.callbacks import progress


def test_the_bar_counts_epochs_and_shows_the_last_bound(monkeypatch):
    bars = []

    class Bar(progress.tqdm):
        def __init__(self, *args, **more):
            bars.append(self)
            super().__init__(*args, **more)

    monkeypatch.setattr(progress, "tqdm", Bar)
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([3]), seed=0)
    vae.compile(jit_compile=False)
    x = np.random.default_rng(0).uniform(size=[20, 3]).astype(np.float32)
    history = vae.fit(x, epochs=3, validation_data=x, verbose=0, callbacks=[callbacks.ProgressBar("learning")]).history
    (bar,) = bars
    assert (bar.n, bar.total, bar.desc, bar.unit) == (3, 3, "learning", "epoch")
    assert f"ELBO={history['elbo'][-1]:.2f}" in bar.postfix
    assert f"validation={history['val_elbo'][-1]:.2f}" in bar.postfix


def test_a_bar_without_a_bound_counts_all_the_same(monkeypatch):
    bar = callbacks.ProgressBar()
    bar.set_params({"epochs": 2})
    bar.on_train_begin()
    bar.on_epoch_end(0, None)
    assert bar._bar.n == 1
    bar.on_train_end()


def test_a_bar_of_a_training_that_goes_on_begins_where_that_does():
    bar = callbacks.ProgressBar()
    bar.set_params({"epochs": 4})
    bar.on_train_begin()
    bar.on_epoch_begin(2)
    bar.on_epoch_end(2, None)
    assert (bar._bar.n, bar._bar.initial) == (3, 2)
    bar.on_train_end()
