"""JSON to tensors and back as TF Serving does it: ``util/json_tensor.cc``, function by function."""

import base64
import json
import math
from typing import Any

import numpy as np

from tfvae.checks.wire import CSessionError, TensorInfo, Tensors

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def invalid(message: str) -> CSessionError:
    return CSessionError("INVALID_ARGUMENT", message)


def parse(body: bytes) -> dict[str, Any]:
    """ParseJson: NaN and Infinity may stand as bare words (kParseNanAndInfFlag)."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {body[:100]!r} Is not object")
    return document


def tensors(document: dict[str, Any], infos: dict[str, TensorInfo]) -> tuple[Tensors, bool]:
    """FillPredictRequestFromJson: the inputs, and whether they came by rows."""
    if "instances" in document and "inputs" in document:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "instances" in document:
        if not isinstance(document["instances"], list):
            raise invalid("Excepting 'instances' to be an list/array")
        if not document["instances"]:
            raise invalid("No values in 'instances' array")
        return _from_rows(document["instances"], infos), True
    if "inputs" in document:
        return _from_columns(document["inputs"], infos), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_columns(values: Any, infos: dict[str, TensorInfo]) -> Tensors:
    """FillTensorMapFromInputsMap: names that the signature lacks are passed over, missing ones are not."""
    if not isinstance(values, dict) or _is_base64(values):
        if len(infos) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required")
        values = {next(iter(infos)): values}
    for name in infos:
        if name not in values:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(values[name], info.dtype) for name, info in infos.items()}


def _from_rows(rows: list[Any], infos: dict[str, TensorInfo]) -> Tensors:
    """FillTensorMapFromInstancesList: rows of one shape, each with exactly the signature's inputs."""
    named = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not named and len(infos) > 1:
        raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in infos}
    for i, row in enumerate(rows):
        if named != (isinstance(row, dict) and not _is_base64(row)):
            raise invalid(f"Expecting {'object but got list' if named else 'value/list but got object'} at item {i}")
        row = row if named else {next(iter(infos)): row}
        if row.keys() != infos.keys():
            raise invalid(f"Failed to process element: {i} of 'instances' list. keys must be equal to: {sorted(infos)}")
        for name, value in row.items():
            item = _tensor(value, infos[name].dtype)
            if columns[name] and item.shape != columns[name][0].shape:
                raise invalid(f"Failed to process element: {i} key: {name} of 'instances' list.")
            columns[name].append(item)
    return {name: np.stack(items) for name, items in columns.items()}


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _tensor(value: Any, dtype: str) -> np.ndarray:
    """GetDenseTensorShape and FillTensorProto: the first elements give the shape, and the others must fit it."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    leaves: list[Any] = []

    def fill(item: Any, level: int) -> None:
        if not isinstance(item, list):
            if level != len(shape):
                raise invalid(f"JSON Value: {item} found at incorrect level: {level + 1}")
            leaves.append(_leaf(item, dtype))
            return
        if level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(item) != shape[level]:
            raise invalid(f"Encountered list at unexpected size: {len(item)} at level: {level}")
        for each in item:
            fill(each, level + 1)

    fill(value, 0)
    array = np.empty(len(leaves), object if dtype == "string" else dtype)
    array[:] = leaves
    return array.reshape(shape)


def _leaf(value: Any, dtype: str) -> Any:
    """AddValueToTensor, IsLosslessDecimal and JsonDecodeBase64Object."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if dtype == "string":
        if _is_base64(value):
            return base64.b64decode(value["b64"])
        if isinstance(value, str):
            return value.encode()
    elif dtype == "float32" and (is_int or isinstance(value, float)):
        lossless = abs(value) < 1 << 24 if is_int else not math.isfinite(value) or abs(value) <= _FLOAT32_MAX
        if not lossless:
            raise invalid(f"Cannot convert JSON value: {value} to float without loss of precision.")
        return np.float32(value)
    elif dtype in ("uint8", "int32", "int64") and is_int:
        return value % 256 if dtype == "uint8" else value
    raise invalid(f"JSON Value: {value!r} is not of expected type: {dtype}")


def document(outputs: Tensors, by_rows: bool) -> str:
    """MakeJsonFromTensors. The name of a single output is left out."""
    named = len(outputs) > 1
    if by_rows:
        columns = [[_text(row) for row in value] for value in outputs.values()]
        rows = [_object(outputs, row) if named else row[0] for row in zip(*columns, strict=True)]
        return f'{{\n    "predictions": [{", ".join(rows)}]\n}}'
    columns = [_text(value) for value in outputs.values()]
    return f'{{\n    "outputs": {_object(outputs, columns) if named else columns[0]}\n}}'


def _object(names: Tensors, values: Any) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in zip(names, values, strict=True)) + "}"


def _text(value: np.ndarray) -> str:
    if value.ndim:
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return decimal(value.item()) if value.dtype == np.float32 else str(value)


def decimal(value: float) -> str:
    """WriteDecimal: six digits where they are enough to read the same float32, else nine."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = f"{value:g}"
    if np.float32(text) != np.float32(value):
        text = f"{value:.9g}"
    return text if "." in text or "e" in text else text + ".0"
