"""A version appears whole and under a number of its own: killed, raced, starved of disk, beside what others left."""

import errno
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.exporting.export_worker import export
from tfvae.checks.process import run_in_subprocess
from tfvae.checks.wire import CSessionError
from tfvae.exporting import versions

WORKER = pathlib.Path(__file__).with_name("export_worker.py")
FILES = {
    "saved_model.pb", "fingerprint.pb", "variables/variables.index", "variables/variables.data-00000-of-00001",
    "assets.extra/tf_serving_warmup_requests", "assets.extra/model.json", "assets.extra/model_card.md",
    "assets.extra/checksums.json",
}  # fmt: skip


def names(base: pathlib.Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def write(base: pathlib.Path, version: int | None = None) -> int:
    with versions.writing(base, version) as (folder, number):
        (folder / "saved_model.pb").write_bytes(b"whole")
    return number


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", 2**63, np.float32(1)])
def test_a_version_is_a_positive_integer(tmp_path, version):
    with pytest.raises(ValueError, match="expected a whole number from 1"):
        write(tmp_path / "m", version)
    assert not (tmp_path / "m").exists()


def test_any_kind_of_integer_will_do(tmp_path):
    assert write(tmp_path, np.int64(7)) == 7 and names(tmp_path) == ["7"]


def test_numbers_are_those_that_the_server_reads(tmp_path):
    for name in ("007", "٣", "12a", "9" * 30, "-4", "3.5", "incomplete-8"):
        (tmp_path / name).mkdir()
    assert versions.existing(tmp_path) == [7]
    with pytest.raises(ValueError, match="exists already"):
        write(tmp_path, 7)
    assert write(tmp_path) == 8
    write(tmp_path, 2**63 - 1)
    with pytest.raises(ValueError, match="expected a whole number"):
        write(tmp_path)


@pytest.mark.parametrize("kind", ["file", "empty folder", "dangling link"])
def test_what_has_the_name_is_never_replaced(tmp_path, kind):
    taken = tmp_path / "1"
    with pytest.raises(ValueError, match=r"Version 1 of .* exists already"), versions.writing(tmp_path, 1):
        {"file": taken.touch, "empty folder": taken.mkdir, "dangling link": lambda: taken.symlink_to("x")}[kind]()
    assert names(tmp_path) == ["1"] and os.path.lexists(taken)
    with pytest.raises(ValueError, match="exists already"):
        write(tmp_path, 1)


def test_two_at_once_get_numbers_of_their_own_and_see_nothing_of_each_other(tmp_path):
    with versions.writing(tmp_path) as (outer, first):
        (outer / "saved_model.pb").write_bytes(b"outer")
        with versions.writing(tmp_path) as (_, second):
            with pytest.raises(ValueError, match=r"Version 2 of .* is being written by another export"):
                write(tmp_path, 2)
            assert len(names(tmp_path)) == 2
        assert (first, second) == (1, 2) and outer.exists()
        assert write(tmp_path) == 3
    assert names(tmp_path) == ["1", "2", "3"]
    assert (tmp_path / "1/saved_model.pb").read_bytes() == b"outer"


def test_leftovers_of_the_dead_go_and_nothing_else(tmp_path):
    dead, elsewhere = tmp_path / "m/incomplete-5-abcd_123", tmp_path / "elsewhere"
    for folder in (dead / "variables", elsewhere, tmp_path / "m/incomplete-notes"):
        folder.mkdir(parents=True)
        (folder / "kept").touch()
    (tmp_path / "m/incomplete-6-abcdefgh").symlink_to(elsewhere)
    (dead / "link").symlink_to(elsewhere)
    (tmp_path / "m/incomplete-7-abcdefgh").touch()
    held = (
        "import fcntl, os, sys; folder = os.open(sys.argv[1], os.O_RDONLY);"
        "fcntl.flock(folder, fcntl.LOCK_EX); print(flush=True); input()"
    )
    alive = tmp_path / "m/incomplete-8-abcdefgh"
    alive.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", held, str(alive)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        assert write(tmp_path / "m") == 9
        assert not dead.exists() and alive.exists()
        process.kill()
    assert write(tmp_path / "m") == 10
    others = ["incomplete-6-abcdefgh", "incomplete-7-abcdefgh", "incomplete-notes"]
    assert names(tmp_path / "m") == ["10", "9", *others] and names(elsewhere) == ["kept"]


def test_without_locks_nothing_is_removed_and_versions_are_still_whole(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.EBADF, "as NFS answers for a folder")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / "incomplete-1-abcdefgh").mkdir()
    with versions.writing(tmp_path) as (_, first):
        assert (first, write(tmp_path)) == (2, 3)
    assert names(tmp_path) == ["2", "3", "incomplete-1-abcdefgh"]


def test_a_block_that_raises_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), versions.writing(tmp_path) as (folder, _):
        (folder / "variables").mkdir()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def worker(*arguments: object, prefix: tuple[str, ...] = ()) -> list:
    environment = {**os.environ, "PYTHONPATH": str(WORKER.parents[2])}
    command = [*prefix, sys.executable, str(WORKER), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_whole(version: pathlib.Path) -> None:
    """All files, and an answer from both loaders, which is the same."""
    assert {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()} == FILES
    x = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 64)
    python = tf.saved_model.load(str(version)).signatures["embed"](x=tf.constant(x))
    (answer,) = run_in_subprocess(version, [("embed", {"x": x})])
    assert not isinstance(answer, CSessionError), answer
    np.testing.assert_allclose(answer["embedding"], python["embedding"], atol=1e-6)
    assert json.loads((version / "assets.extra/model.json").read_text())["version"] == int(version.name)


@pytest.mark.slow
def test_a_killed_export_is_never_seen_and_the_next_one_works(tmp_path):
    seen = worker("kill", tmp_path / "m", 10)
    assert len(seen) == 10
    for after in seen:
        leftovers = [name for name in after if not name.isdecimal()]
        assert len(leftovers) <= 1 and all(name.startswith("incomplete-") for name in leftovers), after
    assert any(len(after) > 1 for after in seen), "no export was killed before its folder was there"
    before = versions.existing(tmp_path / "m")
    export(tmp_path / "m")
    assert names(tmp_path / "m") == sorted(str(n) for n in [*before, before[-1] + 1])
    for version in (tmp_path / "m").iterdir():
        assert_whole(version)


@pytest.mark.slow
def test_exports_at_once_all_come_out_whole(tmp_path):
    assert worker("race", tmp_path / "m", 3) == [0, 0, 0]
    assert names(tmp_path / "m") == ["1", "2", "3"]
    for version in (tmp_path / "m").iterdir():
        assert_whole(version)


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    private = ("unshare", "--mount", "--map-root-user")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*private, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True).returncode
    ):
        pytest.skip("mount namespaces of an unprivileged user are not allowed here")
    *starved, last = worker("disk", tmp_path, 0.02, 0.3, 0.7, 0.9, 0.97, 0.99, 1.5, prefix=private)
    for result in starved:
        assert result["kind"] == "OSError" and "No space left on device" in result["error"], result
        assert result["left"] == {}, result
    assert last["error"] == "" and set(last["left"]) == {f"1/{file}" for file in FILES}


@pytest.mark.parametrize("place", ["taken", "taken/deeper"])
def test_a_file_in_the_place_of_a_folder_is_told(tmp_path, place):
    (tmp_path / "taken").write_text("mine")
    with (
        pytest.raises(ValueError, match=r"taken.* is a file, or lies in one, expected a folder"),
        versions.writing(tmp_path / place),
    ):
        raise AssertionError("nothing is written")
    assert (tmp_path / "taken").read_text() == "mine"
