"""A dataset of a few small rows, and programs without XLA, which would take longer to compile than to train."""

import numpy as np
import pytest

from tfvae.distribution_layer import DistributionLayer
from tfvae.engine import loop, xla
from tfvae.experiments.aevb import settings


@pytest.fixture(scope="session")
def data() -> settings.Data:
    """300 binary rows whose first principal component is strong."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=[300, 1]) * np.linspace(-2, 2, 6) + rng.normal(size=[300, 6]) > 0).astype(np.float32)
    return settings.Data(
        x[:250],
        x[250:],
        hidden=5,
        latent_dims=(2, 3),
        learning_rate=0.1,
        likelihood=lambda init: DistributionLayer("Bernoulli", [6], kernel_initializer=init, name="likelihood"),
        image_shape=(3, 2),
    )


@pytest.fixture(scope="module")
def quick():
    make = loop.make_function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop,
            "make_function",
            lambda step, prepare, metrics, jit, *rest: make(step, prepare, metrics, False, *rest),
        )
        yield


@pytest.fixture(scope="module")
def as_graphs(quick):
    """Nor by XLA what is estimated of a trained model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xla, "pays_off", lambda model: False)
        yield


@pytest.fixture
def tiny(data, quick, monkeypatch) -> settings.Data:
    """Both datasets replaced by a tiny one."""
    monkeypatch.setattr(settings, "DATASETS", {name: (name, lambda path: data) for name in ("mnist", "frey")})
    return data
