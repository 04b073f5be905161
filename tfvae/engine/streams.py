"""A stream of batches as Keras reads it, and what comes of it that is no batch, in words of its own.

TensorFlow hands an exception of Python code on as one of its own, with frames and node names around it. Here what a
generator, a ``PyDataset`` or a loader raises is raised as it is, and what TensorFlow or Keras say of batches that do
not fit each other becomes one sentence.
"""

import contextlib
import itertools
import re
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.arguments import no_array, refuse_masked, refuse_sparse
from tfvae.engine import keras_private

_OF_PYTHON = re.compile(r"([A-Za-z_][\w.]*): ((?:(?!Traceback \(most recent).)*?)\n+Traceback \(most recent", re.DOTALL)
_ITERATOR = re.compile(r"iterator: Iterator[\w:\[\]]*: ")
_UNKNOWN = ("object", "float128", "float96")  # dtypes of NumPy that TensorFlow has none for
_PLACES = ("", "y", "sample_weight")  # of a tuple, whose first is x
_PLACE = re.compile(r'File "([^"]*)", line (\d+), in (\S+)')
_ALIKE = (
    "x gives batches that are not made alike, or is a PyDataset that gives None, as in (x, None, sample_weight), which "
    "Keras cannot read from one: pass a generator or a tf.data.Dataset."
)


class Stream:
    """Any stream that Keras can read.

    Args:
        source: A ``tf.data.Dataset``, a ``PyDataset``, a generator or a loader.
        steps_per_epoch: Batches in an epoch, where the user named their number.
        shuffle: Whether a source that can shuffle its batches does.

    Attributes:
        adapter: Keras's reader of it.

    Raises:
        ValueError: Keras can read no batches of it.

    Example:
        >>> stream = Stream(x for x in [np.zeros([2, 3]), np.zeros([1, 3])])
        >>> [x.shape for (x,) in stream.batches()]
        [TensorShape([2, 3]), TensorShape([1, 3])]
    """

    def __init__(self, source: Any, steps_per_epoch: int | None = None, shuffle: bool = False):
        self._source = source
        self._raised: list[Exception] = []
        self._first: list[_Part] = []
        self._declared: list[Any] = []  # what TensorFlow makes of every batch
        with self._opened():
            made = self._tuples() if isinstance(source, types.GeneratorType) else source
            self.adapter = keras_private.adapter(made, steps_per_epoch, shuffle)
            keras_private.note_raised(self.adapter, self._noted, self._read)

    def dataset(self) -> tf.data.Dataset:
        """Its batches, from the front where it can begin anew."""
        with self._opened():
            dataset = self.adapter.get_tf_dataset()
        self._declared = [getattr(spec, "dtype", None) for spec in tf.nest.flatten(dataset.element_spec)]
        return dataset

    def batches(self) -> Iterator[Any]:
        """What it gives, one after another."""
        with self.own_words():
            yield from self.dataset()

    @contextlib.contextmanager
    def own_words(self) -> Iterator[None]:
        """Within it batches are taken: what the source raises is raised as it is, else a sentence for TensorFlow's."""
        try:
            yield
        except tf.errors.OpError as error:
            own = self._raised[0] if self._raised else _in_a_sentence(error)
            if own is None:
                raise
            raise own from own.__cause__  # what it has of its own, and not TensorFlow's

    def _tuples(self) -> Iterator[tuple[Any, ...]]:
        """A generator as Keras reads it; one may give x alone, as a dataset may."""
        given = (element if isinstance(element, tuple) else (element,) for element in self._source)
        yield from self._noted(lambda: given)()

    def _noted(self, make: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
        def iterate() -> Iterator[Any]:
            try:
                for batch in map(_read, make()):
                    self._check_alike(batch)
                    yield batch
            except Exception as error:
                self._raised.append(error)
                raise

        return iterate

    def _read(self, batch: Any) -> Any:
        """What Keras is to see of a batch."""
        try:
            return _read(batch)
        except ValueError as error:
            self._raised.append(error)
            raise

    def _check_alike(self, batch: Any) -> None:
        """TensorFlow would make of a later batch what the first was, and cut floats to whole numbers for it."""
        made = _parts(batch)
        self._first = self._first or self._as_declared(made)
        for first, later in itertools.zip_longest(self._first, made):
            if not (first and later and later.becomes(first)):
                was, came = (", ".join(map(str, parts)) for parts in (self._first, made))
                differ = f"first {was}, later {came}; make each like the first."
                raise ValueError(f"x gives batches of different shapes, dtypes or parts: {differ}")

    def _as_declared(self, made: list["_Part"]) -> list["_Part"]:
        """Keras looks at the batches of the source's front, and the first that comes, of a shuffle, is another."""
        if len(made) != len(self._declared):
            return made
        pairs = zip(made, self._declared, strict=True)
        return [part._replace(dtype=dtype.name) if _is_number(dtype) else part for part, dtype in pairs]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """What Keras says of a stream that it cannot read, and what it could read."""
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            if self._raised or self._is_from_source(error):
                raise
            raise ValueError(
                f"x is a {type(self._source).__name__}, of which Keras can read no batches "
                f"({str(error).splitlines()[0]}): pass an array of numbers, a tf.data.Dataset, a PyDataset, or a "
                "generator that gives arrays of one dtype."
            ) from error

    def _is_from_source(self, error: Exception) -> bool:
        """Whether a method of the source itself was running."""
        frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
        return any(frame.f_locals.get("self") is self._source for frame in frames)


class _Part(NamedTuple):
    """What is told of one array of a batch."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        shape = "" if self.shape is None else f" [{', '.join(['N', *map(str, self.shape)])}]"
        return f"{self.name} {self.dtype}{shape}".lstrip()

    def becomes(self, first: "_Part") -> bool:
        """Whether it can be stacked with the first batch's, by no other cast than the model's own to float32.

        The bytes of x are not: to a model they are levels, 255 of which are 1.
        """
        is_level = self.dtype == "uint8" and self.name in ("", "x")
        is_number = not is_level and self.dtype.startswith(("float", "int", "uint", "bool"))
        is_cast = first.dtype in ("float32", "float64") and is_number
        return (self.name, self.shape) == (first.name, first.shape) and (self.dtype == first.dtype or is_cast)


def _read(batch: Any) -> Any:
    """A batch as arrays, which TensorFlow can go through."""
    _refuse_others(batch)
    return tf.nest.map_structure(_as_array, batch)


def _is_number(dtype: Any) -> bool:
    return isinstance(dtype, tf.DType) and (dtype.is_floating or dtype.is_integer or dtype.is_bool)


def _refuse_others(batch: Any) -> None:
    """Raise ValueError where TensorFlow could not go through the parts of a batch."""
    refuse_sparse("x", batch)
    if isinstance(batch, dict) and not all(isinstance(name, str) for name in batch):
        raise ValueError(f"x gives batches with the parts {', '.join(map(repr, batch))}, expected names of strings.")
    for part in batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple) else ():
        _refuse_others(part)


def _as_array(part: Any) -> Any:
    """Of a table its numbers, of a masked array a sentence: Keras would stumble over the one and unmask the other."""
    refuse_masked("x", part)
    found = part.to_numpy() if hasattr(part, "to_numpy") else part
    if isinstance(found, np.ndarray) and found.dtype.name in _UNKNOWN:
        raise no_array("x", part)
    return found


def _parts(batch: Any, name: str = "") -> list[_Part]:
    if isinstance(batch, dict):
        return [part for key in sorted(batch, key=str) for part in _parts(batch[key], str(key))]
    if isinstance(batch, tuple):
        names = itertools.chain(_PLACES, itertools.repeat(name))
        return [part for own, one in zip(names, batch, strict=False) for part in _parts(one, own)]
    dtype, shape = getattr(batch, "dtype", type(batch).__name__), getattr(batch, "shape", None)
    return [_Part(name, str(getattr(dtype, "name", dtype)), None if shape is None else tuple(shape)[1:])]


def _in_a_sentence(error: tf.errors.OpError) -> Exception | None:
    """What TensorFlow says of batches, without its frame; None where that is the plainest there is."""
    message = error.message
    if asserted := re.search(r"assertion failed: \[(.*?\.)\]", message, re.DOTALL):
        return ValueError(asserted[1].replace("\\'", "'"))
    if differs := re.search(r"yielded an element of (shape .*? was expected)", message):
        return ValueError(f"x gives batches of different shapes: one of {differs[1]}.")
    if "did not match the expected structure" in message:
        return ValueError(_ALIKE)
    if differs := re.search(r"could not be converted to the expected type. The expected type was (\w+)", message):
        return ValueError(f"x gives batches of different dtypes: the first are {differs[1]}, a later one is not.")
    if raised := _OF_PYTHON.search(_ITERATOR.sub("", message)):
        places = [place for place in _PLACE.findall(message) if "__autograph_generated" not in place[0]]
        where = f" ({places[-1][0]}, line {places[-1][1]}, in {places[-1][2]})" if places else ""
        return RuntimeError(f"A function that makes x raised {raised[1]}: {' '.join(raised[2].split())}{where}.")
    return None


def elements(source: Any) -> Iterator[Any]:
    """What a stream gives, as Keras reads it, one after another; see ``Stream``.

    Example:
        >>> [batch.numpy().tolist() for batch in elements(tf.data.Dataset.range(4).batch(2))]
        [[0, 1], [2, 3]]
    """
    return Stream(source).batches()


@contextlib.contextmanager
def reading(source: Any) -> Iterator[keras_private.DataAdapter]:
    """A stream for Keras's own ``predict``: within, what comes of it is told as in ``Stream.own_words``.

    Example:
        >>> with reading(x for x in [np.zeros([2, 3])]) as adapter:
        ...     [x.shape for (x,) in adapter.get_tf_dataset()]
        [TensorShape([2, 3])]
    """
    stream = Stream(source)
    stream.dataset()  # which looks at the first batches, and says what is wrong with them
    with stream.own_words():
        yield stream.adapter
