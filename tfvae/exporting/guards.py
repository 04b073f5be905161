"""Checks inside the graph: a request that does not fit gets a sentence, before anything is computed from it.

The runtime does not hold inner shapes to what a signature declares, observations are held to the likelihood's support
as ``fit`` holds them, and an image is decoded only once its header has said that it is of the right size.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfvae import observations
from tfvae.distribution_layer import DistributionLayer
from tfvae.pipelines import contract

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"  # the signature, and the head of the chunk that must be first


def checked(name: str, x: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """x, once the graph has seen that it is ``[B, *shape]`` with B > 0 and holds finite numbers only."""
    x = _shaped(name, x, shape)
    return _finite(name, x, tf.reduce_all(tf.math.is_finite(x))) if x.dtype.is_floating else x


def total(name: str, x: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """x, once the graph has seen too that it is a total of counts, from 0 up."""
    x = checked(name, x, shape)
    return require(tf.reduce_all(x >= 0.0), [f"{name} holds negative numbers: it is a row's total count"], x)


def observed(name: str, x: tf.Tensor, likelihood: observations.Layer) -> tf.Tensor:
    """Observations, once the graph has seen too that the likelihood scores their numbers, as ``fit`` does."""
    if not likelihood.missing and not observations.is_limited(likelihood, x.dtype):
        return checked(name, x, likelihood.event_shape)
    x = _shaped(name, x, likelihood.event_shape)

    @tf.function(autograph=False, experimental_attributes={"_noinline": True})  # else each request visits its nodes
    def look(x: tf.Tensor) -> None:
        for part, some in observations.parts(likelihood, x):
            _look(name, some, part)

    def closer() -> tf.Operation:
        look(x)
        return tf.no_op()

    with tf.control_dependencies([tf.cond(observations.glance(likelihood, x)[0], tf.no_op, closer)]):
        return tf.identity(x)


def _look(name: str, x: tf.Tensor, likelihood: DistributionLayer) -> None:
    extent = observations.extent(likelihood, x)
    seen = _finite(name, x, tf.reduce_all(extent[:2] < float("inf")))
    if likelihood.facts is None:
        return
    message = [f"{name} ranges from", -extent[0], "to", extent[1], f"but {observations.expected(likelihood)}"]
    require(observations.fits(likelihood, extent), message, seen)


def _finite(name: str, x: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
    return require(is_finite, [f"{name} holds NaN or infinite values"], x)


def _shaped(name: str, x: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    # Through a placeholder the shape is unknown again: a check against the declared one would be folded away.
    x = tf.compat.v1.placeholder_with_default(x, shape=None)
    low, high = zip((1, tf.int32.max), *((size or 0, size or tf.int32.max) for size in shape), (-1, -1), strict=True)
    sizes = tf.concat([tf.shape(x), tf.fill([len(low)], -1)], axis=0)[: len(low)]  # of every rank, as many numbers
    right = tf.reduce_all(tf.logical_and(sizes >= low, sizes <= high))
    expected = f"expected [{', '.join(['B', *('K' if size is None else str(size) for size in shape)])}] with B > 0"
    x = require(right, [f"{name} has shape", tf.shape(x), expected], x)
    return tf.ensure_shape(x, [None, *shape])


def require(condition: tf.Tensor, message: list[Any], x: tf.Tensor) -> tf.Tensor:
    """x, computed only after the condition holds: the first error a caller sees is this one."""
    with tf.control_dependencies([tf.debugging.Assert(condition, message, summarize=20)]):
        return tf.identity(x)


def decoded(image_bytes: tf.Tensor, event: Sequence[int]) -> tf.Tensor:
    """PNG or JPEG files as uint8 ``[B, H, W, C]``; their own channels are kept, so that none is made up or lost."""

    def decode(contents: tf.Tensor) -> tf.Tensor:
        # Before a pixel is decoded: 400 kB of PNG can declare 400 MB of them.
        height_width = _declared_size(contents)
        right = tf.reduce_all(tf.equal(height_width, list(event[:2])))
        message = ["the image has height and width", height_width, f"expected {list(event[:2])}"]
        contents = require(right, message, contents)
        image = tf.cond(
            _is_jpeg(contents),
            # To the last bit what Pillow makes of it in ``pipelines.preprocess``; the default is up to 6 levels off.
            lambda: tf.io.decode_jpeg(contents, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(contents, expand_animations=False),
        )
        right = tf.reduce_all(tf.equal(tf.shape(image), list(event)))
        image = require(right, ["the image has shape", tf.shape(image), f"expected {list(event)}"], image)
        image.set_shape(event)
        return image

    image_bytes = checked(contract.IMAGE_BYTES, image_bytes, [])
    return tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec(list(event), tf.uint8))


def _declared_size(contents: tf.Tensor) -> tf.Tensor:
    """int32 ``[height, width]`` from the header of a PNG or JPEG file; a PNG's has its place in the first 25 bytes."""
    is_png = tf.equal(tf.strings.substr(contents, 0, 16), _PNG_START)
    is_jpeg = _is_jpeg(contents)
    long_enough = tf.logical_or(is_jpeg, tf.logical_and(is_png, tf.strings.length(contents) >= 25))
    contents = require(long_enough, ["image_bytes must be PNG or JPEG files"], contents)

    def of_png() -> tf.Tensor:
        kept = tf.not_equal(tf.strings.substr(contents, 24, 1), b"\x10")  # the decoder would drop every lower byte
        header = require(kept, ["the image has 16 bits a channel, expected at most 8"], contents)
        return tf.reverse(tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False), [0])

    def of_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(contents)
        return require(tf.not_equal(shape[2], 4), ["the image is CMYK, expected grey or RGB"], shape)[:2]

    return tf.cond(is_jpeg, of_jpeg, of_png)


def _is_jpeg(contents: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(contents, 0, 2), b"\xff\xd8")
