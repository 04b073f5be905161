"""Names and keys that other programs wrote: text where they are UTF-8, and how they are shown where they are not."""

from collections.abc import Collection

EMPTY_KEY = "the key is empty"


def key_text(raw: bytes) -> tuple[str, bool]:
    r"""A key as text, and whether its bytes are UTF-8; where they are not, they are shown by their numbers.

    Example:
        >>> key_text(b"row-7"), key_text(b"row-\xff")
        (('row-7', True), ('row-\\xff', False))
    """
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace"), False


def is_utf8(text: str) -> bool:
    r"""Whether the bytes behind a text that was read with ``surrogateescape``, as names of files are, were UTF-8.

    Example:
        >>> is_utf8("Zürich"), is_utf8(b"Z\xfcrich".decode("utf-8", "surrogateescape"))
        (True, False)
    """
    return text.isascii() or not any(0xD800 <= ord(letter) < 0xE000 for letter in text)


def apart(given: str, names: Collection[str]) -> str:
    """What to write instead of several names in one text, for the end of a sentence; nothing for any other text.

    Example:
        >>> apart("height,colour", ["colour", "height", "id"])
        ': give the names apart, height colour'
        >>> apart("size", ["colour", "height", "id"])
        ''
    """
    parts = [part.strip() for part in given.split(",")]
    return f": give the names apart, {' '.join(parts)}" if len(parts) > 1 and {*parts} <= {*names} else ""


def shown(text: str) -> str:
    r"""Such a text as it can be printed and written.

    Example:
        >>> print(shown(b"Z\xfcrich".decode("utf-8", "surrogateescape")))
        Z\xfcrich
    """
    return key_text(text.encode("utf-8", "surrogateescape"))[0]
