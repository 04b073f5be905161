"""Is a SavedModel what TF Serving and the Beam job need? Rules that read it as a file, then a run beside Python's.

A SavedModel is a program: it is run only when its operations reach nothing outside of it. What each rule guards against
is said beside it.
"""

import hashlib
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from tfvae.arguments import check_path
from tfvae.checks import graph as graphs
from tfvae.checks import litert, litert_session, replay, wire
from tfvae.checks.check import Check, attempt, files, layout, outcome, unjudged
from tfvae.checks.graph import SavedGraph
from tfvae.exporting import versions
from tfvae.pipelines import contract, storage, trust

_CARRIED = ("float32", "int32", "int64", "uint8", "string")  # by the server's REST interface
_FILES = (contract.SAVED_MODEL, contract.VARIABLES_INDEX, f"{contract.EXTRA}/{contract.WARMUP}")
_OVERHEAD = 1.02
_LARGEST_SHARE = 16  # numbers: equal biases of a few units are no sign of a variable stored twice
_RANDOM = re.compile(
    r"Stateful(StandardNormal|Uniform|TruncatedNormal|RandomBinomial).*|Rng.*Skip|NonDeterministicInts"
)
_WRITES = re.compile("(Resource(Scatter|Apply|Sparse)|Assign).*")


def check_export(directory: str | os.PathLike[str], trust_model: bool = False) -> list[Check]:
    """Every rule's outcome for a version's folder, or for the largest version of a model's folder.

    A version for LiteRT has rules of its own, and is run in LiteRT: see ``litert``.

    Args:
        directory: Where it lies.
        trust_model: Run it though it may reach outside of itself, which it is then free to do.

    Raises:
        ValueError: If there is no SavedModel at all, or its ``saved_model.pb`` cannot be read.

    Example:
        >>> module = tf.Module()
        >>> module.half = tf.function(lambda x: {"y": x / 2}, input_signature=[tf.TensorSpec([None], tf.float64, "x")])
        >>> tf.saved_model.save(module, "half/1", {"serving_default": module.half})
        >>> {check.name: check.result for check in check_export("half")}["dtypes"]
        'FAILED'
    """
    check_path(directory=directory)
    storage.refuse_other_encodings(directory)
    folder = _version(pathlib.Path(directory))
    if litert_session.holds(folder):
        return litert.check(folder)
    graph = graphs.read(folder)
    checks = [outcome(name, *rule(graph)) for name, rule in _RULES.items()]
    failed = {check.name for check in checks if not check.passed}
    return [*checks, *_runs(graph, failed - {"self-contained"} if trust_model else failed)]


def _version(directory: pathlib.Path) -> pathlib.Path:
    if (directory / contract.SAVED_MODEL).exists() or litert_session.holds(directory):
        return directory
    numbers = versions.existing(directory)
    if not numbers:
        raise ValueError(
            f"{directory} holds no SavedModel: expected {contract.SAVED_MODEL}, {contract.LITERT} of LiteRT, or a "
            "numbered version below it."
        )
    return directory / str(numbers[-1])


def _layout(graph: SavedGraph) -> tuple[list[str], str]:
    """See ``check.layout``; and an asset lies where the loader looks for it."""
    problems = layout(graph.folder, _FILES)
    if storage.is_pattern(str(graph.folder.absolute())):
        problems.append(
            f"{graph.folder.absolute()} has a bracket or a backslash in its name, which TensorFlow's runtime takes for "
            "a pattern and finds no weights: serve a copy of it from a folder of another name"
        )
    for asset in graph.meta_graph.asset_file_def:
        if pathlib.PurePath(asset.filename).name != asset.filename:
            problems.append(f"the asset {asset.filename!r} lies outside of assets/")
    return problems, f"version {graph.folder.resolve().name}, one meta graph with the tag serve"


def _tensors(graph: SavedGraph) -> Iterator[tuple[str, str, wire.TensorInfo]]:
    """Signature, name and description of every input and output."""
    for signature, sides in graph.signatures.items():
        for side in sides:
            yield from ((signature, name, info) for name, info in side.items())


def _batch_dimensions(graph: SavedGraph) -> tuple[list[str], str]:
    """The server joins requests along the first dimension, and splits the answers again."""
    problems = [
        f"{signature}: {name} has shape {None if info.shape is None else list(info.shape)}, expected [None, ...]"
        for signature, name, info in _tensors(graph)
        if not info.shape or info.shape[0] is not None
    ]
    if contract.SERVING_DEFAULT not in graph.signatures:
        problems.append(f"there is no signature {contract.SERVING_DEFAULT}, only {sorted(graph.signatures)}")
    return problems, f"{len(graph.signatures)} signatures"


def _dtypes(graph: SavedGraph) -> tuple[list[str], str]:
    problems = [
        f"{signature}: {name} is {info.dtype}, expected one of {', '.join(_CARRIED)}"
        for signature, name, info in _tensors(graph)
        if info.dtype not in _CARRIED
    ]
    return problems, ", ".join(sorted({info.dtype for _, _, info in _tensors(graph)}))


def _string_outputs(graph: SavedGraph) -> tuple[list[str], str]:
    """REST sends a string as base64 only if its name ends so."""
    names = [
        (signature, name)
        for signature, (_, outputs) in graph.signatures.items()
        for name, info in outputs.items()
        if info.dtype == "string"
    ]
    problems = [
        f"{signature}: the string {name} must end in _bytes" for signature, name in names if not name.endswith("_bytes")
    ]
    return problems, f"{len(names)} string outputs"


def _compiled(graph: SavedGraph) -> tuple[list[str], str]:
    """A default server has XLA disabled."""
    functions = [name for name, function in graph.functions.items() if function.attr["_XlaMustCompile"].b]
    nodes = [
        node.name for node in graph.served.nodes if "_XlaMustCompile" in node.attr and node.attr["_XlaMustCompile"].b
    ]
    problems = [f"{name} is compiled by XLA: trace it without jit_compile" for name in sorted({*functions, *nodes})]
    return problems, f"{len(graph.functions)} functions, none compiled by XLA"


def _state(graph: SavedGraph) -> tuple[list[str], str]:
    """A seed in the graph repeats its stream on every replica, and a variable that is written is shared by requests."""
    problems = []
    for node in graph.served.nodes:
        definition = op_def_registry.get(node.op)
        if definition is None:
            if node.op not in graph.functions:
                problems.append(f"{node.name}: {node.op} is no operation of TensorFlow, so the server lacks it")
            continue
        seeded = definition.is_stateful and {"seed", "seed2"} <= {attribute.name for attribute in definition.attr}
        if seeded or _RANDOM.fullmatch(node.op):
            problems.append(f"{node.name}: {node.op} draws by itself: take the noise as an input")
        elif _WRITES.fullmatch(node.op):
            problems.append(f"{node.name}: {node.op} writes a variable on each request")
    return problems, f"{len(graph.served.nodes)} operations, none draws or writes"


def _outside(graph: SavedGraph) -> tuple[list[str], str]:
    """The server has no Python, and a request must not touch its files."""
    found = [f"{refusal} may reach outside of the model" for refusal in trust.refusals(graph.meta_graph)]
    return found, "nothing but pure operations"


def _variables(graph: SavedGraph) -> tuple[list[str], str]:
    """Keras's own save reads variables that the C++ loader never fills, and keeps slots and copies nobody reads."""
    read, filled = graph.served.variables, graph.restored
    problems = [f"{name} is read but never restored" for name in sorted(read - filled)]
    problems += [f"{name} is stored but no signature reads it" for name in sorted(filled - read)]
    problems += [f"{' and '.join(names)} hold the same values" for names in _copies(graph)]
    return problems, f"{len(read)} variables, each stored once and read"


def _copies(graph: SavedGraph) -> list[list[str]]:
    """Names in the checkpoint of tensors that are equal byte by byte, and not by chance or initialisation."""
    prefix = graph.folder / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        return []
    with storage.without_pattern(str(prefix.parent)) as folder:
        return _copies_in(tf.train.load_checkpoint(f"{folder}/{prefix.name}"), _bytes(prefix.parent))


def _copies_in(checkpoint: Any, num_bytes: int) -> list[list[str]]:
    shapes: Mapping[str, list[int]] = checkpoint.get_variable_to_shape_map()
    dtypes = checkpoint.get_variable_to_dtype_map()
    declared = sum(dtypes[name].size * int(tf.TensorShape(shape).num_elements()) for name, shape in shapes.items())
    if declared > num_bytes:
        return [[f"the checkpoint declares {declared} bytes in files of {num_bytes}; its tensors"]]
    same: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, shape in sorted(shapes.items()):
        if dtypes[name] == tf.string or tf.TensorShape(shape).num_elements() < _LARGEST_SHARE:
            continue
        value = checkpoint.get_tensor(name)
        if value.min() != value.max():
            same[(tuple(shape), dtypes[name], hashlib.sha256(value.tobytes()).hexdigest())].append(name)
    return [names for names in same.values() if len(names) > 1]


def _size(graph: SavedGraph) -> tuple[list[str], str]:
    """What a version takes on the server's disk and over the wire."""
    weights = graph.variable_bytes(graph.served.variables)
    program = (graph.folder / contract.SAVED_MODEL).stat().st_size
    stored = program + _bytes(graph.folder / "variables") + _bytes(graph.folder / "assets")
    allowed = _OVERHEAD * (weights + program)
    detail = f"{stored:,} bytes for {weights:,} of weights and {program:,} of graph"
    return ([f"{detail}: more than {_OVERHEAD} times as much"] if stored > allowed else []), detail


def _bytes(folder: pathlib.Path) -> int:
    return sum(path.lstat().st_size for path in files(folder))


_RULES: dict[str, Callable[[SavedGraph], tuple[list[str], str]]] = {
    "layout": _layout,
    "batch dimensions": _batch_dimensions,
    "dtypes": _dtypes,
    "string outputs": _string_outputs,
    "no XLA": _compiled,
    "no state": _state,
    "self-contained": _outside,
    "variables": _variables,
    "size": _size,
}


def _runs(graph: SavedGraph, failed: set[str]) -> list[Check]:
    """The checks that run the model; none of them where that would reach outside, or has nothing to send."""
    blocking = sorted(failed & {"self-contained", "batch dimensions"})
    if blocking:
        return [unjudged(blocking, name) for name in ("warm-up", "C++ equals Python", "independent rows")]
    replayed, problem = attempt(lambda: replay.warmup_requests(graph.folder), [])
    sent, unsent = attempt(lambda: replay.requests(graph, warmup=replayed), [])
    answers, unloaded = attempt(lambda: replay.answers(graph.folder, [*replayed, *sent]), None)
    if answers is None:
        return [outcome(name, unloaded, "") for name in ("warm-up", "C++ equals Python")] + [unjudged(["no answers"])]
    cut = len(replayed)
    problem += replay.failures(replayed, answers[:cut])
    problem += [f"no record for {name}" for name in sorted(set(graph.signatures) - {name for name, _ in replayed})]
    warmup = outcome("warm-up", problem, f"{cut} records answered in C++")
    return [warmup, *_equal(graph, sent, answers[cut:], unsent)]


def _equal(graph: SavedGraph, sent: list[wire.Request], cpp: list[replay.Answer], unsent: list[str]) -> list[Check]:
    """Every signature beside Python's, and every row beside itself in another batch."""
    python, problems = attempt(lambda: replay.in_python(graph, sent), None)
    problems = [*unsent, *problems, *(replay.compare(sent, cpp, python) if python else [])]
    detail = f"{len(graph.signatures)} signatures at batch {', '.join(map(str, replay.BATCHES))}, within 1e-6"
    equal = outcome("C++ equals Python", problems, detail)
    answered = [answer for answer in cpp if not isinstance(answer, wire.CSessionError)]
    if unsent or len(answered) < len(cpp):
        return [equal, unjudged([equal.name])]
    rows = replay.mixed_rows(sent, answered)
    return [equal, outcome("independent rows", rows, "batches of other sizes give the same rows")]
