"""TF Serving's rules around the session, as far as a client can see them: which model, which inputs, which batch.

Each rule names the file of the server's source (github.com/tensorflow/serving, or TensorFlow where it says so) in which
it was read. The session itself is TensorFlow's own in C++.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from tests.serving.cc_worker import Session
from tfvae.checks.wire import CSessionError, SignatureDef, Tensors

DEFAULT_SIGNATURE = "serving_default"


class ServedModel:
    """The largest version in a model's folder, as the server's default policy serves it, with batching on.

    Args:
        base_path: ``.../NAME``, which holds a folder for each version.
        allowed_batch_sizes: Rising; the last is the largest batch. Empty: no batching.
    """

    def __init__(self, base_path: pathlib.Path, allowed_batch_sizes: Sequence[int] = ()) -> None:
        self.name = base_path.name
        # sources/storage_path/file_system_storage_path_source.cc: numbers are versions, other names are passed over.
        self.version = max(int(path.name) for path in base_path.iterdir() if path.name.isdecimal())
        self._session = Session(str(base_path / str(self.version)))
        self._allowed = list(allowed_batch_sizes)
        self.batches: list[tuple[str, int]] = []  # signature and rows of what the session was given

    def close(self) -> None:
        self._session.close()

    @property
    def signatures(self) -> dict[str, SignatureDef]:
        return self._session.signatures

    def check_served(self, name: str, version: int | None) -> None:
        # core/basic_manager.cc (GetUntypedServableHandle), core/servable_id.h and manager.h (DebugString)
        if name != self.name or version not in (None, self.version):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise CSessionError("NOT_FOUND", f"Servable not found for request: {wanted}")

    def run(self, signature: str, inputs: Tensors) -> Tensors:
        """Outputs of ``signature``; dtypes and inner shapes are left to the session, which casts nothing."""
        signature = signature or DEFAULT_SIGNATURE
        # servables/tensorflow/predict_util.cc (RunPredict)
        if signature not in self.signatures:
            raise CSessionError("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        self._check_names(set(self.signatures[signature].inputs), set(inputs))
        rows = self._batch_size(inputs)
        padded = self._padded_size(rows)
        self.batches.append((signature, padded))
        # batching/batching_session.cc (MergeInputTensors): copies of the first row fill up a batch.
        filled = {name: np.concatenate([value, *[value[:1]] * (padded - rows)]) for name, value in inputs.items()}
        outputs = self._session.run(signature, filled if padded > rows else inputs)
        return {name: self._split(value, padded, rows) for name, value in outputs.items()}

    @staticmethod
    def _check_names(expected: set[str], sent: set[str]) -> None:
        # servables/tensorflow/predict_util.cc (VerifyRequestInputsSize) counts, cc/saved_model/util.cc
        # (GetInputValues, in TensorFlow) looks each one up.
        if len(sent) != len(expected):
            extra, missing = sorted(sent - expected), sorted(expected - sent)
            raise CSessionError(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(sent)}!={len(expected)} "
                f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(expected))}}}). "
                f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}.",
            )
        for alias in sorted(expected - sent):
            raise CSessionError("INVALID_ARGUMENT", f"SignatureDef input alias: {alias} not found in request")

    def _batch_size(self, inputs: Tensors) -> int:
        # batching/batching_util.h (ComputeTensorBatchSize)
        if not self._allowed:
            return 0
        if any(value.ndim == 0 for value in inputs.values()):
            raise CSessionError("INVALID_ARGUMENT", "Batching Run() input tensors must have at least one dimension")
        sizes = {len(value) for value in inputs.values()}
        if len(sizes) > 1:
            raise CSessionError("INVALID_ARGUMENT", "Batching Run() input tensors must have equal 0th-dimension size")
        return sizes.pop()

    def _padded_size(self, rows: int) -> int:
        if not self._allowed or rows == 0:
            return rows
        # core/kernels/batching_util/shared_batch_scheduler.h (in TensorFlow)
        if rows > self._allowed[-1]:
            message = f"Task size {rows} is larger than maximum input batch size {self._allowed[-1]}"
            raise CSessionError("INVALID_ARGUMENT", message)
        # batching/batching_session.cc (RoundToLowestAllowedBatchSize)
        return min(size for size in self._allowed if size >= rows)

    def _split(self, output: np.ndarray, padded: int, rows: int) -> np.ndarray:
        # batching/batching_session.cc (SplitOutputTensors)
        if not self._allowed:
            return output
        if output.ndim == 0 or len(output) != padded:
            raise CSessionError(
                "FAILED_PRECONDITION",
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                "input tensors",
            )
        return output[:rows]


class Faults:
    """What the next requests get instead of an answer, one each: codes of errors, or names of what a front breaks."""

    def __init__(self) -> None:
        self.queue: list[str] = []
        self.requests = 0

    def next(self) -> str | None:
        self.requests += 1
        return self.queue.pop(0) if self.queue else None
