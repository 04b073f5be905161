"""A LiteRT export judged from outside: read as a file, then run beside what Python answered when it was written.

Custom operations are refused: among them are those that run TensorFlow's own, which can read and write files.
"""

import pathlib
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from tfvae.checks import replay, wire
from tfvae.checks.check import Check, attempt, layout, outcome, unjudged
from tfvae.pipelines import contract

LARGEST_FILE = 2 << 30  # bytes: a FlatBuffer's own limit

_DTYPES = {0: "float32", 3: "uint8"}  # of tflite.TensorType; an export has no other
_FILES = (contract.LITERT, f"{contract.EXTRA}/{contract.ANSWERS}")


class LiteRTFile(NamedTuple):
    """What a file says of itself.

    Attributes:
        folder: Where it lies.
        operations: The operations' names; of a custom one, its own.
        custom: The custom ones among them.
        signatures: Inputs and outputs of each signature.
    """

    folder: pathlib.Path
    operations: list[str]
    custom: list[str]
    signatures: dict[str, wire.SignatureDef]


def check(folder: pathlib.Path) -> list[Check]:
    """Every rule's outcome for a version's folder that holds a LiteRT file.

    Raises:
        ValueError: If the file cannot be read.
    """
    file = read(folder)
    checks = [outcome(name, *rule(file)) for name, rule in _RULES.items()]
    failed = [one.name for one in checks if not one.passed and one.name != "layout"]
    if failed:
        return [*checks, *(unjudged(failed, name) for name in ("LiteRT equals Python", "independent rows"))]
    return [*checks, *_runs(file)]


def read(folder: pathlib.Path) -> LiteRTFile:
    """The file in a version's folder, read without running it.

    Raises:
        ValueError: If it is no LiteRT file, is too large or is damaged.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    path = folder / contract.LITERT
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
        raise ValueError(f"{path} is no plain file of at most {LARGEST_FILE} bytes.")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(f"{path} is no LiteRT file: bytes 4 to 8 are {content[4:8]!r}, expected b'TFL3'.")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        codes = [(one, max(one.builtinCode, one.deprecatedBuiltinCode)) for one in model.operatorCodes or []]
        custom = [_text(one.customCode) for one, code in codes if one.customCode or names.get(code) == "CUSTOM"]
        known = [names.get(code, f"operation {code}") for _, code in codes]
        signatures = dict(_signature(model, one) for one in model.signatureDefs or [])
        if not model.subgraphs or not codes:
            raise ValueError("it has no graph")
    except Exception as error:  # whatever a FlatBuffer that was cut or forged makes of its own offsets
        raise ValueError(f"{path} is damaged: {type(error).__name__} {error}.") from error
    return LiteRTFile(folder, known, custom, dict(sorted(signatures.items())))


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _signature(model: Any, definition: Any) -> tuple[str, wire.SignatureDef]:
    tensors = model.subgraphs[definition.subgraphIndex].tensors

    def side(maps: Any) -> dict[str, wire.TensorInfo]:
        return {_text(one.name): _info(tensors[one.tensorIndex]) for one in maps or []}

    return _text(definition.signatureKey), wire.SignatureDef(side(definition.inputs), side(definition.outputs))


def _info(tensor: Any) -> wire.TensorInfo:
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    sizes = tuple(None if size < 0 else int(size) for size in ([] if shape is None else shape))
    return wire.TensorInfo(_text(tensor.name), _DTYPES.get(tensor.type, f"TensorType({tensor.type})"), sizes)


def _layout(file: LiteRTFile) -> tuple[list[str], str]:
    return layout(file.folder, _FILES), f"version {file.folder.resolve().name}, one LiteRT file"


def _signatures(file: LiteRTFile) -> tuple[list[str], str]:
    """A batch of any size, of the numbers that the contract has, under its names."""
    known = {contract.signature(name, dtype): name for name in contract.OUTPUTS for dtype in _DTYPES.values()}
    problems = [] if file.signatures else ["there are no signatures"]
    for name, (inputs, outputs) in file.signatures.items():
        if set(outputs) != set(contract.OUTPUTS.get(known.get(name, ""), ())):
            problems.append(f"{name} answers {sorted(outputs)}: no signature of tfvae's")
        for key, info in {**inputs, **outputs}.items():
            if info.dtype not in _DTYPES.values():
                problems.append(f"{name}: {key} is {info.dtype}, expected {' or '.join(_DTYPES.values())}")
            if not info.shape or info.shape[0] is not None:
                problems.append(f"{name}: {key} has shape {list(info.shape or ())}, expected [None, ...]")
    return problems, ", ".join(file.signatures)


def _self_contained(file: LiteRTFile) -> tuple[list[str], str]:
    problems = [f"{name} is no operation of LiteRT's own, and may reach outside of the model" for name in file.custom]
    return problems, f"{len(file.operations)} kinds of operations, all LiteRT's own"


_RULES: dict[str, Callable[[LiteRTFile], tuple[list[str], str]]] = {
    "layout": _layout,
    "signatures": _signatures,
    "self-contained": _self_contained,
}


def _runs(file: LiteRTFile) -> list[Check]:
    """Every recorded request again, beside the recorded answer, and every row beside itself in another batch."""
    name = "LiteRT equals Python"
    path = file.folder / contract.EXTRA / contract.ANSWERS
    recorded, problems = attempt(lambda: replay.recorded(path, "file of requests and answers"), [])
    sent = [request for request, _ in recorded]
    problems += [f"no request is recorded for {one}" for one in sorted(set(file.signatures) - {one for one, _ in sent})]
    answers, unrun = attempt(lambda: replay.answers(file.folder, sent, "LiteRT"), None) if sent else (None, [])
    if answers is None:
        return [outcome(name, problems + unrun, ""), unjudged([name])]
    expected = [outputs for _, outputs in recorded]
    problems += replay.compare(sent, answers, expected, ("LiteRT", "Python"), contract.LITERT_TOLERANCE)
    detail = f"{len(sent)} requests, within {contract.LITERT_TOLERANCE:g}"
    equal = outcome(name, problems, detail)
    if any(isinstance(one, wire.CSessionError) for one in answers) or problems:
        return [equal, unjudged([name])]
    rows = replay.mixed_rows(sent, answers)
    return [equal, outcome("independent rows", rows, "batches of other sizes give the same rows")]
