"""What the sources of image files share: one file's pixels, and the one size that rows have."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from ..errors import PipelineError, RowError
from ..formats.images import encoded_limit, image_shape, pixels
from ..formats.resizing import Resizing
from .base import Fields
from .plan import Schema

_SHOWN = 3  # sizes that an error names
_ADVICE = "--resize HxW makes one size of all, --crop without squeezing them"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How encoded pictures become rows.

    Attributes:
        max_pixels: Most pixels of a picture.
        resizing: What size they get; None keeps theirs.
    """

    max_pixels: int
    resizing: Resizing | None

    @classmethod
    def of(cls, max_pixels: int, fields: Fields) -> "Pictures":
        """As the options say.

        Raises:
            PipelineError: They make no sense.
        """
        if fields.resize is None:
            if fields.crop:
                raise PipelineError("--crop cuts pictures to the proportions of --resize HxW: give that too")
            return cls(max_pixels, None)
        if fields.resize[0] * fields.resize[1] > max_pixels:
            raise PipelineError(f"--resize has more than {max_pixels} pixels (--max-pixels)")
        return cls(max_pixels, Resizing(*fields.resize, crop=bool(fields.crop)))

    @property
    def limit(self) -> int:
        """Most bytes of a picture."""
        return encoded_limit(self.max_pixels)

    def shape(self, content: bytes) -> tuple[int, int, int] | None:
        """The shape that the pixels will have; None where the header is not sound: the worker says why."""
        try:
            return self.header(content)
        except RowError:
            return None

    def header(self, content: bytes) -> tuple[int, int, int]:
        """``shape``, or the RowError that says why there is none."""
        return image_shape(content, self.max_pixels, self.resizing)

    def pixels(self, content: bytes, schema: Schema) -> np.ndarray:
        """A row.

        Raises:
            RowError: It is no such picture, or has another shape.
        """
        x = pixels(content, self.max_pixels, self.resizing)
        if x.shape[:2] != schema.shape[:2]:
            raise RowError(f"shape {list(x.shape)}, expected {list(schema.shape)}: {_ADVICE}")
        return x


def common_shape(path: str, shapes: Sequence[tuple[int, ...] | None]) -> tuple[int, ...]:
    """The commonest of the shapes that are known, one at least.

    Raises:
        PipelineError: Most images have another height or width.

    Example:
        >>> common_shape("photos", [(8, 8, 1), (8, 8, 1), (9, 8, 1)])
        (8, 8, 1)
    """
    known = [shape for shape in shapes if shape is not None]
    sizes = collections.Counter(shape[:2] for shape in known)
    if 2 * sizes.most_common(1)[0][1] < len(known):
        seen = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.most_common(_SHOWN))
        more = f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else ""
        raise PipelineError(f"the {len(known)} images in {path} have {len(sizes)} sizes, {seen}{more}: {_ADVICE}")
    return collections.Counter(known).most_common(1)[0][0]
