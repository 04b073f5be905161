"""Auto-Encoding Variational Bayes on TensorFlow: train with Keras, embed with Beam, serve with TF Serving.

The names below are the package's public ones; each is imported when it is first used. ``import tfvae`` is also enough
for ``keras.models.load_model`` to know the package's classes, and costs nothing where Keras is never imported: see
``tfvae.registration``. A client of a served model needs ``tfvae.serving`` alone, and neither Keras nor TensorFlow.

Example:
    >>> import tfvae
    >>> tfvae.VAE.__name__, tfvae.networks.mlp.__name__
    ('VAE', 'mlp')
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfvae import registration

if TYPE_CHECKING:  # for editors
    from tfvae import (
        baselines,
        callbacks,
        data,
        evaluation,
        families,
        flows,
        likelihoods,
        models,
        networks,
        objectives,
        optimizers,
        plots,
        posteriors,
        priors,
        serving,
    )
    from tfvae.distribution_layer import DistributionLayer
    from tfvae.exporting.saved_model import export
    from tfvae.models.vae import VAE

__version__ = "0.2.0"

__all__ = [
    "VAE",
    "DistributionLayer",
    "baselines",
    "callbacks",
    "data",
    "evaluation",
    "export",
    "families",
    "flows",
    "likelihoods",
    "models",
    "networks",
    "objectives",
    "optimizers",
    "plots",
    "posteriors",
    "priors",
    "serving",
]

_HOMES = {
    "VAE": "tfvae.models.vae",
    "DistributionLayer": "tfvae.distribution_layer",
    "export": "tfvae.exporting.saved_model",
}
_WITHOUT_KERAS = ("data", "serving")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tfvae' has no attribute {name!r}, only {', '.join(__all__)}.")
    if name not in _WITHOUT_KERAS:
        registration.check_backend()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    return importlib.import_module(f"tfvae.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)


registration.watch()
