"""A cluster of JVMs with Beam's job server.

(Beam's own services, of the job server and of each executor for its workers, know no address to listen on but all.)
"""

import abc
import json
import pathlib
import subprocess
import urllib.request
from typing import Any, NamedTuple

from tests.cluster.processes import Cluster

RESTARTS = 1  # of what fails, before the job does
_JVM = (
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"),
    "-XX:-UsePerfData",  # it is a file in /tmp, whatever java.io.tmpdir says
    *("-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.showShortLogName=true"),
    # What both reach into with Java 17; their own scripts open these too.
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "net", "io", "nio", "time", "util")),
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang.invoke", "util.concurrent")),
    *(f"--add-opens=java.base/sun.{name}=ALL-UNNAMED" for name in ("nio.ch", "nio.cs", "security.action")),
)


class Ended(NamedTuple):
    """How the last job ended by the cluster's own account, and what failed on the way, were it made good or not."""

    state: str
    failures: list[str]


class Jvms(Cluster):
    """See ``Cluster``: executors of one slot each.

    Args:
        folder: See ``Cluster``.
        jar: Of the cluster and Beam's job server together.
    """

    slots = 2

    def __init__(self, folder: pathlib.Path, jar: pathlib.Path):
        super().__init__(folder)
        self._jar = jar

    @abc.abstractmethod
    def lose_an_executor(self) -> None:
        """Kills one with ``SIGKILL``; another takes its place, as whoever keeps a cluster sees to."""

    @abc.abstractmethod
    def last_job(self) -> Ended:
        """The job that ended last."""

    def _ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._web}{path}", timeout=10) as response:
            return json.load(response)

    @property
    def _flags(self) -> tuple[str, ...]:
        return (*_JVM, f"-Djava.io.tmpdir={self._scratch}")

    def _java(
        self, name: str, main: str, *arguments: str, jvm: tuple[str, ...] = (), **variables: str
    ) -> subprocess.Popen:
        line = ("java", "-Xmx512m", *self._flags, *jvm, "-cp", str(self._jar), main, *arguments)
        return self._start(name, *line, **variables)

    def _job_server(self, main: str, *arguments: str, jvm: tuple[str, ...] = (), **variables: str) -> None:
        ports = ("--job-port", str(self._jobs), "--artifact-port", "0", "--expansion-port", "0")
        staged = ("--artifacts-dir", str(self._folder / "staged"))
        self._java("jobserver", main, *arguments, *staged, "--job-host", "127.0.0.1", *ports, jvm=jvm, **variables)
