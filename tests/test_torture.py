"""A small part of `make torture`, and that it would notice what it looks for."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import torture
from pipelines import preprocess


@pytest.mark.slow
def test_commands_that_are_killed_leave_nothing_half_and_go_on(tmp_path):
    found = torture.run(tmp_path, kills=1, minutes=5, seed=0)
    assert found.keys() == {"prepare", "train on arrays", "train on streams", "export", "embed"}
    for name, torn in found.items():
        assert torn.kills >= 1 and not any(torn.faults), (name, torn)


class Again:
    """In the place of ``Forks``: the command that follows a kill leaves these files, or fails."""

    def __init__(self, files: dict[str, bytes], status: int, log: pathlib.Path):
        self._files, self._status, self.log = files, status, log

    def start(self, arguments, settings) -> None:
        for name, content in self._files.items():
            (pathlib.Path(arguments[-1]) / name).write_bytes(content)

    def end(self) -> int:
        return self._status


def after(files: dict[str, bytes], folder: pathlib.Path, status: int = 0) -> torture.Torn:
    """What is found of an output of ``files`` where ``a`` and ``b`` are expected."""
    command = torture.Command(lambda output: [output], torture.files, lambda output: [], lambda output: False)
    (folder / "log").write_text("error: no")
    (folder / "out").mkdir()
    torn = torture.Torn(1.0, 1.0)
    torture.again(Again(files, status, folder / "log"), command, folder / "out", {"a": b"1", "b": b"2"}, torn)
    return torn


@pytest.mark.parametrize(
    ("files", "faults"),
    [
        ({"a": b"1", "b": b"2"}, ([], [], [], [], [])),
        ({"a": b"1"}, ([], ["b"], [], [], [])),
        ({"a": b"1", "b": b"2", "c": b""}, ([], [], ["c"], [], [])),
        ({"a": b"1", "b": b"3"}, ([], [], [], ["b"], [])),
    ],
)
def test_what_differs_after_a_kill_is_counted(files, faults, tmp_path):
    assert after(files, tmp_path).faults == faults


def test_a_command_that_is_refused_after_a_kill_is_counted(tmp_path):
    assert after({}, tmp_path, status=1).exits == ["1: error: no"]


def test_half_an_output_is_noticed(tmp_path):
    preprocess.run("digits", None, str(tmp_path / "whole"))
    assert torture.half_output(tmp_path / "whole") == []
    (tmp_path / "whole" / "report.html").write_bytes(b"")
    assert torture.half_output(tmp_path / "whole") == ["whole/report.html is damaged"]
    (tmp_path / "parts").mkdir()
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "parts" / "a.parquet")
    assert torture.half_output(tmp_path) == []
    content = (tmp_path / "parts" / "a.parquet").read_bytes()
    (tmp_path / "parts" / "a.parquet").write_bytes(content[:-3])
    assert len(torture.half_output(tmp_path)) == 1
