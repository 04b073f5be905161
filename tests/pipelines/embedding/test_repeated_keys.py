"""A key's later rows are rejected, and only those, also where hashes of 64 bits cannot tell keys apart."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.embedding import repeated_keys
from pipelines.formats import equals
from pipelines.jobs.commits import Output, Unit


def weak_hashes(keys):
    """Every key has the hash of the others, but for the second word that decides."""
    return np.fromiter((hash(key) if key.startswith("\0") else 0 for key in keys), np.int64)


@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize("rows_a_file", [1 << 21, 2])
def test_later_rows_of_a_key_are_rejected_and_no_others(weak, rows_a_file, tmp_path, monkeypatch):
    monkeypatch.setattr(equals, "_ROWS_A_FILE", rows_a_file)
    if weak:
        monkeypatch.setattr(repeated_keys, "_hashes", weak_hashes)
    output, units = Output(str(tmp_path)), []
    for keys in (["a", "b", "c"], ["d"], ["b", "e", "a", "b"]):
        name = f"all-{len(units)}"
        task = {"split": "all", "file": name, "first": 0, "rows": len(keys)}
        units.append(Unit(name, len(keys), (f"{name}.parquet",), "", task))
        with output.writing(units[-1].files[0]) as file:
            pq.write_table(pa.table({"key": keys}), file)
        output.commit(units[-1], len(keys), [], {})
    repeated_keys.reject(output, units)
    kept = [pq.read_table(output.file(unit.files[0]))["key"].to_pylist() for unit in units]
    assert kept == [["a", "b", "c"], ["d"], ["e"]]
    assert [[row.reason for row in output.rejections(unit)] for unit in units] == [
        [],
        [],
        [f"duplicate key, first at all-0:{place}" for place in (1, 0, 1)],
    ]
