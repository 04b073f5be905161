"""What Beam does beside a job that a person who runs one need not see, or that must not stay."""

import contextlib
import logging
import os
import signal
import subprocess
import types
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.runners import common
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.worker import sdk_worker

from .. import stops

_NOTE = "semi_persistent_directory"  # which workers on this machine do without


@contextlib.contextmanager
def steps_named_as_they_are() -> Iterator[None]:
    """In a notebook Beam names steps by its cells, and imports its interactive runner for it, which needs pandas 2."""
    alter = beam.pipeline.alter_label_if_ipython
    beam.pipeline.alter_label_if_ipython = lambda transform, pvalueish: None
    try:
        yield
    finally:
        beam.pipeline.alter_label_if_ipython = alter


@contextlib.contextmanager
def failures_told_once() -> Iterator[None]:
    """Beam logs, and prints, the traceback of a unit that fails, which says why by itself: see ``reporting``."""
    if _is_debugged():
        yield
        return
    loggers = [logging.getLogger(module.__name__) for module in (common, sdk_worker, local_job_service)]
    for logger in loggers:
        logger.addFilter(_says_more)
    vars(sdk_worker)["print"] = lambda *_, **__: None  # which it does with several workers
    try:
        yield
    finally:
        vars(sdk_worker).pop("print", None)
        for logger in loggers:
            logger.removeFilter(_says_more)


def _says_more(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR and _NOTE not in record.getMessage()


def _is_debugged() -> bool:
    return logging.getLogger().isEnabledFor(logging.DEBUG)


@contextlib.contextmanager
def workers_that_end() -> Iterator[None]:
    """Workers in processes of their own write no log to standard error, and none outlives the block.

    Of ``--direct_running_mode multi_processing``, whose workers would go on for minutes where the driver is stopped.
    """
    begun: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        settings |= {"stderr": None if _is_debugged() else subprocess.DEVNULL, "process_group": 0}
        begun.append(subprocess.Popen(*arguments, **settings))
        return begun[-1]

    def end() -> None:
        for worker in begun:
            if worker.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)

    module = vars(local_job_service)
    module["subprocess"] = types.SimpleNamespace(Popen=begin)
    try:
        with stops.at_last(end):
            yield
    finally:
        module["subprocess"] = subprocess
        end()
