"""What belongs to an extra, and the sentence where it is not installed."""

import contextlib
from collections.abc import Iterator

_DISTRIBUTION = __name__.split(".")[0].replace("_", "-")


@contextlib.contextmanager
def needed(extra: str) -> Iterator[None]:
    """Around imports of what ``pip install 'tfvae[extra]'`` brings.

    Raises:
        ModuleNotFoundError: If one is not there; the message says how to install it.

    Example:
        >>> with needed("pipelines"):
        ...     import a_package_of_nobody
        Traceback (most recent call last):
        ModuleNotFoundError: a_package_of_nobody is not installed: pip install 'tfvae[pipelines]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = f"{error.name} is not installed: pip install '{_DISTRIBUTION}[{extra}]'"
        raise ModuleNotFoundError(sentence, name=error.name) from error
