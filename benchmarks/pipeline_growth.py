"""How the cost of an embedding job grows: seconds and peak memory of the command over rows, with a plot.

    python -m benchmarks.pipeline_growth [--rows 100000 1000000 10000000 30000000] [--folder DIR]

Each run is ``python -m pipelines.embed`` in a process of its own, and each point the median of five runs or, from a
million rows on, of fewer. What a job of ten thousand rows takes is the start-up (imports, the model, Beam), and is
taken off before the rate is formed.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import matplotlib.pyplot as plt

from benchmarks import report
from benchmarks.pipelines import encoder, write_parquet

START_UP_ROWS = 10_000  # which take a twentieth of a second
MOST_RUNS, MOST_ROWS = 5, 3_000_000  # of one size, in all its runs


def command(model: str, source: str, folder: pathlib.Path) -> tuple[float, float]:
    """Seconds and peak resident memory, in MB, of the embedding command."""
    output = folder / "embeddings"
    line = [sys.executable, "-m", "pipelines.embed", "--model", model, "--input", source, "--output", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{' '.join(line)} ended with status {status}")
    shutil.rmtree(output)
    return seconds, usage.ru_maxrss / 1024


def median(model: str, source: str, folder: pathlib.Path, rows: int) -> tuple[float, float]:
    """The seconds, in the median, and the largest peak of as many runs as such a size is given."""
    os.sync()  # or the disk would still write the source while the job reads it
    runs = [command(model, source, folder) for _ in range(max(1, min(MOST_RUNS, MOST_ROWS // rows)))]
    return statistics.median(seconds for seconds, _ in runs), max(peak for _, peak in runs)


def plot(points: dict[int, dict[str, float]], path: pathlib.Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, key, label in zip(axes, ("rows_per_second", "peak_mb"), ("rows/s", "peak memory, MB"), strict=True):
        axis.semilogx(list(points), [point[key] for point in points.values()], "o-")
        axis.set(xlabel="rows of 784 bytes", ylabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6, 10**7, 3 * 10**7], help="sizes of a job")
    parser.add_argument("--folder", help="where the data are made; a temporary folder by default")
    options = parser.parse_args(arguments)
    points: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = pathlib.Path(place)
        model = encoder(folder)
        start_up, _ = median(model, write_parquet(folder / "rows.parquet", START_UP_ROWS), folder, START_UP_ROWS)
        for rows in options.rows:
            seconds, peak = median(model, write_parquet(folder / "rows.parquet", rows), folder, rows)
            points[rows] = {
                "seconds": seconds,
                "rows_per_second": (rows - START_UP_ROWS) / (seconds - start_up),
                "peak_mb": peak,
            }
            print(f"{rows:,} rows: {points[rows]}", file=sys.stderr, flush=True)
    table = [
        [f"{rows:,}", f"{point['seconds']:.1f}", f"{point['rows_per_second']:,.0f}", f"{point['peak_mb']:,.0f}"]
        for rows, point in points.items()
    ]
    header = ["rows", "seconds", f"rows/s after {start_up:.1f} s of start-up", "peak memory, MB"]
    report.RESULTS.mkdir(exist_ok=True)
    plot(points, report.RESULTS / "pipeline_growth.png")
    title = "How an embedding job grows with its rows, Parquet, 784 bytes a row"
    report.keep("pipeline_growth", title, header, table, {"start_up_s": start_up, "points": points})


if __name__ == "__main__":
    main()
