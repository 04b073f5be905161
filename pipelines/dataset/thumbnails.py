"""The first rows of each split as pictures: a worker cuts them out of its shard, the driver lays them on a sheet.

They travel in commit records, so they are few and small: of a split's first 64 rows the good ones, of a large image
every n-th pixel, and no more than two mebibytes a split. Which rows they are follows from the plan alone.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import extras

with extras.needed("pipelines"):
    from PIL import Image

_ROWS, _SIDE, _BYTES = 64, 128, 2 << 20
_SHEET_COLUMNS, _GAP = 8, 1  # images, pixels


def limit(shape: Sequence[int], dtype: str) -> int:
    """How many rows of a split are shown; none where they are no images ``[H, W, C]`` with C from 1 to 4.

    Example:
        >>> limit((28, 28, 1), "uint8"), limit((784,), "uint8"), limit((4000, 3000, 3), "float32")
        (64, 0, 14)
    """
    if len(shape) != 3 or shape[2] not in (1, 2, 3, 4) or min(shape) < 1:
        return 0
    step = _step(shape)
    pixels = -(-shape[0] // step) * -(-shape[1] // step)
    return min(_ROWS, _BYTES // (pixels * _colours(shape[2]) * np.dtype(dtype).itemsize))


def thumbnails(x: np.ndarray) -> np.ndarray:
    """Images ``[N, H, W, C]`` to ``[N, h, w, c]``, each side at most 128 pixels, without the alpha channel."""
    step = _step(x.shape[1:])
    return x[:, ::step, ::step, : _colours(x.shape[3])]


def to_json(x: np.ndarray) -> dict[str, Any]:
    """An array as plain JSON values, its bytes in base64."""
    return {"shape": list(x.shape), "data": base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()}


def from_json(value: dict[str, Any], dtype: str) -> np.ndarray:
    """The inverse of ``to_json``.

    Example:
        >>> from_json(to_json(np.uint8([[3, 4]])), "uint8")
        array([[3, 4]], dtype=uint8)
    """
    return np.frombuffer(base64.b64decode(value["data"]), dtype).reshape(value["shape"])


def scale(minimum: float, maximum: float) -> tuple[float, float]:
    """Which values of floats in this range are shown black and white: 0 and 1 where they suffice.

    Example:
        >>> scale(0.1, 0.9), scale(-1.0, 1.0)
        ((0.0, 1.0), (-1.0, 1.0))
    """
    return (0.0, 1.0) if minimum >= 0 and maximum <= 1 else (minimum, maximum)


def to_bytes(x: np.ndarray, black: float, white: float) -> np.ndarray:
    """Floats from ``black`` to ``white`` to bytes from 0 to 255, to the nearest; bytes stay as they are."""
    if x.dtype == np.uint8:
        return x
    share = (x.astype(np.float64) - black) / max(white - black, np.finfo(np.float64).tiny)
    return np.floor(np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)


def sheet(x: np.ndarray) -> np.ndarray:
    """Byte images ``[N, h, w, c]`` in rows of eight, a grey line between them: ``[H, W, c]``.

    Example:
        >>> sheet(np.zeros([9, 28, 28, 1], np.uint8)).shape
        (57, 231, 1)
    """
    count, height, width, channels = x.shape
    columns = min(_SHEET_COLUMNS, count)
    rows = -(-count // columns)
    size = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels)
    page = np.full(size, 128, np.uint8)
    for index, image in enumerate(x):
        top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
        page[top : top + height, left : left + width] = image
    return page


def png(page: np.ndarray) -> bytes:
    """``[H, W, 1]`` or ``[H, W, 3]`` bytes as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(page[..., 0] if page.shape[2] == 1 else page).save(file, "PNG")
    return file.getvalue()


def _step(shape: Sequence[int]) -> int:
    return -(-max(shape[:2]) // _SIDE)


def _colours(channels: int) -> int:
    return 1 if channels < 3 else 3
