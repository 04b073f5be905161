"""Tables for people: cells of text, the first row the head."""

from collections.abc import Mapping, Sequence
from typing import Any


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


def findings(found: Mapping[str, float | None]) -> str:
    """Numbers by name as one text, each with its standard error where there is one.

    Example:
        >>> findings({"kl": 25.1234, "kl_standard_error": 0.1, "rows": 100, "gap": None})
        'kl 25.12 ± 0.1, rows 100, gap unknown'
    """
    texts = {name: "unknown" if value is None else f"{value:.4g}" for name, value in found.items()}
    errors = {name.removesuffix("_standard_error"): name for name in found if name.endswith("_standard_error")}
    shown = [name for name in found if name not in errors.values() or name.removesuffix("_standard_error") not in found]
    parts = (f"{name.replace('_', ' ')} {texts[name]}" for name in shown)
    return ", ".join(
        f"{part} ± {texts[errors[name]]}" if name in errors else part for name, part in zip(shown, parts, strict=True)
    )


def log_marginal(result: Mapping[str, Any]) -> str:
    """log p(x) of an evaluation with its error over rows; a lower bound where that cannot be told.

    Example:
        >>> result = {"log_marginal": -18.774, "log_marginal_standard_error": 0.25, "monte_carlo_standard_error": 0.01}
        >>> log_marginal(result)
        '-18.77 ± 0.25 nats'
        >>> log_marginal(result | {"monte_carlo_standard_error": None})
        'at least -18.77 nats'
        >>> log_marginal(result | {"log_marginal_standard_error": None})
        '-18.77 nats of one row'
    """
    value = f"{result['log_marginal']:.2f}"
    if result["monte_carlo_standard_error"] is None:
        return f"at least {value} nats"
    error = result["log_marginal_standard_error"]
    return f"{value} nats of one row" if error is None else f"{value} ± {error:.2f} nats"
