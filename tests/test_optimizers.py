"""NormalizedAdam beside Adam of gradients that are divided by hand."""

import keras
import numpy as np

from tests import linear_gaussian
from tfvae import optimizers


def test_it_is_adam_of_gradients_of_length_one_whatever_their_scale():
    rng = np.random.default_rng(0)
    weights = {
        name: [keras.Variable(np.ones([3, 2])), keras.Variable(np.ones(2))] for name in ("ours", "adam", "large")
    }
    ours, adam, large = optimizers.NormalizedAdam(0.01), keras.optimizers.Adam(0.01), optimizers.NormalizedAdam(0.01)
    for _ in range(5):
        gradients = [rng.normal(size=[3, 2]).astype(np.float32), rng.normal(size=2).astype(np.float32)]
        ours.apply(gradients, weights["ours"])
        adam.apply([gradient / np.linalg.norm(gradient) for gradient in gradients], weights["adam"])
        large.apply([1000 * gradient for gradient in gradients], weights["large"])
    for one, two, three in zip(*weights.values(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
        np.testing.assert_allclose(one, three, rtol=1e-6)
    zero = keras.Variable(np.ones(2))
    optimizers.NormalizedAdam().apply([np.zeros(2, np.float32)], [zero])
    np.testing.assert_array_equal(zero, np.ones(2))


def test_a_model_trained_by_it_goes_on_from_its_file(tmp_path):
    x, vae = linear_gaussian.rows(20)[0], linear_gaussian.vae(wider=2.0, seed=0)
    vae.compile(optimizers.NormalizedAdam(0.01), jit_compile=False)
    vae.fit(x, batch_size=10, epochs=2, verbose=0)
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, optimizers.NormalizedAdam)
    more = [model.fit(x, batch_size=10, epochs=1, verbose=0).history["loss"] for model in (vae, loaded)]
    assert more[0] == more[1]
