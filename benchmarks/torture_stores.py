"""``prepare`` and ``embed`` from a store to a store, killed at random moments as in ``benchmarks.torture``.

    python -m benchmarks.torture_stores --kills 20 --seed 0

The stores are servers on loopback: Moto for ``s3://``, gcp-storage-emulator for ``gs://``, and with ``--store hdfs``
HDFS itself, in Java. What lies there is asked by plain HTTP. After each kill, whatever has a manifest must be whole and
every part be readable; at the end every object must be that of an undisturbed run, with no other beside it, not even a
lock.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import random
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pyarrow.parquet as pq

from benchmarks import torture
from benchmarks.forks import Forks
from pipelines import stores
from pipelines.verify import verify
from tests.cluster.hdfs import HdfsFolder, hdfs_server
from tests.stores import S3_CREDENTIALS, Bucket, GoogleBucket, google_server, s3_server

SERVERS: dict[str, Any] = {
    "s3": (s3_server, Bucket),
    "gs": (google_server, GoogleBucket),
    "hdfs": (hdfs_server, HdfsFolder),
}
WITHOUT_JAVA = ("s3", "gs")


@dataclasses.dataclass(frozen=True)
class Folder(os.PathLike[str]):
    """What is below a name in a bucket, in the place of a path."""

    bucket: Bucket
    name: str

    def __fspath__(self) -> str:
        return f"{self.bucket.address}/{self.name}"

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.bucket, f"{self.name}/{name}")

    def names(self) -> list[str]:
        return [key.removeprefix(f"{self.name}/") for key in self.bucket.keys(f"{self.name}/")]

    def read(self, key: str) -> bytes:
        return self.bucket.get(f"{self.name}/{key}")

    def exists(self) -> bool:
        """Whether it is an object."""
        return self.name in self.bucket.keys(self.name)


def objects(folder: Folder) -> dict[str, bytes]:
    """All that is there."""
    return {key: folder.read(key) for key in folder.names()}


def has_commits(folder: Folder) -> bool:
    """Whether a unit of work is done and the output not whole."""
    keys = folder.names()
    return any("/commits/" in key for key in keys) and not {"manifest.json", "current"} & {*keys}


def half(folder: Folder) -> list[str]:
    """What a reader would take for whole and is not."""
    keys, broken = folder.names(), []
    for key in (key for key in keys if key.endswith(".parquet")):
        try:
            pq.read_metadata(io.BytesIO(folder.read(key)))
        except Exception as error:
            broken.append(f"{key}: {error}")
    return broken + (list(verify(os.fspath(folder)).damaged) if {"manifest.json", "current"} & {*keys} else [])


def commands(bucket: Bucket, folder: pathlib.Path) -> dict[str, torture.Command]:
    """Both, their inputs and the model in the store."""
    import numpy as np
    import pyarrow as pa
    import tensorflow as tf

    x = np.random.default_rng(0).integers(1, 255, [600, 64], np.uint8)
    pq.write_table(pa.table({"key": [f"{i}" for i in range(600)], "x": x.tolist()}), folder / "rows.parquet")
    module, images = tf.Module(), tf.TensorSpec([None, 64], tf.float32, "x")
    module.embed = tf.function(lambda x: {"embedding": x[:, :4] / 255}, input_signature=[images])
    tf.saved_model.save(module, str(folder / "model" / "1"), {"embed": module.embed})
    rows, model = bucket.upload(folder / "rows.parquet", "in/rows.parquet"), bucket.upload(folder / "model", "model")
    job: dict[str, Any] = {"outcome": objects, "half": half, "begun": has_commits, "remove": lambda output: None}
    prepare = ["prepare", "--source", "parquet", "--rows-per-shard", "100", "--input", rows, "--output"]
    embed = ["embed", "--model", model, "--input", f"{bucket.address}/prepared", "--split", "all", "--output"]
    return {
        "prepare": torture.Command(lambda output: [*prepare, output], **job),
        "embed": torture.Command(lambda output: [*embed, output], **job),
    }


def run(bucket: Bucket, folder: pathlib.Path, kills: int, seed: int) -> dict[str, torture.Torn]:
    """Both commands, each killed so often, as the environment leads to the bucket; ``folder`` is empty."""
    killed, found = commands(bucket, folder), {}
    with contextlib.closing(Forks(folder / "log")) as forks:
        for name, command in killed.items():
            moments, whole = random.Random(seed), Folder(bucket, {"prepare": "prepared"}.get(name, f"whole-{name}"))
            found[name] = torn = torture.whole(forks, command, whole)
            expected, attempt = objects(whole), 0
            while torn.kills < kills:
                attempt += 1
                torture.tear(forks, command, Folder(bucket, f"{name}-{attempt}"), expected, torn, moments)
                click.echo(f"{bucket.address}: {name} {torn.kills} kills", err=True)
    return found


@contextlib.contextmanager
def served(store: str) -> Iterator[Bucket]:
    """An empty bucket of a server on loopback, to which the environment leads."""
    server, kind = SERVERS[store]
    with server() as endpoint:
        os.environ.update({**S3_CREDENTIALS, kind.endpoint_variable: endpoint})
        stores.forget_clients()
        yield kind(endpoint, f"bucket-{uuid.uuid4().hex}").make()


@click.command()
@click.option("--kills", default=20, show_default=True, help="Of each command in each store, at least.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--store", "names", multiple=True, type=click.Choice([*SERVERS]), default=WITHOUT_JAVA, show_default=True)
def main(kills: int, seed: int, names: Sequence[str]) -> None:
    """Kill both commands in each store and keep what came of it."""
    started, found = time.monotonic(), {}
    for store in names:
        with served(store) as bucket, tempfile.TemporaryDirectory() as folder:
            torn = run(bucket, pathlib.Path(folder), kills, seed)
            found |= {f"{name}, {store}://": one for name, one in torn.items()}
    name = "_".join(["torture_stores", *(names if names != WITHOUT_JAVA else ())])
    torture.keep(name, "Commands in stores that were killed", found, seed, started)


if __name__ == "__main__":
    main()
