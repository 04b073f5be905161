"""NumPy arrays as rows: what they must hold, how bytes are grey images, and ``.npy`` files mapped and not read."""

import threading

import numpy as np

from .. import storage
from ..errors import PipelineError

# NumPy has Python parse an array's header, and Python 3.11's parser fails now and then where threads use it at once
# ("AST constructor recursion depth mismatch").
reading_header = threading.Lock()


def load_npy(path: str) -> np.ndarray:
    """An array mapped from its file, so that a row costs a row.

    Raises:
        PipelineError: It is none of numbers, or not the whole file.
    """
    try:
        with storage.open_to_read(path) as file:
            start = file.read(len(np.lib.format.MAGIC_PREFIX))
        with reading_header:
            array = storage.map_array(path)
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror or error}") from error
    except PipelineError:
        raise
    except Exception as error:  # NumPy's and Python's parsers of headers have no common class
        raise PipelineError(f"{path} cannot be read as an .npy array: {_why(start, error)}") from error
    if not isinstance(array, np.memmap):
        raise PipelineError(f"{path} is an archive, expected one array: use --source npz")
    left = storage.identify(path).size - (array.offset + array.nbytes)
    if left > 0:
        raise PipelineError(
            f"{path} holds {left:,} bytes after its array {list(array.shape)}: save each array in a file of its own, "
            "or all in one by np.savez"
        )
    return array


def _why(start: bytes, error: Exception) -> str:
    if start != np.lib.format.MAGIC_PREFIX:
        return "it does not begin as np.save begins one"
    if "Python objects" in str(error):
        return "it holds Python objects, which would have to be unpickled: save numbers, .astype('float32')"
    if "greater than file size" in str(error):
        return "it ends early: get it again"
    return "its header is damaged: save it again with np.save"


def check_rows(array: np.ndarray, name: str) -> np.ndarray:
    """An array that can be rows: `[N, ...]` of uint8, float32 or float64.

    Raises:
        PipelineError: It cannot; ``name`` is what the error calls it.
    """
    if array.dtype != np.uint8 and array.dtype.newbyteorder("=") not in (np.float32, np.float64):
        how = "save it as .astype('float32')" if array.dtype.kind in "biuf" else "save real numbers"
        how += ", which holds whole numbers to 16,777,216" * (array.dtype.kind in "iu")
        raise PipelineError(f"{name} holds {array.dtype}, expected uint8, float32 or float64: {how}")
    if array.ndim < 2 or array.size == 0:
        raise PipelineError(
            f"{name} has shape {list(array.shape)}, expected [N, ...] with at least one row and one value"
        )
    return array


def check_labels(labels: np.ndarray, rows: int, name: str) -> np.ndarray:
    """Labels of so many rows: integers `[N]`.

    Raises:
        PipelineError: See ``check_rows``.
    """
    if labels.dtype.kind not in "iu" or labels.shape != (rows,) or labels.min() < 0:
        raise PipelineError(
            f"{name} holds {labels.dtype} {list(labels.shape)}, expected integers from 0 up, shape [{rows}]"
        )
    return labels


def layout_of(array: np.ndarray, dtype: str | None = None) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of the rows of an array; bytes are taken as the floats of the same numbers where ``dtype`` says.

    Raises:
        PipelineError: Floats cannot be taken as bytes.

    Example:
        >>> layout_of(np.zeros([10, 28, 28], np.uint8)), layout_of(np.zeros([10, 28, 28], np.uint8), "float32")
        (((28, 28, 1), 'uint8'), ((28, 28), 'float32'))
    """
    own = "uint8" if array.dtype == np.uint8 else "float32"
    return grey(array.shape[1:], taken := dtype_of(own, dtype)), taken


def dtype_of(own: str, wanted: str | None) -> str:
    """The dtype that rows of ``own`` are taken as: floats stay what they are, bytes may be numbers.

    Raises:
        PipelineError: See ``layout_of``.
    """
    if wanted not in (None, own, "float32"):
        raise PipelineError(f"--dtype is {wanted}, the rows are {own}: leave it out")
    return wanted or own


def grey(shape: tuple[int, ...], dtype: str) -> tuple[int, ...]:
    """The shape of rows of such arrays: bytes `[H, W]` are grey images `[H, W, 1]`."""
    return (*shape, 1) if dtype == "uint8" and len(shape) == 2 else shape


def finite_rows(x: np.ndarray, missing: bool = False) -> np.ndarray:
    """Which rows of floats hold nothing but finite values, and NaN where values may be missing, bool `[N]`.

    Example:
        >>> x = np.array([[1.0, np.nan], [np.inf, 0.0]])
        >>> finite_rows(x).tolist(), finite_rows(x, missing=True).tolist()
        ([False, False], [True, False])
    """
    good = np.isfinite(x) | np.isnan(x) if missing else np.isfinite(x)
    return good.all(axis=tuple(range(1, x.ndim)))


def exact_rows(x: np.ndarray, dtype: str) -> np.ndarray:
    """Which rows of integers are the same numbers in ``dtype``, uint8 or float32, bool `[N]`.

    Example:
        >>> exact_rows(np.array([[255], [256], [2**24 + 1]]), "uint8").tolist()
        [True, False, False]
        >>> exact_rows(np.array([[255], [2**24], [2**24 + 1]]), "float32").tolist()
        [True, True, False]
    """
    with np.errstate(invalid="ignore"):
        # Comparing in long doubles, which hold every 64-bit integer: NumPy would round int64 to float64.
        same = x.astype(dtype).astype(np.longdouble) == x.astype(np.longdouble)
    return same.all(axis=tuple(range(1, x.ndim)))
