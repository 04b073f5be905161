"""``tfvae.serving`` alone: a client of a served model, with neither TensorFlow nor Beam.

The files are those of ``tfvae``, to which this folder links.

Example:
    >>> from tfvae_client import Client
    >>> client = Client("http://localhost:8501", "mnist", timeout=5)
"""

from .serving import Client, Score, ServingError, Signature, TensorInfo

__version__ = "0.2.0"
__all__ = ["Client", "Score", "ServingError", "Signature", "TensorInfo"]
