"""What a person watches while a VAE trains, and what stops a training that has gone wrong."""

from tfvae.callbacks.bits import BitsPerDimension
from tfvae.callbacks.checkpoint import Checkpoint
from tfvae.callbacks.nan import StopAtNaN
from tfvae.callbacks.pictures import Pictures
from tfvae.callbacks.progress import ProgressBar
from tfvae.callbacks.units import Units

__all__ = ["BitsPerDimension", "Checkpoint", "Pictures", "ProgressBar", "StopAtNaN", "Units"]
