"""A SavedModel as Beam runs it: found by name, checked before the job starts, loaded once a process.

Beam's own TensorFlow handler calls ``keras.models.load_model``, which refuses a Keras 3 SavedModel and pays
for Keras where TensorFlow alone is enough. This one is ``tf.saved_model.load`` and a signature. It takes
whole blocks of rows and cuts them into sub-batches itself, so that RunInference handles one element a block
and not one a row.
"""

import dataclasses
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from pipelines import contract, storage
from pipelines.errors import PipelineError, first_line
from pipelines.formats.arrays import finite_rows
from pipelines.inputs.base import Block, Rows, bisect
from pipelines.jobs import metrics
from pipelines.noise import standard_normal

_OUTPUTS = contract.OUTPUTS[contract.EMBED]


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """One version of a model: its folder, its name, its number (None where the folder has none), its
    checksum."""

    path: str
    name: str
    version: int | None
    sha256: str

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of the model; no path, because it would differ from machine to machine."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


def find_model(path: str) -> ModelVersion:
    """The model version that a path names; for a base folder the one with the largest number.

    Raises:
        PipelineError: There is no SavedModel.

    Example:
        >>> tf.saved_model.save(tf.Module(), "saved_models/empty/2")
        >>> tf.saved_model.save(tf.Module(), "saved_models/empty/10")
        >>> find_model("saved_models/empty").version
        10
    """
    folder = os.path.abspath(path)
    file = contract.SAVED_MODEL
    if not storage.exists(os.path.join(folder, file)):
        versions = {name: contract.version_number(name) or 0 for name in storage.names(folder)}
        numbered = [name for name in versions if contract.version_number(name) is not None]
        if not numbered:
            raise PipelineError(f"{path} holds no SavedModel: expected {path}/{file} or a numbered version below it")
        folder = os.path.join(folder, max(numbered, key=versions.__getitem__))
        if not storage.exists(os.path.join(folder, file)):
            raise PipelineError(f"{folder} is the newest version but holds no {file}: export it again or remove it")
    base, name = os.path.split(folder)
    version = contract.version_number(name)
    return ModelVersion(folder, name if version is None else os.path.basename(base), version, _checksum(folder))


def _checksum(folder: str) -> str:
    """Of every file of the SavedModel, with its name."""
    files = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]
    return storage.fingerprint(sorted([os.path.relpath(file, folder), storage.sha256(file)] for file in files))


_loaded: dict[tuple[str, str], Any] = {}
_loading = threading.Lock()


def load(model: ModelVersion) -> Any:
    """The model, loaded once in this process however many threads and stages ask; the last one is kept.

    Raises:
        PipelineError: TensorFlow cannot load it.
    """
    import tensorflow as tf

    with _loading:
        known = (model.path, model.sha256)
        if known not in _loaded:
            try:
                loaded = tf.saved_model.load(model.path)
            except Exception as error:  # TensorFlow raises many kinds for a damaged SavedModel
                raise PipelineError(f"{model.path} cannot be loaded: {first_line(error)}") from error
            _loaded.clear()
            _loaded[known] = loaded
        return _loaded[known]


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature: its name, the name, shape and dtype of its input, and the length D of an embedding."""

    name: str
    input: str
    shape: tuple[int | None, ...]
    dtype: str
    dimension: int


@dataclasses.dataclass(frozen=True)
class Score:
    """A signature that gives a row's ELBO from noise: its name, the name of its observations, the length of z, and how
    many samples of z to take."""

    name: str
    input: str
    dimension: int
    num_samples: int


def choose_score(model: ModelVersion, signature: Signature, num_samples: int) -> Score | None:
    """The signature that scores what ``signature`` embeds; None for no samples.

    Raises:
        PipelineError: The model has no such signature, or it is not of the contract's form.
    """
    if num_samples == 0:
        return None
    signatures, name = load(model).signatures, contract.score_for(signature.name) or ""
    if name not in signatures:
        raise PipelineError(
            f"{model.path} has no signature {name or contract.SCORE!r} to score what {signature.name!r} embeds, it has "
            f"{sorted(signatures)}: export the model again, or leave --score out"
        )
    inputs = signatures[name].structured_input_signature[1]
    others = [key for key in inputs if key != contract.NOISE]
    noise, outputs = inputs.get(contract.NOISE), signatures[name].structured_outputs
    if (
        len(others) != 1
        or noise is None
        or noise.shape.rank != 3
        or noise.shape[2] is None
        or contract.ELBO not in outputs
    ):
        raise PipelineError(
            f"signature {name} of {model.path} takes {sorted(inputs)} and returns {sorted(outputs)}, "
            "expected an observation and noise [B, K, D] with D known, and elbo"
        )
    return Score(name, others[0], int(noise.shape[2]), num_samples)


def choose_signature(model: ModelVersion, rows: Rows, name: str | None, stddev: bool) -> Signature:
    """The signature that is for such rows, or the one of that name.

    Bytes are never scaled here to fit ``embed``: only the model knows how it was trained.

    Raises:
        PipelineError: The model has no such signature, or it gives no embedding.
    """
    signatures = load(model).signatures
    wanted = name or rows.signature
    if wanted not in signatures:
        raise PipelineError(
            f"{model.path} has no signature {wanted!r} for {rows.dtype} rows, it has {sorted(signatures)}: "
            "export it with that signature, or name another with --signature"
        )
    function = signatures[wanted]
    inputs, outputs = function.structured_input_signature[1], function.structured_outputs
    (input_name, spec), *others = inputs.items()
    if others or spec.shape.rank is None or spec.shape.rank < 1:
        found = {key: f"{value.dtype.name} {value.shape}" for key, value in sorted(inputs.items())}
        raise PipelineError(f"signature {wanted} of {model.path} takes {found}, expected one input with a batch axis")
    dimension = _dimension(outputs, wanted, model, _OUTPUTS if stddev else _OUTPUTS[:1])
    return Signature(wanted, input_name, tuple(spec.shape[1:]), spec.dtype.name, dimension)


def _dimension(outputs: dict[str, Any], signature: str, model: ModelVersion, needed: Sequence[str]) -> int:
    for name in needed:
        spec = outputs.get(name)
        if spec is None or spec.dtype.name != "float32" or spec.shape.rank != 2 or spec.shape[1] is None:
            found = {key: f"{value.dtype.name} {value.shape}" for key, value in sorted(outputs.items())}
            raise PipelineError(
                f"signature {signature} of {model.path} returns {found}, "
                f"expected {name}: float32 [None, D] with D known"
            )
    return int(outputs[contract.EMBEDDING].shape[1])


@dataclasses.dataclass
class Embedded:
    """A block and what the model made of it: float32 `[N, D]` by output name (a score is `[N]`), rows in the block's
    order."""

    block: Block
    outputs: dict[str, np.ndarray]


class SizedCoder(beam.coders.Coder):
    """Beam's coding of objects; their size, which Beam would pickle them to learn, is that of the observations."""

    _pickled = beam.coders.PickleCoder()

    def encode(self, value: Any) -> bytes:
        """See ``beam.coders.Coder``."""
        return self._pickled.encode(value)

    def decode(self, encoded: bytes) -> Any:
        """See ``beam.coders.Coder``."""
        return self._pickled.decode(encoded)

    def estimate_size(self, value: Any) -> int:
        """Bytes of the observations."""
        return (value.block if isinstance(value, Embedded) else value).x.nbytes


for _kind in (Block, Embedded):
    beam.coders.registry.register_coder(_kind, SizedCoder)


class SavedModelHandler(ModelHandler[Block, Embedded, Any]):
    """Runs blocks through a signature, in sub-batches; a row on which the model fails is rejected, not the
    block.

    Args:
        model: Which one.
        signature: See ``choose_signature``.
        batch_size: Most rows in one call.
        stddev: Also keep ``embedding_stddev``.
        score: Also ask for the ELBO.

    Example:
        >>> module, rows = tf.Module(), tf.TensorSpec([None, 2], tf.float32, "x")
        >>> module.embed = tf.function(lambda x: {"embedding": 2.0 * x}, input_signature=[rows])
        >>> tf.saved_model.save(module, "saved_models/twice/1", {"embed": module.embed})
        >>> model = find_model("saved_models/twice")
        >>> signature = Signature("embed", "x", (2,), "float32", dimension=2)
        >>> handler = SavedModelHandler(model, signature, 4096, stddev=False)
        >>> block = Block("rows.npy", ["a"], np.ones([1, 2], np.float32), np.arange(1), [])
        >>> [embedded] = handler.run_inference(block, handler.load_model())
        >>> embedded.outputs["embedding"]
        array([[2., 2.]], dtype=float32)

        In a Beam pipeline, ``blocks | RunInference(handler)``.
    """

    def __init__(
        self, model: ModelVersion, signature: Signature, batch_size: int, stddev: bool, score: Score | None = None
    ):
        super().__init__()
        self._model, self._signature, self._batch_size, self._score = model, signature, batch_size, score
        self._names = _OUTPUTS if stddev else _OUTPUTS[:1]
        self._latency = metrics.distribution(metrics.LATENCY)

    def load_model(self) -> Any:
        """See ``ModelHandler.load_model``."""
        return load(self._model)

    def should_skip_batching(self) -> bool:
        """Blocks come in already: Beam must not gather rows."""
        return True

    def get_num_bytes(self, batch: Any) -> int:
        """Bytes of observations; the default would pickle the block to find out."""
        return batch.x.nbytes

    def run_inference(self, batch: Any, model: Any, inference_args: dict[str, Any] | None = None) -> Iterable[Embedded]:
        """One block in, one out. Rows that raise, or whose outputs are not finite, are moved to its
        rejections."""
        block, dimension = batch, self._signature.dimension
        outputs: dict[str, np.ndarray] = {
            name: np.full((len(block), dimension), np.nan, np.float32) for name in self._names
        }
        if self._score:
            outputs[contract.ROW_SCORE] = np.full(len(block), np.nan, np.float32)
        reasons: dict[int, str] = {}

        def work(rows: Sequence[int]) -> None:
            some = slice(rows[0], rows[-1] + 1)
            results = self._embed(model, block.x[some])
            if self._score:
                results[contract.ROW_SCORE] = self._elbo(model, self._score, block.keys[some], block.x[some])
            for name, values in results.items():
                outputs[name][some] = values

        def reject(row: int, error: Exception) -> None:
            reasons[row] = f"the model failed: {first_line(error)}"

        for first in range(0, len(block), self._batch_size):
            bisect(range(first, min(first + self._batch_size, len(block))), work, reject)
        return [_without_bad_rows(block, outputs, reasons)]

    def _embed(self, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
        import tensorflow as tf

        with metrics.timing(self._latency):  # until the values are here: a GPU works behind the call
            results = model.signatures[self._signature.name](**{self._signature.input: tf.convert_to_tensor(x)})
            return {name: _shaped(name, results[name], (len(x), self._signature.dimension)) for name in self._names}

    @staticmethod
    def _elbo(model: Any, score: Score, keys: Sequence[str], x: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        noise = standard_normal(keys, score.num_samples, score.dimension)
        inputs = {score.input: tf.convert_to_tensor(x), contract.NOISE: tf.constant(noise)}
        results = model.signatures[score.name](**inputs)
        return _shaped(contract.ELBO, results[contract.ELBO], (len(x),))


def _shaped(name: str, output: Any, expected: tuple[int, ...]) -> np.ndarray:
    array = output.numpy()
    if array.shape != expected:
        raise ValueError(f"{name} came as {list(array.shape)}, expected {list(expected)}")
    return array


def _without_bad_rows(block: Block, outputs: dict[str, np.ndarray], reasons: dict[int, str]) -> Embedded:
    finite = np.logical_and.reduce([finite_rows(array) for array in outputs.values()])
    for row in np.flatnonzero(~finite):
        reasons.setdefault(int(row), "the model's output is not finite")
    if not reasons:
        return Embedded(block, outputs)
    rejected = [block.rejection(row, reason) for row, reason in reasons.items()]
    good = np.flatnonzero(finite)
    kept = block.take(good, rejected)
    return Embedded(kept, {name: array[good] for name, array in outputs.items()})
