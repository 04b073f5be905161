"""Object stores: the door does there what it does here, and the jobs read and write there as they do here."""

import contextlib
import inspect
import os
import sys

import numpy as np
import pyarrow.fs
import pytest

from pipelines import storage, stores
from pipelines.errors import PipelineError, StoreError
from tests.faults import unreliable

RNG = np.random.default_rng(0)


def write(path: str, content: bytes) -> None:
    with storage.replacing(path, os.path.dirname(path)) as file:
        file.write(content)


def test_the_halves_of_the_door_have_one_face():
    for name, function in vars(stores).items():
        mine = getattr(storage, name, None)
        if inspect.isfunction(function) and mine is not None and name not in ("absolute", "is_address"):
            parameters = list(inspect.signature(inspect.unwrap(function)).parameters)
            assert list(inspect.signature(inspect.unwrap(mine)).parameters) == parameters, name


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://key:secret@bucket/x", "an address s3://... holds a name and a password: leave them out"),
        ("s3:///x", "is neither a local path nor s3://BUCKET/NAME, gs://BUCKET/NAME or hdfs://NAMENODE:PORT/NAME"),
        ("s3://b*/x", "is neither a local path nor"),
        ("https://host/x", "is neither a local path nor"),
        ("hdfs:///x", "write it so, mount it, or copy it to a file system that every worker sees"),
        ("hdfs://user:secret@host/x", "holds a name and a password"),
        ("hdfs://host:8020/a/b:c", "holds a colon, which no file of HDFS may have: give it another name"),
    ],
)
def test_other_addresses_are_refused_and_no_password_is_said(address, message):
    with pytest.raises(PipelineError, match=message.replace("*", r"\*")) as caught:
        storage.absolute(address)
    assert "secret" not in str(caught.value)


def test_an_address_has_one_spelling():
    assert storage.absolute("s3://bucket//a/b/") == "s3://bucket/a/b"


def seen_at(root: str) -> dict[str, object]:
    """What the door says of the same files, wherever they lie."""
    relative = lambda paths: sorted(path.removeprefix(root) for path in paths)  # noqa: E731
    places = ("", "/a", "/a/b", "/a/b/1.txt", "/none", "/a/[x].bin", "/empty")
    asked = (storage.exists, storage.is_file, storage.is_folder, storage.is_link, storage.size, storage.names)
    told: dict[str, object] = {f"{f.__name__} {place}": f(root + place) for f in asked for place in places}
    told["files"] = sorted(storage.files_below(root))
    told["files but"] = sorted(storage.files_below(root, but=("_", "1")))
    for pattern in ("*", "a/*", "a/*/*", "a/**/*.txt", "**", "**/*.txt", "a/b/[12].txt", "a/b/[!1].txt", "a/?/?.txt"):
        told[pattern] = relative(storage.matching(f"{root}/{pattern}"))
    told["escaped"] = relative(storage.matching(f"{root}/a/{storage.escaped('[x].bin')}"))
    told["entries"] = sorted(storage.entries(f"{root}/a"))
    told["digest"] = storage.sha256(f"{root}/a/[x].bin")
    with storage.open_to_read(f"{root}/a/[x].bin") as file:
        told["seek"] = (file.seek(700_000), file.read(5), file.seek(-3, 2), file.read(), file.seek(2), file.readline())
    told["mapped"] = storage.map_file(f"{root}/a/[x].bin").read(7), storage.map_file(f"{root}/empty").read()
    told["array"] = storage.map_array(f"{root}/x.npy")[1].tolist()
    with storage.local_folder(f"{root}/a") as folder:
        told["local"] = sorted(storage.files_below(folder)), storage.read(f"{folder}/b/1.txt")
    return told


def changed_at(root: str) -> list[object]:
    """What comes of changes."""
    storage.link(f"{root}/a/b/1.txt", f"{root}/c/2.txt")
    storage.remove(f"{root}/a/b/1.txt")
    storage.remove(f"{root}/a/b/1.txt")
    storage.remove_folder(f"{root}/c/d")
    storage.point(f"{root}/current", "generations/1", f"{root}/temporary")
    storage.point(f"{root}/current", "generations/2", f"{root}/temporary")
    with contextlib.suppress(RuntimeError), storage.replacing(f"{root}/a/half", f"{root}/temporary") as file:
        file.write(b"half")
        raise RuntimeError
    storage.make_folder(f"{root}/a")
    return [
        storage.read(f"{root}/c/2.txt"), storage.pointed_at(f"{root}/current"), storage.pointed_at(f"{root}/none"),
        [name for name in storage.names(root) if name != "temporary"], storage.exists(f"{root}/a/half"),
    ]  # fmt: skip


def assert_the_door_says_the_same(bucket, root) -> None:
    """Of files in a store and of the same ones in a folder, before and after changes."""
    files = {
        "a/b/1.txt": b"one", "a/b/.hidden.txt": b"", "a/.h/3.txt": b"3", "a/[x].bin": RNG.bytes(900_000), "empty": b"",
        "_note/1.txt": b"", "a/\xe9 %41+.txt": b"an odd name",
    }  # fmt: skip
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    np.save(root / "x.npy", np.arange(12).reshape(3, 4))
    there = f"{bucket.address}/some/files"
    for name in storage.files_below(str(root)):
        write(f"{there}/{name}", (root / name).read_bytes())
        assert bucket.get(f"some/files/{name}") == (root / name).read_bytes()
    seen = seen_at(there)
    for asked, found in seen_at(str(root)).items():
        assert seen[asked] == found, asked
    assert changed_at(there) == changed_at(str(root))


@pytest.mark.parametrize("store", ["bucket", pytest.param("google_bucket", marks=pytest.mark.slow)])
def test_the_door_says_of_a_store_what_it_says_of_a_folder(store, tmp_path, request):
    assert_the_door_says_the_same(request.getfixturevalue(store), tmp_path / "files")


def test_a_lock_is_one_holders(bucket, monkeypatch):
    monkeypatch.setattr(stores, "_BEAT", 0.1)
    monkeypatch.setattr(stores, "_DEAD", 1.0)
    lock = f"{bucket.address}/lock"
    with storage.locked(lock) as mine, storage.locked(lock) as again:
        assert (mine, again) == (True, False)
    bucket.put("lock/dead", b'{"host": "another", "process": 1, "beat": 3}')
    with storage.locked(lock) as mine:
        assert mine and len(bucket.keys("lock")) == 1
    assert bucket.keys("lock") == []


def assert_refused_at_once(bucket, monkeypatch, how: str) -> None:
    path = f"{bucket.address}/a"
    doors = [storage.read, storage.exists, storage.names, storage.identify, lambda path: write(path, b"1")]
    refused = pytest.raises(StoreError, match=r"(s3|gs)://.*/a: .*renew the credentials, or ask for the right")
    with unreliable(bucket.endpoint, repr(how)) as proxy:
        monkeypatch.setenv(bucket.endpoint_variable, proxy.endpoint)
        stores.forget_clients()
        for count, door in enumerate(doors, 1):
            with refused as caught:
                door(path)
            assert len(str(caught.value).splitlines()) == 1 and proxy.asked() == count
    assert bucket.keys() == []


def test_expired_credentials_are_one_request_and_one_sentence(bucket, monkeypatch):
    assert_refused_at_once(bucket, monkeypatch, "expired")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["expired", "unauthorized"])
def test_google_refuses_in_one_request_and_one_sentence_too(how, google_bucket, monkeypatch):
    assert_refused_at_once(google_bucket, monkeypatch, how)


def test_hdfs_without_its_extra_or_a_port_says_what_to_do(monkeypatch, tmp_path):
    stores.forget_clients()
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    with pytest.raises(PipelineError, match=r"add the port, such as hdfs://cluster:8020, or let HADOOP_CONF_DIR"):
        storage.read("hdfs://cluster/a")
    stores.forget_clients()
    monkeypatch.setitem(sys.modules, "hdfs_native", None)
    with pytest.raises(ModuleNotFoundError, match=r"hdfs_native is not installed: pip install '.*\[hdfs\]'"):
        storage.read("hdfs://cluster/a")


def test_a_file_that_the_library_closed_is_a_sentence(bucket):
    """As PyArrow does where a request for the file failed; a file that its reader closed is the reader's mistake."""
    bucket.put("a", b"content")
    file = storage.open_to_read(f"{bucket.address}/a", 0)
    file._file.close()
    for asked in (lambda: file.read(3), lambda: file.seek(0, 2)):
        with pytest.raises(StoreError, match=r"s3://.*/a: .*try again later: .*closed file"):
            asked()
    file.close()
    with pytest.raises(ValueError):
        file.read(3)


def test_a_store_that_never_answered_is_not_waited_for_as_long_as_one_that_did(monkeypatch):
    """By the limits that Google's library is given; a file that is not there is an answer, a refusal is none."""
    asked, limits = [], {}
    said = OSError("google::cloud::Status(UNAVAILABLE: Could not create a OAuth2 access token to authenticate)")

    class Google:
        def __init__(self, retry_time_limit, **settings):
            self._limit = retry_time_limit.total_seconds()

        def get_file_info(self, name):
            asked.append(self._limit)
            if name == "lake/none":
                raise FileNotFoundError
            if limits.get("offline"):
                raise said
            return pyarrow.fs.FileInfo(name, pyarrow.fs.FileType.File)

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(pyarrow.fs, "GcsFileSystem", Google)
    stores.forget_clients()
    limits["offline"] = True
    for _ in range(2):
        with pytest.raises(StoreError, match=r"gs://lake/a: .*, see that there is a network and that credentials"):
            storage.exists("gs://lake/a")
    limits["offline"] = False
    with pytest.raises(FileNotFoundError):
        storage.exists("gs://lake/none")
    assert storage.exists("gs://lake/a") and asked == [15, 15, 15, 60]
    stores.forget_clients()
