"""The warm-up file: requests that TF Serving runs when it loads a version, so that the first user waits no longer."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfvae import observations
from tfvae.models.vae import VAE
from tfvae.pipelines import contract
from tfvae.pipelines.messages import PredictionLog

DIFFERENT = 8  # rows of observations, repeated in larger batches


def write(vae: VAE, signatures: Mapping[str, Any], path: pathlib.Path, name: str, batch_sizes: Sequence[int]) -> None:
    """A PredictionLog for each signature and batch size; each is run first, for a bad one fails the server's load."""
    requests = [(key, _request(vae, signatures[key], size)) for key in sorted(signatures) for size in batch_sizes]
    if len(requests) > contract.MOST_WARMUP_RECORDS:
        raise ValueError(f"{len(requests)} warm-up requests are more than the server's {contract.MOST_WARMUP_RECORDS}.")
    for key, inputs in requests:
        signatures[key](**inputs)
    with full_disk_as_os_error(path), tf.io.TFRecordWriter(str(path)) as writer:
        for key, inputs in requests:
            writer.write(prediction_log(name, key, inputs))


def _request(vae: VAE, signature: Any, batch_size: int) -> dict[str, tf.Tensor]:
    def example(name: str, spec: tf.TensorSpec) -> tf.Tensor:
        if name in (contract.X, contract.IMAGE_BYTES):
            return tf.gather(rows(vae, spec.dtype), tf.range(batch_size) % DIFFERENT)
        return tf.zeros([batch_size, *(size or 1 for size in spec.shape[1:])], spec.dtype)

    return {name: example(name, spec) for name, spec in signature.structured_input_signature[1].items()}


def rows(vae: VAE, dtype: tf.DType) -> tf.Tensor:
    """Observations that the likelihood scores: its own support may hold no zeros."""
    if dtype != tf.string:
        return tf.constant(observations.examples(vae.likelihood, DIFFERENT, dtype))
    return tf.stack([tf.io.encode_png(image) for image in rows(vae, tf.uint8)])


def prediction_log(
    model: str, signature: str, inputs: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor] | None = None
) -> bytes:
    """A serialised ``tensorflow.serving.PredictionLog`` that holds a PredictRequest, and its answer if there is one."""
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = model, signature
    _add(request.inputs, inputs)
    if outputs is not None:
        _add(log.predict_log.response.outputs, outputs)
    return log.SerializeToString(deterministic=True)


def _add(entries: Any, tensors: Mapping[str, tf.Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        entries.add(key=name, value=tf.make_tensor_proto(tensor).SerializeToString(deterministic=True))


@contextlib.contextmanager
def full_disk_as_os_error(path: pathlib.Path) -> Iterator[None]:
    """Python's own error where TensorFlow has one for every lack: of disk as of memory."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
