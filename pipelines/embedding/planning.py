"""The plan of an embedding: a unit of work for each run of rows of the input, with a name and a fingerprint."""

import collections
import dataclasses
import re
from collections.abc import Sequence

from .. import contract, storage
from ..inputs.base import BlockReference, Rows
from ..jobs.commits import Unit


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
        fingerprint = storage.fingerprint([making, *place, block.rows, dataset.digest(block)])
        task = dataclasses.asdict(block)
        units.append(Unit(name, block.rows, (f"{contract.PARTS}/{name}.parquet",), fingerprint, task))
    return units


def _short(file: str) -> str:
    """A path as a part of a name: its end as far as it is plain, and a hash of all of it.

    Example:
        >>> _short("2026/Nov 26.parquet")
        '2026-Nov-26-parquet-a9297a5fb135'
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "-", file)[-40:].strip("-")
    return f"{plain}-{storage.fingerprint(file)[:12]}"
