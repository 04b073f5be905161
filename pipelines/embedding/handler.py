"""A SavedModel as Beam's RunInference runs it.

Beam's own TensorFlow handler calls ``keras.models.load_model``, which refuses a Keras 3 SavedModel and pays
for Keras where TensorFlow alone is enough. This one is ``tf.saved_model.load`` and a signature. It takes
whole blocks of rows and cuts them into sub-batches itself, so that RunInference handles one element a block
and not one a row.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from .. import contract
from ..errors import first_line
from ..formats.arrays import finite_rows
from ..inputs.base import Block, bisect
from ..jobs import metrics
from ..jobs.commits import Unit
from .conditions import take_condition
from .keyed_noise import standard_normal
from .saved_models import OUTPUTS, ModelVersion, Score, Signature, load


@dataclasses.dataclass
class UnitBlock:
    """Rows on their way through the model.

    Attributes:
        block: The rows.
        unit: The unit of work that they belong to.
        index: Number of the block within its unit, from 0.
        is_last: Whether it is the unit's last block.
    """

    block: Block
    unit: Unit
    index: int
    is_last: bool

    def __len__(self) -> int:
        return len(self.block)


@dataclasses.dataclass
class Embedded:
    """Rows and what the model made of them.

    Attributes:
        rows: Those that the model could take.
        outputs: Float32 ``[N, D]`` by output name, a score ``[N]``, in the order of the rows.
    """

    rows: UnitBlock
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
        return (value.rows if isinstance(value, Embedded) else value).block.x.nbytes


for _kind in (UnitBlock, Embedded):
    beam.coders.registry.register_coder(_kind, SizedCoder)


class SavedModelHandler(ModelHandler[UnitBlock, Embedded, Any]):
    """Runs blocks through a signature, in sub-batches; a row on which the model fails is rejected, not the block.

    Args:
        model: The version that is loaded.
        signature: See ``choose_signature``.
        batch_size: Most rows in one call of the model.
        stddev: Also keep ``embedding_stddev``.
        score: Also ask for the ELBO.
        condition: The column with the condition, where the signature takes one; the blocks keep it.
        keep_condition: Whether the output takes that column over.

    Example:
        >>> module, rows = tf.Module(), tf.TensorSpec([None, 2], tf.float32, "x")
        >>> module.embed = tf.function(lambda x: {"embedding": 2.0 * x}, input_signature=[rows])
        >>> tf.saved_model.save(module, "saved_models/twice/1", {"embed": module.embed})
        >>> from tfvae.pipelines.embedding.saved_models import find_model
        >>> model = find_model("saved_models/twice")
        >>> signature = Signature("embed", "x", (2,), "float32", dimension=2)
        >>> handler = SavedModelHandler(model, signature, 4096, stddev=False)
        >>> block = Block("rows.npy", ["a"], np.ones([1, 2], np.float32), np.arange(1), [])
        >>> rows = UnitBlock(block, Unit("all", 1, (), "of the unit"), index=0, is_last=True)
        >>> [embedded] = handler.run_inference(rows, handler.load_model())
        >>> embedded.outputs["embedding"]
        array([[2., 2.]], dtype=float32)

        In a Beam pipeline, ``blocks | RunInference(handler)``.
    """

    def __init__(
        self,
        model: ModelVersion,
        signature: Signature,
        batch_size: int,
        stddev: bool,
        score: Score | None = None,
        condition: str | None = None,
        keep_condition: bool = False,
    ):
        super().__init__()
        self._model, self._signature, self._batch_size, self._score = model, signature, batch_size, score
        self._condition, self._keep_condition = condition, keep_condition
        self._names = OUTPUTS if stddev else OUTPUTS[:1]
        self._latency = metrics.distribution(metrics.LATENCY)

    def load_model(self) -> Any:
        """See ``ModelHandler.load_model``."""
        return load(self._model)

    def should_skip_batching(self) -> bool:
        """Blocks come in already: Beam must not gather rows."""
        return True

    def get_num_bytes(self, batch: Any) -> int:
        """Bytes of observations; the default would pickle the block to find out."""
        return batch.block.x.nbytes

    def run_inference(self, batch: Any, model: Any, inference_args: dict[str, Any] | None = None) -> Iterable[Embedded]:
        """One block in, one out; rows that raise, or whose outputs are not finite, are moved to its rejections."""
        import tensorflow as tf

        batch, condition = self._with_condition(batch)
        block, dimension = batch.block, self._signature.dimension
        outputs: dict[str, np.ndarray] = {
            name: np.full((len(block), dimension), np.nan, np.float32) for name in self._names
        }
        if self._score:
            outputs[contract.ROW_SCORE] = np.full(len(block), np.nan, np.float32)
        reasons: dict[int, str] = {}

        def work(rows: Sequence[int]) -> None:
            some = slice(rows[0], rows[-1] + 1)
            given = {} if condition is None else {contract.CONDITION: tf.convert_to_tensor(condition[some])}
            results = self._embed(model, block.x[some], given)
            if self._score:
                results[contract.ROW_SCORE] = self._elbo(model, self._score, block.keys[some], block.x[some], given)
            for name, values in results.items():
                outputs[name][some] = values

        def reject(row: int, error: Exception) -> None:
            reasons[row] = f"the model failed: {first_line(error)}"

        for first in range(0, len(block), self._batch_size):
            bisect(range(first, min(first + self._batch_size, len(block))), work, reject)
        return [_without_bad_rows(batch, outputs, reasons)]

    def _with_condition(self, batch: UnitBlock) -> tuple[UnitBlock, np.ndarray | None]:
        """The rows whose condition can be taken, and the conditions; all rows where there is none."""
        if self._condition is None or self._signature.condition is None:
            return batch, None
        block, condition = take_condition(batch.block, self._condition, self._signature.condition, self._keep_condition)
        return dataclasses.replace(batch, block=block), condition

    def _embed(self, model: Any, x: np.ndarray, given: dict[str, Any]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        inputs = {self._signature.input: tf.convert_to_tensor(x), **given}
        with metrics.timing(self._latency):  # until the values are here: a GPU works behind the call
            results = model.signatures[self._signature.name](**inputs)
            return {name: _shaped(name, results[name], (len(x), self._signature.dimension)) for name in self._names}

    @staticmethod
    def _elbo(model: Any, score: Score, keys: Sequence[str], x: np.ndarray, given: dict[str, Any]) -> np.ndarray:
        import tensorflow as tf

        noise = standard_normal(keys, score.num_samples, score.dimension)
        inputs = {score.input: tf.convert_to_tensor(x), contract.NOISE: tf.constant(noise), **given}
        results = model.signatures[score.name](**inputs)
        return _shaped(contract.ELBO, results[contract.ELBO], (len(x),))


def _shaped(name: str, output: Any, expected: tuple[int, ...]) -> np.ndarray:
    array = output.numpy()
    if array.shape != expected:
        raise ValueError(f"{name} came as {list(array.shape)}, expected {list(expected)}")
    return array


def _without_bad_rows(rows: UnitBlock, outputs: dict[str, np.ndarray], reasons: dict[int, str]) -> Embedded:
    finite = np.logical_and.reduce([finite_rows(array) for array in outputs.values()])
    for row in np.flatnonzero(~finite):
        reasons.setdefault(int(row), "the model's output is not finite")
    if not reasons:
        return Embedded(rows, outputs)
    rejected = [rows.block.rejection(row, reason) for row, reason in reasons.items()]
    good = np.flatnonzero(finite)
    kept = dataclasses.replace(rows, block=rows.block.take(good, rejected))
    return Embedded(kept, {name: array[good] for name, array in outputs.items()})
