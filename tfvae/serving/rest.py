"""TF Serving's REST interface: JSON in columns (``inputs``) or rows (``instances``), bytes in base64.

Numbers keep float32's precision both ways: each side writes as many digits as it takes to read the same float again.
The server reads and writes NaN and Infinity as bare words, which are no JSON but are read and written here too.
"""

import base64
import contextlib
import datetime
import email.utils
import json
import time
import urllib.parse
from typing import Any

import numpy as np
import requests
import urllib3

from .answers import Signature, TensorInfo, Tensors, bad_answer, free
from .retries import ServingError

try:
    import orjson
except ImportError:  # the standard library does the same, and takes ten times as long
    orjson = None  # type: ignore[assignment]

_PASSING = {429, 502, 503, 504}
_CHUNK = 1 << 16
_EXCERPT = 2000  # characters of an error that are worth showing


class Rest:
    """One model at ``http(s)://host:port``.

    Args:
        url: The server's address, without ``/v1``.
        model: The model's name.
        version: Its version; None for the one the server prefers.
        timeout: Seconds for one answer, from first to last byte.
        most_bytes: The longest answer that is read.
        by_rows: Whether to send rows (``instances``) rather than columns, for gateways that take nothing else.
    """

    def __init__(self, url: str, model: str, version: int | None, timeout: float, most_bytes: int, by_rows: bool):
        place = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        self._address = url.rstrip("/") + place + ("" if version is None else f"/versions/{version}")
        self._timeout, self._most_bytes, self._by_rows = timeout, most_bytes, by_rows
        self._session = requests.Session()
        # Compressed answers could be small on the wire and huge in memory.
        self._session.headers.update({"Accept-Encoding": "identity", "Content-Type": "application/json"})

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()

    def predict(self, signature: str, inputs: dict[str, Any], outputs: tuple[str, ...]) -> Tensors:
        """The answer of one request. Of a single output the server leaves out the name: hence ``outputs``."""
        body: dict[str, Any] = {"signature_name": signature}
        has_nan = any(_has_nan(value) for value in inputs.values())
        if self._by_rows:
            columns = {name: _values(value) for name, value in inputs.items()}
            rows = zip(*columns.values(), strict=True)
            body["instances"] = [dict(zip(columns, row, strict=True)) for row in rows]
        else:
            body["inputs"] = {name: _column(value) for name, value in inputs.items()}
        answer = self._ask("POST", ":predict", _text(body, has_nan))
        return _tensors(answer, outputs, self._by_rows)

    def signatures(self) -> dict[str, Signature]:
        """What ``/metadata`` says of the model."""
        try:
            found = self._ask("GET", "/metadata")["metadata"]["signature_def"]["signature_def"]
            return {
                name: Signature(_infos(each.get("inputs", {})), _infos(each.get("outputs", {})))
                for name, each in found.items()
                if not name.startswith("__")  # the loader's own
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise bad_answer(f"/metadata answered without signatures ({error!r}).") from error

    def status(self) -> dict[int, str]:
        """The state of each version that the server knows."""
        try:
            found = self._ask("GET", "")["model_version_status"]
            return {int(each["version"]): str(each["state"]) for each in found}
        except (KeyError, TypeError, ValueError) as error:
            raise bad_answer(f"The server told no state of the model ({error!r}).") from error

    def _ask(self, method: str, suffix: str, body: bytes | None = None) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout
        try:
            with self._session.request(
                method, self._address + suffix, data=body, timeout=self._timeout, stream=True, allow_redirects=False
            ) as response:
                contents = self._read(response, deadline)
        except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
            raise ServingError("CONNECTION", f"{self._address}: {error}") from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ServingError("CONNECTION", f"{self._address}: {error}", passing=True) from error
        if response.status_code != 200:
            code = f"HTTP {response.status_code}"
            wait = _seconds(response.headers.get("Retry-After", ""))
            raise ServingError(code, _words(contents), passing=response.status_code in _PASSING, wait=wait)
        return _document(contents)

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        contents = bytearray()
        while chunk := response.raw.read1(_CHUNK, decode_content=False):  # what is there by now
            contents += chunk
            if len(contents) > self._most_bytes:
                raise bad_answer(f"The answer is longer than {self._most_bytes:,} bytes (max_answer_bytes).")
            if time.monotonic() > deadline:
                raise ServingError("CONNECTION", f"no whole answer in {self._timeout} s (timeout)", passing=True)
        return bytes(contents)


def _seconds(retry_after: str) -> float:
    """What Retry-After asks for: seconds, or a date (RFC 9110, section 10.2.3); 0 where it says nothing that is known.

    Example:
        >>> _seconds("7"), _seconds("soon"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT")
        (7.0, 0.0, 0.0)
    """
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    with contextlib.suppress(ValueError):
        date = email.utils.parsedate_to_datetime(retry_after)
        return max(0.0, date.timestamp() - datetime.datetime.now(datetime.UTC).timestamp())
    return 0.0


def _has_nan(column: Any) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind == "f" and bool(np.isnan(column).any())


def _text(body: dict[str, Any], has_nan: bool = False) -> bytes:
    """The body; NaN is a bare word, as the server reads it (``kParseNanAndInfFlag``), though it is no JSON.

    Example:
        >>> _text({"inputs": {"x": [0.5, float("nan")]}}, has_nan=True).replace(b" ", b"")
        b'{"inputs":{"x":[0.5,NaN]}}'
    """
    if orjson:
        text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        return text.replace(b"null", b"NaN") if has_nan else text  # with numbers alone in it, there is no other null
    return json.dumps(body, allow_nan=has_nan).encode()


def _column(column: Any) -> Any:
    """A column for ``_text``; an array as it is where orjson takes it, which writes it ten times as fast."""
    return np.ascontiguousarray(column) if orjson and isinstance(column, np.ndarray) else _values(column)


def _values(column: Any) -> list[Any]:
    """A column as JSON takes it. Each float32 is a double exactly, and is written as one."""
    if isinstance(column, np.ndarray):
        return column.tolist()
    return [{"b64": base64.b64encode(contents).decode()} for contents in column]


def _words(contents: bytes) -> str:
    """The server's words out of ``{"error": ...}``; older servers escape them so that they are no JSON."""
    text = contents.decode("utf-8", "replace")
    with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
        text = str(json.loads(text)["error"])
    return text.strip()[:_EXCERPT] or "no reason given"


def _parsed(contents: bytes) -> Any:
    if orjson:
        with contextlib.suppress(ValueError):  # NaN and Infinity, which the server writes, are no JSON to it
            return orjson.loads(contents)
    return json.loads(contents)


def _document(contents: bytes) -> dict[str, Any]:
    try:
        document = _parsed(contents)
    except (ValueError, RecursionError) as error:
        raise bad_answer(f"The answer is not JSON ({error}): {contents[:80]!r}.") from error
    if not isinstance(document, dict):
        raise bad_answer(f"The answer is a JSON {type(document).__name__}, expected an object.")
    return document


def _tensors(answer: dict[str, Any], outputs: tuple[str, ...], by_rows: bool) -> Tensors:
    key = "predictions" if by_rows else "outputs"
    if key not in answer:
        raise bad_answer(f"The answer holds {sorted(answer)}, expected {key!r}.")
    found = answer[key]
    if by_rows:
        found = _columns(found)
    named = found if isinstance(found, dict) else {outputs[0]: found}
    return {str(name): _array(str(name), values) for name, values in named.items() if name in outputs}


def _columns(rows: Any) -> Any:
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        return rows
    if not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise bad_answer("The rows of the answer do not hold the same outputs.")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _array(name: str, values: Any) -> np.ndarray:
    """Nested lists of numbers as float32; NumPy alone would read the text "NaN" as a number."""
    try:
        array = np.array(values)
    except (ValueError, OverflowError) as error:
        raise bad_answer(f"{name} is no array: its rows differ in length.") from error
    if array.dtype.kind not in "fiu":
        raise bad_answer(f"{name} holds something other than numbers.")
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32)
    if np.isinf(floats).sum() > np.isinf(array).sum():
        raise bad_answer(f"{name} holds numbers too large for float32.")
    return floats


def _infos(tensors: dict[str, Any]) -> dict[str, TensorInfo]:
    def info(tensor: dict[str, Any]) -> TensorInfo:
        shape = tensor.get("tensor_shape", {})
        sizes = free(dim.get("size", 0) for dim in shape.get("dim", []))
        return TensorInfo(str(tensor.get("dtype")), None if shape.get("unknown_rank") else sizes)

    return {name: info(tensor) for name, tensor in tensors.items()}
