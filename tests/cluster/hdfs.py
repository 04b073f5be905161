"""HDFS on loopback, and what lies in it as Hadoop's own client says: nothing here goes through the package."""

import contextlib
import functools
import pathlib
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import ClassVar

from tests.cluster import jars
from tests.stores import Bucket, free_port

_SOURCE = pathlib.Path(__file__).with_name("Hdfs.java")
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


@contextlib.contextmanager
def hdfs_server() -> Iterator[str]:
    """A NameNode and a DataNode in a process of their own until the block ends; its endpoint, see ``Hdfs.java``."""
    path, port = ":".join(map(str, jars.fetch("hadoop"))), free_port()
    with tempfile.TemporaryDirectory() as folder:
        line = ["java", *_JVM, f"-Djava.io.tmpdir={folder}", "-cp", path, str(_SOURCE), folder, str(port)]
        with open(f"{folder}/log", "wb") as log:
            server = subprocess.Popen(
                line, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        try:
            assert server.stdout.readline() == b"ready\n", pathlib.Path(folder, "log").read_text(errors="replace")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.communicate()


class HdfsFolder(Bucket):
    """A folder of HDFS, as a bucket."""

    endpoint_variable: ClassVar[str] = "HDFS_ENDPOINT"  # which nothing reads: the address has it all

    @functools.cached_property
    def _root(self) -> str:
        return self._ask("POST").decode()

    @property
    def address(self) -> str:
        return f"{self._root}/{self.name}"

    def make(self) -> "HdfsFolder":
        return self  # the first file makes it

    def keys(self, prefix: str = "") -> list[str]:
        """Every file whose name begins so."""
        try:
            listing = self._ask("GET", prefix.rpartition("/")[0]).decode()
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return []
        found = [path.removeprefix(f"/{self.name}/") for path in listing.splitlines()]
        return sorted(key for key in found if key.startswith(prefix))
