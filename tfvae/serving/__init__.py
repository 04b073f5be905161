"""A client for a running TF Serving that serves what ``tfvae.export`` wrote: embeddings over REST or gRPC.

Over ``http(s)://`` it needs NumPy and requests and no TensorFlow, so that a web service can ask for embeddings without
carrying the model's libraries; over ``grpc(s)://`` it needs ``tensorflow-serving-api``, which brings TensorFlow: the
extra ``grpc``. The distribution ``tfvae-client`` has this room alone, as ``tfvae_client``.

Example:
    >>> from tfvae import serving
    >>> client = serving.Client("http://localhost:8501", "mnist", timeout=5)
    >>> client.embed("a picture")  # before anything is sent
    Traceback (most recent call last):
    TypeError: x is a str: give an array whose first axis is the rows, or a list of bytes (PNG or JPEG files).
"""

from .answers import Signature, TensorInfo
from .client import Client, Score
from .retries import ServingError

__all__ = ["Client", "Score", "ServingError", "Signature", "TensorInfo"]
