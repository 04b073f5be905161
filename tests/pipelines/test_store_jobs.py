"""Jobs whose input, model and output lie in S3, on a server on loopback: as on this machine, whatever goes wrong."""

import contextlib
import gzip
import os
import pathlib
import tarfile
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import torture_stores
from pipelines import embed, preprocess, stores
from pipelines.errors import PipelineError
from pipelines.jobs.commits import Output, Unit
from pipelines.mend import mend
from pipelines.verify import verify
from tests.faults import unreliable
from tests.stores import S3_CREDENTIALS, SECRET

from .conftest import FORMS, artifacts, command, fixed_binary, write_idx, write_png

X = np.random.default_rng(0).integers(1, 255, (60, 8, 8), dtype=np.uint8)


def in_store(bucket, prefix: str, folder: pathlib.Path) -> dict[str, bytes]:
    """The files of an output in a store, but ``current``, which is a link elsewhere."""
    return placeless(artifacts(bucket.download(prefix, folder)))


def placeless(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those that do not say where something lies."""
    return {name: content for name, content in files.items() if name != "current" and "_work/command" not in name}


def save_parquet(folder: pathlib.Path) -> None:
    for name, rows in (("label=1/a", X[:20]), ("label=2/b", X[20:])):
        (folder / name).parent.mkdir(parents=True)
        keys = [f"{name}{i}" for i in range(len(rows))]
        pq.write_table(pa.table({"key": keys, "x": fixed_binary(rows)}), folder / f"{name}.parquet", row_group_size=8)


def save_csv(folder: pathlib.Path) -> None:
    lines = ["a,b", *(f"{row[0, 0]},{row[0, 1]}" for row in X), "bad,1"]
    (folder / "x.csv").write_text("\n".join(lines))
    with gzip.open(folder / "y.csv.gz", "wt") as file:
        file.write("\n".join(lines[:9]))


def save_tar(folder: pathlib.Path) -> None:
    for i in range(len(X)):
        write_png(folder / "pictures" / f"{i}.png", X[i])
    with tarfile.open(folder / "pictures.tar.gz", "w:gz") as archive:
        archive.add(folder / "pictures", "some")
    for path in (folder / "pictures").iterdir():
        path.unlink()


def save_images(folder: pathlib.Path) -> None:
    for i in range(len(X)):
        write_png(folder / str(i % 2) / f"{i}.png", X[i])
    (folder / "0" / "bad.png").write_bytes(b"no picture")


def save_records(folder: pathlib.Path) -> None:
    preprocess.run("digits", None, str(folder.parent / "digits"), rows_per_shard=900)
    for path in (folder.parent / "digits").glob("*.tfrecord-*"):
        path.rename(folder / path.name)


SOURCES = {
    "parquet": (save_parquet, {"shape": [8, 8, 1]}),
    "csv": (save_csv, {}),
    "npy": (lambda folder: np.save(folder / "train.npy", X), {}),
    "npz": (lambda folder: np.savez_compressed(folder / "x.npz", x=X), {}),
    "idx": (lambda folder: write_idx(folder / "train-images-idx3-ubyte.gz", X, gzip.open), {}),
    "images": (save_images, {}),
    "images in an archive": (save_tar, {}),
    "tfrecord": (save_records, {"shape": [8, 8, 1]}),
}


IN_STORES = [("s3", kind) for kind in sorted(SOURCES)] + [("gs", "parquet"), ("gs", "images")]


@pytest.mark.parametrize(
    ("store", "kind"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (one != ("s3", "parquet"))) for one in IN_STORES],
)
def test_what_is_prepared_in_a_store_is_what_is_prepared_here(store, kind, tmp_path, request):
    """Input and output both: byte for byte, records and fingerprints too."""
    bucket = request.getfixturevalue({"s3": "bucket", "gs": "google_bucket"}[store])
    save, options = SOURCES[kind]
    (tmp_path / "in").mkdir()
    save(tmp_path / "in")
    options = options | {"rows_per_shard": 1000 if kind == "tfrecord" else 25}
    below = "/pictures.tar.gz" if save is save_tar else ""
    here = preprocess.run(kind.split()[0], f"{tmp_path}/in{below}", str(tmp_path / "out"), **options)
    source = bucket.upload(tmp_path / "in", "in") + below
    there = preprocess.run(kind.split()[0], source, f"{bucket.address}/out", **options)
    assert (there.rows, there.rejected, there.hidden) == (here.rows, here.rejected, here.hidden)
    assert in_store(bucket, "out", tmp_path / "copy") == placeless(artifacts(tmp_path / "out"))
    assert preprocess.run(kind.split()[0], source, f"{bucket.address}/out", **options).units_done == 0


@pytest.fixture
def embedded(linear_digits, prepared_digits, tmp_path) -> dict[str, bytes]:
    """What an undisturbed job writes on this machine."""
    embed.run(linear_digits.path, prepared_digits, str(tmp_path / "here"), split="all")
    return placeless(artifacts(tmp_path / "here"))


@pytest.fixture
def there(bucket, linear_digits, prepared_digits) -> tuple[str, str]:
    """The model and the dataset, in the store."""
    model = bucket.upload(pathlib.Path(linear_digits.path).parent, "models/digits")
    return model, bucket.upload(prepared_digits, "prepared")


@pytest.mark.slow
def test_what_is_embedded_in_a_store_is_what_is_embedded_here(bucket, there, embedded, tmp_path):
    model, source = there
    output = f"{bucket.address}/out"
    summary = embed.run(model, source, output, split="all")
    assert in_store(bucket, "out", tmp_path / "copy") == embedded
    assert bucket.get("out/current") == b"generations/000001\n"
    assert summary.manifest == f"{output}/generations/000001/manifest.json"
    assert embed.read_embeddings(output).num_rows == 1797
    assert verify(output).damaged == ()
    assert embed.run(model, source, output, split="all").units_done == 0
    part = next(key for key in bucket.keys("out/generations/000001/parts/") if key.endswith(".parquet"))
    bucket.put(part, b"PAR1" + bucket.get(part)[4:-9] + b"damaged!")
    assert verify(output).damaged == (part.removeprefix("out/"),)
    assert embed.run(model, source, output, split="all").damaged == [part.removeprefix("out/")]
    assert in_store(bucket, "out", tmp_path / "copy") == embedded


@pytest.mark.slow
def test_a_second_night_in_a_store_switches_what_readers_see(bucket, linear_digits, tmp_path):
    (tmp_path / "in").mkdir()
    for night, rows in enumerate((X[:20], X[20:])):
        keys = [f"{night}-{i}" for i in range(len(rows))]
        pq.write_table(pa.table({"key": keys, "x": fixed_binary(rows)}), tmp_path / "in" / f"{night}.parquet")
        source, output = bucket.upload(tmp_path / "in", "in"), f"{bucket.address}/out"
        before = bucket.keys("out/generations/000001")
        summary = embed.run(linear_digits.path, source, output)
        assert summary.units_done == 1 and embed.read_embeddings(output).num_rows == (20, 60)[night]
    assert bucket.get("out/current") == b"generations/000002\n"
    assert bucket.keys("out/generations/000001") == before


@pytest.mark.slow
@pytest.mark.parametrize("store", ["bucket", "google_bucket"])
def test_small_files_that_are_joined_in_a_store(store, linear_digits, tmp_path, monkeypatch, request):
    """On two nights, a file of the first changed on the second: byte for byte what is joined on this machine."""
    monkeypatch.setattr(embed, "MEGABYTE", 360)
    bucket, folder = request.getfixturevalue(store), tmp_path / "in"
    folder.mkdir()
    here, there = str(tmp_path / "out"), f"{bucket.address}/out"
    for night, names in enumerate(("abcd", "be")):
        for name in names:
            keys = ["k", *(f"{name}{night}{i}" for i in range(3))]
            pq.write_table(pa.table({"key": keys, "x": fixed_binary(X[:4])}), folder / f"{name}.parquet")
            os.utime(folder / f"{name}.parquet", (9 + night, 9 + night))
        source = bucket.upload(folder, "in")
        summaries = [
            embed.run(linear_digits.path, *places, part_size=1) for places in ((str(folder), here), (source, there))
        ]
        assert [summary.units_done for summary in summaries] == [2, 2]
    ours = artifacts(tmp_path / "out")
    ours = {name: content for name, content in placeless(ours).items() if name.startswith("generations/000002/parts/")}
    theirs = in_store(bucket, "out", tmp_path / "copy")
    assert len(ours) == 4 and ours == {name: theirs[name] for name in theirs if name in ours}
    assert embed.run(linear_digits.path, source, there, part_size=1).units_done == 0
    part = next(key for key in bucket.keys("out/generations/000002/parts/") if "-a-" in key)
    bucket.put(part, bucket.get(part)[:-9] + b"damaged!!")
    assert verify(there).damaged == (part.removeprefix("out/"),)
    assert mend(there).made == (part.removeprefix("out/"),)
    mended = in_store(bucket, "out", tmp_path / "mended")
    assert ours == {name: mended[name] for name in mended if name in ours} and mended.keys() == theirs.keys()


def test_two_drivers_do_not_write_to_one_output(bucket):
    output = Output(f"{bucket.address}/out")
    second = pytest.raises(PipelineError, match=r"another job is writing to s3://.*: wait for it or choose")
    with output.lock(), second, output.lock():
        pass
    with output.lock():
        assert len(bucket.keys("out/_work/lock")) == 1


def test_what_is_damaged_on_its_way_is_noticed(bucket, monkeypatch):
    """A record says what was written, and not what then lay there."""
    output, unit = Output(f"{bucket.address}/out"), Unit("part", 1, ("rows",), "of the unit")
    send, described = stores._send, {}
    with monkeypatch.context() as patch:
        patch.setattr(stores, "_send", lambda files, name, content: send(files, name, content[:-1] + b"?"))
        with output.writing("rows", described) as file:
            file.write(b"two rows")
    output.commit(unit, 1, [], {}, described=described)
    assert bucket.get("out/rows") == b"two row?"
    with pytest.raises(PipelineError, match="out/rows changed after it was written"):
        output.verify([unit])
    assert output.pending([unit]) == [unit]


class Prepared(NamedTuple):
    """A small input in a store, and what a job that nothing disturbs makes of it on this machine."""

    source: str
    files: dict[str, bytes]

    def run(self, output: str) -> None:
        preprocess.run("parquet", self.source, output, rows_per_shard=10)


def prepare_in(bucket, tmp_path) -> Prepared:
    pq.write_table(pa.table({"key": [f"{i}" for i in range(60)], "x": FORMS["list"](X)}), tmp_path / "in.parquet")
    preprocess.run("parquet", str(tmp_path / "in.parquet"), str(tmp_path / "here"), rows_per_shard=10)
    return Prepared(bucket.upload(tmp_path / "in.parquet", "in.parquet"), placeless(artifacts(tmp_path / "here")))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["bucket", "google_bucket"])
def test_killed_at_random_moments(store, tmp_path, request):
    """Whatever the moment, the second run does what is missing; nothing is lost and nothing there twice."""
    for name, torn in torture_stores.run(request.getfixturevalue(store), tmp_path, kills=1, seed=0).items():
        assert torn.kills >= 1 and not any(torn.faults), (name, torn)


@contextlib.contextmanager
def answering(bucket, monkeypatch, choice: str):
    """The same bucket behind an endpoint that does to the n-th request what ``choice`` says."""
    with monkeypatch.context() as patch, unreliable(bucket.endpoint, choice) as proxy:
        patch.setenv(bucket.endpoint_variable, proxy.endpoint)
        stores.forget_clients()
        yield proxy
    stores.forget_clients()


STORES = ("bucket", "google_bucket")


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES)
def test_requests_that_fail_are_repeated_and_nothing_is_lost(store, tmp_path, monkeypatch, request):
    """One in nine, each way in turn; of Google's, whose client waits a second before it asks again, one in 29."""
    bucket = request.getfixturevalue(store)
    prepared, ways, every = prepare_in(bucket, tmp_path), ["unheard", "unanswered", "cut", "throttled", "slow"], 9
    if store == "google_bucket":
        ways, every = [*ways, "limited"], 29
    with answering(bucket, monkeypatch, f"'well' if n % {every} else {ways}[n // {every} % {len(ways)}]") as proxy:
        prepared.run(f"{bucket.address}/out")
        assert proxy.asked() > every * len(ways)
    assert in_store(bucket, "out", tmp_path / "copy") == prepared.files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store", "how", "message"),
    [
        ("bucket", "expired", "renew the credentials"),
        ("bucket", "throttled", "try again later"),
        ("google_bucket", "unauthorized", "renew the credentials"),
        ("google_bucket", "limited", "try again later"),
    ],
)
def test_a_store_that_fails_in_mid_job_ends_it_in_a_sentence_and_it_goes_on_later(
    store, how, message, tmp_path, monkeypatch, request
):
    bucket = request.getfixturevalue(store)
    prepared = prepare_in(bucket, tmp_path)
    monkeypatch.setattr(stores, "_ATTEMPTS", 2)
    if store == "google_bucket":
        monkeypatch.setattr(stores, "_ANSWER", 1)
    told = pytest.raises(PipelineError, match=message)
    for last in (60, 120) if store == "bucket" else (90,):  # requests that are answered
        output = f"{bucket.address}/{last}"
        with answering(bucket, monkeypatch, f"'well' if n <= {last} else {how!r}"), told as caught:
            prepared.run(output)
        assert len(str(caught.value).splitlines()) == 1
        assert f"{last}/manifest.json" not in bucket.keys(f"{last}/")
        prepared.run(output)
        assert in_store(bucket, str(last), tmp_path / str(last)) == prepared.files


@pytest.mark.slow
def test_no_credentials_are_in_what_a_job_writes_or_says(bucket, tmp_path):
    prepared = prepare_in(bucket, tmp_path)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    line = ["pipelines.preprocess", "--source", "parquet", "--output", f"{bucket.address}/out", "--input"]
    runs = [command(*line, source, env=environment) for source in (prepared.source, f"{bucket.address}/none")]
    assert [run.returncode for run in runs] == [0, 1]
    texts = [text.encode() for run in runs for text in (run.stdout, run.stderr)]
    texts += [bucket.get(key) for key in bucket.keys("out")]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in texts:
        assert SECRET.encode() not in text and S3_CREDENTIALS["AWS_ACCESS_KEY_ID"].encode() not in text
