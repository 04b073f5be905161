"""Tables for people: cells of text, the first row the head."""

from collections.abc import Sequence


def plain(rows: Sequence[Sequence[str]]) -> str:
    """Lines for a terminal, each column but the last as wide as its widest cell.

    Example:
        >>> print(plain([("ELBO", "-25.41 nats"), ("log p(x)", "-25.23 nats")]))
        ELBO      -25.41 nats
        log p(x)  -25.23 nats
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=False)] + [last] for *cells, last in rows
    )
    return "\n".join(map("".join, lines))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what a cell must not hold, such as a bar, is for the caller to escape.

    Example:
        >>> print(markdown([("size of z", "ours"), ("3", "-140.5")]))
        | size of z | ours |
        | --- | --- |
        | 3 | -140.5 |
    """
    head, *body = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body))
