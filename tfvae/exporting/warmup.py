"""The warm-up file: requests that TF Serving runs when it loads a version, so that the first user waits no longer."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from pipelines import contract
from tfvae.models.vae import VAE


def write(vae: VAE, signatures: Mapping[str, Any], path: pathlib.Path, name: str, batch_sizes: Sequence[int]) -> None:
    """A PredictionLog for each signature and batch size; each is run first, for a bad one fails the server's load."""
    requests = [(key, _request(vae, signatures[key], size)) for key in sorted(signatures) for size in batch_sizes]
    if len(requests) > contract.MOST_WARMUP_RECORDS:
        raise ValueError(f"{len(requests)} warm-up requests are more than the server's {contract.MOST_WARMUP_RECORDS}.")
    for key, inputs in requests:
        signatures[key](**inputs)
    with full_disk_as_os_error(path), tf.io.TFRecordWriter(str(path)) as writer:
        for key, inputs in requests:
            writer.write(_prediction_log(name, key, inputs))


def _request(vae: VAE, signature: Any, batch_size: int) -> dict[str, tf.Tensor]:
    def example(spec: tf.TensorSpec) -> tf.Tensor:
        if spec.dtype == tf.string:
            image = tf.io.encode_png(tf.zeros(vae.event_shape, tf.uint8))
            return tf.repeat(image, batch_size)
        return tf.zeros([batch_size, *(size or 1 for size in spec.shape[1:])], spec.dtype)

    return {name: example(spec) for name, spec in signature.structured_input_signature[1].items()}


def _prediction_log(model: str, signature: str, inputs: dict[str, tf.Tensor]) -> bytes:
    """A serialised ``tensorflow.serving.PredictionLog`` that holds a PredictRequest.

    Written field by field, because the server's protos are not in TensorFlow's wheel: PredictionLog.predict_log = 6,
    PredictLog.request = 1, PredictRequest.model_spec = 1 and .inputs = 2 (a map), ModelSpec.name = 1 and
    .signature_name = 3 (tensorflow_serving/apis, prediction_log.proto, predict.proto and model.proto).
    """
    spec = _field(1, model.encode()) + _field(3, signature.encode())
    request = _field(1, spec)
    for name, tensor in sorted(inputs.items()):
        proto = tf.make_tensor_proto(tensor).SerializeToString(deterministic=True)
        request += _field(2, _field(1, name.encode()) + _field(2, proto))
    return _field(6, _field(1, request))


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protocol buffer field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


@contextlib.contextmanager
def full_disk_as_os_error(path: pathlib.Path) -> Iterator[None]:
    """Python's own error where TensorFlow has one for every lack: of disk as of memory."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
