"""Client: arrays in, arrays out, whatever lies between."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..pipelines import contract
from .answers import Signature, Tensors, bad_answer, check_rows
from .rest import Rest
from .retries import ServingError, persist

Images = np.ndarray | Sequence[bytes]


class Score(NamedTuple):
    """Lower bounds on log p(x), each ``[N]``, nats."""

    elbo: np.ndarray
    importance_weighted_bound: np.ndarray


class Client:
    """A model of ``tfvae.export`` on a running TF Serving.

    Observations are floats as the model was trained on (``embed``), uint8 images (``embed_uint8``), or a list of
    bytes, each a PNG or JPEG file (``embed_image_bytes``). Inputs of any length are sent in batches of ``batch_size``
    and come back as one array in their order; an empty input gives an empty array. What may pass (no connection, HTTP
    429 and 502 to 504, UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED) is asked again after growing pauses.

    A conditional model is asked with ``condition=``, an array of numbers with a row for each row.

    NaN and infinite inputs are refused before they are sent: a server that batches runs rows of several clients
    together, and a bad one would fail them all. A model that leaves out what is missing (``likelihoods.missing``) takes
    NaN for it: say so by ``missing=True``.

    Args:
        url: ``http://host:8501`` or ``https://...`` for REST, ``grpc://host:8500`` or ``grpcs://...`` for gRPC.
        model: The model's name on the server.
        version: Its version; None for the newest.
        timeout: Seconds for one request.
        retries: How often a request that failed in passing is sent again.
        batch_size: Most rows of one request: at most the server's ``max_batch_size``.
        max_answer_bytes: Longest answer that is read; 64 MiB by default.
        by_rows: Send REST's row format (``instances``), for gateways in front of the server that know no other.
        missing: Whether NaN in x is a missing number, and is sent. A gateway that checks JSON may refuse it over REST,
            where NaN is a bare word; gRPC has no such trouble.

    Raises:
        ServingError: From every method: the server's words, and the rows that the request carried.

    Example:
        >>> Client("localhost:8501", "mnist")
        Traceback (most recent call last):
        ValueError: url is 'localhost:8501': expected http://, https://, grpc:// or grpcs:// and host:port.
    """

    def __init__(
        self,
        url: str,
        model: str,
        version: int | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        batch_size: int = 64,
        max_answer_bytes: int = 1 << 26,
        by_rows: bool = False,
        missing: bool = False,
    ):
        scheme, _, target = str(url).partition("://")
        if scheme not in ("http", "https", "grpc", "grpcs") or not target:
            raise ValueError(f"url is {url!r}: expected http://, https://, grpc:// or grpcs:// and host:port.")
        if not isinstance(model, str) or not model:
            raise ValueError(f"model is {model!r}: expected the model's name on the server, a string.")
        _check_whole(1, batch_size=batch_size, max_answer_bytes=max_answer_bytes)
        _check_whole(0, retries=retries, **({} if version is None else {"version": version}))
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float, np.number)) or not timeout > 0:
            raise ValueError(f"timeout is {timeout!r}, expected seconds, a number above 0.")
        for name, value in (("by_rows", by_rows), ("missing", missing)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, expected True or False.")
        self._retries, self._batch_size, self._missing = retries, batch_size, missing
        self._widths: dict[str, tuple[int | None, ...]] = {}  # of outputs already seen, without the rows
        self._transport: Any
        if scheme.startswith("http"):
            self._transport = Rest(url, model, version, timeout, max_answer_bytes, by_rows)
        else:
            from .rpc import Rpc  # brings TensorFlow, which REST does without

            self._transport = Rpc(target, model, version, timeout, max_answer_bytes, secure=scheme == "grpcs")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; ``with Client(...) as client:`` does it too."""
        self._transport.close()

    def embed(self, x: Images, with_stddev: bool = False, condition: np.ndarray | None = None) -> Any:
        """Posterior means ``[N, D]``; with ``with_stddev`` a pair, the standard deviations ``[N, D]`` second."""
        signature, inputs = _observations(contract.EMBED, x, condition, self._missing)
        outputs = contract.OUTPUTS[contract.EMBED]
        answer = self._run(signature, inputs, outputs)
        return tuple(answer[name] for name in outputs) if with_stddev else answer[contract.EMBEDDING]

    def reconstruct(self, x: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Means of p(x|z), of classes the likeliest, at the posterior means of float ``x``, ``[N, *event]``."""
        return self._only(contract.RECONSTRUCT, contract.X, x, condition)

    def decode(
        self, z: np.ndarray, condition: np.ndarray | None = None, library: np.ndarray | None = None
    ) -> np.ndarray:
        """Means of p(x|z), ``[N, *event]``, for ``z`` ``[N, D]``.

        A model of counts that are shares of a row's total takes that total, ``library`` ``[N]``.
        """
        return self._only(contract.DECODE, contract.Z, z, condition, library)

    def sample(
        self, noise: np.ndarray, condition: np.ndarray | None = None, library: np.ndarray | None = None
    ) -> np.ndarray:
        """Means of p(x|z), ``[N, *event]``, for the z ~ p(z) that standard normal ``noise`` ``[N, D]`` stands for.

        ``library`` is as in ``decode``.
        """
        return self._only(contract.SAMPLE, contract.NOISE, noise, condition, library)

    def score(self, x: Images, noise: np.ndarray, condition: np.ndarray | None = None) -> Score:
        """Bounds on log p(x) with K samples for each row, from standard normal ``noise`` ``[N, K, D]``."""
        signature, inputs = _observations(contract.SCORE, x, condition, self._missing)
        inputs[contract.NOISE] = _floats(contract.NOISE, noise)
        return Score(**self._run(signature, inputs, Score._fields))

    def signatures(self) -> dict[str, Signature]:
        """What the served model offers: inputs and outputs of each signature."""
        return persist(self._transport.signatures, self._retries)

    def status(self) -> dict[int, str]:
        """The state of each version on the server, such as ``{1: "AVAILABLE"}``."""
        return persist(self._transport.status, self._retries)

    def _only(
        self,
        operation: str,
        name: str,
        value: np.ndarray,
        condition: np.ndarray | None,
        library: np.ndarray | None = None,
    ) -> np.ndarray:
        """The one output of an operation on one input of floats, and on what else there is of a row."""
        (output,) = outputs = contract.OUTPUTS[operation]
        more = {**_beside(contract.CONDITION, condition), **_beside(contract.LIBRARY, library)}
        given = _floats(name, value, missing=self._missing and name == contract.X)
        return self._run(operation, {name: given, **more}, outputs)[output]

    def _run(self, signature: str, inputs: dict[str, Any], outputs: tuple[str, ...]) -> Tensors:
        count = _count(inputs)
        if count == 0:
            return self._nothing(signature, outputs)
        parts = [
            self._batch(signature, inputs, outputs, first, min(first + self._batch_size, count))
            for first in range(0, count, self._batch_size)
        ]
        for part in parts[1:]:
            for name in outputs:
                if part[name].shape[1:] != parts[0][name].shape[1:]:
                    raise bad_answer(f"{name} changed its width between two requests of one call.")
        self._widths.update({f"{signature}/{name}": parts[0][name].shape[1:] for name in outputs})
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def _batch(self, signature: str, inputs: dict[str, Any], outputs: tuple[str, ...], first: int, end: int) -> Tensors:
        rows = {name: value[first:end] for name, value in inputs.items()}
        ask: Callable[[], Tensors] = functools.partial(self._transport.predict, signature, rows, outputs)
        try:
            return check_rows(persist(ask, self._retries), outputs, end - first)
        except ServingError as error:
            raise ServingError(error.code, error.message, (first, end - 1), error.passing) from error

    def _nothing(self, signature: str, outputs: tuple[str, ...]) -> Tensors:
        """No rows, of the width that an answer would have; the server is asked for it only where none came before."""
        if any(f"{signature}/{name}" not in self._widths for name in outputs):
            known = self.signatures()
            if signature not in known:
                raise ServingError("NOT_FOUND", f"the model has no signature {signature!r}: it has {sorted(known)}")
            for name in outputs:
                info = known[signature].outputs.get(name)
                if info is None or not info.shape:
                    raise bad_answer(f"{signature} declares no rows of {name}.")
                self._widths[f"{signature}/{name}"] = info.shape[1:]
        widths = {name: self._widths[f"{signature}/{name}"] for name in outputs}
        return {name: np.zeros([0, *(size or 0 for size in width)], np.float32) for name, width in widths.items()}


def _check_whole(least: int, **given: Any) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} is {value!r}, expected a whole number of {least} or more.")


def _observations(operation: str, x: Images, condition: np.ndarray | None, missing: bool) -> tuple[str, dict[str, Any]]:
    """Which signature takes such observations, and its inputs."""
    given = _beside(contract.CONDITION, condition)
    if isinstance(x, (list, tuple)) and all(isinstance(item, bytes) for item in x):
        return contract.signature(operation, "string"), {contract.IMAGE_BYTES: list(x), **given}
    if not isinstance(x, np.ndarray):
        hint = "give an array whose first axis is the rows, or a list of bytes (PNG or JPEG files)."
        raise TypeError(f"x is a {type(x).__name__}: {hint}")
    if x.dtype == np.uint8:
        _refuse_masked(contract.X, x)
        return contract.signature(operation, "uint8"), {contract.X: x, **given}
    return contract.signature(operation, "float32"), {contract.X: _floats(contract.X, x, missing), **given}


def _beside(name: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    """An input beside the observations; integers and truth values are numbers too."""
    if value is None:
        return {}
    whole = isinstance(value, np.ndarray) and value.dtype.kind in "iub"
    return {name: _floats(name, value.astype(np.float32) if whole else value)}


def _refuse_masked(name: str, value: np.ndarray) -> None:
    if np.ma.is_masked(value):
        raise TypeError(f"{name} has masked cells, which are not sent: fill them, {name}.filled(value).")


def _floats(name: str, value: np.ndarray, missing: bool = False) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        came = f"of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {came}: expected an array of floats, scaled as the model was trained on.")
    _refuse_masked(name, value)
    with np.errstate(over="ignore"):
        floats = value.astype(np.float32, copy=False)
    right = ~np.isinf(floats) & (missing | ~np.isnan(floats))
    good = right.reshape(len(floats), math.prod(floats.shape[1:])).all(axis=1) if floats.ndim else right
    if not np.all(good):
        held, mend = "NaN or infinite values", "mend or drop that row"
        if missing:
            held = "infinite values"
        elif name == contract.X:
            mend += "; NaN stands for a missing number with Client(..., missing=True)"
        raise ValueError(f"{name} holds {held} in row {int(np.argmin(good))}: {mend}.")
    return floats


def _count(inputs: dict[str, Any]) -> int:
    scalars = [name for name, value in inputs.items() if isinstance(value, np.ndarray) and value.ndim == 0]
    counts = {name: len(value) for name, value in inputs.items() if name not in scalars}
    if scalars or len(set(counts.values())) != 1:
        raise ValueError(f"Rows of the inputs: {counts}, scalars: {scalars}: each needs the same number of rows.")
    return next(iter(counts.values()))
