"""Encoded images: PNG and JPEG to pixels, without trusting them.

Pixels come out as they are stored: a palette is looked up and bilevel becomes 0 and 255, both without loss; what has no
such form (16 bits, CMYK, animations) is rejected.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import storage
from ..errors import RowError
from .resizing import Resizing

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif")
_OTHERS = (".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".pgm", ".ppm")
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # how PNG and JPEG files begin
_CHANNELS = {"L": 1, "1": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type, where a pixel is stored as what it is
_PALETTE = 3
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PACKED = (b"zTXt", b"iTXt", b"iCCP")  # chunks that Pillow unpacks when it opens a file, up to a limit
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
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


def is_named_so(name: str) -> bool:
    """Whether a name is that of a picture, of whatever kind."""
    return name.lower().endswith((*SUFFIXES, *_OTHERS))


def encoded_limit(max_pixels: int) -> int:
    """Most bytes that an image of so many pixels takes when it is encoded: four a pixel, and its metadata.

    Example:
        >>> encoded_limit(784)
        1051712
    """
    return 4 * max_pixels + (1 << 20)


def refuse_large(size: int, limit: int) -> None:
    """Raises RowError for an encoded image of more bytes than any with so many pixels takes."""
    if size > limit:
        raise RowError(f"{size} bytes, expected at most {limit} for an image (--max-pixels)")


def read_encoded(path: str, limit: int) -> bytes:
    """An image file, as it is.

    Raises:
        RowError: It cannot be read, or has more bytes than ``limit``: then it is not read.
    """
    try:
        refuse_large(storage.identify(path).size, limit)
        return storage.read(path)
    except OSError as error:
        raise RowError(f"cannot be read: {error.strerror}") from error


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
    plain = tuple(start) == _PNG_START and bits == 8 and colour in _PNG_CHANNELS
    plain = plain and not any(kind in content for kind in (b"acTL", *_PACKED))
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
    _check_damage(content)
    try:
        kept = image if image.mode == mode != "1" else image.convert("L" if mode == "1" else mode)
        kept = resizing(kept) if resizing else kept
        values = kept.tobytes()
        last = image.crop((0, image.height - 1, image.width, image.height))
        if image.format == "PNG" and (content[28] or not any(last.tobytes())):
            _check_rows(content)
    except RowError:
        raise
    except Exception as error:  # see _header
        raise RowError(f"cannot be decoded: {error}") from error
    return np.frombuffer(values, np.uint8).reshape(kept.height, kept.width, _CHANNELS[mode])


def check_encoded(content: bytes, max_pixels: int) -> None:
    """What can be said of an image before it is decoded, for other decoders, which would take more or change values.

    Raises:
        RowError: See ``pixels``.
    """
    image_shape(content, max_pixels)
    _check_damage(content)


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


def _check_damage(content: bytes) -> None:
    """What Pillow decodes past in silence, and other decoders do not."""
    if content.startswith(MAGIC[0]):
        _check_chunks(content)
    else:
        _check_scan(content)


def _check_scan(content: bytes) -> None:
    """The picture of a JPEG has an end; those before it, of its metadata, do not count."""
    offset = 2
    while content[offset : offset + 1] == b"\xff" and content[offset + 1 : offset + 2] != b"\xda":
        offset += 1 if content[offset + 1 : offset + 2] == b"\xff" else 2 + max(2, _number(content[offset + 2 :][:2]))
    if content.find(b"\xff\xd9", offset) < 0:
        raise RowError("cannot be decoded: the file is truncated")


def _check_chunks(content: bytes) -> None:
    """Every chunk of a PNG is whole and agrees with its checksum, and those that say what pixels are make sense."""
    found: dict[bytes, int] = {}
    for kind, offset, length in _chunks(content):
        if zlib.crc32(content[offset - 4 : offset + length]) != _number(content[offset + length :][:4]):
            raise RowError(f"cannot be decoded: the checksum of chunk {kind.decode('ascii', 'replace')} differs")
        if kind[:1].isupper() and (kind not in _CRITICAL or (kind != b"IDAT" and kind in found)):
            raise RowError(f"cannot be decoded: chunk {kind.decode('ascii', 'replace')} is unknown, or comes twice")
        found[kind] = length
    compression, filtering, interlacing = content[26:29]
    if compression or filtering or interlacing > 1:
        raise RowError(f"cannot be decoded: compression, filter, interlacing {compression, filtering, interlacing}")
    colours = found.get(b"PLTE", 0) / 3
    if content[25] == _PALETTE and (colours not in range(1, 257) or found.get(b"tRNS", 0) > colours):
        raise RowError(f"cannot be decoded: the palette has {found.get(b'PLTE', 0)} bytes")


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG: their kind, where their data begin, and how many bytes these are."""
    offset, kind = 8, b""
    while kind != b"IEND":
        length, kind = _number(content[offset : offset + 4]), content[offset + 4 : offset + 8]
        if len(content) < offset + 12 or len(content) < offset + 12 + length:
            raise RowError("cannot be decoded: the file is truncated")
        yield kind, offset + 8, length
        offset += 12 + length


def _check_rows(content: bytes) -> None:
    """A PNG has the data of all its rows: where they end early, Pillow leaves the others black."""
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    planes = bits * _PNG_CHANNELS.get(colour, 1)
    sizes = [(width, height)]
    if content[28]:
        sizes = [(-(-(width - x) // right), -(-(height - y) // down)) for x, right, y, down in _ADAM7]
    needed = sum(h * (1 + (w * planes + 7) // 8) for w, h in sizes if w > 0 and h > 0)
    packed = b"".join(content[at : at + length] for kind, at, length in _chunks(content) if kind == b"IDAT")
    if len(zlib.decompressobj().decompress(packed, needed)) < needed:
        raise RowError("cannot be decoded: it ends before its last row")


def _number(content: bytes) -> int:
    return int.from_bytes(content, "big")
