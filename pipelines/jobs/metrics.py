"""Beam metrics under fixed names in one namespace, for whoever watches a cluster and for the summary.

Nothing but the summary is told by them: a runner that repeats a bundle counts its rows twice, and some runners give no
metrics back at all. What an output holds is counted by its commit records.

    rows_read, rows_written, rows_rejected    counters
    inference_latency_ms                      distribution over the calls of the model
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Any

from apache_beam.metrics import Metrics, MetricsFilter

NAMESPACE = "pipelines"
LATENCY = "inference_latency_ms"


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long the calls of a model took.

    Attributes:
        calls: How many there were, those that failed included.
        mean, maximum: Milliseconds a call; Beam keeps whole ones.
    """

    calls: int
    mean: float
    maximum: int

    def __str__(self) -> str:
        return f"{self.calls:,}, mean {self.mean:,.1f} ms, max {self.maximum:,} ms"


def counter(name: str) -> Any:
    """A Beam counter under the fixed namespace."""
    return Metrics.counter(NAMESPACE, name)


def distribution(name: str) -> Any:
    """A Beam distribution, of whole numbers, under the fixed namespace."""
    return Metrics.distribution(NAMESPACE, name)


@contextlib.contextmanager
def timing(milliseconds: Any) -> Iterator[None]:
    """Adds the time that the block takes, also when it fails, to a distribution of milliseconds.

    Example:
        >>> with timing(distribution(LATENCY)):  # outside of a pipeline nobody counts
        ...     pass
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        milliseconds.update(round(1000 * (time.perf_counter() - started)))


def latency(result: Any) -> Latency | None:
    """The latency of the model's calls in a finished pipeline, or None where the runner does not tell.

    Args:
        result: What ``pipeline.run()`` returned.

    Example:
        >>> latency(object()) is None
        True
    """
    try:
        wanted = MetricsFilter().with_namespace(NAMESPACE).with_name(LATENCY)
        found = [entry.committed or entry.attempted for entry in result.metrics().query(wanted)["distributions"]]
        calls = sum(entry.count for entry in found)
        if calls == 0:
            return None
        return Latency(calls, sum(entry.sum for entry in found) / calls, max(entry.max for entry in found))
    except Exception:  # runners refuse in many ways, and a job that succeeded does not fail for its summary
        logging.getLogger(__name__).debug("the runner gives no metrics back", exc_info=True)
        return None
