"""What users pass for a number: held to its kind and range before a program is made of it, which would say less."""

import difflib
import inspect
import math
import numbers
import os
import reprlib
from collections.abc import Callable, Collection, Mapping, Sized
from typing import Any, TypeVar

import numpy as np

Rows = TypeVar("Rows", bound=Sized)
MOST = 2**31 - 1  # what TensorFlow counts axes by
_MOST_LATENT = 2**24


def check_at_least(least: int, *, most: int = MOST, **given: Any) -> None:
    """Raise ValueError unless each is a whole number of ``least`` or more, and no more than ``most``.

    Example:
        >>> check_at_least(1, num_samples=5)
        >>> check_at_least(1, num_samples=0)
        Traceback (most recent call last):
        ValueError: num_samples must be at least 1, received 0.
    """
    for name, value in given.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise ValueError(f"{name} must be a whole number of {least} or more, received {value!r}.")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, received {value}.")
        if int(value) > most:
            raise ValueError(f"{name} must be at most {most:,}, received {int(value):,}.")


def check_latent_dim(latent_dim: Any) -> None:
    """Raise ValueError unless it is a whole number of axes that a row of z may have.

    Example:
        >>> check_latent_dim(2)
        >>> check_latent_dim(10**9)
        Traceback (most recent call last):
        ValueError: latent_dim must be at most 16,777,216, received 1,000,000,000.
    """
    check_at_least(1, most=_MOST_LATENT, latent_dim=latent_dim)


def check_room(what: str, *sizes: int) -> None:
    """Raise ValueError where an array of these sizes would hold more numbers than TensorFlow counts.

    Example:
        >>> check_room("An event", 28, 28, 1)
        >>> check_room("A weight of the network", 10**9, 64)
        Traceback (most recent call last):
        ValueError: A weight of the network would be 1,000,000,000 x 64 numbers, more than 2,147,483,647: choose fewer.
    """
    if math.prod(sizes) > MOST:
        told = " x ".join(f"{size:,}" for size in sizes)
        raise ValueError(f"{what} would be {told} numbers, more than {MOST:,}: choose fewer.")


def check_name(name: Any) -> None:
    """Raise ValueError unless it is a name that Keras gives a layer, or None.

    Example:
        >>> check_name("posterior")
        >>> check_name(b"posterior")
        Traceback (most recent call last):
        ValueError: name is b'posterior', expected a string without '/', such as 'posterior'.
    """
    if name is not None and not (isinstance(name, str) and "/" not in name):
        raise ValueError(f"name is {reprlib.repr(name)}, expected a string without '/', such as 'posterior'.")


def check_whole(**given: Any) -> None:
    """Raise ValueError unless each is a whole number of 32 bits, as seeds are.

    Example:
        >>> check_whole(seed=-5)
        >>> check_whole(seed="a")
        Traceback (most recent call last):
        ValueError: seed is 'a', expected a whole number between -2^31 and 2^31.
    """
    for name, value in given.items():
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not (is_whole and -(2**31) <= value < 2**31):
            raise ValueError(f"{name} is {reprlib.repr(value)}, expected a whole number between -2^31 and 2^31.")


def check_truth(**given: Any) -> None:
    """Raise ValueError unless each is True or False, or a 1 or 0 for it.

    Example:
        >>> check_truth(shuffle=False)
        >>> check_truth(shuffle="batch")
        Traceback (most recent call last):
        ValueError: shuffle is 'batch', expected True or False.
    """
    for name, value in given.items():
        if not isinstance(value, (bool, np.bool_, numbers.Integral)) or value not in (0, 1):
            raise ValueError(f"{name} is {reprlib.repr(value)}, expected True or False.")


def check_words(**given: Any) -> None:
    """Raise ValueError unless each is a list of strings.

    Example:
        >>> check_words(names=["cat", "dog"])
        >>> check_words(names="cat")
        Traceback (most recent call last):
        ValueError: names is 'cat', expected a list of strings.
    """
    for name, words in given.items():
        some = hasattr(words, "__iter__") and not isinstance(words, (str, bytes, Mapping))
        if not some or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{name} is {reprlib.repr(words)}, expected a list of strings.")


def checked_shape(name: str, given: Any) -> tuple[int, ...]:
    """A shape as a tuple of sizes, or a ValueError that says what came.

    Example:
        >>> checked_shape("event_shape", [28, 28, 1])
        (28, 28, 1)
        >>> checked_shape("event_shape", 2)
        Traceback (most recent call last):
        ValueError: event_shape is 2, expected a list of sizes, whole numbers of 1 or more, such as [2].
    """
    sizes = list(given) if hasattr(given, "__iter__") and not isinstance(given, (str, bytes)) else None
    if sizes is None or not all(isinstance(size, numbers.Integral) and not isinstance(size, bool) for size in sizes):
        one = given if isinstance(given, numbers.Integral) else 2
        raise ValueError(f"{name} is {given!r}, expected a list of sizes, whole numbers of 1 or more, such as [{one}].")
    if any(size < 1 for size in sizes):
        raise ValueError(f"{name} must hold positive sizes, received {tuple(sizes)}.")
    if any(size > MOST for size in sizes):
        raise ValueError(f"{name} must hold sizes of {MOST:,} at most, received {tuple(sizes)}.")
    return tuple(int(size) for size in sizes)


def check_number(least: float, *, is_open: bool = False, most: float = math.inf, also: str = "", **given: Any) -> None:
    """Raise ValueError unless each is a finite number of ``least`` or more; above it, where the end is open.

    ``most`` is the greatest that it may be; ``also`` are words for what else might have come.

    Example:
        >>> check_number(0, is_open=True, scale=1.5)
        >>> check_number(0, is_open=True, scale="a")
        Traceback (most recent call last):
        ValueError: scale is 'a', expected a number above 0.
    """
    for name, value in given.items():
        try:
            number = float("nan") if isinstance(value, (str, bytes, bool)) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        except OverflowError:  # a whole number that no float holds
            number = math.inf
        if not (number > least if is_open else number >= least) or number > most or number == math.inf:
            no_end = math.isinf(number)
            of_open, of_closed = f"a {'finite ' * no_end}number above ", "a finite number of " * no_end
            expected = f"{of_open}{least:g}" if is_open else f"{of_closed}{least:g} or more"
            expected = "a finite number" if math.isinf(least) else expected
            expected += "" if math.isinf(most) else f", {most:g} at most"
            raise ValueError(f"{name} is {reprlib.repr(value)}, expected {expected}{also and ', ' + also}.")


def check_path(in_stores: bool = False, **given: Any) -> None:
    """Raise ValueError unless each is a path; one that leads to an object store is none unless ``in_stores``.

    Example:
        >>> check_path(path="samples.png")
        >>> check_path(path=3)
        Traceback (most recent call last):
        ValueError: path is 3, expected a path: a string or a pathlib.Path.
    """
    for name, value in given.items():
        check_kind(name, value, (str, os.PathLike), "a path: a string or a pathlib.Path")
        if not os.fspath(value):
            raise ValueError(f"{name} is {value!r}, expected a path; '.' is the current folder.")
        if "\0" in os.fspath(value):
            raise ValueError(f"{name} is {value!r}, which holds a zero byte: no file can be called so.")
        if "://" in os.fspath(value) and not in_stores:
            raise ValueError(
                f"{name} is {value}, expected a path on this machine: only prepare, embed and export write to a store, "
                "so copy it from there before, or there afterwards."
            )


def check_kind(name: str, given: Any, kinds: Any, expected: str) -> None:
    """Raise ValueError unless what was given is of the kinds.

    Example:
        >>> check_kind("constraints", ["exp"], dict, "constraints by parameter, such as {'scale': 'exp'}")
        Traceback (most recent call last):
        ValueError: constraints is ['exp'], expected constraints by parameter, such as {'scale': 'exp'}.
    """
    if not isinstance(given, kinds):
        raise ValueError(f"{name} is {reprlib.repr(given)}, expected {expected}.")


def refuse_unknown(function: Callable[..., Any], unknown: Collection[str], more: str = "") -> None:
    """Raise TypeError where a function or a class was given arguments that it does not have.

    ``more`` is a sentence on what the user may have meant.

    Example:
        >>> def fit(x, epochs=1, **unknown):
        ...     refuse_unknown(fit, unknown)
        >>> fit([], epoch=3)
        Traceback (most recent call last):
        TypeError: fit has no argument 'epoch', the nearest is epochs; it takes x, epochs.
    """
    if not unknown:
        return
    known = [name for name, one in inspect.signature(function).parameters.items() if one.kind != one.VAR_KEYWORD]
    near = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    told = " and no ".join(repr(name) + "".join(f", the nearest is {one}" for one in near[name]) for name in unknown)
    raise TypeError(f"{function.__name__} has no argument {told}; it takes {', '.join(known)}. {more}".rstrip())


def refuse_masked(name: str, given: Any) -> None:
    """Raise ValueError where cells are masked: what is behind a mask would be taken for numbers.

    Example:
        >>> refuse_masked("x", np.ma.masked_less([1.0, -999.0], 0.0))
        Traceback (most recent call last):
        ValueError: x is a masked array with 1 cell masked: fill it, x.filled(value), or leave out the rows.
    """
    if isinstance(given, (list, tuple)):
        given = next((row for row in given if isinstance(row, np.ma.MaskedArray) and np.ma.is_masked(row)), None)
    if np.ma.is_masked(given):
        cells = f"{(count := int(np.ma.count_masked(given))):,} cell{'s' * (count > 1)}"
        raise ValueError(
            f"{name} is a masked array with {cells} masked: fill it, {name}.filled(value), or leave out the rows."
        )


def refuse_sparse(name: str, given: Any) -> None:
    """Raise ValueError where rows are sparse or ragged: of those not every number is there.

    Example:
        >>> import scipy.sparse
        >>> refuse_sparse("x", scipy.sparse.csr_matrix([[1.0, 0.0]]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: x is a csr_matrix, expected rows of one shape with every number there: pass .toarray() of it, ...
    """
    of_scipy, of_tensorflow = hasattr(given, "toarray"), hasattr(given, "dense_shape") or hasattr(given, "to_tensor")
    if of_scipy or of_tensorflow:
        of_arrow = hasattr(given, "to_pandas")
        mend = ".toarray()" if of_scipy else ".to_pandas()" if of_arrow else "tf.sparse.to_dense or .to_tensor()"
        raise ValueError(
            f"{name} is a {type(given).__name__}, expected rows of one shape with every number there: pass {mend} of "
            "it, a part at a time where it is large."
        )


def no_array(name: str, given: Any) -> ValueError:
    """The error that what was given is no array of numbers to TensorFlow, and how to make one of it.

    Example:
        >>> str(no_array("x", np.ones([2, 3], np.longdouble)))
        "x is a ndarray of float128, which is no array of numbers: pass .astype('float32') of it."
    """
    kind = getattr(given, "dtype", None) or getattr(given, "dtypes", None)
    what = f"a {type(given).__name__}" + (f" of {kind}" if kind is not None and "\n" not in str(kind) else "")
    mend = (
        "numbers alone, rows of one shape, for example the numeric columns of a table, .to_numpy('float32') where they "
        "may be null or have a type of the table's own"
    )
    if isinstance(given, np.ndarray) and given.dtype.kind == "f":  # long doubles
        mend = ".astype('float32') of it"
    return ValueError(f"{name} is {what}, which is no array of numbers: pass {mend}.")


def some(rows: Rows, purpose: str) -> Rows:
    """The rows, or a ValueError where there are none.

    Example:
        >>> some(np.zeros([0, 3]), "draw")
        Traceback (most recent call last):
        ValueError: x has no rows: there is nothing to draw.
    """
    if len(rows) == 0:
        raise ValueError(f"x has no rows: there is nothing to {purpose}.")
    return rows


def found_by(get: Callable[[Any], Any], name: str, given: Any, expected: str) -> Any:
    """What ``get`` makes of a value, or a ValueError that says what came; of masked arrays it would drop the mask.

    Example:
        >>> found_by({"relu": max}.__getitem__, "activation", "rélu", "one that Keras knows, such as 'relu'")
        Traceback (most recent call last):
        ValueError: activation is 'rélu', expected one that Keras knows, such as 'relu'.
    """
    refuse_masked(name, given)
    try:
        return get(given)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{name} is {reprlib.repr(given)}, expected {expected}.") from None
