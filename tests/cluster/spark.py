"""Spark standalone: a master, two workers of one core, whose executors come and go with each job."""

import os
import re
import signal

from tests.cluster.jvms import RESTARTS, Ended, Jvms

MAIN = "org.apache.beam.runners.spark.SparkJobServerDriver"
_DEPLOY = "org.apache.spark.deploy"


class Spark(Jvms):
    """See ``Jvms``."""

    def _launch(self) -> None:
        home = self._folder / "home"
        (home / "jars").mkdir(parents=True)
        (home / "RELEASE").touch()  # without it a worker looks for jars where Spark's own build has them
        (home / "jars" / self._jar.name).symlink_to(self._jar)
        master = f"spark://127.0.0.1:{self._port}"
        # Everything of Spark listens on the last of these.
        variables = {"SPARK_HOME": str(home), "SPARK_SCALA_VERSION": "2.12", "SPARK_LOCAL_IP": "127.0.0.1"}
        here = ("--host", "127.0.0.1")
        ports = ("--port", str(self._port), "--webui-port", str(self._web))
        self._java("master", f"{_DEPLOY}.master.Master", *here, *ports, **variables)
        limits = ("--webui-port", "0", "--cores", "1", "--memory", "1g", "--work-dir", str(self._folder / "work"))
        for number in range(self.slots):
            self._java(f"worker-{number}", f"{_DEPLOY}.worker.Worker", *here, *limits, master, **variables)
        self._job_server(MAIN, "--spark-master-url", master, jvm=self._settings(), **variables)

    def _settings(self) -> tuple[str, ...]:
        """Of the driver, which is the job server, and through it of the executors."""
        settings = {
            "driver.host": "127.0.0.1",
            "executor.memory": "512m",
            "executor.extraJavaOptions": " ".join(self._flags),
            "local.dir": str(self._scratch),
            "task.maxFailures": RESTARTS + 1,
            "ui.enabled": "false",
        }
        return tuple(f"-Dspark.{name}={value}" for name, value in settings.items())

    def _slots_now(self) -> int:
        return self._ask("/json/")["cores"]

    def lose_an_executor(self) -> None:
        os.kill(self._running("CoarseGrainedExecutorBackend")[0], signal.SIGKILL)  # its worker starts another

    def last_job(self) -> Ended:
        """See ``Jvms``. It is the driver's log that tells; to the master the end of a driver is always a good one."""
        log = (self._folder / "jobserver.log").read_text(errors="replace").rpartition("Submitted application")[2]
        (state,) = set(re.findall(r" DAGScheduler - Job \d+ (finished|failed):", log))
        return Ended(state.upper(), re.findall(r"^.*Lost (?:task|executor) .*$", log, re.MULTILINE))
