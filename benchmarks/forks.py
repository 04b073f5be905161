"""Commands in processes that can be killed: forks of one that has imported everything and run nothing.

    python -m benchmarks.forks

answers ``ready`` and reads a JSON object a line from standard input, ``{"arguments": [...], "settings": {...}, "log":
PATH}``; it starts ``tfvae ARGUMENTS``, answers the process's number, and when that ends ``ended STATUS``. ``Forks`` is
the other side. It is a program of its own because TensorFlow, once it has run an operation, does not survive a fork;
a fork begins in a tenth of a second where an import takes ten.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
_HEAVY = ("cli", "runs", "plots", "exporting.saved_model", "pipelines.preprocess", "pipelines.embed")
_LATER = ("tensorflow_datasets", "tensorboard.plugins.hparams.api", "h5py")  # what commands import when they need it


class Forks:
    """Commands one after the other, each in a process of its own.

    Args:
        log: The file that what the command prints goes to.
        environment: More variables for all of them.
    """

    def __init__(self, log: pathlib.Path, **environment: str):
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._server.stdout.readline() == "ready\n", "the server did not start"

    def start(self, arguments: Sequence[str | os.PathLike[str]], settings: dict[str, Any] | None = None) -> int:
        """Start ``tfvae ARGUMENTS`` and return its process number.

        Args:
            arguments: The command line.
            settings: Values for names of modules, such as ``{"tfvae.runs._IN_MEMORY_BYTES": 0}``.
        """
        asked = {"arguments": list(map(os.fspath, arguments)), "settings": settings or {}, "log": str(self.log)}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end(self) -> int:
        """Exit status of the one that was started last; minus the signal that killed it."""
        return int(self._server.stdout.readline().removeprefix("ended "))

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()
        self._server.wait()


def _run(arguments: list[str], settings: dict[str, Any], log: str) -> int:
    """In the fork."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    for name, value in settings.items():
        module, _, attribute = name.rpartition(".")
        getattr(importlib.import_module(module), attribute)  # one that has gone is told
        setattr(importlib.import_module(module), attribute, value)
    try:
        importlib.import_module("tfvae.cli").main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.stdout.flush()
    return 0


def _serve() -> None:
    for name in _HEAVY:
        importlib.import_module(f"tfvae.{name}")
    for name in _LATER:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        if not (child := os.fork()):
            status = 70  # an exception that no command knows
            try:
                status = _run(**json.loads(line))
            finally:
                os._exit(status)
        print(child, flush=True)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
