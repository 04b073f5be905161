"""``embed`` from ``s3://`` to ``s3://``, on a server on loopback, beside the same on the local disk.

    python -m benchmarks.stores [--rows 3000000] [--rounds 3]

The server is Moto, which is Python, reads a whole object for any part of it and shares the machine's cores with the
job; so what it gives to plain PyArrow, which reads the input and does nothing with it, is measured too, and so are the
seconds of processor that the job and the server take: a server elsewhere takes none of the job's. Rates count all of a
run, planning and verification too.
"""

import os
import pathlib
import resource
import shutil
import statistics
import tempfile
import time

import click
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from benchmarks import report
from benchmarks.pipelines import PIXELS, ROW_GROUP, Side, blocks, encoder, timed
from benchmarks.torture_stores import served


def write_files(folder: pathlib.Path, rows: int) -> None:
    """Parquet files of a row group each."""
    for number, (keys, x) in enumerate(blocks(rows)):
        values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), len(x), [None, pa.py_buffer(x)])
        table = pa.table({"key": keys, "x": values})
        pq.write_table(table, folder / f"{number:04d}.parquet", compression="none", use_dictionary=False)


def job_seconds() -> float:
    """Seconds of processor that this process took so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def server_seconds() -> float:
    """Those of the processes that this one began and that live: the server."""
    threads = pathlib.Path("/proc/self/task").iterdir()
    children = [child for thread in threads for child in (thread / "children").read_text().split()]
    stats = [pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split() for child in children]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def embedding(model: str, source: str, output: str, rows: int, remove, spent: list[dict[str, float]]) -> Side:
    """Rows a second of the command; what the last one wrote is removed before the clock starts.

    To ``spent`` it adds the seconds of processor of the job and the server.
    """
    from pipelines import embed

    def run() -> float:
        remove()
        job, server = job_seconds(), server_seconds()
        rate = timed(rows, lambda: embed.run(model, source, output))()
        spent.append({"job": job_seconds() - job, "server": server_seconds() - server})
        return rate

    return run


def reading(files: fs.FileSystem, folder: str, rows: int) -> Side:
    """Rows a second of plain PyArrow, which reads each file whole."""

    def work() -> None:
        for found in files.get_file_info(fs.FileSelector(folder)):
            with files.open_input_file(found.path) as file:
                file.readall()

    return timed(rows, work)


@click.command()
@click.option("--rows", default=3_000_000, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Runs of each side.")
def main(rows: int, rounds: int) -> None:
    """Measure and keep the result."""
    with served("s3") as bucket, tempfile.TemporaryDirectory() as place:
        folder, started = pathlib.Path(place), time.monotonic()
        (folder / "in").mkdir()
        write_files(folder / "in", rows)
        model, source = encoder(folder), bucket.upload(folder / "in", "in")
        out = folder / "out"
        store = fs.S3FileSystem(endpoint_override=bucket.endpoint.partition("//")[2], scheme="http")

        def forget() -> None:
            if bucket.keys("out/"):
                store.delete_dir(f"{bucket.name}/out")

        spent: dict[str, list[dict[str, float]]] = {"s3": [], "local": []}
        forget_local = lambda: shutil.rmtree(out, ignore_errors=True)  # noqa: E731
        sides = {
            "s3": embedding(model, source, f"{bucket.address}/out", rows, forget, spent["s3"]),
            "local": embedding(model, str(folder / "in"), str(out), rows, forget_local, spent["local"]),
            "plain s3": reading(store, f"{bucket.name}/in", rows),
            "plain local": reading(fs.LocalFileSystem(), str(folder / "in"), rows),
        }
        rates = report.interleave(sides, rounds)
    ratios = {"embed": report.ratio(rates, "s3", "local"), "plain": report.ratio(rates, "plain s3", "plain local")}
    table = [
        ["embed", report.spread(rates["s3"]), report.spread(rates["local"]), f"{ratios['embed']:.2f}"],
        [
            "PyArrow reads",
            report.spread(rates["plain s3"]),
            report.spread(rates["plain local"]),
            f"{ratios['plain']:.2f}",
        ],
    ]
    seconds = {
        side: {who: statistics.median(run[who] for run in runs) for who in ("job", "server")}
        for side, runs in spent.items()
    }
    table += [
        ["job, seconds of processor", f"{seconds['s3']['job']:.1f}", f"{seconds['local']['job']:.1f}", ""],
        ["server, the same", f"{seconds['s3']['server']:.1f}", "", ""],
    ]
    files = f"{rows:,} rows of {PIXELS} bytes in files of {ROW_GROUP:,}"
    details = {
        "rows": rows,
        "rows_per_second": rates,
        "ratios": ratios,
        "processor_seconds": spent,
        "seconds": round(time.monotonic() - started),
    }
    report.keep(
        "stores",
        f"Moto's s3:// on loopback beside the local disk, {files}",
        ["", "s3://, rows/s", "local, rows/s", "ratio"],
        table,
        details,
    )


if __name__ == "__main__":
    main()
