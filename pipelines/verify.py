"""What lies in a folder that a command wrote, held file by file against the checksums of when it was written.

Nothing is changed and nothing but bytes is read: neither TensorFlow nor Beam is needed, and a stranger's folder is
safe.
"""

import dataclasses
import os
from typing import Any

from . import checksums, contract, storage
from .checksums import DamagedError
from .errors import PipelineError

_MENDED = "tfvae verify --mend, or the command that wrote it, makes these files and no others again"
_REMEDY = {
    "prepared": _MENDED,
    "embeddings": _MENDED,
    "export": "export the run again, which writes a new version: tfvae export RUN MODEL",
    "run": "bring these files back from a copy, or train the run again: tfvae train --overwrite",
}
_EXTRA = f"{contract.EXTRA}/{contract.CHECKSUMS}"


@dataclasses.dataclass(frozen=True)
class Verified:
    """What was found in a folder.

    Attributes:
        path: The folder; of a model's folder that of its newest version.
        kind: ``"prepared"``, ``"embeddings"``, ``"export"`` or ``"run"``.
        files: How many files were held against their checksums.
        bytes: How many bytes they have by their records.
        damaged: Names of files that are missing or not as they were written.
        strange: Names of data files that lie among those of it and are not of it: whoever opens the folder whole reads
            them too.
        is_sealed: Whether the list of files has a checksum of its own; of an earlier release it has none.
        listed: What the records say of each file.
    """

    path: str
    kind: str
    files: int
    bytes: int
    damaged: tuple[str, ...]
    is_sealed: bool = True
    listed: tuple[dict[str, Any], ...] = dataclasses.field(default=(), repr=False)
    strange: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        """What to do about damage of a folder of this kind."""
        return _REMEDY[self.kind]

    @property
    def exit_code(self) -> int:
        """0 where every file is as it was written and no other lies among them, else 1."""
        return 1 if self.damaged or self.strange else 0

    def table(self) -> str:
        """The result for a terminal, a line an entry."""
        lines = [("folder", self.path), ("holds", self.kind), ("files", f"{self.files:,} ({self.bytes:,} bytes)")]
        lines += [] if self.is_sealed else [("not verified", "the list itself: it is of an earlier release")]
        lines += [("damaged", name) for name in self.damaged] or [("damaged", "none")]
        lines += [("to mend it", self.remedy)] if self.damaged else []
        lines += [
            ("not of it", f"{name}: move it away, whoever opens the folder reads it too") for name in self.strange
        ]
        return "\n".join(f"{name:<16} {value}" for name, value in lines)


def verify(path: str) -> Verified:
    """Holds a prepared dataset, embeddings, an export or a run against its checksums.

    Args:
        path: Its folder; of an export the version, or the model's folder, of which the newest version is taken.

    Raises:
        PipelineError: The folder holds none of these, is not complete, or was written without checksums.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> _ = preprocess.run("digits", None, "prepared/digits")
        >>> with storage.replacing("prepared/digits/report.html", "temporary") as file:
        ...     _ = file.write(b"another report")
        >>> verify("prepared/digits").damaged
        ('report.html',)
    """
    folder = storage.absolute(path)
    if storage.exists(os.path.join(folder, _generation(folder) + contract.MANIFEST)):
        return _output(folder)
    if storage.exists(os.path.join(folder, contract.WORK)):
        raise PipelineError(
            f"{path} is not complete (it has no {contract.MANIFEST}): the command that began it ends it"
        )
    if storage.exists(os.path.join(folder, contract.CHECKSUMS)):
        return _listed(folder, "run", contract.CHECKSUMS)
    folder = _version(folder)
    if storage.exists(os.path.join(folder, *_EXTRA.split("/"))):
        return _listed(folder, "export", _EXTRA)
    for file, remedy in ((contract.SAVED_MODEL, "export it again"), ("model.keras", "train it again")):
        if storage.exists(os.path.join(folder, file)):
            raise PipelineError(f"{folder} has no checksums, an earlier release or another program wrote it: {remedy}")
    if not storage.exists(folder):
        raise PipelineError(f"{path} is not there: expected a prepared dataset, embeddings, an export or a run")
    raise PipelineError(f"{path} holds no prepared dataset, embeddings, export or run: nothing in it has checksums")


def _version(folder: str) -> str:
    """The newest version in a model's folder; any other folder as it is."""
    numbers = {name: contract.version_number(name) or 0 for name in storage.names(folder)}
    versions = [name for name in numbers if contract.version_number(name) is not None]
    return os.path.join(folder, max(versions, key=numbers.__getitem__)) if versions else folder


def _output(folder: str) -> Verified:
    """A prepared dataset or embeddings: what the manifest lists, and the records by which it is mended."""
    damaged: list[str] = []
    below = _generation(folder)

    def read(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        try:
            record = checksums.read_record(os.path.join(folder, *name.split("/")))
            listed = checksums.entries(record) if name not in jobs else []
            return record, [entry | {"path": below + entry["path"]} for entry in listed]
        except DamagedError:
            damaged.append(name)
            return {}, []

    jobs = dict.fromkeys(f"{where}{contract.WORK}/job.json" for where in ("", below)) | {below + contract.COMMAND: None}
    commits, manifest_name = f"{below}{contract.WORK}/commits", below + contract.MANIFEST
    manifest, listed = read(manifest_name)
    names = [name for name in jobs if storage.exists(os.path.join(folder, *name.split("/")))]
    names += [f"{commits}/{name}" for name in storage.names(os.path.join(folder, *commits.split("/")))]
    records = [read(name) for name in names]
    kind = next((record["kind"] for record, _ in [(manifest, []), *records] if "kind" in record), None)
    if kind not in ("prepared", "embeddings"):
        raise PipelineError(f"{folder}/{contract.MANIFEST} is not that of a prepared dataset or of embeddings")
    entries = listed or [entry for _, files in records for entry in files]
    damaged += checksums.changed(folder, entries)
    sealed = not manifest or checksums.is_sealed(manifest)
    found = _verified(folder, kind, [manifest_name, *names], entries, damaged, sealed)
    return dataclasses.replace(found, strange=_strange(folder, entries))


def _strange(folder: str, entries: list[dict[str, Any]]) -> tuple[str, ...]:
    """Shards and parts that lie beside those that are listed."""
    known = {entry["path"] for entry in entries}
    data = {path.rpartition("/")[0] for path in known if _is_data(path.rpartition("/")[2])}
    beside = [
        f"{below}/{name}" if below else name
        for below in sorted(data)
        for name in storage.names(os.path.join(folder, *below.split("/")) if below else folder)
        if _is_data(name)
    ]
    return tuple(path for path in beside if path not in known)


def _is_data(name: str) -> bool:
    return not name.startswith((".", "_")) and (name.endswith(".parquet") or ".tfrecord-" in name)


def _generation(folder: str) -> str:
    """Where the files of an output lie that has generations: how their paths begin; of another nothing."""
    pointed = storage.pointed_at(os.path.join(folder, contract.CURRENT)) or ""
    above, _, number = pointed.rpartition("/")
    return f"{pointed}/" if above == contract.GENERATIONS and contract.version_number(number) is not None else ""


def _listed(folder: str, kind: str, listing: str) -> Verified:
    """A run or an export, every file of which is listed."""
    try:
        entries = checksums.entries(checksums.read_record(os.path.join(folder, *listing.split("/"))))
    except DamagedError:
        return _verified(folder, kind, [listing], [], [listing])
    return _verified(folder, kind, [listing], entries, checksums.changed(folder, entries))


def _verified(
    folder: str,
    kind: str,
    records: list[str],
    entries: list[dict[str, Any]],
    damaged: list[str],
    is_sealed: bool = True,
) -> Verified:
    sizes = [entry["bytes"] for entry in entries] + [
        storage.size(os.path.join(folder, *name.split("/"))) or 0 for name in records
    ]
    return Verified(folder, kind, len(sizes), sum(sizes), tuple(damaged), is_sealed, tuple(entries))
