"""What the pipeline tests share: small inputs, known models, independent readers."""

import io
import json
import pathlib
import pickle
import struct
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Linear:
    """A model whose embedding is known exactly: ``x @ weights``; its stddev is ``0.5 + embedding**2``."""

    def __init__(self, path: pathlib.Path, event: tuple[int, ...], dimension: int = 3, *, uint8: bool = True):
        import tensorflow as tf

        size = int(np.prod(event))
        self.path = str(path)
        self.weights = np.random.default_rng(size).normal(size=(size, dimension)).astype(np.float32) / size
        module = tf.Module()
        module.weights = tf.Variable(self.weights)

        def core(x):
            # A row of nothing but the largest value is one this model chokes on, whoever shares its batch.
            flat = tf.reshape(x, [-1, size])
            broken = tf.reduce_all(flat >= 1.0, axis=1)
            with tf.control_dependencies([tf.debugging.assert_equal(tf.reduce_any(broken), False, "a white row")]):
                z = flat @ module.weights
            # An all-black row gives NaN.
            z = tf.where(tf.reduce_all(flat == 0.0, axis=1)[:, None], float("nan"), z)
            return {"embedding": z, "embedding_stddev": 0.5 + z**2}

        floats = tf.TensorSpec([None, *event], tf.float32, "x")
        signatures = {"embed": tf.function(core, input_signature=[floats])}
        if uint8:
            scaled = tf.function(lambda x: core(tf.cast(x, tf.float32) / 255.0))
            signatures["embed_uint8"] = scaled.get_concrete_function(tf.TensorSpec([None, *event], tf.uint8, "x"))
        tf.saved_model.save(module, self.path, signatures=signatures)

    def embed(self, x: np.ndarray) -> np.ndarray:
        """The truth, in NumPy: `[N, *event]` uint8 or scaled float32 to `[N, D]`."""
        scaled = x / np.float32(255) if x.dtype == np.uint8 else x
        return scaled.reshape(len(x), -1).astype(np.float32) @ self.weights


@pytest.fixture(scope="session")
def linear_digits(tmp_path_factory) -> Linear:
    """A model for 8x8 grey images, as version 1 of a model named ``digits``."""
    return Linear(tmp_path_factory.mktemp("models") / "digits" / "1", (8, 8, 1))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> pathlib.Path:
    """A model of four numbers; beside its folder lies a second version."""
    folder = tmp_path_factory.mktemp("models")
    Linear(folder / "rows" / "1", (4,))
    Linear(folder / "2", (4,), dimension=2)
    return folder / "rows"


@pytest.fixture(scope="session")
def digits_images() -> np.ndarray:
    """scikit-learn's digits as uint8 `[1797, 8, 8, 1]`, rescaled here independently of the pipeline."""
    from sklearn.datasets import load_digits

    return np.floor(load_digits().images * 255 / 16 + 0.5).astype(np.uint8)[..., None]


@pytest.fixture(scope="session")
def prepared_digits(tmp_path_factory) -> str:
    """The digits, prepared in several shards."""
    from pipelines import preprocess

    output = str(tmp_path_factory.mktemp("prepared") / "digits")
    preprocess.run("digits", None, output, rows_per_shard=300)
    return output


def write_idx(path: pathlib.Path, array: np.ndarray, opener=open) -> pathlib.Path:
    """Writes an IDX file of bytes."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    with opener(path, "wb") as file:
        file.write(header + array.tobytes())
    return path


def write_png(path: pathlib.Path, array: np.ndarray) -> pathlib.Path:
    """Writes an image file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path)
    return path


def png(image: np.ndarray) -> bytes:
    """A grey image `[H, W, 1]`, encoded."""
    file = io.BytesIO()
    PIL.Image.fromarray(image[..., 0]).save(file, "PNG")
    return file.getvalue()


def fixed_binary(x: np.ndarray) -> pa.Array:
    """A column with the raw bytes of each row."""
    return pa.array([row.tobytes() for row in x], pa.binary(x[0].nbytes))


def flat(x: np.ndarray) -> np.ndarray:
    """Rows as vectors."""
    return x.reshape(len(x), -1)


# Columns that hold rows of 64 bytes, as Parquet can.
FORMS = {
    "fixed-size binary": fixed_binary,
    "fixed-size list": lambda x: pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 64),
    "list": lambda x: pa.array(flat(x).tolist(), pa.list_(pa.uint8())),
    "large list": lambda x: pa.array(flat(x).tolist(), pa.large_list(pa.uint8())),
    "tensor": lambda x: pa.FixedShapeTensorArray.from_numpy_ndarray(x),
    "float list": lambda x: pa.array((flat(x) / np.float32(255)).tolist(), pa.list_(pa.float32())),
    "double list": lambda x: pa.array((flat(x) / np.float32(255)).tolist(), pa.list_(pa.float64(), 64)),
}


class Row(NamedTuple):
    """A good row."""

    x: np.ndarray
    label: int | None


def column(plan, name: str) -> list:
    """What a plan says of its rows."""
    return plan.rows[name].to_pylist()


def read_all(source):
    """The plan of a source and its rows in that order: each a good one, or why it is bad."""
    plan = source.plan()
    batch = source.read_rows(plan.rows, plan.schema)
    rows: list[Row | str] = [batch.reasons.get(i, "") for i in range(len(plan))]
    for i, row in enumerate(batch.good):
        rows[row] = Row(batch.x[i], None if batch.labels is None else int(batch.labels[i]))
    return plan, rows


def read_dataset(path: str, split: str) -> dict[str, tuple[np.ndarray, int | None]]:
    """Rows by key, as TensorFlow Datasets itself reads them; a key that comes twice fails."""
    import tensorflow_datasets as tfds

    rows: dict[str, tuple[np.ndarray, int | None]] = {}
    for example in tfds.builder_from_directory(path).as_dataset(split=split).as_numpy_iterator():
        key = example["key"].decode()
        assert key not in rows, f"{key} came twice"
        rows[key] = (example["x"], int(example["label"]) if "label" in example else None)
    return rows


def read_to_embed(rows, folder) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What the embedding job reads: the observations by key, as the model gets them, and the rejected keys' reasons."""
    import tensorflow as tf

    from pipelines.jobs.commits import Output

    output, lists = Output(str(folder)), "_work/plan"
    rows, blocks = rows.listed_in(output.file("_work", "plan")), rows.blocks("all")
    rows.write_lists(output.writing, lists, blocks)
    found: dict[str, np.ndarray] = {}
    rejected = {row.key: row.reason for row in rows.rejected}
    worker = pickle.loads(pickle.dumps(rows))
    for block in blocks:
        read = 0
        for part in worker.read(block):
            part = part.readable() if rows.dtype == "string" else part
            assert len(part) == len(part.x) == len(part.positions) and not found.keys() & set(part.keys)
            x = [tf.io.decode_image(content).numpy() for content in part.x] if rows.dtype == "string" else part.x
            found |= dict(zip(part.keys, x, strict=True))
            rejected |= {row.key: row.reason for row in part.rejected}
            read += len(part) + len(part.rejected)
        assert read == block.rows
    return found, rejected


def rejections(output) -> dict[str, dict]:
    """All rejected rows by key."""
    rows = [
        json.loads(line)
        for path in sorted((pathlib.Path(output) / "rejected").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


def artifacts(output) -> dict[str, bytes]:
    """Every file of an output by its relative path, but the lock; links are no files."""
    root = pathlib.Path(output)
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.name != "lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def command(module: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs ``python -m module`` as a user does."""
    line = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, **options)
