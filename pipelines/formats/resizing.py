"""Pictures of one size, made of pictures of any: turned upright, cut to proportion where that is asked for, and scaled.

The filter is Lanczos's, which Pillow widens as it shrinks a picture, so that nothing is aliased; it computes in whole
numbers, the same on any machine. Colours are weighed by their opacity. The values are those of the file (sRGB, mostly),
not of linear light, as other programs scale them too.
"""

import dataclasses
import re
from typing import Any

from ..errors import PipelineError

_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", re.IGNORECASE)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width, as ``--resize`` has them.

    Raises:
        PipelineError: It is no size.

    Example:
        >>> parse_size("48x64")
        (48, 64)
    """
    if not (found := _SIZE.fullmatch(text)):
        raise PipelineError(f"--resize is {text!r}, expected HEIGHTxWIDTH in pixels, such as 64x64")
    return int(found[1]), int(found[2])


@dataclasses.dataclass(frozen=True)
class Resizing:
    """How pictures become ``[height, width, C]``.

    Attributes:
        height, width: In pixels.
        crop: Whether only the largest part from the middle that has these proportions (a square for a square) is
            taken; else the whole picture, squeezed.

    Example:
        >>> import PIL.Image
        >>> Resizing(2, 2, crop=True)(PIL.Image.new("L", (9, 4))).size
        (2, 2)
    """

    height: int
    width: int
    crop: bool = False

    def __call__(self, image: Any) -> Any:
        """A Pillow image of that size, upright: as the orientation in its EXIF says."""
        import PIL.Image
        import PIL.ImageOps

        image = PIL.ImageOps.exif_transpose(image)
        if self.crop:
            # The larger of both ratios decides; whole numbers keep the part inside.
            width = min(image.width, max(1, image.height * self.width // self.height))
            height = min(image.height, max(1, image.width * self.height // self.width))
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return image.resize((self.width, self.height), PIL.Image.Resampling.LANCZOS)
