"""A SavedModel: found by name, checked before the job starts, loaded once a process."""

import dataclasses
import os
import threading
from collections.abc import Sequence
from typing import Any

from .. import checksums, contract, storage, trust
from ..errors import PipelineError, first_line
from ..inputs.base import Rows

OUTPUTS = contract.OUTPUTS[contract.EMBED]


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """One version of a model: its folder, name, number (None where the folder has none) and checksum.

    ``trusted`` says that the user lets it reach outside of itself: see ``pipelines.trust``.
    """

    path: str
    name: str
    version: int | None
    sha256: str
    trusted: bool = False

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of the model; no path, because it would differ from machine to machine."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


def find_model(path: str, trusted: bool = False) -> ModelVersion:
    """The model version that a path names; for a base folder the one with the largest number.

    Raises:
        PipelineError: There is no SavedModel.

    Example:
        >>> tf.saved_model.save(tf.Module(), "saved_models/empty/2")
        >>> tf.saved_model.save(tf.Module(), "saved_models/empty/10")
        >>> find_model("saved_models/empty").version
        10
    """
    folder = storage.absolute(path)
    storage.refuse_other_encodings(folder)
    file = contract.SAVED_MODEL
    if not storage.exists(os.path.join(folder, file)):
        versions = {name: contract.version_number(name) or 0 for name in storage.names(folder)}
        numbered = [name for name in versions if contract.version_number(name) is not None]
        if storage.is_address(folder):  # where a version is not renamed: its model is sent last
            numbered = [name for name in numbered if storage.exists(os.path.join(folder, name, file))]
        if not numbered:
            raise PipelineError(f"{path} holds no SavedModel: expected {path}/{file} or a numbered version below it")
        folder = os.path.join(folder, max(numbered, key=versions.__getitem__))
        if not storage.exists(os.path.join(folder, file)):
            raise PipelineError(f"{folder} is the newest version but holds no {file}: export it again or remove it")
    base, name = os.path.split(folder)
    version = contract.version_number(name)
    return ModelVersion(
        folder, name if version is None else os.path.basename(base), version, _checksum(folder), trusted
    )


def _checksum(folder: str) -> str:
    """A hash of every file of the SavedModel and its name."""
    files = storage.files_below(folder)
    found = {file: storage.sha256(os.path.join(folder, file)) for file in files}
    _refuse_damaged(folder, found)
    return storage.fingerprint(sorted([file, sha256] for file, sha256 in found.items()))


def _refuse_damaged(folder: str, found: dict[str, str]) -> None:
    """An export says what each of its files is; those in assets.extra no job reads, so that a card may be edited."""
    listing = os.path.join(contract.EXTRA, contract.CHECKSUMS)
    if listing not in found:
        return
    listed = checksums.entries(checksums.read_record(os.path.join(folder, listing)))
    for entry in listed:
        is_read = not entry["path"].startswith(f"{contract.EXTRA}/")
        if is_read and found.get(entry["path"].replace("/", os.sep)) != entry["sha256"]:
            raise PipelineError(f"{folder}/{entry['path']} is missing or damaged: export the model again")


_loaded: dict[tuple[str, str, bool], Any] = {}
_loading = threading.Lock()


def load(model: ModelVersion) -> Any:
    """The model, loaded once in this process however many threads and stages ask; the last one is kept.

    Raises:
        PipelineError: TensorFlow cannot load it, or it may reach outside of itself and is not trusted.
    """
    import tensorflow as tf

    with _loading:
        known = (model.path, model.sha256, model.trusted)
        if known not in _loaded:
            with storage.local_folder(model.path) as folder:
                if folder != model.path and _checksum(folder) != model.sha256:
                    raise PipelineError(f"{model.path} changed while the job ran: run the same command again")
                if not model.trusted:  # in each process: the files of another machine are other files
                    trust.check(folder)
                try:
                    with storage.without_pattern(folder) as name:
                        loaded = tf.saved_model.load(name)
                except Exception as error:  # TensorFlow raises many kinds for a damaged SavedModel
                    raise PipelineError(f"{model.path} cannot be loaded: {first_line(error)}") from error
            _loaded.clear()
            _loaded[known] = loaded
        return _loaded[known]


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature that gives embeddings.

    Attributes:
        name: The signature's name.
        input: Name of the input for the observations.
        shape: An observation's shape; None where any size is taken.
        dtype: An observation's dtype.
        dimension: Length D of an embedding.
        condition: A condition's shape, where the model asks for one.
    """

    name: str
    input: str
    shape: tuple[int | None, ...]
    dtype: str
    dimension: int
    condition: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """A signature that gives a row's ELBO from noise.

    Attributes:
        name: The signature's name.
        input: Name of the input for the observations.
        dimension: Length of z.
        num_samples: How many samples of z to take.
    """

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
    others = [key for key in inputs if key not in (contract.NOISE, contract.CONDITION)]
    noise, outputs = inputs.get(contract.NOISE), signatures[name].structured_outputs
    if (
        len(others) != 1
        or (contract.CONDITION in inputs) != (signature.condition is not None)
        or noise is None
        or noise.shape.rank != 3
        or noise.shape[2] is None
        or contract.ELBO not in outputs
    ):
        raise PipelineError(
            f"signature {name} of {model.path} takes {sorted(inputs)} and returns {sorted(outputs)}, "
            "expected an observation, the condition that the embedding takes, noise [B, K, D] with D known, and elbo"
        )
    return Score(name, others[0], int(noise.shape[2]), num_samples)


def choose_signature(
    model: ModelVersion, rows: Rows, name: str | None, stddev: bool, condition: str | None = None
) -> Signature:
    """The signature that is for such rows, or the one of that name.

    Bytes are never scaled here to fit ``embed``: only the model knows how it was trained.

    Args:
        model: The version that is loaded.
        rows: What is embedded.
        name: The signature's name; None for the one that is for such rows.
        stddev: Whether standard deviations are wanted too.
        condition: The column with each row's condition, if there is one.

    Raises:
        PipelineError: The model has no such signature, it gives no embedding, or it asks for a condition and there is
            none, or the other way round.
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
    observations = {key: value for key, value in inputs.items() if key != contract.CONDITION}
    (input_name, spec), *others = observations.items()
    if others or spec.shape.rank is None or spec.shape.rank < 1:
        found = {key: f"{value.dtype.name} {value.shape}" for key, value in sorted(inputs.items())}
        raise PipelineError(f"signature {wanted} of {model.path} takes {found}, expected one input with a batch axis")
    asked = _condition(inputs.get(contract.CONDITION), f"signature {wanted} of {model.path}", condition)
    dimension = _dimension(outputs, wanted, model, OUTPUTS if stddev else OUTPUTS[:1])
    return Signature(wanted, input_name, tuple(spec.shape[1:]), spec.dtype.name, dimension, asked)


def refuse_other_columns(model: ModelVersion, standardized: bool, columns: str | None, told: bool) -> None:
    """Raise PipelineError where rows are standardized and those that the model was trained on were not, or else.

    And where their columns are others, or come in another order.

    Args:
        model: The version, whose card may say it.
        standardized: Whether the rows are.
        columns: See ``checksums.columns_sha256``.
        told: Whether the user named the signature, by which rows are as it takes them.
    """
    known = _trained_on(model)
    trained, own = known.get("standardized"), known.get("columns_sha256")
    if told:
        return
    if trained not in (None, standardized):
        raise PipelineError(
            f"{model.path} was trained on columns that tfvae prepare --standardize had changed, and these rows are as "
            f"they are: name that dataset by --prepared-with, or write --signature {contract.EMBED} if they were "
            "standardized elsewhere"
            if trained
            else f"{model.path} was trained on columns as they are, and these rows are standardized: take a dataset "
            f"that was prepared without --standardize, or write --signature {contract.EMBED} if the model's were "
            "standardized elsewhere"
        )
    if columns and own and columns != own:
        raise PipelineError(
            f"the columns of these rows are not those that {model.path} was trained on, or come in another order "
            "or in other units: give them in the order and by the names of the dataset that it was trained on, and "
            f"name that by --prepared-with, or write --signature {contract.EMBED} if they mean the same"
        )


def _trained_on(model: ModelVersion) -> dict[str, Any]:
    """What the card says of the data; nothing where there is none."""
    card = os.path.join(model.path, contract.EXTRA, contract.MODEL_JSON)
    found = storage.read_json(card).get("trained_on") if storage.exists(card) else None
    return found if isinstance(found, dict) else {}


def _condition(spec: Any, signature: str, column: str | None) -> tuple[int, ...] | None:
    """The shape of the condition that a signature takes, if the job and the signature agree that there is one."""
    if spec is None:
        if column is not None:
            raise PipelineError(f"{signature} takes no condition: leave --condition {column} out")
        return None
    if column is None:
        raise PipelineError(
            f"{signature} takes a condition {list(spec.shape[1:])}: name the column that holds it with --condition"
        )
    shape = tuple(spec.shape[1:])
    if spec.dtype.name != "float32" or None in shape:
        raise PipelineError(
            f"{signature} takes a condition {spec.dtype.name} {list(shape)}, expected float32 of one shape"
        )
    return shape


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
