"""The progress bar counts epochs, and shows the bound that Keras logged."""

import io

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


def test_a_log_has_whole_lines_each_ten_seconds_and_at_the_end(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = callbacks.ProgressBar()
    bar.set_params({"epochs": 100, "steps": 4})
    bar.on_train_begin()
    for epoch in range(99):  # and then it is stopped
        bar.on_epoch_begin(epoch)
        for batch in range(4):
            now[0] += 0.06 if epoch < 90 else 3.0
            bar.on_train_batch_end(batch)
        bar.on_epoch_end(epoch, {"elbo": -3.25, "val_elbo": -4.0})
    bar.on_train_end()
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("training: ") and "\r" not in line for line in lines)
    told = [float(line.removeprefix("training: ").split("/100 epochs, ")[0]) for line in lines]
    assert told == sorted(told) and told[0] > 40 and told[-1] == 99 and 11 <= len(told) <= 14
    assert lines[-1].endswith(", ELBO=-3.25, validation=-4.00")


def test_a_terminal_has_one_line_that_is_drawn_over(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = callbacks.ProgressBar()
    bar.set_params({"epochs": 2})
    bar.on_train_begin()
    for epoch in range(2):
        bar.on_epoch_end(epoch, {"elbo": -3.25})
    bar.on_train_end()
    written = terminal.getvalue()
    assert written.count("\n") == 1 and "\r" in written and "2/2" in written


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
