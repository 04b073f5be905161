"""``export(format="litert")``: the signatures as one LiteRT file, for phones, browsers and small computers.

Only operations that LiteRT has by itself are used, so that any of its runtimes takes the file. LiteRT has no
assertions, so what a SavedModel refuses is not refused here: the card says of what scale an input is, and a row with a
value that is not finite is answered by NaN. Before a version has its name, every answer of the file is compared with
TensorFlow's own to ``contract.LITERT_TOLERANCE``; requests and answers lie beside it, for ``tfvae check-export``.
"""

import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.exporting import card, interpreter, warmup
from tfvae.exporting.provenance import Provenance
from tfvae.exporting.signatures import Answer, Operation, module, operations, traced
from tfvae.models.vae import VAE
from tfvae.pipelines import contract

BATCHES = (1, 3, 8)

_FREE_SIZE = 5  # of a free dimension that is not the batch, such as K
_WRONGLY_CONVERTED = {"Lgamma"}  # TensorFlow 2.21 writes constants of no rows for it where the batch is free


def write(
    vae: VAE,
    staging: pathlib.Path,
    name: str,
    version: int,
    provenance: Provenance,
    chosen: Sequence[str] | None = None,
) -> None:
    """The file, its card, and what Python answers to some requests, in a folder.

    Raises:
        ValueError: If there is no signature of a name that was chosen, if LiteRT lacks an operation of one, or if an
            answer is another than TensorFlow's.
    """
    functions = _functions(vae, chosen)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module(vae, functions.values()), folder, signatures=functions)
        loaded = tf.saved_model.load(folder).signatures
        content = _converted(folder, loaded)
    requests = list(_requests(vae, loaded))
    answers = [{key: value.numpy() for key, value in loaded[key](**inputs).items()} for key, inputs in requests]
    _compare(content, requests, answers)
    extra = staging / contract.EXTRA
    extra.mkdir()
    (staging / contract.LITERT).write_bytes(content)
    path = extra / contract.ANSWERS
    with warmup.full_disk_as_os_error(path), tf.io.TFRecordWriter(str(path)) as writer:
        for (key, inputs), outputs in zip(requests, answers, strict=True):
            writer.write(warmup.prediction_log(name, key, inputs, outputs))
    card.write(extra, card.describe(vae, loaded, name, version, provenance, runtime="LiteRT"))


def _functions(vae: VAE, chosen: Sequence[str] | None) -> dict[str, Any]:
    known = {
        contract.signature(operation.name, kind.spec.dtype.name): (operation, kind)
        for operation in operations(vae)
        for kind in operation.kinds
        if kind.spec.dtype != tf.string  # LiteRT decodes no image files
    }
    names = list(known) if chosen is None else list(dict.fromkeys(chosen))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"LiteRT's signatures of this model are {', '.join(known)}: received {unknown or names}.")
    return {name: _unchecked(vae, *known[name]) for name in names}


def _unchecked(vae: VAE, operation: Operation, kind: Any) -> Any:
    """The operation without its assertions, and with NaN for what they would refuse as not finite."""
    may_miss = vae.likelihood.missing and kind.spec.name == contract.X

    def answer(first: tf.Tensor, **others: tf.Tensor) -> Answer:
        known = tf.where(vae.likelihood.holes(first), tf.zeros_like(first), first) if may_miss else first
        given = [value for value in (known, *others.values()) if value.dtype.is_floating]
        nan = tf.add_n([_nan_of_bad_rows(value) for value in given]) if given else tf.constant(0.0)
        outputs = operation.answer(first, **others)
        return {key: y + tf.reshape(nan, [-1] + [1] * (y.shape.rank - 1)) for key, y in outputs.items()}

    return traced(answer, [one._replace(value=_as_it_comes) for one in (kind, *operation.others)])


def _as_it_comes(x: tf.Tensor) -> tf.Tensor:
    return x


def _nan_of_bad_rows(x: tf.Tensor) -> tf.Tensor:
    """``[B]``: NaN for a row with a value that is not finite, else 0. A ReLU would make such a row look good again."""
    good = tf.reduce_all(tf.math.is_finite(x), axis=list(range(1, x.shape.rank)))
    return tf.where(good, 0.0, float("nan"))


def _converted(folder: str, loaded: Mapping[str, Any]) -> bytes:
    try:
        if any(_wrongly_converted(function) for function in loaded.values()):
            raise ValueError
        return _convert(folder, list(loaded))
    except Exception:  # the converter raises many kinds; which signature, and which operation, is found one by one
        lacking = {name: lack for name in loaded if (lack := _lack(folder, name, loaded[name]))}
        if not lacking:
            raise
    said = "; ".join(f"{name} needs {lack}" for name, lack in lacking.items())
    rest = [name for name in loaded if name not in lacking]
    mend = f"signatures={rest} can be converted" if rest else "No signature can be converted"
    raise ValueError(f"LiteRT lacks operations of this model: {said}. {mend}; a SavedModel has all of them.")


def _convert(folder: str, names: list[str]) -> bytes:
    return tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=names).convert()


def _lack(folder: str, name: str, function: Any) -> str | None:
    """The operations for which a signature cannot be converted."""
    wrong = _wrongly_converted(function)
    if wrong:
        return ", ".join(sorted(wrong))
    try:
        _convert(folder, [name])
    except Exception as error:
        found = {one.operator.name.removeprefix("tf.") for one in getattr(error, "errors", ())} - {""}
        return ", ".join(sorted(found)) or f"what the converter has not: {str(error).strip().splitlines()[0][:200]}"
    return None


def _wrongly_converted(function: Any) -> set[str]:
    graph = function.graph.as_graph_def()
    bodies = [graph.node, *(one.node_def for one in graph.library.function)]
    return {node.op for body in bodies for node in body} & _WRONGLY_CONVERTED


def _requests(vae: VAE, loaded: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, tf.Tensor]]]:
    """Every signature at every batch size; a smaller batch holds the first rows of the larger."""
    for name, signature in sorted(loaded.items()):
        rng = np.random.default_rng(0)
        specs = signature.structured_input_signature[1]
        rows = {key: _rows(vae, key, spec, rng) for key, spec in sorted(specs.items())}
        yield from ((name, {key: value[:batch] for key, value in rows.items()}) for batch in BATCHES)


def _rows(vae: VAE, name: str, spec: tf.TensorSpec, rng: np.random.Generator) -> tf.Tensor:
    if name == contract.X:
        return tf.gather(warmup.rows(vae, spec.dtype), np.arange(max(BATCHES)) % warmup.DIFFERENT)
    shape = [max(BATCHES), *(size or _FREE_SIZE for size in spec.shape[1:])]
    positive = name in (contract.CONDITION, contract.LIBRARY)
    return tf.constant(rng.random(shape) if positive else rng.normal(size=shape), spec.dtype)


def _compare(
    content: bytes, requests: Iterable[tuple[str, Mapping[str, tf.Tensor]]], answers: Iterable[Mapping[str, Any]]
) -> None:
    opened = interpreter.opened(content)
    for (name, inputs), expected in zip(requests, answers, strict=True):
        given = {key: value.numpy() for key, value in inputs.items()}
        try:
            got = opened.get_signature_runner(name)(**given)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"LiteRT cannot run {name} as TensorFlow has converted it: {error}") from error
        for key, value in expected.items():
            limit = contract.LITERT_TOLERANCE
            if value.shape != got[key].shape or not np.allclose(got[key], value, limit, limit, equal_nan=True):
                off = np.abs(got[key] - value).max() if value.shape == got[key].shape else "its shape"
                raise ValueError(f"{key} of {name} differs between LiteRT and TensorFlow by {off}: no file is written.")
