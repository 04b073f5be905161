"""The plan of an embedding: a unit of work for each run of rows of the input, with a name and a fingerprint.

In a fingerprint is the checksum of what is read, by which a later run knows whether a unit is done. Where nothing is
done yet it decides nothing: small files of a store are then not fetched for it, but hashed by whoever reads their rows.
Until then the fingerprint of such a unit is another one, which is in no commit record.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .. import contract, storage
from ..inputs.base import BlockReference, Rows
from ..jobs import Generations
from ..jobs.commits import Output, Unit
from .lineage import SHA256, Lineage
from .slices import slices_of


def may_read_later(grown: Generations, before: Lineage, overwrite: bool) -> bool:
    """Whether no file that the lineage does not know can be of a unit that is done."""
    if overwrite:
        return True
    current = grown.current()
    return (current == 0 or before.number == current) and not grown.generation(current + 1).committed()


def units_of(blocks: Sequence[BlockReference], dataset: Rows, making: str) -> list[Unit]:
    """A unit a reference, called after its file, so that files beside it change neither its name nor its fingerprint.

    ``making`` is the fingerprint of the model and the options.
    """
    units: list[Unit] = []
    numbers: collections.Counter[tuple[str, str]] = collections.Counter()
    for block in blocks:
        place = block.split, block.file
        name = f"{block.split}-{_short(block.file)}-{numbers[place]:05d}"
        numbers[place] += 1
        if dataset.is_unread(block):
            block = dataclasses.replace(block, making=making)
        task = dataclasses.asdict(block)
        fingerprint = _fingerprint(making, block, dataset)
        units.append(Unit(name, block.rows, (f"{contract.PARTS}/{name}.parquet",), fingerprint, task))
    return units


def _fingerprint(making: str, block: BlockReference, dataset: Rows) -> str:
    return storage.fingerprint([making, block.split, block.file, block.rows, dataset.digest(block)])


def is_unread(unit: Unit) -> bool:
    """Whether its fingerprint is not yet known, or of one that is joined those of some slices."""
    return any(one.making for one in slices_of(unit))


def as_read(unit: Unit, dataset: Rows, sha256: Mapping[str, str]) -> Unit:
    """A unit with its own fingerprint, of files that were read and have these checksums.

    Example:
        >>> from tfvae.pipelines.inputs.images import Images
        >>> from tfvae.pipelines.formats.files import Content, Found
        >>> files = {"a.png": Content("", size=9)}
        >>> rows = Images("s3://b", (), "string", "embed", files, Found("s3://b", ("a.png",)), runs=(("a.png",),))
        >>> [unread] = units_of(rows.blocks(None), rows, "of the model")
        >>> read = as_read(unread, rows, {"a.png": "89ea0ce1"})
        >>> [read.fingerprint] == [unit.fingerprint for unit in units_of(rows.blocks(None), rows.read_as(
        ...     read.task["sha256"]), "of the model")]
        True
    """
    slices = slices_of(unit)
    unread = [one for one in slices if one.making]
    if not unread:
        return unit
    read = {file: sha256.get(file, "") for one in unread for file in dataset.files_of(one)}
    dataset = dataset.read_as(read)
    planned = unit.task.get("fingerprints", [unit.fingerprint])
    own = [
        _fingerprint(one.making, one, dataset) if one.making else old for one, old in zip(slices, planned, strict=True)
    ]
    task = unit.task if "slices" in unit.task else {"split": unit.task["split"], "slices": [unit.task]}
    task = task | {SHA256: read} | ({"fingerprints": own} if "fingerprints" in task else {})
    return dataclasses.replace(unit, fingerprint=own[0] if len(own) == 1 else storage.fingerprint(own), task=task)


def facts(unit: Unit) -> dict[str, Any]:
    """What the commit record of a unit says of files that nobody had read before."""
    return {SHA256: unit.task[SHA256]} if SHA256 in unit.task else {}


def all_read(output: Output, units: Sequence[Unit], dataset: Rows) -> Rows:
    """The rows, of whose files each has a checksum: those that were unread by the commit records."""
    records = output.records([unit for unit in units if is_unread(unit)])
    told = [record["facts"].get(SHA256, {}) for record in records if record is not None]
    return dataset.read_as({file: sha256 for one in told for file, sha256 in one.items()})


def _short(file: str) -> str:
    """A path as a part of a name: its end as far as it is plain, and a hash of all of it.

    Example:
        >>> _short("2026/Nov 26.parquet")
        '2026-Nov-26-parquet-a9297a5fb135'
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "-", file)[-40:].strip("-")
    return f"{plain}-{storage.fingerprint(file)[:12]}"
