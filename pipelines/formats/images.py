"""Encoded images: PNG and JPEG to pixels, without trusting them.

Pixels come out as they are stored: a palette is looked up and bilevel becomes 0 and 255, both without loss; what has no
such form (16 bits, CMYK, animations) is rejected.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np

from ..errors import RowError
from .resizing import Resizing

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif")
_OTHERS = (".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".pgm", ".ppm")
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # how PNG and JPEG files begin
_CHANNELS = {"L": 1, "1": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type, where a pixel is stored as what it is
_PNG_HEADER = struct.Struct(">8sI4sIIBBBBBI")  # the signature, then the chunk that must be first
_PNG_START = MAGIC[0], 13, b"IHDR"


def foreign(name: str) -> str | None:
    """Why a file is rejected that is a picture by its name, but neither PNG nor JPEG.

    Example:
        >>> foreign("a.GIF"), foreign("a.png"), foreign("notes.txt")
        ('a .gif file, expected PNG or JPEG: convert it to PNG', None, None)
    """
    suffix = next((suffix for suffix in _OTHERS if name.lower().endswith(suffix)), None)
    return suffix and f"a {suffix} file, expected PNG or JPEG: convert it to PNG"


def encoded_limit(max_pixels: int) -> int:
    """Most bytes that an image of so many pixels takes when it is encoded: four a pixel, and its metadata.

    Example:
        >>> encoded_limit(784)
        1051712
    """
    return 4 * max_pixels + (1 << 20)


def image_shape(content: bytes, max_pixels: int, resizing: Resizing | None = None) -> tuple[int, int, int]:
    """The shape `[H, W, C]` that the pixels will have, from the header alone.

    Raises:
        RowError: It is no image, has too many pixels, or a form that is not taken.
    """
    shape = _plain_png_shape(content)
    if shape is None or shape[0] * shape[1] > max_pixels:
        image, mode = _header(content, max_pixels)
        shape = image.height, image.width, _CHANNELS[mode]
    return (resizing.height, resizing.width, shape[2]) if resizing else shape


def _plain_png_shape(content: bytes) -> tuple[int, int, int] | None:
    """The shape of the commonest kind, 8 bits a channel without palette or animation; None for all else.

    It asks the same as ``_header`` in a tenth of the time, which counts when millions of images are planned.
    """
    if len(content) < _PNG_HEADER.size:
        return None
    *start, width, height, bits, colour, _, _, _, checksum = _PNG_HEADER.unpack_from(content)
    plain = tuple(start) == _PNG_START and bits == 8 and colour in _PNG_CHANNELS and b"acTL" not in content
    if not plain or not width * height or zlib.crc32(content[12:29]) != checksum:
        return None
    return height, width, _PNG_CHANNELS[colour]


def pixels(content: bytes, max_pixels: int, resizing: Resizing | None = None) -> np.ndarray:
    """Decoded pixels, uint8 `[H, W, C]`, as they are stored or resized.

    Raises:
        RowError: See ``image_shape``; or a checksum differs, or the image is truncated.

    Example:
        >>> import io
        >>> import PIL.Image
        >>> PIL.Image.fromarray(np.full([2, 3], 255, np.uint8)).save(file := io.BytesIO(), "PNG")
        >>> pixels(file.getvalue(), max_pixels=6).shape
        (2, 3, 1)
    """
    image, mode = _header(content, max_pixels)
    if image.format == "PNG":
        _check_chunks(content)
    try:
        kept = image if image.mode == mode != "1" else image.convert("L" if mode == "1" else mode)
        kept = resizing(kept) if resizing else kept
        values = kept.tobytes()
    except Exception as error:  # see _header
        raise RowError(f"cannot be decoded: {error}") from error
    return np.frombuffer(values, np.uint8).reshape(kept.height, kept.width, _CHANNELS[mode])


def check_encoded(content: bytes, max_pixels: int) -> None:
    """What can be said of an image before it is decoded, for other decoders, which would take more or change values.

    Raises:
        RowError: See ``pixels``.
    """
    image_shape(content, max_pixels)
    if content.startswith(MAGIC[0]):
        _check_chunks(content)


def _header(content: bytes, max_pixels: int) -> tuple[Any, str]:
    """An image of which only the header has been read, within the limit of pixels, and the mode that keeps it."""
    import PIL.Image

    try:
        image = PIL.Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
    except PIL.UnidentifiedImageError as error:  # whose text holds an address, and is another in each process
        raise RowError("not a readable PNG or JPEG: its first bytes or its header are of no such file") from error
    except Exception as error:  # Pillow raises a dozen kinds for hostile bytes
        raise RowError(f"not a readable PNG or JPEG: {error}") from error
    if image.width * image.height > max_pixels:
        raise RowError(f"{image.width} x {image.height} pixels, expected at most {max_pixels} (--max-pixels)")
    if image.format == "PNG" and content[24] == 16:  # Pillow would drop the lower byte and say nothing
        raise RowError("16 bits a channel, expected at most 8")
    return image, _mode(image)


def _mode(image: Any) -> str:
    """The mode that keeps every stored value."""
    frames = getattr(image, "n_frames", 1)
    mode = ("RGBA" if "transparency" in image.info else "RGB") if image.mode == "P" else image.mode
    # The further pictures of a JPEG (MPO) are previews of the first; those of a PNG are an animation.
    if mode not in _CHANNELS or (frames != 1 and image.format != "MPO"):
        raise RowError(f"mode {image.mode} with {frames} frame(s), expected one frame of {sorted(_CHANNELS)}")
    return mode


def _check_chunks(content: bytes) -> None:
    """Every chunk of a PNG is whole and agrees with its checksum: Pillow decodes past most damage in silence."""
    offset, kind = 8, b""
    while kind != b"IEND":
        if len(content) < offset + 12:
            raise RowError("cannot be decoded: the file is truncated")
        length, kind = int.from_bytes(content[offset : offset + 4], "big"), content[offset + 4 : offset + 8]
        end = offset + 12 + length
        if len(content) < end:
            raise RowError("cannot be decoded: the file is truncated")
        if zlib.crc32(content[offset + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise RowError(f"cannot be decoded: the checksum of chunk {kind.decode('ascii', 'replace')} differs")
        offset = end
