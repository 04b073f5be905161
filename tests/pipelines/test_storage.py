"""One door to the file system: nothing in pipelines goes round it."""

import ast
import pathlib
import resource

import numpy as np
import pytest

from pipelines import embed, preprocess, storage
from pipelines.errors import PipelineError, in_a_line

from .conftest import ROOT

# Functions of ``os`` and ``os.path`` that only look at the text of a path, the environment or the terminal.
_NO_FILES = {"basename", "dirname", "environ", "execve", "fsencode", "fspath", "get_terminal_size", "isabs", "join"} | {
    *("SEEK_CUR", "SEEK_SET", "abspath", "path", "relpath", "sep", "split", "splitext"),
    *(
        "_exit",
        "close",
        "dup",
        "dup2",
        "killpg",
        "pipe",
        "read",
        "set_blocking",
        "write",
    ),  # of processes and what they have open
}
_NUMPY = {"load", "save", "savez", "memmap", "fromfile", "loadtxt", "genfromtxt", "DataSource"}
_MODULES = {"fcntl", "glob", "mmap", "pathlib", "shutil", "tempfile"}
# These take a path or an open file: only an open file.
_OPENERS = {"ZipFile", "ParquetFile", "read_table", "GzipFile"}
_OPEN = {"file", "raw", "buffer"}


def round_the_door(source: str) -> list[str]:
    """What in a module's source touches the file system by itself."""
    found, tree = [], ast.parse(source)
    kinds = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and ast.unparse(call.func) == "isinstance"]
    asked = {node for call in kinds for node in call.args[1:]}  # what an array is, and not where it comes from
    for node in ast.walk(tree):
        if node in asked:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in _MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if node.module in _MODULES | {"os", "os.path"} else []
        elif isinstance(node, ast.Attribute):
            of = ast.unparse(node.value)
            if (of in ("os", "os.path") and node.attr not in _NO_FILES) or (of == "np" and node.attr in _NUMPY):
                found.append(f"{of}.{node.attr}")
            found += [ast.unparse(node)] if node.attr == "open" and of in ("gzip", "io", "bz2", "lzma") else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += ["open"] if name == "open" else []
            if name.split(".")[-1] in _OPENERS:
                first = ast.unparse([*node.args, *(word.value for word in node.keywords)][0])
                found += [] if first in _OPEN or first.startswith("storage.") else [f"{name}({first})"]
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_goes_round_the_door(path):
    if path.name not in ("storage.py", "stores.py"):  # the two halves of the door
        assert round_the_door(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "open(path)", "import glob", "from pathlib import Path", "os.path.isfile(path)", "os.stat(path)",
        "os.walk(folder)", "np.load(path, mmap_mode='r')", "from os import stat", "gzip.open(path)",
        "zipfile.ZipFile(path)", "pq.read_table(path)", "gzip.GzipFile(path)", "open_them = os.scandir",
    ],
)  # fmt: skip
def test_ways_round_are_seen(line):
    assert round_the_door(line)


def test_a_path_is_no_file():
    assert not round_the_door("os.path.join(a, os.path.basename(b)); zipfile.ZipFile(storage.open_to_read(path))")
    assert not round_the_door("isinstance(array, np.memmap)") and round_the_door("isinstance(open(path), np.memmap)")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a" * 256, "holds the name 'a{40}'... of 256 bytes, expected at most 255"),
        ("ü" * 128, "holds the name 'ü{40}'... of 256 bytes, expected at most 255"),
        ("x/" * 1920 + "x", "has 3,[89].. bytes, expected at most 3,840"),
    ],
    ids=["letters", "letters of two bytes", "path"],
)
def test_a_name_that_no_file_can_have_is_told_before_a_job_begins(name, told, tmp_path):
    np.save(tmp_path / "x.npy", np.ones([9, 2], np.float32))
    long, rows, out = str(tmp_path / name), str(tmp_path / "x.npy"), str(tmp_path / "out")
    jobs = [(preprocess.run, ("npy", long, out)), (preprocess.run, ("npy", rows, long)), (embed.run, (long, rows, out))]
    for job, arguments in jobs:
        with pytest.raises(PipelineError, match=told):
            job(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_names_as_long_as_file_systems_take_are_paths(tmp_path):
    for name in ("a" * 255, "ü" * 127):
        path = storage.absolute(str(tmp_path / name))
        storage.make_folder(path)
        assert storage.is_folder(path)
    assert storage.absolute(f"s3://lake/{'a' * 300}").endswith("a" * 300)  # of a store's key


def test_the_door_itself_goes_round():
    assert round_the_door((pathlib.Path(ROOT) / "pipelines" / "storage.py").read_text(encoding="utf-8"))


def test_what_cannot_be_written_is_named(tmp_path):
    """A limit of the file's size stands for the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with (
            pytest.raises(OSError) as caught,
            storage.replacing(str(tmp_path / "part"), str(tmp_path / "temporary")) as file,
        ):
            file.write(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert in_a_line(caught.value) == f"{tmp_path}/part: File too large"
    assert not (tmp_path / "part").exists() and not list((tmp_path / "temporary").iterdir())
