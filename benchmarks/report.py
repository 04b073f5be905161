"""Interleaved rounds, and what is kept of them: one Markdown table and one JSON file with hardware and versions."""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Mapping
from typing import Any

RESULTS = pathlib.Path(__file__).with_name("results")


def interleave(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Rates of each side, one after the other in each round: a slow moment of the machine hits all of them."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            rates[name].append(run())
    return rates


def ratio(rates: Mapping[str, list[float]], side: str, other: str) -> float:
    """The median over rounds of side / other."""
    return statistics.median(a / b for a, b in zip(rates[side], rates[other], strict=True))


def spread(values: list[float]) -> str:
    """Median and range of rates, in thousands."""
    return f"{statistics.median(values) / 1e3:.1f}k ({min(values) / 1e3:.1f}-{max(values) / 1e3:.1f}k)"


def versions(*packages: str) -> dict[str, str]:
    """Of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "processor": model[0].split(":")[1].strip() if model else platform.processor(),
        "python": platform.python_version(),
        **versions("tfvae", "tensorflow", "keras", "tensorflow-probability", "numpy"),
    }


def keep(
    name: str,
    title: str,
    header: list[str],
    rows: list[list[str]],
    details: dict[str, Any],
    where: Mapping[str, Any] | None = None,
) -> None:
    """Print the table and write ``results/NAME.md`` and ``results/NAME.json``; ``where`` adds to ``machine``."""
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]
    where = {**machine(), **(where or {})}
    note = ", ".join(f"{key} {value}" for key, value in where.items())
    text = f"# {title}\n\n" + "\n".join(lines) + f"\n\nMeasured on: {note}.\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    record = {"machine": where, **details}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
