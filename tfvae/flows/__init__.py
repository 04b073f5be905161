"""Flows made of networks: steps whose maps are autoregressive, for q(z|x) and for p(z)."""

from tfvae.flows.autoregressive import Autoregressive, stack
from tfvae.flows.posterior import FlowPosterior

__all__ = ["Autoregressive", "FlowPosterior", "stack"]
