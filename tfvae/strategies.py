"""What divides a training over several devices: the graphics cards of a machine, or several machines.

Several machines are told of each other by TF_CONFIG, an environment variable of TensorFlow's, of which all that can be
wrong is told here; TensorFlow would wait for a worker that is not there, or take the process for the only one.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tfvae.engine import keras_private

NAMES = ("mirrored", "workers")
_EXAMPLE = '{"cluster": {"worker": ["one:2222", "two:2222"]}, "task": {"type": "worker", "index": 0}}'
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


def strategy(name: str | None) -> tf.distribute.Strategy:
    """Keras's strategy of that name; that of one device where there is none.

    ``"workers"`` waits for the others, and must come before TensorFlow runs anything.

    Raises:
        ValueError: There is no such name, or TF_CONFIG does not say which workers there are and which this one is.

    Example:
        >>> strategy("mirrored").num_replicas_in_sync == max(1, len(tf.config.list_logical_devices("GPU")))
        True
    """
    if name is None:
        return tf.distribute.get_strategy()
    if name not in NAMES:
        raise ValueError(f"strategy is {name!r}, expected one of {', '.join(NAMES)}, or none for one device.")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    check_workers(os.environ.get("TF_CONFIG"))
    return tf.distribute.MultiWorkerMirroredStrategy()


def check_workers(text: str | None) -> None:
    """Raise ValueError unless TF_CONFIG names workers, and this process as one of them.

    Example:
        >>> check_workers('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}')
        Traceback (most recent call last):
            ...
        ValueError: TF_CONFIG has task {'type': 'worker', 'index': 1}, expected one of its cluster: worker 0.
    """
    if not text:
        raise ValueError(f"The strategy workers needs the environment variable TF_CONFIG, such as {_EXAMPLE}.")
    try:
        config: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"TF_CONFIG is no JSON ({error}), expected such as {_EXAMPLE}.") from error
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not (isinstance(cluster, dict) and cluster.keys() <= {"chief", "worker"} and any(cluster.values())):
        raise ValueError(f"TF_CONFIG has cluster {cluster!r:.200}, expected workers, and a chief at most: {_EXAMPLE}.")
    for job, addresses in cluster.items():
        if not (isinstance(addresses, list) and all(_is_address(one) for one in addresses)):
            raise ValueError(f"TF_CONFIG has {job} {addresses!r:.200}, expected a list of HOST:PORT: {_EXAMPLE}.")
    known = [(job, index) for job, addresses in cluster.items() for index in range(len(addresses))]
    task = config.get("task")
    if not isinstance(task, dict) or (task.get("type"), task.get("index")) not in known:
        names = ", ".join(f"{job} {index}" for job, index in known)
        raise ValueError(f"TF_CONFIG has task {task!r:.200}, expected one of its cluster: {names}.")


def _is_address(one: Any) -> bool:
    host, _, port = one.rpartition(":") if isinstance(one, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 1 << 16


@contextmanager
def workers_that_stay() -> Iterator[None]:
    """Tells in a sentence that another worker is gone, without whom none goes on.

    Raises:
        ConnectionError: One is.
    """
    try:
        yield
    except _LOST as error:
        raise ConnectionError(
            "Another worker is gone: start all of them again with the same command, which goes on from the last "
            "checkpoint; what it said itself is in its own output."
        ) from error


def meet(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker has come here; where there are no others, it does nothing."""
    if keras_private.is_of_workers(strategy):
        arrive = lambda: tf.distribute.get_replica_context().all_reduce("SUM", tf.constant(1.0))  # noqa: E731
        strategy.run(tf.function(arrive))
