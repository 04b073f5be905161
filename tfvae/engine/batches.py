"""What the training engine is fed: groups of batches, from arrays in memory or from a stream.

A group is a nest of tensors, all with the same rows, and the row numbers of each batch, gathered inside the program: an
array given to ``fit`` stays where it is as one tensor, bytes stay bytes, and an epoch's shuffle is a permutation of
integers. Shapes never change from group to group, so nothing is compiled twice: a short last batch is filled with its
own rows over again, which count for nothing, a short last group stops its loop early.

``DataAdapter`` is Keras's own seam for this. To Keras the batches are a ``DistributedDataset`` too, so that it leaves
their rows to the engine where there are replicas.
"""

import dataclasses
import itertools
import logging
import random
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import tensorflow as tf

from tfvae.engine import keras_private, marks, plain, streams

_logger = logging.getLogger(__name__)

NONE_COUNTS = "sample_weight is 0 for every row, so that none would count."
_ROWS_PER_EXECUTION = 16_384  # enough to hide the cost of a call, few enough for a lively progress bar
_STREAMED_ROWS_PER_EXECUTION = 8192  # they are held twice, those that run and those that come next
_MOST_STEPS_PER_EXECUTION = 128
_USUAL_BATCH_SIZE = 512  # of a stream that does not say: a group of twice as many rows or a quarter does no harm


def default_steps_per_execution(batch_size: int, streamed: bool = False) -> int:
    """Batches in one program when the user named no number.

    Example:
        >>> default_steps_per_execution(100), default_steps_per_execution(2048)
        (128, 8)
        >>> default_steps_per_execution(2048, streamed=True)
        4
    """
    rows = _STREAMED_ROWS_PER_EXECUTION if streamed else _ROWS_PER_EXECUTION
    return int(np.clip(rows // batch_size, 1, _MOST_STEPS_PER_EXECUTION))


class Data(NamedTuple):
    """Rows as the engine moves them.

    Attributes:
        inputs: A nest of tensors ``[N, ...]``; what they mean is the model's affair.
        sample_weight: Keras's, ``[N]``: one tensor where rows are weighted, none where all count alike.
    """

    inputs: Any
    sample_weight: tuple[tf.Tensor, ...] = ()


def num_rows(rows: Any) -> int:
    """N of a nest of arrays ``[N, ...]``.

    Raises:
        ValueError: If they have not all the same number of rows.

    Example:
        >>> num_rows({"x": np.zeros([3, 2]), "label": np.zeros([3])})
        3
    """
    counts = {np.shape(leaf)[0] for leaf in tf.nest.flatten(rows)}
    if len(counts) != 1:
        raise ValueError(f"The parts of a row must come in equal numbers, received {_counts_in_words(rows)} rows.")
    return int(counts.pop())


def _counts_in_words(rows: Any) -> str:
    return ", ".join(f"{name}: {np.shape(leaf)[0]}" for name, leaf in _named(rows))


def _named(rows: Any) -> list[tuple[Any, Any]]:
    if isinstance(rows, Data) and isinstance(rows.inputs, Mapping):
        rows = dict(rows.inputs, **({"sample_weight": rows.sample_weight[0]} if rows.sample_weight else {}))
    return list(rows.items() if isinstance(rows, Mapping) else enumerate(tf.nest.flatten(rows)))


def in_parts(x: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Whether x is a mapping of the parts of rows; SciPy's sparse matrices of one kind are dictionaries too.

    Example:
        >>> in_parts({"x": [1, 2]}), in_parts(np.zeros([3, 2]))
        (True, False)
    """
    return isinstance(x, Mapping) and not hasattr(x, "toarray")


def in_memory(x: Any) -> bool:
    """Whether x is rows, or what should have been, and not a stream of batches.

    Example:
        >>> in_memory(np.zeros([3, 2])), in_memory({"x": [1, 2]}), in_memory(tf.data.Dataset.range(3))
        (True, True, False)
    """
    if in_parts(x):
        return all(map(in_memory, x.values()))
    return x is None or isinstance(x, (list, str)) or hasattr(x, "__array__") or hasattr(x, "shape")


def stream_batch_size(stream: Any) -> int:
    """Rows of a batch as a ``tf.data.Dataset`` declares them; a guess where it does not, or x is another stream.

    Example:
        >>> dataset = tf.data.Dataset.range(1000)
        >>> stream_batch_size(dataset.batch(100, drop_remainder=True)), stream_batch_size(dataset.batch(100))
        (100, 512)
    """
    shapes = [spec.shape for spec in tf.nest.flatten(getattr(stream, "element_spec", None)) if hasattr(spec, "shape")]
    return (shapes[0][0] if shapes and shapes[0].rank else None) or _USUAL_BATCH_SIZE


def steps_in_an_epoch(x: Any, batch_size: int) -> int | None:
    """Batches of one pass over an array or a stream, None where that is unknown or endless.

    Example:
        >>> steps_in_an_epoch(np.zeros([5, 2]), 2), steps_in_an_epoch(tf.data.Dataset.range(5).batch(2), 2)
        (3, 3)
    """
    try:
        return max(1, -(-len(_first(x)) // batch_size)) if in_memory(x) else max(1, len(x))
    except TypeError:  # no length, or a dataset's that is unknown
        return None


def _first(x: Any) -> Any:
    return next(iter(x.values())) if in_parts(x) else x


@dataclasses.dataclass(frozen=True)
class Group:
    """The batches of one program call.

    Attributes:
        data: All the rows, ``[N, ...]`` each.
        rows: Row numbers of each batch, int32 ``[K, B]``.
        counts: How many rows of each batch count, from the left, int32 ``[K]``.
        num_steps: How many of the K batches are to be run.
        done: How many of those have been, before a stop.
    """

    data: Data
    rows: np.ndarray
    counts: np.ndarray
    num_steps: int
    done: int = 0


def _done(steps: int, group_size: int) -> Iterator[Group]:
    """The groups of an epoch's first steps, where they were all done before a stop; nothing is in them."""
    none = np.zeros([0], np.int32)
    for start in range(0, steps, group_size):
        size = min(group_size, steps - start)
        yield Group(Data(()), none, none, size, size)


class Cursor(NamedTuple):
    """Where a course through the rows of arrays is: the number of its pass, what fixes the shuffle, batches drawn.

    Example:
        >>> Cursor(number=2, drawn=5)
        Cursor(number=2, seed=None, drawn=5)
    """

    number: int = 0
    seed: list[int] | None = None  # before the pass begins
    drawn: int = 0


class ArrayBatches(keras_private.DataAdapter, tf.distribute.DistributedDataset):
    """Arrays in memory as groups of row numbers, shuffled anew in each epoch.

    Args:
        data: All the rows.
        batch_size: Rows in a batch; the last of an epoch may be shorter.
        steps_per_execution: Batches in a group.
        steps_per_epoch: Batches in an epoch, drawn on and on from the shuffled rows; None for one pass.
        seed: Called at the start of each pass; gives the integers that, with the pass's number, fix its shuffle.
            None to keep the order.
    """

    def __init__(
        self,
        data: Data,
        batch_size: int,
        steps_per_execution: int,
        steps_per_epoch: int | None = None,
        seed: Callable[[], Iterable[int]] | None = None,
    ):
        self._num_rows = num_rows(data)
        if self._num_rows == 0:
            shape = tuple(tf.nest.flatten(data)[0].shape)
            raise ValueError(f"x has no rows (shape {shape}): there is nothing to do.")
        self._data = data
        self._batch_size = min(int(batch_size), self._num_rows)
        self._passes = -(-self._num_rows // self._batch_size)
        self._steps = steps_per_epoch or self._passes
        self._endless = steps_per_epoch is not None
        self._group_size = min(int(steps_per_execution), self._steps)
        self._seed = seed
        self._now: list[int] | None = None  # what the passes that begin in this group are given
        self._cursor = self._before = Cursor()
        self._start, self._num_steps = 0, 0  # of the last group, in the epoch
        self._resumed: dict[str, Any] | None = None

    def get_tf_dataset(self) -> "ArrayBatches":
        return self

    # Keras starts anew after this many batches: None lets the rows run on into the next epoch.
    num_batches = property(lambda self: None if self._endless else self._steps)
    num_rows = property(lambda self: self._num_rows)
    batch_size = property(lambda self: self._batch_size)
    has_partial_batch = property(lambda self: bool(self._num_rows % self._batch_size))
    partial_batch_size = property(lambda self: self._num_rows % self._batch_size or None)

    def facts(self) -> dict[str, Any]:
        """Of what these batches are, in words."""
        kind = {"kind": "arrays", "rows": self._num_rows, "batch size": self._batch_size, "steps": self._steps}
        checksums = [plain.fingerprint(leaf.numpy()) for leaf in tf.nest.flatten(self._data)]
        kind |= {"steps in a program": self._group_size, "order": "shuffled" if self._seed else "as given"}
        return kind | {"checksum": " ".join(map(str, checksums))}

    def get_state(self, done: int | None, within: bool) -> dict[str, Any]:
        """Where they are: ``done`` steps into the last group (None: at its end), within an epoch or at its end."""
        if self._resumed is not None:
            return self._resumed
        if done is not None and done < self._num_steps:
            return {"cursor": list(self._before), "now": self._now, "steps": self._start, "done": done}
        if within:
            return {"cursor": list(self._cursor), "now": None, "steps": self._start + self._num_steps, "done": 0}
        return {"cursor": list(self._cursor if self._endless else Cursor()), "now": None, "steps": 0, "done": 0}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there with the next epoch."""
        self._resumed = state

    def __iter__(self) -> Iterator[Group]:
        at, self._resumed = self._resumed or self.get_state(None, False) | {"cursor": Cursor()}, None
        self._cursor, self._now, steps, done = Cursor(*at["cursor"]), at["now"], at["steps"], at["done"]
        batches = self._batches(self._cursor)
        while True:
            yield from _done(steps, self._group_size)
            for start in range(steps, self._steps, self._group_size):
                self._start, self._num_steps = start, min(self._group_size, self._steps - start)
                self._before = self._cursor
                group = self._group(batches, self._num_steps)
                yield dataclasses.replace(group, done=done)
                self._now, done = None, 0
            if not self._endless:
                return
            steps = 0

    def _batches(self, cursor: Cursor) -> Iterator[tuple[np.ndarray, int]]:
        _, seed, drawn = cursor
        for number in itertools.count(cursor.number):
            seed = self._seed_now() if seed is None else seed
            order = np.arange(self._num_rows, dtype=np.int32)
            if self._seed is not None:
                np.random.default_rng([*seed, number]).shuffle(order)
            for k in range(drawn, self._passes):
                self._cursor = Cursor(number, seed, k + 1)
                start = k * self._batch_size
                count = min(self._batch_size, self._num_rows - start)
                # A short batch is filled with its own rows over again, so that no other enters a batch statistic.
                yield np.resize(order[start : start + count], self._batch_size), count
            seed, drawn = None, 0

    def _seed_now(self) -> list[int]:
        """Passes that start within one group are given the same."""
        if self._now is None:
            self._now = [] if self._seed is None else list(self._seed())
        return self._now

    def _group(self, batches: Iterator[tuple[np.ndarray, int]], num_steps: int) -> Group:
        rows = np.zeros([self._group_size, self._batch_size], np.int32)
        counts = np.zeros([self._group_size], np.int32)
        for k in range(num_steps):
            rows[k], counts[k] = next(batches)
        return Group(self._data, rows, counts, num_steps)


class StreamBatches(keras_private.DataAdapter, tf.distribute.DistributedDataset):
    """Any stream of batches that Keras can read, stacked into groups while the last group runs.

    Args:
        source: A ``tf.data.Dataset`` or another input of ``fit``, giving batches of rows.
        prepare: Checks and converts one batch, in graph mode.
        measure: From a batch to numbers ``[M]`` that say what values they hold, in graph mode.
        judge: Raises ValueError if the largest of those numbers, over the batches of a group, ``[M]``, are not right,
            and says whether one of its rows counts: called before the group is given away.
        steps_per_execution: Batches in a group.
        steps_per_epoch: Batches in an epoch, drawn from the stream on and on; None for the whole stream.
        shuffle: Whether a source that can shuffle its batches does; a ``tf.data.Dataset`` shuffles itself.
    """

    def __init__(
        self,
        source: Any,
        prepare: Callable[[Any], Data],
        measure: Callable[[Data], tf.Tensor],
        judge: Callable[[np.ndarray], bool],
        steps_per_execution: int,
        steps_per_epoch: int | None = None,
        shuffle: bool = False,
    ):
        self._shuffles_itself = isinstance(source, tf.data.Dataset)
        shuffle = shuffle and not self._shuffles_itself
        self._stream = streams.Stream(source, steps_per_epoch, shuffle)
        self._source = self._stream.adapter
        self._prepare, self._measure, self._judge = prepare, measure, judge
        self._group_size = int(steps_per_execution)
        self._steps = steps_per_epoch
        self._capacity = (0, 0)
        self._once, self._ended_after = isinstance(source, types.GeneratorType), 0
        self._passes = self._before = self._drawn = 0  # passes begun; batches drawn in this one, before the last group
        self._start, self._num_steps = 0, 0  # of the last group, in the epoch
        self._random: Any = None  # what the source may draw from, as the pass began
        self._marks: list[str] = ["", "", ""]  # of the pass's first batch, the one before the last group, its last one
        self._resumed: dict[str, Any] | None = None

    def get_tf_dataset(self) -> "StreamBatches":
        return self

    # As above: an endless stream runs on into the next epoch.
    num_batches = property(lambda self: None if self._steps else self._source.num_batches)
    batch_size = property(lambda self: self._source.batch_size)
    has_partial_batch = property(lambda self: self._source.has_partial_batch)
    partial_batch_size = property(lambda self: self._source.partial_batch_size)

    def on_epoch_begin(self) -> None:
        self._source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._source.on_epoch_end()

    def facts(self) -> dict[str, Any]:
        """See ``ArrayBatches``."""
        return {"kind": "a stream", "steps": self._steps, "steps in a program": self._group_size}

    def get_state(self, done: int | None, within: bool) -> dict[str, Any]:
        """See ``ArrayBatches``."""
        if self._resumed is not None:
            return self._resumed
        state = {"passes": max(0, self._passes - 1), "random": self._random, "capacity": list(self._capacity)}
        first, before, last = self._marks
        state["first"] = first
        if done is not None and done < self._num_steps:
            return state | {"drawn": self._before, "steps": self._start, "done": done, "mark": before}
        if within or self._steps is not None:
            steps = self._start + self._num_steps if within else 0
            return state | {"drawn": self._drawn, "steps": steps, "done": 0, "mark": last}
        now = None if self._shuffles_itself else random.getstate()
        return state | {"passes": self._passes, "random": now, "drawn": 0, "steps": 0, "done": 0, "mark": first}

    def set_state(self, state: dict[str, Any]) -> None:
        """See ``ArrayBatches``."""
        self._resumed = state

    def __iter__(self) -> Iterator[Group]:
        self._refuse_what_ended()
        at: dict[str, Any] = {"passes": self._passes, "random": None, "drawn": 0, "steps": 0, "done": 0}
        at, self._resumed = self._resumed or at | {"capacity": self._capacity}, None
        source = self._stream.dataset()
        self._replay(source, at)
        self._drawn, self._start, self._capacity = at["drawn"], at["steps"], tuple(at["capacity"])
        self._marks[0] = at.get("first", "")
        batches = source
        if self._steps is not None and not self._once:
            batches = batches.repeat()  # as Keras, which begins a finite stream anew wherever it ends
        batches = batches.skip(self._drawn - 1) if self._drawn else batches
        # What ``prepare`` says of a batch would be buried in a traceback if autograph converted it.
        batches = batches.map(tf.autograph.experimental.do_not_convert(self._counted))
        batches = batches.scan(tf.zeros([8], tf.uint8), marks.beside_the_last)
        batches = batches.skip(1) if self._drawn else batches
        given, groups, done = self._drawn > 0, 0, at["done"]
        counts_for_something = given
        stacked = self._in_own_words(_without_autotuner(self._grouped(batches).prefetch(1)))
        # Keras asks no more once an epoch is over, but all that a source draws has been drawn by then.
        ahead = list(itertools.islice(stacked, 1)) if self._drawn else []
        yield from _done(at["steps"], self._group_size)
        if ahead:
            self._warn_if_others(at, marks.text(ahead[0][3][0, 0]))
        for data, counts, measured, pairs in itertools.chain(ahead, stacked):
            counts_for_something |= bool(self._judge(measured.numpy().max(axis=0)))
            given = given or counts.numpy().sum() > 0
            if not given:
                raise ValueError("x has no rows: the first batches of the stream hold none.")
            self._start = 0 if self._start == self._steps else self._start
            self._before, self._num_steps, groups = self._drawn, len(counts), groups + 1
            first = self._marks[0] if self._drawn else marks.text(pairs[0, 1])
            self._marks = [first, marks.text(pairs[0, 0]), marks.text(pairs[-1, 1])]
            self._drawn += self._num_steps
            yield dataclasses.replace(self._group(data, counts.numpy()), done=done)
            self._start, done = self._start + self._num_steps, 0
        if not given:
            raise ValueError("x has no rows: the stream gives no batch.")
        if not counts_for_something:
            raise ValueError(NONE_COUNTS)
        if self._once:
            self._ended_after = self._drawn
            if self._steps is not None and groups % -(-self._steps // self._group_size) == 0:  # for another epoch
                self._refuse_what_ended()

    def _in_own_words(self, groups: Iterable[Any]) -> Iterator[Any]:
        with self._stream.own_words():
            yield from groups

    def _replay(self, source: tf.data.Dataset, at: dict[str, Any]) -> None:
        """Bring the source to where it was at the start of a pass.

        A dataset that shuffles draws a new order whenever it is begun, and one within another when that gives its
        first batch; what Keras shuffles for a ``PyDataset`` it draws from Python's own random numbers.
        """
        if at["random"] is not None:
            random.setstate(_nested_tuple(at["random"]))
        elif self._shuffles_itself:
            first = None
            for _ in range(self._passes, at["passes"]):
                first = next(iter(source), None)
            if first is not None and not at["drawn"]:
                first = first if isinstance(first, tuple) else (first,)
                self._warn_if_others(at, marks.text(self._counted(*first)[3]))
        if not self._shuffles_itself:
            self._random = random.getstate()
        self._passes = at["passes"] + 1

    def _warn_if_others(self, at: dict[str, Any], mark: str) -> None:
        """A batch is not the one that was there when the state was taken: a shuffle without a seed, or other rows."""
        if at.get("mark") not in (None, "", mark):
            _logger.warning(
                "The stream gives other batches than before the stop: the training goes on, but not as if it had never "
                "stopped. For that the stream must give the same rows in the same order, as shuffle(n, seed=1) does."
            )

    def _refuse_what_ended(self) -> None:
        """Keras would go on with the first batch alone, or report an epoch without a batch as a loss of 0."""
        if self._ended_after:
            raise ValueError(
                f"x is a generator that ended after {self._ended_after} batches and cannot be gone through again: pass "
                "a tf.data.Dataset or a PyDataset, a generator without an end and steps_per_epoch, or train one epoch."
            )

    def _counted(self, *element: Any) -> tuple[Data, tf.Tensor, tf.Tensor, tf.Tensor]:
        batch = self._prepare(element if len(element) > 1 else element[0])
        names, leaves = zip(*_named(batch), strict=True)
        first, *others = counts = [tf.shape(leaf)[0] for leaf in leaves]
        came = ", ".join(f"{name}: {{}}" for name in names)
        words = f"The parts of a row must come in equal numbers, received {came} rows."
        with tf.control_dependencies([assertion(tf.equal(first, other), words, *counts) for other in others]):
            return batch, tf.identity(first), self._measure(batch), marks.of(leaves)

    def _grouped(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Groups of K batches that never reach across the end of an epoch."""
        if self._steps is None:
            return batches.padded_batch(self._group_size)
        size, steps = self._group_size, self._steps
        groups = -(-steps // size)
        grouped = batches.enumerate(self._drawn).group_by_window(
            key_func=lambda i, batch: i // steps * groups + i % steps // size,
            reduce_func=lambda key, window: window.map(lambda i, batch: batch).padded_batch(size),
            window_size_func=lambda key: tf.where(
                key % groups == groups - 1, tf.cast(steps - (groups - 1) * size, tf.int64), size
            ),
        )
        return grouped

    def _group(self, data: Data, counts: np.ndarray) -> Group:
        """The group in the largest shape seen so far, so that a shorter one runs in the same program."""
        num_steps, width = tf.nest.flatten(data)[0].shape[:2]
        self._capacity = (max(self._capacity[0], num_steps), max(self._capacity[1], width))
        steps, batch = self._capacity
        more = [[0, steps - num_steps], [0, batch - width]]

        def flat(leaf: tf.Tensor) -> tf.Tensor:
            rest = leaf.shape[2:]
            if steps > num_steps or batch > width:
                leaf = tf.pad(leaf, more + [[0, 0]] * len(rest))
            return tf.reshape(leaf, [steps * batch, *rest])

        counts = np.pad(counts, more[0])
        # As of arrays.
        within = np.arange(batch, dtype=np.int32) % np.maximum(counts, 1)[:, None]
        rows = np.arange(steps, dtype=np.int32)[:, None] * batch + within
        return Group(tf.nest.map_structure(flat, data), rows.astype(np.int32), counts, num_steps)


def _nested_tuple(value: Any) -> Any:
    return tuple(map(_nested_tuple, value)) if isinstance(value, (list, tuple)) else value


def check_kind(x: Any) -> None:
    """Raise ValueError where x is neither arrays nor anything that could give batches of them.

    Example:
        >>> check_kind(np.zeros([3, 2]))
    """
    if x is None or isinstance(x, (bool, int, float, complex, str, bytes, set, frozenset)):
        raise ValueError(
            f"x is {x!r:.40}, expected rows: an array [N, ...], a mapping of arrays, or a stream of batches, such as a "
            "tf.data.Dataset."
        )


def assertion(right: tf.Tensor, sentence: str, *values: tf.Tensor) -> tf.Operation:
    """Ends a stream where something is not right, with our sentence, in which values take the places of ``{}``.

    Example:
        >>> assertion(tf.constant(True), "x has {} columns, expected 6.", tf.constant(6))
    """
    return tf.debugging.Assert(right, [tf.strings.format(sentence, values)])


def _without_autotuner(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, tuned only if it was told to be: AUTOTUNE is then as many calls as there are threads.

    TensorFlow 2.21's autotuner sleeps twice as long each time, up to a minute, and nothing wakes it: the end of an
    iterator waits for it, so that an epoch could take twice as long as its steps.
    """
    options = tf.data.Options()
    options.autotune.enabled = bool(dataset.options().autotune.enabled)
    return dataset.with_options(options)


def single(data: Data) -> Group:
    """The batch of ``train_on_batch`` as a group of one."""
    size = num_rows(data)
    if size == 0:
        raise ValueError("x has no rows: there is nothing to do.")
    return Group(data, np.arange(size, dtype=np.int32)[None], np.array([size], np.int32), 1)
