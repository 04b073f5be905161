"""Real MNIST: the data are what they should be, and an epoch of the paper's network learns what it should."""

import keras
import numpy as np
import pytest

from pipelines import preprocess
from tfvae import data
from tfvae.presets import EXPERIMENTS


@pytest.fixture(scope="module")
def mnist(mnist_dir, tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("prepared") / "mnist")
    assert preprocess.run("idx", str(mnist_dir), path).rows == {"train": 60_000, "test": 10_000}
    return path


@pytest.mark.slow
def test_independent_pixels_reach_the_known_bound_and_one_epoch_leaves_it_behind(mnist):
    train, test = data.load(mnist, "train"), data.load(mnist, "test")
    # Independent pixels at the training means, kept within 0.001 and 0.999, score -205.97 nats on the test set.
    means = np.clip(train.mean(axis=0) / 255, 1e-3, 1 - 1e-3)
    x = test / 255
    independent = (x * np.log(means) + (1 - x) * np.log1p(-means)).sum(axis=(1, 2, 3)).mean()
    assert independent == pytest.approx(-205.97, abs=0.01)
    vae = EXPERIMENTS["mlp"].build((28, 28, 1), 20, 0)
    vae.compile(optimizer=keras.optimizers.Adam(1e-3))
    history = vae.fit(train, epochs=1, validation_data=test, verbose=0).history
    assert history["val_elbo"][0] == pytest.approx(-128.1, abs=2.5)
    assert history["elbo"][0] < history["val_elbo"][0]  # the training mean lags, for it covers the whole first epoch
