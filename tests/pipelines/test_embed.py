"""Embedding: every good row once with the value that NumPy computes, every bad row named."""

import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from pipelines.formats import tfrecords
from pipelines.jobs.commits import Output, Unit

from .conftest import Linear, artifacts, command, read_dataset, rejections


def read_parts(output) -> dict[str, dict[str, np.ndarray]]:
    """Rows by key, read from the Parquet files themselves; a key that comes twice fails."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted((pathlib.Path(output) / "parts").glob("*.parquet")):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            key = row.pop("key")
            assert key not in rows, f"{key} came twice"
            rows[key] = {name: np.array(value, np.float32) for name, value in row.items()}
    return rows


def assert_equals_numpy(output, model, truth: dict[str, np.ndarray]):
    """The rows are those of ``truth``, each with the embedding that the model's formula gives."""
    rows = read_parts(output)
    assert rows.keys() == truth.keys()
    expected = model.embed(np.stack([truth[key] for key in rows]))
    np.testing.assert_allclose(np.stack([row["embedding"] for row in rows.values()]), expected, atol=1e-5)


def observations(dataset: str, *splits: str) -> dict[str, np.ndarray]:
    return {key: x for split in splits for key, (x, _) in read_dataset(dataset, split).items()}


@pytest.fixture
def doctored(tmp_path):
    """40 rows in 4 shards, some of which the linear model cannot embed; the dataset, its rows, and the bad keys."""
    x = np.random.default_rng(0).integers(1, 255, (40, 8, 8), dtype=np.uint8)
    x[[3, 17, 18]] = 255  # the model raises
    x[[5, 30]] = 0  # the model gives NaN
    np.save(tmp_path / "x.npy", x)
    preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "in"), test_fraction=0, rows_per_shard=10)
    rows = {f"row-{index:05d}": image[..., None] for index, image in enumerate(x)}
    return str(tmp_path / "in"), rows, {"row-00003", "row-00017", "row-00018"}, {"row-00005", "row-00030"}


def tamper(dataset: str, shard: str, edit) -> None:
    """Replaces a shard's records by ``edit(records)``, as another program would have written them."""
    root = pathlib.Path(dataset)
    path = root / shard
    length = int(
        sum(
            int(split["shardLengths"][int(shard.split("-of-")[0][-5:])])
            for split in json.loads((root / "dataset_info.json").read_text())["splits"]
            if f"-{split['name']}." in shard
        )
    )
    with path.open("rb") as file:
        found = list(tfrecords.read_records(file, shard, 0, length, path.stat().st_size))
    path.write_bytes(b"".join(tfrecords.frame(data) for data in edit(found)))
    (root / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(root / "_work", ignore_errors=True)


class TestRows:
    def test_every_row_of_a_split(self, prepared_digits, linear_digits, tmp_path):
        model = tmp_path / "run [1]"  # of which TensorFlow makes a pattern that does not fit
        model.symlink_to(linear_digits.path)
        summary = embed.run(str(model), prepared_digits, str(tmp_path / "out"))
        truth = observations(prepared_digits, "test")
        assert_equals_numpy(tmp_path / "out", linear_digits, truth)
        assert summary.rows == {"test": len(truth)} and summary.exit_code == 0

    def test_all_splits_with_stddev(self, prepared_digits, linear_digits, tmp_path):
        embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"), split="all", stddev=True)
        assert_equals_numpy(tmp_path / "out", linear_digits, observations(prepared_digits, "train", "test"))
        for row in read_parts(tmp_path / "out").values():
            np.testing.assert_allclose(row["embedding_stddev"], 0.5 + row["embedding"] ** 2, atol=1e-5)

    @pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 2), (100_000, 1)])
    def test_batches_and_workers_do_not_matter(self, prepared_digits, linear_digits, tmp_path, batch_size, workers):
        embed.run(
            linear_digits.path,
            prepared_digits,
            str(tmp_path / "out"),
            batch_size=batch_size,
            beam_args=["--direct_num_workers", str(workers)],
        )
        assert_equals_numpy(tmp_path / "out", linear_digits, observations(prepared_digits, "test"))

    def test_columns(self, prepared_digits, linear_digits, tmp_path):
        embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"))
        table = embed.read_embeddings(str(tmp_path / "out"))
        assert table.schema.field("key").type == pa.string()
        assert table.schema.field("embedding").type == pa.list_(pa.float32(), 3)
        assert table.num_rows == len(read_dataset(prepared_digits, "test"))

    def test_floats_and_unicode_keys(self, tmp_path):
        model = Linear(tmp_path / "models" / "vectors", (6,), uint8=False)
        x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32) / 10
        np.save(tmp_path / "x.npy", x)
        dataset = str(tmp_path / "in")
        preprocess.run("npy", str(tmp_path / "x.npy"), dataset, test_fraction=0)
        shard = "npy-train.tfrecord-00000-of-00001"
        rows = {f"🦉 ключ\n{index}": row for index, row in enumerate(x)}
        tamper(dataset, shard, lambda _: [tfrecords.example(key, row.tobytes()) for key, row in rows.items()])
        embed.run(model.path, dataset, str(tmp_path / "out"), split="train")
        assert_equals_numpy(tmp_path / "out", model, rows)

    def test_blocks_within_a_shard(self, prepared_digits, linear_digits, tmp_path, monkeypatch):
        """A large shard is cut into runs of records; small blocks here show that none is lost between them."""
        monkeypatch.setattr("pipelines.inputs.base.BLOCK_BYTES", 64 * 11)
        summary = embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"))
        assert summary.units > 10
        assert_equals_numpy(tmp_path / "out", linear_digits, observations(prepared_digits, "test"))


class TestBadRows:
    @pytest.mark.parametrize("batch_size", [1, 4, 4096])
    def test_they_are_found_and_the_others_kept(self, doctored, linear_digits, tmp_path, batch_size):
        dataset, rows, raising, nan = doctored
        output = tmp_path / "out"
        summary = embed.run(linear_digits.path, dataset, str(output), split="train", batch_size=batch_size)
        assert summary.rejected == 5 and summary.exit_code == 3
        assert_equals_numpy(output, linear_digits, {k: x for k, x in rows.items() if k not in raising | nan})
        found = rejections(output)
        assert found.keys() == raising | nan
        for key, row in found.items():
            assert ("a white row" if key in raising else "not finite") in row["reason"]
            assert key in read_records(dataset, row["source"])[row["position"]]

    def test_broken_records_are_rejected(self, doctored, linear_digits, tmp_path):
        dataset, rows, raising, nan = doctored
        shard = "npy-train.tfrecord-00001-of-00004"
        replaced = read_records(dataset, shard)[:4]
        bad = [
            b"\xff not an example",
            tfrecords.example("short", b"\0" * 63),
            tfrecords.example(
                "caf\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), rows["row-00000"].tobytes()
            ),
            b"",
        ]
        bad[2] = bad[2].replace("cafÿ".encode(), b"caf\xff\xff")
        tamper(dataset, shard, lambda found: bad + found[4:])
        summary = embed.run(linear_digits.path, dataset, str(tmp_path / "out"), split="train")
        gone = {key for key in rows if any(key in text for text in replaced)}
        assert_equals_numpy(
            tmp_path / "out", linear_digits, {k: x for k, x in rows.items() if k not in raising | nan | gone}
        )
        found = rejections(tmp_path / "out").values()
        reasons = {row["position"]: row["reason"] for row in found if row["position"] < 4 and row["source"] == shard}
        assert "not a tf.Example" in reasons[0] and "no feature 'key'" in reasons[3]
        assert reasons[1] == "x has 63 bytes, expected 64 for uint8 [8, 8, 1]"
        assert reasons[2] == "the key is not UTF-8"
        assert sum(summary.rows.values()) + summary.rejected == 40

    def test_a_nan_in_the_input(self, tmp_path):
        model = Linear(tmp_path / "models" / "vectors", (2,), uint8=False)
        np.save(tmp_path / "x.npy", np.full((3, 2), 0.5, np.float32))
        dataset = str(tmp_path / "in")
        preprocess.run("npy", str(tmp_path / "x.npy"), dataset, test_fraction=0)
        bad = tfrecords.example("bad", np.float32([0.5, np.nan]).tobytes())
        tamper(dataset, "npy-train.tfrecord-00000-of-00001", lambda found: [found[0], bad, found[2]])
        assert embed.run(model.path, dataset, str(tmp_path / "out"), split="train").rows == {"train": 2}
        assert rejections(tmp_path / "out")["bad"]["position"] == 1

    def test_a_model_that_fails_on_everything_is_an_error(self, linear_digits, tmp_path):
        np.save(tmp_path / "x.npy", np.full((9, 8, 8), 255, np.uint8))
        preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "in"), test_fraction=0)
        with pytest.raises(PipelineError, match="no row of split 'train' is good"):
            embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"), split="train")


def read_records(dataset: str, shard: str) -> list[str]:
    """A shard's records as text, by TensorFlow's own reader."""
    import tensorflow as tf

    found = tf.data.TFRecordDataset(str(pathlib.Path(dataset) / shard))
    return [str(tf.train.Example.FromString(data.numpy())) for data in found]


def test_the_parts_open_as_one_dataset(prepared_digits, linear_digits, tmp_path):
    embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"), split="all")
    table = pyarrow.dataset.dataset(tmp_path / "out" / "parts").to_table().sort_by("key")
    assert table.equals(embed.read_embeddings(str(tmp_path / "out")).sort_by("key"))
    assert len(set(table["key"].to_pylist())) == 1797
    assert pq.read_table(tmp_path / "out" / "parts").num_rows == 1797


class TestAgain:
    def test_the_layout_of_an_earlier_release_is_refused(self, prepared_digits, linear_digits, tmp_path):
        arguments = (linear_digits.path, prepared_digits, str(tmp_path / "out"))
        old, unit = Output(str(tmp_path / "out")), Unit("test-0", 1, ("parts/test-0.parquet",), "of the unit")
        old.claim("embeddings", "of the job", [unit], overwrite=False)
        with old.writing(unit.files[0]) as file:
            pq.write_table(pa.table({"key": ["a"]}), file)
        old.finish({"kind": "embeddings"}, unit.files, [])
        (tmp_path / "out" / "a note").touch()
        before = artifacts(tmp_path / "out")
        with pytest.raises(PipelineError, match=r"begun by another release, which lays its files out.*--overwrite"):
            embed.run(*arguments)
        assert artifacts(tmp_path / "out") == before
        embed.run(*arguments, overwrite=True)
        assert len(read_parts(tmp_path / "out")) == 190 and (tmp_path / "out" / "a note").exists()

    def test_a_second_run_does_nothing(self, prepared_digits, linear_digits, tmp_path):
        arguments = (linear_digits.path, prepared_digits, str(tmp_path / "out"))
        embed.run(*arguments, split="train")
        before = artifacts(tmp_path / "out")
        summary = embed.run(*arguments, split="train", batch_size=3)
        assert summary.units_done == 0 and summary.rows["train"] == 1607
        assert (summary.new, summary.changed, list(summary.gone)) == (0, 0, [])  # the other split is no news
        assert artifacts(tmp_path / "out") == before

    def test_only_the_missing_unit_is_done(self, prepared_digits, linear_digits, tmp_path):
        arguments = (linear_digits.path, prepared_digits, str(tmp_path / "out"))
        embed.run(*arguments, split="train")
        before = artifacts(tmp_path / "out")
        generation = (tmp_path / "out" / "current").resolve()
        records, parts = (sorted((generation / name).iterdir()) for name in ("_work/commits", "parts"))
        records[2].unlink()
        parts[4].write_bytes(b"half a part")
        (generation / "_work" / "temporary" / f"{parts[2].name}-stray").write_bytes(b"killed")
        summary = embed.run(*arguments, split="train")
        assert summary.units_done == 2 and artifacts(tmp_path / "out") == before

    def test_a_unit_that_is_committed_is_not_done_again(self, prepared_digits, linear_digits, tmp_path, monkeypatch):
        """A runner that lost a worker starts the whole job anew."""
        from pipelines.inputs.prepared import Prepared

        read, create, blocks = Prepared.read, embed.beam.Create, []
        monkeypatch.setattr(Prepared, "read", lambda self, block: blocks.append(block) or read(self, block))
        monkeypatch.setattr(embed.beam, "Create", lambda units: create([*units, *units]))
        one_by_one = ["--direct_num_workers", "1"]  # two may do a unit at once, before either has committed it
        summary = embed.run(
            linear_digits.path, prepared_digits, str(tmp_path / "out"), split="train", beam_args=one_by_one
        )
        assert len(blocks) == len(set(blocks)) == summary.units == 6
        assert_equals_numpy(tmp_path / "out", linear_digits, observations(prepared_digits, "train"))

    def test_a_changed_model_input_or_option_is_refused(self, prepared_digits, linear_digits, tmp_path):
        output = str(tmp_path / "out")
        embed.run(linear_digits.path, prepared_digits, output)
        before = artifacts(output)
        other_model = tmp_path / "models" / "1"
        shutil.copytree(linear_digits.path, other_model)
        other_input = str(tmp_path / "in")
        np.save(tmp_path / "x.npy", np.zeros((9, 8, 8), np.uint8))
        preprocess.run("npy", str(tmp_path / "x.npy"), other_input, test_fraction=0.2)
        with pytest.raises(PipelineError, match=r"made from 1 files \(digits-test.*, none of which is in"):
            embed.run(linear_digits.path, other_input, output)
        with pytest.raises(PipelineError, match=r"other options \(stddev was false, is true\)"):
            embed.run(linear_digits.path, prepared_digits, output, stddev=True)
        with pytest.raises(
            PipelineError, match=r"\(model was \"digits\", is \"models\", split was not given, is \"train\"\)"
        ):
            embed.run(str(other_model), prepared_digits, output, split="train")
        with pytest.raises(PipelineError, match="holds prepared, expected embeddings"):
            embed.run(linear_digits.path, prepared_digits, other_input, overwrite=True)
        assert artifacts(output) == before
        embed.run(linear_digits.path, prepared_digits, output, stddev=True, overwrite=True)
        embed.run(linear_digits.path, prepared_digits, output, stddev=True)
        assert "embedding_stddev" in embed.read_embeddings(output).schema.names

    def test_an_interrupted_output_is_not_read(self, prepared_digits, linear_digits, tmp_path):
        embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"))
        (tmp_path / "out" / "manifest.json").resolve().unlink()
        with pytest.raises(PipelineError, match="not a complete output"):
            embed.read_embeddings(str(tmp_path / "out"))


class TestModel:
    def test_the_newest_version_is_taken_and_named(self, prepared_digits, linear_digits, tmp_path):
        base = tmp_path / "digits"
        for version in ("2", "10", "tmp-11"):  # by number, not by letter; an unfinished export is passed over
            shutil.copytree(linear_digits.path, base / version)
        embed.run(str(base), prepared_digits, str(tmp_path / "out"))
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["model"]["name"] == "digits" and manifest["model"]["version"] == 10
        assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()

    @pytest.mark.parametrize("path", ["gone", "empty", "numbered"])
    def test_no_model(self, prepared_digits, tmp_path, path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "numbered" / "3").mkdir(parents=True)
        with pytest.raises(PipelineError, match=r"saved_model.pb"):
            embed.run(str(tmp_path / path), prepared_digits, str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_a_damaged_model(self, prepared_digits, linear_digits, tmp_path):
        shutil.copytree(linear_digits.path, tmp_path / "model")
        (tmp_path / "model" / "saved_model.pb").write_bytes(b"\x08\xff nonsense")
        with pytest.raises(PipelineError, match="cannot be loaded"):
            embed.run(str(tmp_path / "model"), prepared_digits, str(tmp_path / "out"))

    def test_a_model_for_other_rows(self, prepared_digits, tmp_path):
        model = Linear(tmp_path / "models" / "wide", (28, 28, 1))
        with pytest.raises(PipelineError, match=r"takes uint8 \[28, 28, 1\], the rows are uint8 \[8, 8, 1\]"):
            embed.run(model.path, prepared_digits, str(tmp_path / "out"))

    def test_bytes_are_not_scaled_to_fit_a_float_model(self, prepared_digits, tmp_path):
        model = Linear(tmp_path / "models" / "floats", (8, 8, 1), uint8=False)
        with pytest.raises(PipelineError, match=r"has no signature 'embed_uint8' for uint8 rows, it has .*'embed'"):
            embed.run(model.path, prepared_digits, str(tmp_path / "out"))
        with pytest.raises(PipelineError, match=r"uint8 up to 255, the signature takes float32, scaled as in training"):
            embed.run(model.path, prepared_digits, str(tmp_path / "out"), signature="embed")


class TestInput:
    def test_a_truncated_shard(self, prepared_digits, linear_digits, tmp_path):
        shutil.copytree(prepared_digits, tmp_path / "in")
        shard = tmp_path / "in" / "digits-test.tfrecord-00000-of-00001"
        shard.write_bytes(shard.read_bytes()[:-7])
        with pytest.raises(PipelineError, match=r"00000-of-00001 has .* truncated or changed"):
            embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"))
        (tmp_path / "in" / "manifest.json").unlink()
        with pytest.raises(PipelineError, match="not complete"):
            embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"))
        shutil.rmtree(tmp_path / "in" / "_work")
        with pytest.raises(PipelineError, match="is truncated in the record at byte"):
            embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"))

    def test_a_flipped_bit(self, prepared_digits, linear_digits, tmp_path):
        shutil.copytree(prepared_digits, tmp_path / "in")
        shard = tmp_path / "in" / "digits-test.tfrecord-00000-of-00001"
        content = bytearray(shard.read_bytes())
        content[500] ^= 4
        shard.write_bytes(content)
        with pytest.raises(PipelineError, match="00000-of-00001 is damaged"):
            embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"))

    def test_shards_that_lead_out_of_the_folder(self, prepared_digits, linear_digits, tmp_path):
        shutil.copytree(prepared_digits, tmp_path / "in")
        info = tmp_path / "in" / "dataset_info.json"
        info.write_text(info.read_text().replace("{DATASET}-", "../{DATASET}-"))
        with pytest.raises(PipelineError, match="json is not as it was written: the command that prepared"):
            embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"))
        (tmp_path / "in" / "manifest.json").unlink()
        shutil.rmtree(tmp_path / "in" / "_work")
        with pytest.raises(PipelineError, match="leaves the folder"):
            embed.run(linear_digits.path, str(tmp_path / "in"), str(tmp_path / "out"))

    def test_no_such_split_or_dataset(self, prepared_digits, linear_digits, tmp_path):
        with pytest.raises(PipelineError, match=r"no split 'tset', expected one of \['train', 'test'\]"):
            embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"), split="tset")
        with pytest.raises(PipelineError, match=r"names no Parquet, TFRecord, CSV"):
            embed.run(linear_digits.path, str(tmp_path), str(tmp_path / "out"))


@pytest.mark.slow
def test_the_command(prepared_digits, linear_digits, tmp_path):
    flags = ["--model", str(pathlib.Path(linear_digits.path).parent), "--input", prepared_digits]
    done = command(
        "pipelines.embed", *flags, "--output", tmp_path / "out", "--split", "all", "--direct_num_workers", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "rows in train    1,607" in done.stdout and "Traceback" not in done.stderr
    assert_equals_numpy(tmp_path / "out", linear_digits, observations(prepared_digits, "train", "test"))


def test_exit_codes_1_and_3(doctored, linear_digits, tmp_path, capsys):
    flags = ["--model", linear_digits.path, "--input", doctored[0], "--output", str(tmp_path / "out")]
    assert embed.main([*flags, "--split", "train"]) == 3
    assert "rows rejected    5" in capsys.readouterr().out
    assert embed.main([*flags, "--split", "test"]) == 1
    printed = capsys.readouterr().err
    assert "no split 'test'" in printed and len(printed.strip().splitlines()) == 1


def test_importing_the_job_imports_no_model_code():
    import subprocess
    import sys

    names = ("keras", "tf_keras", "tensorflow", "tensorflow_probability", "tensorflow_datasets", "tfvae.models")
    program = f"import sys, tfvae.pipelines.embed; print([n for n in {names} if n in sys.modules])"
    root = pathlib.Path(embed.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_metrics_have_their_fixed_names(doctored, linear_digits, tmp_path, monkeypatch):
    from apache_beam.metrics import MetricsFilter

    from pipelines import jobs

    results = []
    run = jobs.execution.beam.Pipeline.run
    monkeypatch.setattr(jobs.execution.beam.Pipeline, "run", lambda self: results.append(run(self)) or results[-1])
    embed.run(linear_digits.path, doctored[0], str(tmp_path / "out"), split="train")
    told = results[0].metrics().query(MetricsFilter().with_namespace("pipelines"))
    found = {counter.key.metric.name: counter.committed for counter in told["counters"]}
    assert found == {"rows_read": 40, "rows_written": 35, "rows_rejected": 5}
    assert [distribution.key.metric.name for distribution in told["distributions"]] == ["inference_latency_ms"]


@pytest.mark.slow
def test_many_small_units_on_several_threads(prepared_digits, linear_digits, tmp_path, monkeypatch):
    """Beam's in-process runner is under suspicion of losing units with several workers: none may go unnoticed."""
    monkeypatch.setattr("pipelines.inputs.base.BLOCK_BYTES", 64 * 30)
    truth = observations(prepared_digits, "train", "test")
    for attempt in range(10):
        output = tmp_path / str(attempt)
        summary = embed.run(
            linear_digits.path,
            prepared_digits,
            str(output),
            split="all",
            beam_args=["--direct_num_workers", "4"],
        )
        assert summary.units >= 60 and sum(summary.rows.values()) == 1797
    assert_equals_numpy(output, linear_digits, truth)
