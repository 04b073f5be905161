"""The paper's data and models, as it trained on them."""

import numpy as np
import pytest

from tfvae import VAE
from tfvae.baselines import WakeSleep
from tfvae.experiments.aevb import settings
from tfvae.experiments.aevb.adagrad import WarmAdagrad


@pytest.mark.parametrize("method", ["AEVB", "WS"])
def test_it_is_the_papers_model(data, method):
    model = settings.build(data, 2, method, seed=1)
    vae = model if method == "AEVB" else model.vae
    assert isinstance(model, {"AEVB": VAE, "WS": WakeSleep}[method])
    assert isinstance(vae, VAE)
    assert isinstance(model.optimizer, WarmAdagrad)
    assert (model.optimizer.warmup_steps, model.optimizer.gradient_scale) == (100, 100.0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)
    assert vae.weight_prior.get_config() == {"num_rows": 250, "scale": 1.0}
    assert (vae.num_samples, vae.latent_dim, vae.event_shape) == (1, 2, (6,))
    kernels = [w.numpy().ravel() for w in vae.trainable_variables if len(w.shape) == 2]
    assert sorted(map(len, kernels)) == [10, 20, 30, 30]
    assert 0.005 < np.std(np.concatenate(kernels)) < 0.015
    assert all(not w.numpy().any() for w in vae.trainable_variables if len(w.shape) == 1)
    # log σ² is linear in the features: an untrained posterior is close to N(0, 1).
    np.testing.assert_allclose(vae.encode(data.test).stddev(), 1, atol=0.05)
    other = settings.build(data, 2, method, seed=1).get_weights()
    for first, second in zip(model.get_weights(), other, strict=True):
        np.testing.assert_array_equal(first, second)


def test_mnist_as_the_paper_trained_on_it(mnist_dir):
    data = settings.mnist(str(mnist_dir))
    assert data.train.shape == (50_000, 784)
    assert data.test.shape == (10_000, 784)
    for x in (data.train, data.test):
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0.0, 1.0)
    assert len(np.unique(data.test)) == 256  # not binarised
    # Every pixel a Bernoulli of its own mean.
    mean = np.clip(data.train.mean(axis=0, dtype=np.float64), 1e-6, 1 - 1e-6)
    bound = np.mean(data.test @ np.log(mean) + (1 - data.test) @ np.log1p(-mean))
    assert bound == pytest.approx(-206, abs=1.0)


def test_an_idx_file_of_labels_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 7]))
    with pytest.raises(ValueError, match=r"holds uint8 \[2\], expected the bytes of pictures, \[N, 28, 28\]"):
        settings.mnist(str(tmp_path))


def test_frey_face_as_the_paper_trained_on_it(frey_faces):
    data = settings.frey(str(frey_faces))
    assert (data.train.shape, data.test.shape) == ((1769, 560), (196, 560))
    assert data.train.dtype == np.float32
    faces = np.concatenate([data.train, data.test]).astype(np.float64)
    raw = np.load(frey_faces).reshape(-1, 560)
    np.testing.assert_array_equal(np.sort(faces * 256, axis=0), np.sort(raw, axis=0))  # each face once
    # Every pixel a Gaussian of its own mean and variance: the scale of the paper's Frey curves.
    variance = faces.var(axis=0)
    assert -0.5 * np.sum(np.log(2 * np.pi * variance) + 1) == pytest.approx(577.0, abs=0.1)
    np.testing.assert_array_equal(settings.frey(str(frey_faces)).test, data.test)
    assert not np.array_equal(settings.frey(str(frey_faces), seed=1).test, data.test)
    p = data.likelihood("zeros")(np.zeros([2, 3], np.float32))
    np.testing.assert_allclose(p.mean(), 0.5)
    np.testing.assert_allclose(p.stddev(), 1.0)
    assert data.image_shape == (28, 20)
