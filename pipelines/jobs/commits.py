"""The commit protocol: how a job's output is whole, resumable and never doubled.

A job is planned as **units of work** whose names and contents do not depend on the runner. A unit writes
its files under final names that depend on the unit alone, each by renaming a finished temporary file, and
last of all its **commit record**: rows, rejected, the bytes and SHA-256 of each file, and the unit's
**fingerprint**. So a unit that was killed left no record and is done again over its own files; one that
runs twice writes the same thing twice; and a second run skips every unit whose record, checksums and
fingerprint agree, and does the others again. At the end the driver holds what was written against what
was planned, on any runner, and only then writes ``manifest.json``: without it the output is not complete.

    OUTPUT/<files of the units>           what the job is for
    OUTPUT/rejected/UNIT.jsonl            only for a unit that rejected rows: key, source, position, reason
    OUTPUT/manifest.json                  last
    OUTPUT/_work/job.json                 first: the directory is ours, and for which job
    OUTPUT/_work/command.json             how it was made, once it is complete: see ``pipelines.jobs.calls``
    OUTPUT/_work/commits/UNIT.json        one commit record a unit
    OUTPUT/_work/failures/UNIT.txt        why a unit stopped the last run
    OUTPUT/_work/content/                 hashes of the rows, where equal ones are looked for
    OUTPUT/_work/temporary/               unfinished files

``manifest.json``, ``job.json``, ``command.json`` and the commit records have checksums of their own: see
``pipelines.checksums``.
Counts come from commit records and never from the runner's counters: a retried bundle counts twice.
"""

import contextlib
import dataclasses
import json
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from .. import checksums, contract, storage
from ..checksums import AbsentError, DamagedError
from ..errors import PipelineError, Rejection, StoreError, in_a_line

MANIFEST = contract.MANIFEST
REJECTED = "rejected"
JOB = f"{contract.WORK}/job.json"
_LISTS = f"{contract.WORK}/plan/"  # of the rows of units


@dataclasses.dataclass(frozen=True)
class Unit:
    """One piece of work: everything that a worker is told, and small enough to cross any runner.

    Attributes:
        name: Also the name of its commit record. Depends on the plan alone.
        rows: How many rows it was planned to read.
        files: Its output files, relative to the output directory.
        fingerprint: Hash of the job and of what this unit reads.
        task: What to do, in plain JSON values; each pipeline has its own.
    """

    name: str
    rows: int
    files: tuple[str, ...]
    fingerprint: str
    task: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)


def _job(kind: str, fingerprint: str, units: Sequence[Unit]) -> dict[str, Any]:
    planned = [name for unit in units for name in (*unit.files, f"{REJECTED}/{unit.name}.jsonl")]
    return {"kind": kind, "fingerprint": fingerprint, "files": [*planned, f"{REJECTED}/plan.jsonl"]}


def _record_of(unit: str) -> str:
    return f"{contract.WORK}/commits/{unit}.json"


@dataclasses.dataclass(frozen=True)
class Output:
    """An output directory under the commit protocol. See the module's docstring.

    Example:
        >>> output = Output("out")
        >>> units = [Unit("part-0", rows=2, files=("part-0.txt",), fingerprint="of the unit")]
        >>> output.claim("embeddings", "of the job", units, overwrite=False)
        []
        >>> for unit in output.pending(units):
        ...     with output.writing("part-0.txt") as file:
        ...         _ = file.write(b"two rows")
        ...     output.commit(unit, rows=2, rejected=[], facts={})
        >>> output.pending(units)
        []
        >>> output.finish({"fingerprint": "of the job"}, [], output.verify(units))
        >>> [entry["path"] for entry in output.manifest()["files"]]
        ['part-0.txt']
    """

    path: str

    @property
    def _is_far(self) -> bool:
        return storage.is_address(self.path)

    def file(self, *parts: str) -> str:
        """The path of a file inside the output directory."""
        return os.path.join(self.path, *parts)

    def writing(self, name: str, described: dict[str, dict[str, Any]] | None = None) -> Any:
        """A context manager that writes the file ``name`` of this directory, whole or not at all.

        To ``described`` it adds what ``commit`` asks of the file, as it was written and not as it then lies there.
        """

        def whole(file: BinaryIO) -> None:
            if described is not None:
                described[name] = checksums.describe_open(name, file)

        place, temporary = self.file(*name.split("/")), self.file(contract.WORK, "temporary")
        lasting = not name.startswith(_LISTS)  # which every run writes anew
        return storage.replacing(place, temporary, lasting, None if described is None else whole)

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON value, indented, whole or not at all."""
        with self.writing(name) as file:
            file.write(storage.to_json(value, indent=2))

    def write_record(self, name: str, value: dict[str, Any]) -> None:
        with self.writing(name) as file:
            file.write(checksums.record_bytes(value))

    def read_record(self, name: str) -> dict[str, Any] | None:
        """A record, or None where there is none, for which a store is not asked before."""
        with contextlib.suppress(AbsentError):
            return checksums.read_record(self.file(*name.split("/")))
        return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for this process until the block ends (or the process dies).

        Raises:
            PipelineError: It is not ours, or another job holds it.
        """
        self._refuse_foreign()
        storage.make_folder(self.file(contract.WORK))
        with storage.locked(self.file(contract.WORK, "lock")) as is_ours:
            if not is_ours:
                raise PipelineError(f"another job is writing to {self.path}: wait for it or choose another output")
            yield

    def _refuse_foreign(self) -> None:
        storage.refuse_file_in_the_way(self.path)
        if storage.is_link(self.path) and not storage.exists(self.path):
            raise PipelineError(f"the output {self.path} is a link to nothing: make that folder, or choose another")
        found = storage.names(self.path)
        barely_begun = found == [contract.WORK] and set(storage.names(self.file(contract.WORK))) <= {
            "lock",
            "temporary",
        }
        if found and not barely_begun and not self._has_job():
            raise PipelineError(
                f"the output {self.path} holds {len(found)} entries that no pipeline wrote "
                f"({found[0]!r}, ...): choose a new or an empty folder"
            )

    def claim(self, kind: str, fingerprint: str, units: Sequence[Unit], overwrite: bool) -> list[str]:
        """Makes the directory this job's: resumes the same job, refuses another that has made something here.

        Args:
            kind: ``"prepared"`` or ``"embeddings"``; an output never changes its kind.
            fingerprint: Hash of inputs and options.
            units: The whole plan.
            overwrite: Remove what earlier jobs wrote here, this one's earlier runs included, and start afresh.

        Returns:
            The name of ``job.json`` where it was damaged and is made again.

        Raises:
            PipelineError: The directory belongs to another job.
        """
        job, damaged = _job(kind, fingerprint, units), []
        try:
            old = self.read_record(JOB)
        except DamagedError as error:
            damaged = [JOB]
            if overwrite:
                old = job
            elif self.is_known(fingerprint, units):
                old = None
            else:
                raise PipelineError(f"{error}: use another folder, or --overwrite") from error
        anew = overwrite or (old is not None and old != job and self.is_unmade())
        if old is not None:
            self._refuse_other(old, job, anew)
        if old is not None and anew:
            self.clear(old)
        if old is None or anew:
            self.write_record(JOB, job)
        return [] if overwrite else damaged

    def rename_job(self, kind: str, fingerprint: str, units: Sequence[Unit]) -> None:
        """Lets this job have another fingerprint; see ``claim``."""
        self.write_record(JOB, _job(kind, fingerprint, units))

    def _refuse_other(self, old: dict[str, Any], job: dict[str, Any], overwrite: bool) -> None:
        if old.get("kind") != job["kind"]:
            raise PipelineError(
                f"the output {self.path} holds {old.get('kind')}, expected {job['kind']}: choose another folder"
            )
        if old.get("fingerprint") != job["fingerprint"] and not overwrite:
            raise PipelineError(
                f"the output {self.path} was made from other inputs or options (fingerprint "
                f"{str(old.get('fingerprint'))[:12]}, now {job['fingerprint'][:12]}): "
                "use another folder, or --overwrite"
            )
        if old.get("files") != job["files"] and not overwrite:
            raise PipelineError(
                f"the output {self.path} was begun by another release, which calls its files otherwise (expected "
                f"{job['files'][0]}): use another folder, or --overwrite"
            )

    def is_unmade(self) -> bool:
        """Whether no row has been written here, so that a job with other options takes nothing away."""
        if storage.exists(self.file(MANIFEST)):
            return False
        return all((self.record(name) or {"rows": None})["rows"] == 0 for name in self.committed())

    def is_known(self, fingerprint: str, units: Sequence[Unit]) -> bool:
        """See ``is_for``; a commit record may say it too, of jobs whose fingerprint is in that of each unit."""
        of_units = ((self.record(unit.name) or {}).get("fingerprint") == unit.fingerprint for unit in units)
        return self.is_for(fingerprint) or any(of_units)

    def is_for(self, fingerprint: str) -> bool:
        """Whether it was begun by the job of this fingerprint."""
        for name in (JOB, MANIFEST):
            with contextlib.suppress(DamagedError):
                if (record := self.read_record(name)) is not None:
                    return record.get("fingerprint") == fingerprint
        return False

    def damaged_records(self, *names: str) -> list[str]:
        """Which of these records are there and are not as they were written."""
        damaged = []
        for name in names:
            try:
                self.read_record(name)
            except DamagedError:
                damaged.append(name)
        return damaged

    def forget_job(self, units: Sequence[Unit]) -> None:
        """Lets another job go on here: what it has no use for is removed, units that it plans just so stay."""
        storage.remove(self.file(MANIFEST))
        storage.remove(self.file(*JOB.split("/")))
        by_name = {unit.name: unit for unit in units}
        for name in self.committed():
            if name not in by_name or not self.is_done(by_name[name]):
                storage.remove(self.file(*_record_of(name).split("/")))

    def carry(self, earlier: "Output", units: Sequence[Unit]) -> None:
        """Takes over the units that are done in an earlier output: the same files by another name."""
        rejected = {*storage.names(self.file(REJECTED))}
        for unit in self.pending(units):
            if earlier.is_done(unit):
                record = _record_of(unit.name)
                names = [entry["path"] for entry in (earlier.record(unit.name) or {})["files"]]
                if f"{unit.name}.jsonl" in rejected:  # of a try that was killed
                    self._reject(unit.name, [])
                for name in [*names, record]:
                    storage.link(earlier.file(*name.split("/")), self.file(*name.split("/")))

    def keep_only(self, folder: str, records: Sequence[dict[str, Any]]) -> None:
        """Removes from a folder what no record names: of units that were done by an earlier plan."""
        named = {entry["path"] for record in records for entry in record["files"]}
        for name in storage.files_below(self.file(folder)):
            if f"{folder}/{name.replace(os.sep, '/')}" not in named:
                storage.remove(self.file(folder, name))
                storage.remove_folder_if_empty(os.path.dirname(self.file(folder, name)))

    def _has_job(self) -> bool:
        return storage.exists(self.file(contract.WORK, "job.json"))

    def clear(self, job: dict[str, Any]) -> None:
        """Removes what the old job wrote or had planned to write, and no other file."""
        listed: dict[str, Any] = {}
        with contextlib.suppress(DamagedError):
            listed = self.manifest() or {}
        storage.remove(self.file(MANIFEST))
        named = {*job.get("files", []), *(entry["path"] for entry in listed.get("files", []))}
        ours = [name for name in named if not os.path.isabs(name) and ".." not in name.split("/")]
        for name in ours:
            storage.remove(self.file(*name.split("/")))
        self.sweep("commits", "failures", "temporary", "plan", "content")
        for folder in {os.path.dirname(name) for name in ours} - {""}:
            storage.remove_folder_if_empty(self.file(folder))

    def sweep(self, *folders: str) -> None:
        """Empties working folders; everything below ``_work`` is ours."""
        for folder in folders:
            for name in storage.names(self.file(contract.WORK, folder)):
                storage.remove(self.file(contract.WORK, folder, name))

    def commit(
        self,
        unit: Unit,
        rows: int,
        rejected: Sequence[Rejection],
        facts: dict[str, Any],
        files: Sequence[str] | None = None,
        described: Mapping[str, dict[str, Any]] = types.MappingProxyType({}),
    ) -> None:
        """Writes a unit's rejections and then its record; its files must lie under their final names.

        Args:
            unit: What was done.
            rows: Good rows written.
            rejected: Bad rows, in the order in which they were read.
            facts: Whatever the driver will need of this unit, in plain JSON values.
            files: What it wrote, where that is not what was planned.
            described: What is known of files from when they were written; the others are read.
        """
        files = [*(unit.files if files is None else files), *self._reject(unit.name, rejected)]
        record = {
            "unit": unit.name,
            "fingerprint": unit.fingerprint,
            "planned": unit.rows,
            "rows": rows,
            "rejected": len(rejected),
            "files": [described.get(name) or self.describe(name) for name in files],
            "facts": facts,
        }
        self.write_record(_record_of(unit.name), record)
        storage.remove(self.file(contract.WORK, "failures", f"{unit.name}.txt"))  # of a try that the runner repeated

    def withdraw(self, unit: Unit) -> None:
        """Removes a unit's record, so that it is done again."""
        storage.remove(self.file(*_record_of(unit.name).split("/")))

    def _reject(self, name: str, rejected: Sequence[Rejection]) -> list[str]:
        """Writes rejections, or removes those of an earlier try; returns the name of the file, if there is one."""
        listing = f"{REJECTED}/{name}.jsonl"
        if not rejected:
            storage.remove(self.file(listing))
            return []
        with self.writing(listing) as file:
            file.writelines(storage.to_json(dataclasses.asdict(row)) for row in rejected)
        return [listing]

    def rejections(self, unit: Unit) -> list[Rejection]:
        """What a committed unit rejected."""
        listing = self.file(REJECTED, f"{unit.name}.jsonl")
        lines = storage.read(listing).splitlines() if storage.exists(listing) else []
        return [Rejection(**json.loads(line)) for line in lines]

    def reject_planned(self, rejected: Sequence[Rejection]) -> list[str]:
        """Writes the rejections of the plan itself, which belong to no unit; see ``commit``."""
        return self._reject("plan", rejected)

    def describe(self, name: str) -> dict[str, Any]:
        """Path, bytes and SHA-256 of a file of this directory."""
        return checksums.describe(self.path, name)

    def fail(self, unit: Unit, error: Exception) -> None:
        """Leaves the reason where the driver finds it: a remote runner's own report is far away and long."""
        with (
            contextlib.suppress(
                OSError, StoreError
            ),  # the disk may be what failed; the runner's report is then all there is
            self.writing(f"_work/failures/{unit.name}.txt") as file,
        ):
            file.write(in_a_line(error).encode("utf-8", "backslashreplace"))

    def record(self, name: str) -> dict[str, Any] | None:
        """A commit record, or None where the unit has not been committed, or its record is damaged."""
        with contextlib.suppress(DamagedError):
            return self.read_record(_record_of(name))
        return None

    def records(self, units: Sequence[Unit]) -> list[dict[str, Any] | None]:
        """The commit records of units, in their order: see ``record``."""
        return storage.map_files(self.record, [unit.name for unit in units], self._is_far)

    def committed(self) -> set[str]:
        """The names of the units that have a commit record."""
        return {name.removesuffix(".json") for name in storage.names(self.file(contract.WORK, "commits"))}

    def pending(self, units: Sequence[Unit]) -> list[Unit]:
        """The units still to do; a record that no longer agrees with its files is removed."""
        return self.examine(units)[0]

    def examine(self, units: Sequence[Unit]) -> tuple[list[Unit], list[str]]:
        """``pending``, and the names of files that are not as they were written, every checksum included."""
        committed = self.committed()
        done = [unit for unit in units if unit.name in committed]
        found = storage.map_files(self._damage, done, self._is_far)
        damaged = {unit.name: damage for unit, damage in zip(done, found, strict=True) if damage is not None}
        for name in damaged:
            storage.remove(self.file(*_record_of(name).split("/")))
        left = [unit for unit in units if unit.name not in committed or unit.name in damaged]
        return left, [name for damage in damaged.values() for name in damage]

    def _damage(self, unit: Unit) -> list[str] | None:
        """None for a unit that is done; else which of its files are damaged: none of one that was not done."""
        try:
            record = self.read_record(_record_of(unit.name))
            if record is None or record.get("fingerprint") != unit.fingerprint:
                return []
            return checksums.changed(self.path, checksums.entries(record)) or None
        except DamagedError:
            return [_record_of(unit.name)]

    def is_done(self, unit: Unit) -> bool:
        """Whether the unit has a commit record that agrees with the sizes of its files.

        A worker asks too: a runner that lost one worker repeats what all of them had done.
        """
        record = self.record(unit.name)
        if record is None or record.get("fingerprint") != unit.fingerprint:
            return False
        return all(storage.size(self.file(*entry["path"].split("/"))) == entry["bytes"] for entry in record["files"])

    def failures(self) -> list[str]:
        """What the units that failed in this run had to say, but those of which another try was committed."""
        folder, committed = self.file(contract.WORK, "failures"), self.committed()
        left = [name for name in storage.names(folder) if name.removesuffix(".txt") not in committed]
        return [storage.read(os.path.join(folder, name)).decode() for name in left]

    def verify(self, units: Sequence[Unit]) -> list[dict[str, Any]]:
        """Holds what was written against what was planned, every checksum included.

        Returns:
            The commit records in the order of the units.

        Raises:
            PipelineError: A unit left no record, a count does not add up, or a file differs from its record.
        """
        records = self.records(units)
        missing = [unit.name for unit, record in zip(units, records, strict=True) if record is None]
        if missing:
            raise PipelineError(
                f"{len(missing)} of {len(units)} units left no commit record ({missing[0]}, ...): "
                "the runner lost them; run the same command again to do what is missing"
            )
        whole = [record for record in records if record is not None]
        storage.map_files(lambda both: self._verify_unit(*both), list(zip(units, whole, strict=True)), self._is_far)
        return whole

    def _verify_unit(self, unit: Unit, record: dict[str, Any]) -> None:
        if record["fingerprint"] != unit.fingerprint or record["rows"] + record["rejected"] != unit.rows:
            raise PipelineError(
                f"unit {unit.name} wrote {record['rows']} rows and rejected {record['rejected']}, "
                f"expected {unit.rows} in all"
            )
        for name in checksums.changed(self.path, record["files"]):
            storage.remove(self.file(*_record_of(unit.name).split("/")))
            raise PipelineError(
                f"{self.file(name)} changed after it was written: run the same command again to redo it"
            )

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or None where the output is not complete.

        Raises:
            DamagedError: It is not as it was written.
        """
        return self.read_record(MANIFEST)

    def survey(self, fingerprint: str, units: Sequence[Unit]) -> tuple[list[Unit], bool, list[str]]:
        """What is to do: the units, whether nothing is because this very job is complete, and which files are damaged.

        Where the job is not complete there is no manifest afterwards.
        """
        pending, damaged = self.examine(units)
        beside = self.damaged_records(MANIFEST) if pending else self._damage_beside(fingerprint, units)
        is_finished = not pending and beside == []
        if not is_finished:
            storage.remove(self.file(MANIFEST))
        return pending, is_finished, damaged + (beside or [])

    def _damage_beside(self, fingerprint: str, units: Sequence[Unit]) -> list[str] | None:
        """Which files that belong to no unit are damaged; None where this job was never complete."""
        try:
            manifest = self.manifest()
            if manifest is None:
                return None
            if manifest.get("fingerprint") != fingerprint:  # one that is there is of the job whose output this is
                return [MANIFEST]
            files = checksums.entries(manifest)
            of_units = [entry for unit in units for entry in checksums.entries(self.record(unit.name) or {})]
            disagree = files[: len(of_units)] != of_units
            return [MANIFEST] if disagree else checksums.changed(self.path, files[len(of_units) :])
        except DamagedError:
            return [MANIFEST]

    def finish(self, manifest: dict[str, Any], extra_files: Sequence[str], records: Sequence[dict[str, Any]]) -> None:
        """Sweeps what no record names and writes the manifest: from here on the output is complete."""
        self.sweep("temporary", "failures", "plan")
        files = [entry for record in records for entry in record["files"]]
        files += [self.describe(name) for name in extra_files]
        self.write_record(MANIFEST, {**manifest, "files": files})
