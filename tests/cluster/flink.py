"""Flink: one JobManager, two TaskManagers of one slot."""

import os
import signal
import subprocess

from tests.cluster.jvms import RESTARTS, Ended, Jvms

MAIN = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"


class Flink(Jvms):
    """See ``Jvms``."""

    @property
    def beam_args(self) -> list[str]:
        return [*super().beam_args, "--parallelism", str(self.slots)]

    def _launch(self) -> None:
        (self._folder / "flink-conf.yaml").write_text(self._configuration())
        self._java("jobmanager", _JOB_MANAGER, "--configDir", str(self._folder), "--host", "127.0.0.1")
        self._task_managers = [self._task_manager(number) for number in range(self.slots)]
        self._job_server(MAIN, "--flink-master", f"127.0.0.1:{self._web}")

    def _task_manager(self, number: int) -> subprocess.Popen:
        return self._java(f"taskmanager-{number}", _TASK_MANAGER, "--configDir", str(self._folder))

    def _slots_now(self) -> int:
        return self._ask("/overview")["slots-total"]

    def lose_an_executor(self) -> None:
        os.kill(self._task_managers[-1].pid, signal.SIGKILL)
        self._task_managers.append(self._task_manager(len(self._task_managers)))

    def last_job(self) -> Ended:
        last = max(self._ask("/jobs/overview")["jobs"], key=lambda job: job["start-time"])
        entries = self._ask(f"/jobs/{last['jid']}/exceptions")["exceptionHistory"]["entries"]
        return Ended(last["state"], [entry["stacktrace"] for entry in entries])

    def _configuration(self) -> str:
        loopback = ("jobmanager.rpc.address", "jobmanager.bind-host", "rest.address", "rest.bind-address")
        values = dict.fromkeys((*loopback, "taskmanager.host", "taskmanager.bind-host"), "127.0.0.1") | {
            "jobmanager.rpc.port": self._port,
            "rest.port": self._web,
            "io.tmp.dirs": self._scratch,
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
