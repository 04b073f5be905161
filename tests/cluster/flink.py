"""A Flink cluster of its own on loopback: one JobManager, two TaskManagers of one slot, Beam's job server.

(Beam's own services, of the job server and of each TaskManager for its workers, know no address to listen on
but all.)
Four JVMs with free ports, each the leader of a process group of its own, so that a TaskManager's Python workers
die with it at the end however it ended. Everything that they write lies in one folder.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from tests.cluster import jars

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLOTS = 2  # TaskManagers of one slot each
RESTARTS = 1  # of a job before it fails
_START_SECONDS = 90
_JVM = (
    *("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"),
    "-XX:-UsePerfData",  # it is a file in /tmp, whatever java.io.tmpdir says
    *("-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.showShortLogName=true"),
    # Flink reaches into these with Java 17; its own scripts open them too.
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "net", "io", "nio", "time", "util")),
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
)
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"


class Flink:
    """The cluster. ``beam_args`` are the options with which a pipeline runs on it.

    Args:
        folder: For configuration, logs and whatever Flink and the job server keep; must exist.
        jar: Of Flink and Beam's job server together.
    """

    def __init__(self, folder: pathlib.Path, jar: pathlib.Path):
        self._folder, self._jar = folder, jar
        self._rpc, self._rest, self._jobs = _free_ports(3)
        self._processes: list[subprocess.Popen] = []
        self.task_managers: list[subprocess.Popen] = []

    @property
    def beam_args(self) -> list[str]:
        environment = json.dumps({"command": str(self._folder / "worker.sh"), "env": _worker_environment(self._folder)})
        return [
            *("--runner", "PortableRunner", "--job_endpoint", f"127.0.0.1:{self._jobs}"),
            *("--environment_type", "PROCESS", "--environment_config", environment, "--parallelism", str(SLOTS)),
        ]

    def start(self) -> None:
        """Returns when the job server takes jobs and the slots are there."""
        (self._folder / "flink-conf.yaml").write_text(self._configuration())
        script = self._folder / "worker.sh"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m tfvae.pipelines.jobs.worker "$@"\n')
        script.chmod(0o755)
        self._java("jobmanager", _JOB_MANAGER, "--configDir", str(self._folder), "--host", "127.0.0.1")
        for _ in range(SLOTS):
            self.add_task_manager()
        master = ("--flink-master", f"127.0.0.1:{self._rest}", "--artifacts-dir", str(self._folder / "staged"))
        ports = ("--job-port", str(self._jobs), "--artifact-port", "0", "--expansion-port", "0")
        self._java("jobserver", jars.MAIN, *master, "--job-host", "127.0.0.1", *ports)
        self.wait_for(self._is_ready, "the cluster to start", _START_SECONDS)

    def add_task_manager(self) -> None:
        name = f"taskmanager-{len(self.task_managers)}"
        self.task_managers.append(self._java(name, _TASK_MANAGER, "--configDir", str(self._folder)))

    def stop(self) -> None:
        """Kills every process group. A leader is reaped last, so that its number cannot be another's by then."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def workers(self) -> list[int]:
        """Process numbers of the Python workers that live."""
        groups = {process.pid for process in self.task_managers}
        return [pid for pid, group, command in _processes() if group in groups and "sdk_worker_main" in command]

    def jobs(self) -> list[dict[str, Any]]:
        """Flink's own account of the jobs so far, in the order of their starts: ``jid``, ``state`` and more."""
        return sorted(self._ask("/jobs/overview")["jobs"], key=lambda job: job["start-time"])

    def failures(self, job: str) -> list[str]:
        """What made the tasks of a job stop, newest first; a job that was restarted has some too."""
        return [entry["stacktrace"] for entry in self._ask(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]]

    def logs(self) -> str:
        """The end of every process's log."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self._folder.glob("*.log"))
        )

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Polls until the condition holds and returns what it gave.

        Raises:
            TimeoutError: It did not, with the logs.
        """
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds} s for {what}\n{self.logs()}")
            time.sleep(0.01)
        return found

    def _is_ready(self) -> bool:
        dead = [process.args[-1] for process in self._processes if process.poll() is not None]
        if dead:
            raise RuntimeError(f"{len(dead)} processes of the cluster ended while it started\n{self.logs()}")
        try:
            slots = self._ask("/overview")["slots-total"]
            socket.create_connection(("127.0.0.1", self._jobs), 1).close()
        except OSError:
            time.sleep(0.2)
            return False
        return slots >= SLOTS

    def _ask(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._rest}{path}", timeout=10) as response:
            return json.load(response)

    def _java(self, name: str, main: str, *arguments: str) -> subprocess.Popen:
        with open(self._folder / f"{name}.log", "wb") as log:
            scratch = self._folder / "tmp"
            scratch.mkdir(exist_ok=True)
            line = ["java", *_JVM, f"-Djava.io.tmpdir={scratch}", "-cp", str(self._jar), main, *arguments]
            process = subprocess.Popen(line, cwd=self._folder, stdout=log, stderr=log, start_new_session=True)
        self._processes.append(process)
        return process

    def _configuration(self) -> str:
        loopback = ("jobmanager.rpc.address", "jobmanager.bind-host", "rest.address", "rest.bind-address")
        values = dict.fromkeys((*loopback, "taskmanager.host", "taskmanager.bind-host"), "127.0.0.1") | {
            "jobmanager.rpc.port": self._rpc,
            "rest.port": self._rest,
            "io.tmp.dirs": self._folder / "tmp",
            "classloader.resolve-order": "parent-first",  # both sides have the one jar
            # Beam's batch jobs take their restarts from here alone: the runner uses --number_of_execution_retries
            # for streaming, and what --flink_conf_dir says of restarts is not sent with a job.
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": RESTARTS,
            "restart-strategy.fixed-delay.delay": "500 ms",
            "taskmanager.numberOfTaskSlots": 1,
            "heartbeat.interval": 1000,  # ms; a killed TaskManager is noticed in seconds
            "heartbeat.timeout": 8000,
            # What Flink's scripts work out and hand to a TaskManager.
            "taskmanager.cpu.cores": 1.0,
            **{
                f"taskmanager.memory.{part}.size": "128m"
                for part in ("task.heap", "framework.heap", "managed", "jvm-metaspace")
            },
            **{f"taskmanager.memory.{part}.off-heap.size": "32m" for part in ("task", "framework")},
            **{
                f"taskmanager.memory.{part}.{end}": "64m"
                for part in ("network", "jvm-overhead")
                for end in ("min", "max")
            },
        }
        return "".join(f"{name}: {value}\n" for name, value in values.items())


def _worker_environment(folder: pathlib.Path) -> dict[str, str]:
    """What a worker needs beyond its runner's environment: this very checkout, and a place for what it leaves."""
    return {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder / "tmp"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def _free_ports(count: int) -> list[int]:
    """Distinct free ports: all are held until the last is found."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _processes() -> Iterator[tuple[int, int, str]]:
    """Number, process group and command line of every process that has one; a zombie has none."""
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            group = int((path / "stat").read_text().rpartition(")")[2].split()[2])
            if command:
                yield int(path.name), group, command
