"""A carried program on whatever device JAX sees: jaxlib's client compiles and runs it, without TensorFlow.

The client is PJRT's, below JAX's public names; these calls are the ones JAX itself makes (jaxlib 0.8 to 0.11).
"""

import re

import jax
import numpy as np
from jax.extend import backend
from jaxlib import _jax, xla_client

from benchmarks.gpu import carried
from benchmarks.gpu.carried import Case, Program

try:
    from jaxlib._hlo import XlaComputation  # since jaxlib 0.11
except ImportError:
    from jaxlib.xla_client import XlaComputation

_PRECISION = re.compile(r"(?<=precision = \[)DEFAULT, DEFAULT(?=\])|(?<=#stablehlo<precision )DEFAULT(?=>)")
_COPY = re.compile(r"mhlo\.copy (%\w+) : (tensor<[^>]*>)")  # which jaxlib 0.11 writes and no longer reads
# XLA's names; what a framework multiplies in by default is TF32 where the device has it, else float32.
PRECISIONS = {"float32": "HIGHEST", "tf32": "DEFAULT"}


class Executable:
    """A compiled program.

    Raises:
        ValueError: If the module states its precision in words that are not known here.
    """

    def __init__(self, program: Program, precision: str):
        text = _jax.mlir.xla_computation_to_mlir_module(XlaComputation(program.hlo))
        text = _COPY.sub(r"stablehlo.reshape \1 : (\2) -> \2", text)
        text, found = _PRECISION.subn(lambda match: match[0].replace("DEFAULT", PRECISIONS[precision]), text)
        if not found:
            raise ValueError(
                "The program names no precision of a product, expected DEFAULT: has StableHLO's text changed?"
            )
        device = jax.local_devices()[0]
        options = backend.get_compile_options(1, 1, device_assignment=np.array([[device.id]]))
        devices = xla_client.DeviceList((device,))
        self._run = backend.get_backend().compile_and_load(text, devices, options).execute_sharded
        self._program = program

    def __call__(self, inputs: list[jax.Array]) -> tuple[dict[str, jax.Array], list[jax.Array]]:
        """What the function returns, and the next call's inputs; the memory of those that it sets is used again."""
        results = [arrays[0] for arrays in self._run(inputs).disassemble_into_single_device_arrays()]
        num_returned = len(self._program.returned)
        following = list(inputs)
        for parameter, value in zip(self._program.updated, results[num_returned:], strict=True):
            following[parameter] = value
        return dict(zip(self._program.returned, results, strict=False)), following

    def difference(self) -> float:
        """See ``carried.difference``: the largest of all results, for the carried inputs."""
        returned, following = self([on_device(value) for value in self._program.inputs])
        results = [*returned.values(), *(following[parameter] for parameter in self._program.updated)]
        return max(map(carried.difference, map(np.asarray, results), self._program.outputs))


def on_device(value: np.ndarray) -> jax.Array:
    """A copy on the device, 64-bit integers (Keras's counters and seeds) kept."""
    with jax.enable_x64(True):
        return jax.device_put(value, jax.local_devices()[0], may_alias=False)


class ProgramSide:
    """A case's programs, each call of the train program fed with the results of the last."""

    def __init__(self, case: Case, rows: np.ndarray, precision: str):
        self._case, self._num_rows = case, len(rows)
        self._train, self._embed = Executable(case.train, precision), Executable(case.embed, precision)
        self._state = [on_device(value) for value in case.train.inputs]
        self._state[3] = on_device(np.array(case.steps, np.int32))
        self._encoder = [on_device(value) for value in case.embed.inputs[1:]]
        size = len(case.embed.inputs[0])
        self._batches = [on_device(x) for x in batches(case.train.inputs[0], size)]
        self._order = np.random.default_rng(0)

    def differences(self) -> dict[str, float]:
        """See ``Executable.difference``, of each program."""
        return {"train": self._train.difference(), "embed": self._embed.difference()}

    def epoch(self) -> float:
        """One pass over the rows, shuffled as ``fit`` shuffles them; the mean loss, nats.

        Raises:
            RuntimeError: If the program counted other than these rows.
        """
        case = self._case
        for parameter in case.metrics:
            self._state[parameter] = on_device(np.zeros_like(case.train.inputs[parameter]))
        calls = case.calls(self._num_rows)
        num_rows = calls * case.steps * case.batch_size
        order = self._order.permutation(np.arange(self._num_rows, dtype=np.int32))[:num_rows]
        for rows in order.reshape(calls, case.steps, case.batch_size):
            self._state[1] = on_device(rows)
            returned, self._state = self._train(self._state)
        counted = float(self._state[case.metrics[1]])
        if counted != num_rows:
            raise RuntimeError(f"The program trained on {counted:.0f} rows, expected {num_rows}.")
        return float(returned["loss"])

    def embed(self) -> np.ndarray:
        """The first batch's posterior means, once those of all the rows are computed."""
        means = [self._embed([x, *self._encoder])[0]["result"] for x in self._batches]
        return np.asarray(jax.block_until_ready(means)[0])


def batches(x: np.ndarray, size: int) -> list[np.ndarray]:
    """The rows in batches of one size; what does not fill one is left out."""
    return [x[start : start + size] for start in range(0, len(x) - size + 1, size)]
