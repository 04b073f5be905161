"""A cluster of its own on loopback, whichever: its processes with free ports, and Python workers below them.

Each process leads a process group of its own, so that its Python workers die with it at the end however it ended.
Everything that they write lies in one folder.
"""

import abc
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
_START_SECONDS = 180


class Cluster(abc.ABC):
    """The cluster. ``beam_args`` are the options with which a pipeline runs on it.

    Args:
        folder: For configuration, logs and whatever the processes keep; must exist.

    Attributes:
        slots: How many Python workers it starts for a job.
    """

    slots = 1

    def __init__(self, folder: pathlib.Path):
        self._folder, self._scratch = folder, folder / "tmp"
        self._port, self._web, self._jobs = free_ports(3)
        self._processes: list[subprocess.Popen] = []
        self._scratch.mkdir()

    @property
    def beam_args(self) -> list[str]:
        environment = {"command": str(self._folder / "worker.sh"), "env": self._worker_environment()}
        return [
            *("--runner", "PortableRunner", "--job_endpoint", f"127.0.0.1:{self._jobs}"),
            *("--environment_type", "PROCESS", "--environment_config", json.dumps(environment)),
        ]

    def _worker_environment(self) -> dict[str, str]:
        """What a worker needs beyond its runner's environment: this very checkout, and a place for what it leaves."""
        return {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self._scratch),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }

    def start(self) -> None:
        """Returns when it takes jobs and the slots are there."""
        script = self._folder / "worker.sh"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m tfvae.pipelines.jobs.worker "$@"\n')
        script.chmod(0o755)
        self._launch()
        self.wait_for(self._is_ready, "the cluster to start", _START_SECONDS)

    @abc.abstractmethod
    def _launch(self) -> None:
        """Starts every process."""

    @abc.abstractmethod
    def _slots_now(self) -> int:
        """How many slots there are by now; ``OSError`` while there is none to ask."""

    def stop(self) -> None:
        """Kills every process group. A leader is reaped last, so that its number cannot be another's by then."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def workers(self) -> list[int]:
        """Process numbers of the Python workers that live."""
        return self._running("sdk_worker_main")

    def logs(self) -> str:
        """The end of every process's log."""
        return "\n".join(
            f"== {path.relative_to(self._folder)}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted([*self._folder.glob("*.log"), *self._folder.glob("work/*/*/stderr")])
        )

    def wait_for(self, condition: Callable[[], Any], what: str, seconds: float) -> Any:
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
            slots = self._slots_now()
            socket.create_connection(("127.0.0.1", self._jobs), 1).close()
        except OSError:
            time.sleep(0.2)
            return False
        return slots >= self.slots

    def _running(self, what: str) -> list[int]:
        """Process numbers of the cluster's processes with this in their command line."""
        groups = {process.pid for process in self._processes}
        return [pid for pid, group, command in _processes() if group in groups and what in command]

    def _start(self, name: str, *line: str, **variables: str) -> subprocess.Popen:
        """A process with its log, and these variables beside ours."""
        with open(self._folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                line, cwd=self._folder, stdout=log, stderr=log, start_new_session=True, env=os.environ | variables
            )
        self._processes.append(process)
        return process


def free_ports(count: int) -> list[int]:
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
