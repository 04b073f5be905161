"""What the driver hands to a worker grows with the unit's rows, not with the plan."""

import io

import numpy as np
import pyarrow as pa

from pipelines.sources import Plan, Schema
from pipelines.sources.plan import located, together
from pipelines.sources.work_lists import WorkList, write_work_list


def plan_of_files(count: int, split: str | None = None) -> Plan:
    rows = together([located([f"key-{i}"], f"{i:04d}.png", [i], split if i % 2 else None) for i in range(count)])
    return Plan(Schema((1,), "uint8", None), rows, [])


def test_a_list_names_the_files_of_its_own_rows_only():
    file = io.BytesIO()
    write_work_list(file, plan_of_files(500), np.array([7, 3, 7, 499]), {3: "why"})
    rows = WorkList(pa.ipc.open_file(file.getvalue()).read_all()).rows
    assert rows["file"].combine_chunks().dictionary.to_pylist() == ["0007.png", "0003.png", "0499.png"]
    assert rows["file"].to_pylist() == ["0007.png", "0003.png", "0007.png", "0499.png"]
    assert rows["key"].to_pylist() == ["key-7", "key-3", "key-7", "key-499"]
    assert rows["reason"].to_pylist() == [None, "why", None, None]


def test_splits_are_those_of_the_rows_and_empty_where_there_is_none():
    plan = plan_of_files(5, "test")
    assert plan.splits.tolist() == ["", "test", "", "test", ""]
    assert [text or None for text in plan.splits] == plan.rows["split"].to_pylist()
    assert plan_of_files(3).splits.tolist() == ["", "", ""]


def test_keys_are_hashed_once(monkeypatch):
    plan, spelt = plan_of_files(50), []
    keys = Plan._keys
    monkeypatch.setattr(Plan, "_keys", lambda self: spelt.append(self) or keys(self))
    assert plan.without_repeated_keys() is plan
    assert plan.digests.shape == (50, 2) and len({*map(tuple, plan.digests.tolist())}) == 50
    assert len(spelt) == 1
