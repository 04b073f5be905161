"""Models that ``fit`` trains by a bound on log p(x)."""

from tfvae.models.imputation import Imputation
from tfvae.models.vae import VAE, Batch

__all__ = ["VAE", "Batch", "Imputation"]
