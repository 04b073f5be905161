"""A signature of a SavedModel for Beam pipelines of one's own: a dict in, a dict out.

``pipelines.embed`` is a whole job, with an output that survives whatever happens. Who has a pipeline already needs the
model in it and no more: ``SignatureHandler`` is for Beam's ``RunInference``, which batches rows, shares the model among
threads and knows keys (``KeyedModelHandler``) and dead letters (``with_exception_handling``). Beam's own handler for
TensorFlow calls ``keras.models.load_model``, which takes no SavedModel of Keras 3.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import contract, extras
from .errors import PipelineError, first_line, number

with extras.needed("pipelines"):
    from apache_beam.ml.inference.base import ModelHandler

from .embedding.saved_models import find_model, load
from .inputs.base import bisect

Row = Mapping[str, Any]
ERROR = "error"


class SignatureHandler(ModelHandler[Row, dict[str, np.ndarray], Any]):
    """Runs rows through any signature of a SavedModel.

    A row is a mapping of the signature's inputs to arrays without a batch axis; what comes out is a mapping of its
    outputs to arrays without one. Inputs that have no batch axis are given once, by ``RunInference(inference_args=)``.
    Numbers are never scaled: bytes go to a signature for bytes, such as ``embed_uint8``.

    Args:
        model: Folder of a SavedModel: a version, or its base folder, of which the newest version is taken.
        signature: Its name.
        max_batch_size: Most rows in one call of the model.
        keep_errors: A row that the model does not take comes out as ``{"error": sentence}``. By default it raises, and
            its batch ends in the pipeline's failure, or in the dead letters.
        trust_model: Run a model though its graph may read or write files or run code: only for models of your own.

    Raises:
        PipelineError: There is no SavedModel, it has no such signature, or it is not trusted.

    Example:
        >>> module, rows = tf.Module(), tf.TensorSpec([None, 2], tf.float32, "x")
        >>> module.embed = tf.function(lambda x: {"embedding": 2.0 * x}, input_signature=[rows])
        >>> tf.saved_model.save(module, "saved_models/twice/1", {"embed": module.embed})
        >>> handler = SignatureHandler("saved_models/twice")
        >>> [row] = handler.run_inference([{"x": [1.0, 3.0]}], handler.load_model())
        >>> row
        {'embedding': array([2., 6.], dtype=float32)}

        In a pipeline, ``rows | RunInference(SignatureHandler("saved_models/mnist", "embed_uint8"))``.
    """

    def __init__(
        self,
        model: str,
        signature: str = contract.EMBED,
        *,
        max_batch_size: int = 1024,
        keep_errors: bool = False,
        trust_model: bool = False,
    ):
        super().__init__(max_batch_size=number("max_batch_size", max_batch_size, 1))
        self._model, self._signature, self._keep_errors = find_model(model, trust_model), signature, keep_errors
        signatures = load(self._model).signatures
        if signature not in signatures:
            raise PipelineError(f"{self._model.path} has no signature {signature!r}, it has {sorted(signatures)}")
        specs = signatures[signature].structured_input_signature[1]
        batched = {name: spec for name, spec in specs.items() if spec.shape.rank and spec.shape[0] is None}
        if not batched:
            raise PipelineError(
                f"signature {signature} of {self._model.path} takes {sorted(specs)}, none of which has a batch axis: "
                "call it by tf.saved_model.load"
            )
        self._inputs = {name: _Input(name, tuple(spec.shape[1:]), spec.dtype.name) for name, spec in batched.items()}
        self._once = sorted(set(specs) - set(batched))

    def load_model(self) -> Any:
        """See ``ModelHandler.load_model``."""
        return load(self._model)

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Raises ValueError unless the inputs without a batch axis, and no others, are given."""
        if sorted(inference_args or {}) != self._once:
            raise ValueError(
                f"signature {self._signature} takes {self._once or 'nothing'} beside its rows, received "
                f"{sorted(inference_args or {})}: give them by RunInference(inference_args={{...}})"
            )

    def get_num_bytes(self, batch: Sequence[Row]) -> int:
        """Bytes of the rows' values; the default would pickle them to find out."""
        return sum(_num_bytes(value) for row in batch if isinstance(row, Mapping) for value in row.values())

    def run_inference(
        self, batch: Sequence[Row], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[dict[str, Any]]:
        """The outputs of each row, in their order.

        Raises:
            ValueError: For a row whose names, dtypes or shapes are not the signature's, or that the graph refuses.
        """
        outputs: list[dict[str, Any]] = [{} for _ in batch]

        def work(rows: Sequence[int]) -> None:
            found = self._answers(model, [batch[row] for row in rows], inference_args or {})
            for at, row in enumerate(rows):
                outputs[row] = {name: values[at] for name, values in found.items()}

        def reject(row: int, error: Exception) -> None:
            if not self._keep_errors:
                raise ValueError(f"signature {self._signature} does not take a row: {first_line(error)}") from error
            outputs[row] = {ERROR: first_line(error)}

        bisect(range(len(batch)), work, reject)
        return outputs

    def _answers(self, model: Any, rows: Sequence[Row], once: Mapping[str, Any]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        for row in rows:
            if not isinstance(row, Mapping):
                raise ValueError(f"a row is {type(row).__name__}, expected a mapping of {sorted(self._inputs)}")
            if set(row) != set(self._inputs):
                raise ValueError(f"a row has {sorted(map(str, row))}, expected {sorted(self._inputs)}")
        stacked = {
            name: tf.convert_to_tensor([taken.of(row[name]) for row in rows], taken.dtype)
            for name, taken in self._inputs.items()
        }
        results = model.signatures[self._signature](**stacked, **{k: tf.convert_to_tensor(v) for k, v in once.items()})
        found = {name: value.numpy() for name, value in results.items()}
        for name, values in found.items():
            if values.shape[:1] != (len(rows),):
                raise ValueError(f"{name} came as {list(values.shape)} of {len(rows)} rows: it is not by row")
        return found


def _num_bytes(value: Any) -> int:
    try:
        return len(value) if isinstance(value, bytes) else np.asarray(value).nbytes
    except (ValueError, TypeError):  # no array: ``run_inference`` says so
        return 0


@dataclasses.dataclass(frozen=True)
class _Input:
    """What a row has to hold under a name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def of(self, value: Any) -> Any:
        """The value as the signature takes it; numbers keep their kind, since nothing here could scale them."""
        if self.dtype == "string":
            if not isinstance(value, bytes):
                raise ValueError(f"{self.name} is {type(value).__name__}, expected bytes")
            return value
        if np.ma.is_masked(value):
            raise ValueError(f"{self.name} has masked cells, which no signature takes: fill them in")
        try:
            given, wanted = np.asarray(value), np.dtype(self.dtype)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.name} is {type(value).__name__}, which makes no array: {error}") from error
        kinds = wanted.kind if hasattr(value, "dtype") else "biuf"  # Python's own numbers have no kind in mind
        if given.dtype.kind not in kinds:
            raise ValueError(f"{self.name} is {given.dtype}, expected {self.dtype}: no number is scaled here")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is told
            array = given.astype(wanted, copy=False)
        # Of floats the last digits may go, but neither a whole number nor one that is finite.
        is_float = wanted.kind == given.dtype.kind == "f"
        if not (np.array_equal(np.isfinite(array), np.isfinite(given)) if is_float else np.array_equal(array, given)):
            raise ValueError(f"{self.name} holds numbers that {self.dtype} does not have")
        known = [want is None or got == want for got, want in zip(array.shape, self.shape, strict=False)]
        if len(array.shape) != len(self.shape) or not all(known):
            wanted_shape = ["K" if size is None else size for size in self.shape]
            raise ValueError(f"{self.name} has shape {list(array.shape)}, expected {wanted_shape}")
        return array
