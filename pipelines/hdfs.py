"""HDFS for ``pipelines.stores``, which asks it as it asks PyArrow's file systems, through the client ``hdfs-native``.

PyArrow's own goes through a Java machine and an installation of Hadoop; this client speaks with NameNodes and DataNodes
itself. It reads ``core-site.xml`` and ``hdfs-site.xml`` where ``HADOOP_CONF_DIR`` or ``HADOOP_HOME`` lead to, and takes
a Kerberos ticket, ``HADOOP_TOKEN_FILE_LOCATION`` or ``HADOOP_USER_NAME`` from the environment.

Unlike a store HDFS shows a file while it is written, and renames one over another at once. So a file is written under
the name of a draft and renamed: as on a disk, it is there whole or not at all.
"""

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from . import extras
from .errors import PipelineError

_BLOCK = 16 << 20
_ATTEMPTS = {"dfs.client.failover.max.attempts": "6"}  # of a NameNode; by itself it tries for three minutes
_REPORTED = 10.0  # seconds within which DataNodes tell of the blocks of a closed file
_NOBODY = re.compile("No NameNode hosts found")


class Hdfs:
    """Every HDFS that is named; a name is ``NAMENODE:PORT/FOLDER/FILE``, or begins with a nameservice."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}

    def _at(self, name: str) -> tuple[Any, str]:
        """The client for a name, and the path that it is told."""
        authority, _, path = name.partition("/")
        if authority not in self._clients:
            with extras.needed("hdfs"):
                import hdfs_native
            with _said_in_a_line(authority):
                self._clients[authority] = hdfs_native.Client(f"hdfs://{authority}", _ATTEMPTS)
        return self._clients[authority], f"/{path}"

    def get_file_info(self, asked: Any) -> Any:
        """Of a name a ``pyarrow.fs.FileInfo``, of a ``FileSelector`` the list of them."""
        if not isinstance(asked, str):
            return list(self._below(asked.base_dir, asked.recursive))
        client, path = self._at(asked)
        with _said_in_a_line(asked):
            try:
                return _info(asked, client.get_file_info(path))
            except FileNotFoundError:
                return _info(asked, None)

    def _below(self, name: str, recursive: bool) -> Iterator[Any]:
        """What is in a folder; one that is gone, the others of which are still being read, holds nothing."""
        client, path = self._at(name)
        with _said_in_a_line(name):
            try:
                found = list(client.list_status(path))
            except FileNotFoundError:
                found = []
        for status in found:
            inner = f"{name}/{status.path.rpartition('/')[2]}"
            if status.path != path:  # which is a file, and in its own list
                yield _info(inner, status)
                if recursive and status.isdir:
                    yield from self._below(inner, recursive)

    def delete_file(self, name: str) -> None:
        """Removes a file, which may be gone already."""
        client, path = self._at(name)
        with _said_in_a_line(name):
            client.delete(path, False)

    def delete_dir(self, name: str) -> None:
        """Removes a folder and what is in it; it may be gone already."""
        client, path = self._at(name)
        with _said_in_a_line(name):
            client.delete(path, True)

    def open_input_file(self, name: str) -> "_File":
        """A file to read, all of it.

        The client leaves out a file's last block until a DataNode has reported it. Where the NameNode lets files be
        closed before that (``dfs.namenode.file.close.num-committed-allowed``), one would be empty for a moment.
        """
        client, path = self._at(name)
        until = time.monotonic() + _REPORTED
        with _said_in_a_line(name):
            while True:
                whole, file = client.get_file_info(path).length, client.read(path)
                if len(file) >= whole:
                    return _File(name, file)
                if time.monotonic() > until:
                    raise OSError(f"{len(file)} of its {whole} bytes can be read: it is still being written")
                time.sleep(0.02)

    def put(self, name: str, content: Any, draft: str) -> None:
        """Makes a file of bytes, whole or not at all; ``draft`` is another name there, which it has until then."""
        self._put(name, (memoryview(content)[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)), draft)

    def copy(self, source: str, name: str, draft: str) -> None:
        """See ``put``; the bytes are those of another file."""
        with self.open_input_file(source) as file:
            self._put(name, file.blocks(), draft)

    def _put(self, name: str, blocks: Iterable[Any], draft: str) -> None:
        import hdfs_native

        client, path = self._at(name)
        hidden = self._at(draft)[1]
        with _said_in_a_line(name):
            try:
                with client.create(hidden, hdfs_native.WriteOptions(overwrite=True)) as file:
                    for block in blocks:
                        file.write(block)
                    with contextlib.suppress(RuntimeError):  # erasure-coded files have no such call
                        file.hsync()
                client.mkdirs(path.rpartition("/")[0] or "/", create_parent=True)
                client.rename(hidden, path, True)
            except BaseException:
                with contextlib.suppress(Exception):
                    client.delete(hidden, False)
                raise


class _File:
    """An open file, as PyArrow has it; it never asks past the end, for which the client has no error."""

    def __init__(self, name: str, reader: Any):
        self._name, self._reader, self._at = name, reader, 0

    def size(self) -> int:
        return len(self._reader)

    def seek(self, offset: int) -> None:
        self._at = offset

    def readinto(self, buffer: Any) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self._read(self.size())

    def blocks(self) -> Iterator[bytes]:
        while block := self._read(_BLOCK):
            yield block

    def _read(self, size: int) -> bytes:
        size = min(size, self.size() - self._at)
        if size <= 0:
            return b""
        with _said_in_a_line(self._name):
            content = self._reader.read_range(self._at, size)
            if len(content) < size:
                raise OSError(f"{len(content)} bytes came from {self._at} on, expected {size}")
        self._at += size
        return content

    def close(self) -> None:
        """It holds nothing open."""

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _info(name: str, status: Any) -> Any:
    from pyarrow import fs

    if status is None:
        return fs.FileInfo(name, fs.FileType.NotFound)
    if status.isdir:
        return fs.FileInfo(name, fs.FileType.Directory)
    return fs.FileInfo(name, fs.FileType.File, size=status.length, mtime_ns=status.modification_time * 1_000_000)


@contextlib.contextmanager
def _said_in_a_line(name: str) -> Iterator[None]:
    """What the client says against it as an ``OSError``, without the server's stack."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        if _NOBODY.search(str(error)):
            authority = name.partition("/")[0]
            raise PipelineError(
                f"hdfs://{authority} has no port, and no hdfs-site.xml names its NameNodes: add the port, such as "
                f"hdfs://{authority}:8020, or let HADOOP_CONF_DIR lead to the files of your cluster"
            ) from error
        said = re.split(r"\\n\\tat |\n\tat ", str(error))[0].replace("\\n", " ")
        raise OSError(re.sub(r'^RPCError\("(?:\w+\.)*(\w+)", "', r"\1: ", said)) from error
