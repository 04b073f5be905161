"""The digits that come with scikit-learn."""

import functools
import hashlib

import numpy as np

from .. import extras
from .base import ArraySource
from .plan import Input, Plan, Schema, class_names, concatenated


class Digits(ArraySource):
    """scikit-learn's 1,797 digits, 8x8, no file needed; 0..16 becomes 0..255 by round(v * 255 / 16), one to one."""

    needs_input = False

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        x, y = _digits()
        raw = x.tobytes() + y.tobytes()
        inputs = [Input("scikit-learn/digits", len(raw), hashlib.sha256(raw).hexdigest())]
        schema = Schema(x.shape[1:], "uint8", class_names([y]))
        return concatenated(schema, [("scikit-learn/digits", "digits", None, len(x))], inputs)

    def arrays(self, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See ``ArraySource.arrays``."""
        return _digits()


@functools.lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    with extras.needed("sklearn"):
        from sklearn.datasets import load_digits

    data = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8)[..., None], data.target.astype(np.uint8)
