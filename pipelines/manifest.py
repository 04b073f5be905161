"""The manifest of a prepared dataset, as all who read the dataset read it.

It needs neither Beam nor pyarrow, so that ``tfvae.data`` can ask it too.
"""

import dataclasses
import os
from typing import Any

from . import checksums, contract, storage


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What was written last of a prepared dataset; every value may be a stranger's.

    Attributes:
        path: Where it lies.
        record: What it holds: see ``preprocess``.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> _ = preprocess.run("digits", None, "prepared/digits")
        >>> manifest = Manifest.find("prepared/digits")
        >>> manifest.options["source"], manifest.has_missing, manifest.standardized, manifest.columns_sha256
        ('digits', False, None, None)
    """

    path: str
    record: dict[str, Any]

    @classmethod
    def find(cls, folder: str) -> "Manifest | None":
        """That of a folder; None where it has none, as a dataset of another program.

        Raises:
            DamagedError: It is not as it was written.
        """
        path = os.path.join(folder, contract.MANIFEST)
        return cls(path, checksums.read_record(path)) if storage.exists(path) else None

    @property
    def options(self) -> dict[str, Any]:
        """What ``preprocess`` was given, by its own names; empty where the manifest does not say it."""
        found = self.record.get("options")
        return found if isinstance(found, dict) else {}

    @property
    def has_missing(self) -> bool:
        """Whether numbers of x may be missing: NaN."""
        return self.options.get("missing") is True

    @property
    def standardized(self) -> Any:
        """What each column was made of, as JSON: see ``Standardization``; None where columns are as they came."""
        return self.record.get("standardized")

    @property
    def columns_sha256(self) -> str | None:
        """See ``checksums.columns_sha256``."""
        return checksums.columns_sha256(self.record)

    def files(self) -> dict[str, dict[str, Any]]:
        """The files that it lists, by their names.

        Raises:
            DamagedError: It lists none.
        """
        return {entry["path"]: entry for entry in checksums.entries(self.record, self.path)}
