"""Start-up: fresh processes that import, beside those that import what is imported anyway.

    python -m benchmarks.startup [--rounds 5]

Each turn is the wall time of a whole process, from its start to its end; the sides take turns. Which of the heavy
packages a process had loaded in the end is asked of processes of their own, before.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks import report

PACKAGES = "tensorflow, keras, tensorflow_probability"
IMPORTS = {
    f"import {PACKAGES}": f"import {PACKAGES}",
    "import tfvae": "import tfvae",
    "import apache_beam, pyarrow.parquet": "import apache_beam, pyarrow.parquet",
    "import pipelines.embed": "import pipelines.embed",
}
HELP = "tfvae --help"
BESIDE = {"import tfvae": f"import {PACKAGES}", "import pipelines.embed": "import apache_beam, pyarrow.parquet"}
HEAVY = ("tensorflow", "keras", "tensorflow_probability", "apache_beam")
REPORT_LOADED = f"; import sys; print(*[name for name in {HEAVY} if name in sys.modules])"


def commands() -> dict[str, list[str]]:
    """Each side's command line: an import in this interpreter, and the script that is installed beside it."""
    script = str(pathlib.Path(sys.executable).with_name("tfvae"))
    return {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()} | {HELP: [script, "--help"]}


def seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def loaded(code: str) -> str:
    """Which of the heavy packages a process had loaded after the code."""
    done = subprocess.run([sys.executable, "-c", code + REPORT_LOADED], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[-2].replace(" ", ", ") or "none of them"


def shown(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"


def timed(command: Sequence[str]) -> Callable[[], float]:
    return lambda: seconds(command)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each side after the first (default 5)")
    options = parser.parse_args(arguments)
    help_code = "import sys; import tfvae.cli; tfvae.cli.main(['--help'], standalone_mode=False)"
    codes = IMPORTS | {HELP: help_code}
    packages = {name: loaded(code) for name, code in codes.items()}  # this also reads every file once
    times = report.interleave({name: timed(command) for name, command in commands().items()}, options.rounds)
    ratios = {name: report.ratio(times, name, other) for name, other in BESIDE.items()}
    rows = [
        [
            f"`{name}`",
            shown(times[name]),
            f"{ratios[name]:.2f} of `{BESIDE[name]}`" if name in ratios else "",
            packages[name],
        ]
        for name in times
    ]
    header = ["process", "seconds", "ratio", f"loaded of {', '.join(HEAVY)}"]
    report.keep("startup", "Start-up, fresh processes", header, rows, {"seconds": times, "ratios": ratios})


if __name__ == "__main__":
    main()
