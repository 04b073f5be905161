"""The files of a run or an export that are shared, their checksums, and what is refused among those that come."""

import hashlib
import json
import os
import pathlib
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from tfvae.arguments import check_path
from tfvae.checks import litert, litert_session
from tfvae.exporting import versions
from tfvae.exporting.provenance import Provenance
from tfvae.pipelines import contract, storage, trust
from tfvae.pipelines.errors import PipelineError

CARD, LICENSE, SUMS = "README.md", "LICENSE", "SHA256SUMS"
MODEL = "model.keras"

_RECORDS = ("history.csv", "evaluation.json")  # of a run, beside run.json
_EXTRA = "|".join((contract.WARMUP, contract.ANSWERS, contract.MODEL_JSON, contract.MODEL_CARD, contract.CHECKSUMS))
_TOP = "|".join(map(re.escape, (CARD, LICENSE, SUMS, MODEL, contract.MODEL_JSON, "run.json", *_RECORDS)))
_VERSION = r"saved_model\.pb|fingerprint\.pb|model\.tflite|variables/variables\.(index|data-\d{5}-of-\d{5})"
_OURS = re.compile(rf"{_TOP}|[1-9][0-9]{{0,18}}/({_VERSION}|{contract.EXTRA}/({_EXTRA}))", re.ASCII)
_LARGEST_CONFIG = 16 << 20  # bytes of a model's config.json
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def is_ours(name: str) -> bool:
    """Whether tfvae writes a file of that name into what it shares.

    Example:
        >>> [is_ours(name) for name in ("model.keras", "3/saved_model.pb", "../model.keras", "model.py", "model.pkl")]
        [True, True, False, False, False]
    """
    return _OURS.fullmatch(name) is not None


def of(
    source: str | os.PathLike[str], known: Provenance | None = None, model: str | None = None
) -> dict[str, bytes | pathlib.Path]:
    """What is shared of a run, or of an export's largest version: names with paths or contents, checksums too.

    Args:
        source: The run, the version or the model's folder.
        known: What is known of a run's model, for its card; an export has its card.
        model: The Python file that defines classes of a run's own: see ``runs.load``.

    Raises:
        ValueError: If it is neither a run nor an export.
    """
    check_path(source=source)
    path = pathlib.Path(source)
    found = _of_run(path, known or Provenance(), model) if (path / MODEL).is_file() else _of_export(path)
    if (path / LICENSE).is_file():
        found[LICENSE] = path / LICENSE
    return found | {SUMS: checksums(found)}


def _of_run(run: pathlib.Path, known: Provenance, model: str | None) -> dict[str, bytes | pathlib.Path]:
    from tfvae import runs
    from tfvae.exporting import saved_model

    found: dict[str, bytes | pathlib.Path] = {name: run / name for name in (MODEL, *_RECORDS) if (run / name).is_file()}
    if (run / "run.json").is_file():
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        found["run.json"] = storage.to_json({key: value for key, value in record.items() if key != "data"}, indent=2)
    with tempfile.TemporaryDirectory() as folder:  # the card says what the signatures are, so there have to be some
        base = pathlib.Path(folder, run.resolve().name)
        extra = pathlib.Path(saved_model.export(runs.load(run, model), base, 1, [1], known), contract.EXTRA)
        found[contract.MODEL_JSON] = (extra / contract.MODEL_JSON).read_bytes()
        found[CARD] = (extra / contract.MODEL_CARD).read_bytes()
    return found


def _of_export(path: pathlib.Path) -> dict[str, bytes | pathlib.Path]:
    numbers = versions.existing(path)
    folder = path / str(numbers[-1]) if numbers else path
    number = contract.version_number(folder.resolve().name)
    whole = (folder / contract.SAVED_MODEL).is_file() or litert_session.holds(folder)
    if number is None or not whole:
        raise ValueError(f"{path} is neither a run, with {MODEL}, nor an export, with a numbered version.")
    below = (one.relative_to(folder).as_posix() for one in sorted(folder.rglob("*")) if one.is_file())
    found: dict[str, bytes | pathlib.Path] = {
        f"{number}/{name}": folder / name for name in below if is_ours(f"{number}/{name}")
    }
    if (folder / contract.EXTRA / contract.MODEL_CARD).is_file():
        found[CARD] = folder / contract.EXTRA / contract.MODEL_CARD
    return found


def checksums(found: Mapping[str, bytes | pathlib.Path]) -> bytes:
    """SHA-256 of files, by name, as ``sha256sum`` writes and checks them.

    Example:
        >>> checksums({"a": b"text"})[:16]
        b'982d9e3eb996f559'
    """
    lines = [
        f"{hashlib.sha256(one).hexdigest() if isinstance(one, bytes) else storage.sha256(str(one))}  {name}\n"
        for name, one in sorted(found.items())
    ]
    return "".join(lines).encode()


def judge(folder: pathlib.Path) -> None:
    """Read what has come, running none of it.

    Raises:
        ValueError: If a file is no plain one or not as the checksums say, or if loading the model would run code or
            reach outside of it.
    """
    _verify(folder)
    if (folder / MODEL).exists():
        _refuse_code(folder / MODEL)
    for path in folder.glob(f"*/{contract.SAVED_MODEL}"):
        try:
            trust.check(str(path.parent))
        except PipelineError as error:
            raise ValueError(f"{str(error).partition('. It was')[0]}: not taken.") from error
    for path in folder.glob(f"*/{contract.LITERT}"):
        custom = litert.read(path.parent).custom
        if custom:
            raise ValueError(f"{path.name} has operations that are not LiteRT's own, such as {custom[0]}: not taken.")


def _verify(folder: pathlib.Path) -> None:
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not _is_folder(path)}
    for name, path in names.items():
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ValueError(f"{name} is no plain file: not taken.")
    if SUMS not in names:
        return
    lines = names.pop(SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    told = {match[2]: match[1] for match in map(_SUM.fullmatch, lines) if match}
    for name in sorted(names.keys() | {name for name in told if is_ours(name)}):
        if name not in names or told.get(name) != storage.sha256(str(names[name])):
            raise ValueError(f"{name} is not as {SUMS} says: it was changed or cut on its way. Nothing was taken.")


def _is_folder(path: pathlib.Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _refuse_code(path: pathlib.Path) -> None:
    """A Lambda layer is a program in the config; Keras refuses to load one too, unless it is told to trust it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                raise ValueError(f"its config.json is larger than {_LARGEST_CONFIG} bytes")
            config = json.loads(archive.read("config.json"))
        classes = set(_classes(config))
    except (KeyError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ValueError(f"{path.name} is no model that Keras has saved: {error}.") from error
    if classes & {"Lambda", "__lambda__"}:
        raise ValueError(f"{path.name} has a Lambda layer, which is a program of whoever made it: not taken.")


def _classes(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        yield str(config.get("class_name"))
        config = list(config.values())
    for one in config if isinstance(config, list) else ():
        yield from _classes(one)
