"""export(): a VAE becomes a SavedModel that a Beam job and a stock TF Serving both load.

The module that is saved holds the raw variables and nothing else, while the layers live in the closures of its
functions: saved in this way the model has no duplicate weights, no optimiser slots, and the C++ loader finds every
variable. Nothing is compiled by XLA, which a default server refuses, and nothing draws: where randomness is needed it
is an input. Each signature checks its input inside the graph, because the runtime does not hold inner shapes to what
the signature declares.
"""

import contextlib
import errno
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from pipelines import contract
from tfvae import objectives, observations, posteriors
from tfvae.exporting import card, versions
from tfvae.exporting.provenance import Provenance
from tfvae.vae import VAE

Signature = Callable[..., dict[str, tf.Tensor]]

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"  # the signature, and the head of the chunk that must be first


def export(
    vae: VAE,
    directory: str | os.PathLike[str],
    version: int | None = None,
    warmup_batch_sizes: Sequence[int] = (1, 8, 64),
    provenance: Provenance | None = None,
) -> str:
    """Write ``directory/<version>/`` for TF Serving and ``pipelines.embed``; return its path.

    Beside the model lies its card, ``assets.extra/model_card.md`` and ``model.json``: see ``card``.

    The version is written beside its place and renamed, so that a server that watches the folder never sees a part of
    it; older versions stay as they are. What a killed export left is removed, what another is writing is not: see
    ``versions``.

    Args:
        vae: A built model.
        directory: The model's folder in the model repository, such as ``saved_models/mnist``.
        version: A positive integer; one above the largest there is by default.
        warmup_batch_sizes: Batch sizes that the server runs once for each signature when it loads the model.
        provenance: What is known of the model's data and measurements, for its card.

    Raises:
        ValueError: If the version is no positive integer, exists already, or is being written by another export.
        OSError: If it cannot be written, for a full disk say; the folder is then as it was.

    Example:
        >>> from tfvae import networks
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> path = export(vae, "tiny", warmup_batch_sizes=[1])
        >>> os.path.basename(path), sorted(tf.saved_model.load(path).signatures)[:3]
        ('1', ['decode', 'embed', 'reconstruct'])
    """
    base = pathlib.Path(directory)
    with versions.writing(base, version) as (folder, number):
        _write(vae, folder, base.name, number, warmup_batch_sizes, provenance or Provenance())
    return str(base / str(number))


def _write(
    vae: VAE,
    staging: pathlib.Path,
    name: str,
    version: int,
    warmup_batch_sizes: Sequence[int],
    provenance: Provenance,
) -> None:
    module = tf.Module()
    layers = (vae.encoder, vae.posterior, vae.decoder, vae.likelihood, vae.prior_layer)
    module.weights = [variable.value for layer in layers for variable in layer.variables]
    functions = dict(_signatures(vae))
    with _full_disk_as_os_error(staging):
        tf.saved_model.save(
            module, str(staging), signatures={contract.SERVING_DEFAULT: functions[contract.EMBED], **functions}
        )
    extra = staging / contract.EXTRA
    extra.mkdir()
    signatures = tf.saved_model.load(str(staging)).signatures
    _write_warmup(vae, signatures, extra / contract.WARMUP, name, warmup_batch_sizes)
    card.write(extra, card.describe(vae, signatures, name, version, provenance))


@contextlib.contextmanager
def _full_disk_as_os_error(path: pathlib.Path) -> Iterator[None]:
    """Python's own error where TensorFlow has one for every lack: of disk as of memory."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _signatures(vae: VAE) -> Iterator[tuple[str, Signature]]:
    """The functions that apply to this model, by name, as ``serving.md``'s table has them."""
    event, latent = list(vae.event_shape), vae.latent_dim
    x, z = tf.TensorSpec([None, *event], tf.float32, "x"), tf.TensorSpec([None, latent], tf.float32, "z")
    noise = tf.TensorSpec([None, latent], tf.float32, "noise")
    draws = tf.TensorSpec([None, None, latent], tf.float32, "noise")

    def embed(x: tf.Tensor) -> dict[str, tf.Tensor]:
        q = vae.encode(x)
        return {"embedding": posteriors.mean(q), "embedding_stddev": posteriors.stddev(q)}

    def reconstruction(z: tf.Tensor) -> tf.Tensor:
        return vae.decode(z).mean()

    yield "embed", _concrete(lambda x: embed(_checked(x, event)), x)
    yield "reconstruct", _concrete(lambda x: {"reconstruction": vae(_checked(x, event))}, x)
    yield "decode", _concrete(lambda z: {"reconstruction": reconstruction(_checked(z, [latent]))}, z)
    scored = _takes_noise(vae.encode(tf.zeros([1, *event])))
    if scored:
        yield "score", _concrete(lambda x, noise: _score(vae, _checked(x, event), noise), x, draws)
    if len(event) == 3 and observations.is_picture(vae.likelihood):
        pixels = tf.TensorSpec([None, *event], tf.uint8, "x")
        yield "embed_uint8", _concrete(lambda x: embed(_checked(x, event)), pixels)
        if scored:
            yield "score_uint8", _concrete(lambda x, noise: _score(vae, _checked(x, event), noise), pixels, draws)
        if event[-1] in (1, 3, 4):
            encoded = tf.TensorSpec([None], tf.string, "image_bytes")
            yield "embed_image_bytes", _concrete(lambda image_bytes: embed(_decoded(image_bytes, event)), encoded)
            if scored:
                yield (
                    "score_image_bytes",
                    _concrete(
                        lambda image_bytes, noise: _score(vae, _decoded(image_bytes, event), noise), encoded, draws
                    ),
                )
    if _takes_noise(vae.prior):
        yield (
            "sample",
            _concrete(
                lambda noise: {"sample": reconstruction(posteriors.from_noise(vae.prior, _checked(noise, [latent])))},
                noise,
            ),
        )


def _score(vae: VAE, x: tf.Tensor, noise: tf.Tensor) -> dict[str, tf.Tensor]:
    noise = _checked(noise, [None, vae.latent_dim])
    message = "noise [B, K, D] needs a row for each row of x, and one sample at least: received"
    fits = tf.logical_and(tf.equal(tf.shape(noise)[0], tf.shape(x)[0]), tf.shape(noise)[1] > 0)
    noise = _require(fits, [message, tf.shape(noise), "and x", tf.shape(x)], noise)
    q = vae.encode(x)
    terms = vae.terms_at(x, q, posteriors.from_noise(q, tf.transpose(noise, [1, 0, 2])))
    return {
        "elbo": objectives.elbo(terms).bound,
        "importance_weighted_bound": objectives.importance_weighted(terms).bound,
    }


def _takes_noise(distribution: Any) -> bool:
    try:
        posteriors.from_noise(distribution, tf.zeros([1, distribution.event_shape[-1]]))
    except NotImplementedError:
        return False
    return True


def _concrete(function: Signature, *specs: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()


def _checked(x: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """x, once the graph has seen that it is ``[B, *shape]`` with B > 0 and holds finite numbers only."""
    name = x.op.name if hasattr(x, "op") else "x"
    # Through a placeholder the shape is unknown again: a check against the declared one would be folded away.
    x = tf.compat.v1.placeholder_with_default(x, shape=None)
    known = tf.constant([i for i, size in enumerate(shape, start=1) if size is not None], tf.int32)
    wanted = tf.constant([size for size in shape if size is not None], tf.int32)
    right = tf.equal(tf.rank(x), 1 + len(shape))
    sizes = tf.concat([tf.shape(x), tf.zeros([1 + len(shape)], tf.int32)], axis=0)  # long enough to look at
    same = tf.reduce_all(tf.gather(sizes, known) == wanted)
    expected = f"expected [{', '.join(['B', *('K' if size is None else str(size) for size in shape)])}] with B > 0"
    x = _require(tf.reduce_all([right, same, sizes[0] > 0]), [f"{name} has shape", tf.shape(x), expected], x)
    if x.dtype.is_floating:
        x = _require(tf.reduce_all(tf.math.is_finite(x)), [f"{name} holds NaN or infinite values"], x)
    return tf.ensure_shape(x, [None, *shape])


def _require(condition: tf.Tensor, message: list[Any], x: tf.Tensor) -> tf.Tensor:
    """x, computed only after the condition holds: the first error a caller sees is this one."""
    with tf.control_dependencies([tf.debugging.Assert(condition, message, summarize=20)]):
        return tf.identity(x)


def _decoded(image_bytes: tf.Tensor, event: Sequence[int]) -> tf.Tensor:
    """PNG or JPEG files as uint8 ``[B, H, W, C]``; their own channels are kept, so that none is made up or lost."""

    def decode(contents: tf.Tensor) -> tf.Tensor:
        # Before a pixel is decoded: 400 kB of PNG can declare 400 MB of them.
        height_width = _declared_size(contents)
        right = tf.reduce_all(tf.equal(height_width, list(event[:2])))
        message = ["the image has height and width", height_width, f"expected {list(event[:2])}"]
        image = tf.io.decode_image(_require(right, message, contents), expand_animations=False)
        right = tf.reduce_all(tf.equal(tf.shape(image), list(event)))
        image = _require(right, ["the image has shape", tf.shape(image), f"expected {list(event)}"], image)
        image.set_shape(event)
        return image

    image_bytes = _checked(image_bytes, [])
    return tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec(list(event), tf.uint8))


def _declared_size(contents: tf.Tensor) -> tf.Tensor:
    """int32 ``[height, width]`` from the header of a PNG or JPEG file; a PNG's has its place in the first 25 bytes."""
    is_png = tf.equal(tf.strings.substr(contents, 0, 16), _PNG_START)
    is_jpeg = tf.equal(tf.strings.substr(contents, 0, 2), b"\xff\xd8")
    long_enough = tf.logical_or(is_jpeg, tf.logical_and(is_png, tf.strings.length(contents) >= 25))
    contents = _require(long_enough, ["image_bytes must be PNG or JPEG files"], contents)

    def of_png() -> tf.Tensor:
        kept = tf.not_equal(tf.strings.substr(contents, 24, 1), b"\x10")  # the decoder would drop every lower byte
        header = _require(kept, ["the image has 16 bits a channel, expected at most 8"], contents)
        return tf.reverse(tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False), [0])

    return tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(contents)[:2], of_png)


def _write_warmup(
    vae: VAE, signatures: Mapping[str, Any], path: pathlib.Path, name: str, batch_sizes: Sequence[int]
) -> None:
    """A PredictionLog for each signature and batch size; each is run first, for a bad one fails the server's load."""
    requests = [(key, _request(vae, signatures[key], size)) for key in sorted(signatures) for size in batch_sizes]
    if len(requests) > contract.MOST_WARMUP_RECORDS:
        raise ValueError(f"{len(requests)} warm-up requests are more than the server's {contract.MOST_WARMUP_RECORDS}.")
    for key, inputs in requests:
        signatures[key](**inputs)
    with _full_disk_as_os_error(path), tf.io.TFRecordWriter(str(path)) as writer:
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
