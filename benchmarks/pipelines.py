"""Rows a second of the Beam pipelines beside bare loops that do the same work without them.

    python -m benchmarks.pipelines [--rows 3000000] [--rounds 3] [--only parquet tfrecord ...] [--folder DIR]

A bare loop is what one would write by hand, in one process: read, call the same signature (or decode),
write the same kind of file. It plans nothing, names no bad row, survives no kill, makes no checksum. Rates count all
of a run, planning and verification too. The data are random bytes: their content changes nothing here.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import report

PIXELS, HIDDEN, LATENT = 784, 500, 20
BATCH, ROW_GROUP = 4096, 32768
ROW_BY_ROW = 600_000  # rows of Beam's own way, which would take minutes for more
IMAGES = 60_000
Side = Callable[[], float]


def encoder(folder: pathlib.Path) -> str:
    """A SavedModel of a 784-500-20 encoder that takes bytes; its weights change no speed."""
    import tensorflow as tf

    module, path = tf.Module(), str(folder / "model" / "1")
    shapes = [[PIXELS, HIDDEN], [HIDDEN, 2 * LATENT]]
    module.weights = [tf.Variable(tf.random.stateless_normal(shape, [0, i]) / 20) for i, shape in enumerate(shapes)]

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.uint8, "x")])
    def embed(x):
        features = tf.tanh(tf.cast(x, tf.float32) / 255 @ module.weights[0]) @ module.weights[1]
        return {"embedding": features[:, :LATENT], "embedding_stddev": tf.nn.softplus(features[:, LATENT:])}

    tf.saved_model.save(module, path, {"embed_uint8": embed})
    return path


def blocks(rows: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Keys and observations, a row group at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, rows, ROW_GROUP):
        count = min(ROW_GROUP, rows - first)
        yield [f"row-{first + i:09d}" for i in range(count)], rng.integers(0, 256, [count, PIXELS], np.uint8)


def write_parquet(path: pathlib.Path, rows: int) -> str:
    schema = pa.schema([("key", pa.string()), ("x", pa.binary(PIXELS))])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for keys, x in blocks(rows):
            values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), len(x), [None, pa.py_buffer(x)])
            writer.write_table(pa.table({"key": keys, "x": values}, schema))
    return str(path)


def write_tfrecord(path: pathlib.Path, rows: int) -> str:
    from pipelines.formats.tfrecords import framed

    with open(path, "wb") as file:
        for keys, x in blocks(rows):
            file.write(framed(keys, x))
    return str(path)


def timed(rows: int, work: Callable[[], Any], output: pathlib.Path | None = None) -> Side:
    """Rows a second of ``work``, whose last output is removed before the clock starts."""

    def run() -> float:
        if output is not None:
            shutil.rmtree(output, ignore_errors=True)
        started = time.perf_counter()
        work()
        return rows / (time.perf_counter() - started)

    return run


def pipeline_side(model: str, source: str, folder: pathlib.Path, rows: int) -> Side:
    from pipelines import embed

    output = folder / "embeddings"

    def work() -> None:
        assert embed.run(model, source, str(output)).rows == {"all": rows}

    return timed(rows, work, output)


def bare_side(
    model: str, batches: Callable[[], Iterator[tuple[Any, np.ndarray]]], rows: int, out: pathlib.Path
) -> Side:
    import tensorflow as tf

    signature = tf.saved_model.load(model).signatures["embed_uint8"]
    schema = pa.schema([("key", pa.string()), ("embedding", pa.list_(pa.float32(), LATENT))])

    def work() -> None:
        with pq.ParquetWriter(out, schema, compression="none", use_dictionary=False) as writer:
            for keys, x in batches():
                embedding = signature(x=tf.convert_to_tensor(x))["embedding"].numpy()
                column = pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), LATENT)
                writer.write_table(pa.table([pa.array(keys, pa.string()), column], schema=schema))

    return timed(rows, work)


def parquet_batches(path: str) -> Iterator[tuple[Any, np.ndarray]]:
    for batch in pq.ParquetFile(path).iter_batches(BATCH):
        x = np.frombuffer(batch["x"].buffers()[1], np.uint8, len(batch) * PIXELS, batch["x"].offset * PIXELS)
        yield batch["key"], x.reshape(len(batch), PIXELS)


def tfrecord_batches(path: str) -> Iterator[tuple[Any, np.ndarray]]:
    import tensorflow as tf

    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("key", "x")}
    dataset = tf.data.TFRecordDataset(path).batch(BATCH).map(lambda rows: tf.io.parse_example(rows, features))
    dataset = dataset.map(lambda row: (row["key"], tf.io.decode_raw(row["x"], tf.uint8))).prefetch(2)
    for keys, x in dataset.as_numpy_iterator():
        yield [key.decode() for key in keys], x


def row_by_row_side(model: str, source: str, out: pathlib.Path, rows: int) -> Side:
    """Beam's own way: a row is an element, and RunInference gathers batches of them."""
    import apache_beam as beam
    import tensorflow as tf
    from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference

    class Handler(ModelHandler):
        def load_model(self):
            return tf.saved_model.load(model)

        def run_inference(self, batch, model, inference_args=None):
            results = model.signatures["embed_uint8"](x=tf.constant(np.stack(batch)))["embedding"].numpy()
            return list(results)

        def batch_elements_kwargs(self):
            return {"min_batch_size": 512, "max_batch_size": BATCH}

    schema = pa.schema([("key", pa.string()), ("embedding", pa.list_(pa.float32()))])

    def work() -> None:
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            _ = (
                pipeline
                | beam.io.ReadFromParquet(source)
                | beam.Map(lambda row: (row["key"], np.frombuffer(row["x"], np.uint8)))
                | RunInference(KeyedModelHandler(Handler()))
                | beam.Map(lambda row: {"key": row[0], "embedding": row[1].tolist()})
                | beam.io.WriteToParquet(str(out), schema)
            )

    return timed(rows, work)


def images_sides(folder: pathlib.Path) -> dict[str, Side]:
    """60,000 PNG files, prepared and by hand."""
    import PIL.Image
    import tensorflow as tf

    from pipelines import preprocess

    source = folder / "png"
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        path = source / str(i % 10) / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(rng.integers(0, 256, [28, 28], np.uint8)).save(path)

    def prepare() -> None:
        assert sum(preprocess.run("images", str(source), str(folder / "prepared")).rows.values()) == IMAGES

    def bare() -> None:
        def feature(value: bytes) -> tf.train.Feature:
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

        with tf.io.TFRecordWriter(str(folder / "bare.tfrecord")) as writer:
            for path in sorted(source.rglob("*.png")):
                x = np.asarray(PIL.Image.open(path))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(path.parent.name)]))
                named = {"key": feature(str(path).encode()), "x": feature(x.tobytes()), "label": label}
                writer.write(tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString())

    return {"pipelines.preprocess": timed(IMAGES, prepare, folder / "prepared"), "bare loop": timed(IMAGES, bare)}


def idx_side(folder: pathlib.Path) -> Side:
    from pipelines import preprocess

    source = folder / "idx"
    source.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", IMAGES), ("t10k", 10_000)):
        pictures, labels = rng.integers(0, 256, [count, 28, 28], np.uint8), rng.integers(0, 10, count).astype(np.uint8)
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        (source / f"{prefix}-images-idx3-ubyte").write_bytes(header + pictures.tobytes())
        header = b"\0\0\x08\x01" + count.to_bytes(4, "big")
        (source / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())

    output = folder / "prepared"
    return timed(IMAGES + 10_000, lambda: preprocess.run("idx", str(source), str(output)), output)


def compare(name: str, sides: dict[str, Side], rounds: int, results: dict[str, Any]) -> None:
    """Interleaved rounds of ours, the first side, and its bare loop; a first round warms both up and is not counted."""
    for run in sides.values():
        run()
    rates = report.interleave(sides, rounds)
    ours, bare = sides
    results[name] = {"rows_per_second": rates, "ratio": report.ratio(rates, ours, bare)}
    print(f"{name}: {report.spread(rates[ours])} beside {report.spread(rates[bare])}", file=sys.stderr, flush=True)


def measure(name: str, model: str, folder: pathlib.Path, rows: int, rounds: int, results: dict[str, Any]) -> None:
    if name in ("parquet", "row by row"):
        count = rows if name == "parquet" else ROW_BY_ROW
        source = write_parquet(folder / "rows.parquet", count)
        bare = bare_side(model, lambda: parquet_batches(source), count, folder / "bare.parquet")
        if name == "row by row":
            bare = row_by_row_side(model, source, folder / "row-by-row.parquet", count)
        compare(name, {"ours": pipeline_side(model, source, folder, count), "other": bare}, rounds, results)
    elif name == "tfrecord":
        source = write_tfrecord(folder / "rows.tfrecord", rows // 3)
        bare = bare_side(model, lambda: tfrecord_batches(source), rows // 3, folder / "bare.parquet")
        compare(name, {"ours": pipeline_side(model, source, folder, rows // 3), "other": bare}, rounds, results)
    elif name == "images":
        compare(name, images_sides(folder), rounds, results)
    else:
        run = idx_side(folder)
        run()
        results[name] = {"rows_per_second": {"ours": [run() for _ in range(rounds)]}}


LABELS = {
    "parquet": "embed Parquet, beside read, signature, write",
    "row by row": "embed Parquet, beside Beam's RunInference row by row",
    "tfrecord": "embed TFRecords, beside tf.data, signature, write",
    "images": "prepare PNG files, beside decode and write",
    "idx": "prepare IDX",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=3_000_000, help="rows of the Parquet file (default 3000000)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side after the first (default 3)")
    parser.add_argument("--only", nargs="+", choices=LABELS, default=list(LABELS), help="which of the comparisons")
    parser.add_argument("--folder", help="where the data are made; a temporary folder by default")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    for name in options.only:
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            folder = pathlib.Path(place)
            measure(name, encoder(folder), folder, options.rows, options.rounds, results)
    table = []
    for name, result in results.items():
        ours, *other = result["rows_per_second"].values()
        beside = report.spread(other[0]) if other else ""
        table.append([LABELS[name], report.spread(ours), beside, f"{result['ratio']:.2f}" if other else ""])
    title = f"Pipelines on Beam's in-process runner, rows of {PIXELS} bytes, 784-{HIDDEN}-{LATENT} encoder"
    report.keep("pipelines", title, ["", "ours, rows/s", "beside, rows/s", "ratio"], table, {"comparisons": results})


if __name__ == "__main__":
    main()
