"""Preprocessing: the prepared dataset holds the source's rows, each once, the same bytes whatever the runner."""

import dataclasses
import gzip
import importlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from pipelines import jobs, preprocess
from pipelines.dataset import shards
from pipelines.errors import PipelineError

from .conftest import ROOT, artifacts, command, read_dataset, rejections, write_idx, write_png


@pytest.fixture
def folder_of_images(tmp_path):
    """12 good images under two labels, one corrupt, one of another shape, one link."""
    folder, rng = tmp_path / "raw", np.random.default_rng(0)
    truth = {}
    for index in range(12):
        name = f"{'cat' if index % 3 else 'dög'}/{index}.png"
        truth[name] = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        write_png(folder / name, truth[name])
    (folder / "cat" / "corrupt.png").write_bytes((folder / "cat" / "1.png").read_bytes()[:50])
    write_png(folder / "cat" / "wide.png", np.zeros((9, 8), np.uint8))
    (folder / "cat" / "link.png").symlink_to(folder / "cat" / "1.png")
    return folder, truth


def test_tfds_reads_back_every_row(prepared_digits, digits_images):
    from sklearn.datasets import load_digits

    splits = {split: read_dataset(prepared_digits, split) for split in ("train", "test")}
    rows = splits["train"] | splits["test"]
    assert len(rows) == len(splits["train"]) + len(splits["test"]) == 1797
    for index, (image, label) in enumerate(zip(digits_images, load_digits().target, strict=True)):
        x, y = rows[f"digits-{index:05d}"]
        np.testing.assert_array_equal(x, image)
        assert y == label
    assert 120 < len(splits["test"]) < 240  # a tenth, drawn by hash


def test_statistics_are_exact(prepared_digits, digits_images):
    statistics = json.loads((pathlib.Path(prepared_digits) / "statistics.json").read_text())
    for split in ("train", "test"):
        rows = read_dataset(prepared_digits, split)
        x = np.stack([x for x, _ in rows.values()]).astype(np.float64)
        found = statistics["splits"][split]
        assert found["rows"] == len(rows) and sum(found["labels"].values()) == len(rows)
        assert found["labels"]["3"] == sum(label == 3 for _, label in rows.values())
        assert found["x"]["mean"] == pytest.approx(x.mean(), rel=1e-14)
        assert found["x"]["std"] == pytest.approx(x.std(), rel=1e-12)
        assert (found["x"]["min"], found["x"]["max"]) == (x.min(), x.max())
        assert found["x"]["histogram"] == np.bincount(x.astype(int).ravel(), minlength=256).tolist()


def test_statistics_of_floats(tmp_path):
    x = (np.random.default_rng(0).normal(1e4, 1e-1, (500, 3))).astype(np.float32)  # cancels in naive sums
    np.save(tmp_path / "x.npy", x)
    preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0, rows_per_shard=70)
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())["splits"]["train"]["x"]
    assert found["mean"] == pytest.approx(x.astype(np.float64).mean(), rel=1e-12)
    assert found["std"] == pytest.approx(x.astype(np.float64).std(), rel=1e-9)
    rows = read_dataset(str(tmp_path / "out"), "train")
    np.testing.assert_array_equal(np.stack([rows[f"row-{i:05d}"][0] for i in range(500)]), x)


def test_the_same_bytes_for_any_workers_and_order(tmp_path, folder_of_images, monkeypatch):
    folder, _ = folder_of_images
    arguments = {"rows_per_shard": 3, "test_fraction": 0.3}
    preprocess.run("images", str(folder), str(tmp_path / "a"), **arguments)
    workers = ["--direct_num_workers", "2"]
    preprocess.run("images", str(folder), str(tmp_path / "b"), **arguments, beam_args=workers)
    # Another order of arrival: one unit at a time, the last one first, and the input listed backwards.
    monkeypatch.setattr(preprocess.beam, "Create", lambda units: _Create(list(reversed(units))))
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: _Backwards(scandir(path)))
    preprocess.run("images", str(folder), str(tmp_path / "c"), **arguments)
    first = artifacts(tmp_path / "a")
    assert len([name for name in first if "tfrecord" in name]) >= 4 and b"<img" in first["report.html"]
    assert first == artifacts(tmp_path / "b") == artifacts(tmp_path / "c")


_Create = preprocess.beam.Create


class _Backwards:
    def __init__(self, entries):
        self._entries = entries

    def __enter__(self):
        return iter(sorted(self._entries, key=lambda entry: entry.name, reverse=True))

    def __exit__(self, *_):
        self._entries.close()


def test_bad_images_are_named_and_the_others_kept(tmp_path, folder_of_images):
    folder, truth = folder_of_images
    output = str(tmp_path / "out")
    summary = preprocess.run("images", str(folder), output, test_fraction=0.3)
    assert summary.rejected == 3 and summary.exit_code == 3
    rows = read_dataset(output, "train") | read_dataset(output, "test")
    assert rows.keys() == truth.keys()
    for key, (x, label) in rows.items():
        np.testing.assert_array_equal(x[..., 0], truth[key])
        assert ("cat", "dög")[label] == key.split("/")[0]
    found = rejections(output)
    assert set(found) == {"cat/corrupt.png", "cat/wide.png", "cat/link.png"}
    assert found["cat/wide.png"]["reason"].startswith("shape [9, 8, 1], expected [8, 8, 1]: --resize HxW")
    assert found["cat/wide.png"]["source"] == "cat/wide.png" and found["cat/wide.png"]["position"] == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rejected"] == 3 and sum(manifest["rows"].values()) == 12


def test_the_manifest_lists_every_file_with_its_checksum(prepared_digits):
    import hashlib

    root = pathlib.Path(prepared_digits)
    manifest = json.loads((root / "manifest.json").read_text())
    listed = {entry["path"]: (entry["bytes"], entry["sha256"]) for entry in manifest["files"]}
    found = {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in artifacts(root).items()
        if not name.startswith("_work/") and name != "manifest.json"
    }
    assert listed == found


def test_own_splits_are_kept_and_validation_is_drawn_from_train(tmp_path):
    rng = np.random.default_rng(0)
    for stem, rows in (("train", 60), ("t10k", 20)):
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", rng.integers(0, 256, (rows, 4, 4), np.uint8), gzip.open)
    summary = preprocess.run("idx", str(tmp_path), str(tmp_path / "out"), validation_fraction=0.25)
    assert summary.rows["test"] == 20 and 5 < summary.rows["validation"] < 25
    assert summary.rows["train"] + summary.rows["validation"] == 60
    assert all(key.startswith("test-") for key in read_dataset(str(tmp_path / "out"), "test"))


def test_a_row_keeps_its_split_when_others_come(tmp_path):
    """The split is drawn by the key alone, so that yesterday's test rows never move into today's training rows."""
    for rows in (100, 150):
        np.save(tmp_path / "x.npy", np.arange(rows * 2, dtype=np.float32).reshape(rows, 2))
        preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / f"out{rows}"), test_fraction=0.3)
    before, after = (read_dataset(str(tmp_path / f"out{rows}"), "test") for rows in (100, 150))
    assert before.keys() == {key for key in after if int(key[4:]) < 100}


def test_duplicate_keys_are_rejected(tmp_path, monkeypatch):
    from pipelines.sources.digits import Digits

    plan = Digits.plan

    def doubled(self):
        found = plan(self)
        keys = found.rows["key"].to_pylist()
        keys[7] = keys[3]
        rows = found.rows.set_column(0, "key", pa.array(keys, pa.large_string()))
        return dataclasses.replace(found, rows=rows)

    monkeypatch.setattr(Digits, "plan", doubled)
    summary = preprocess.run("digits", None, str(tmp_path / "out"))
    assert summary.rejected == 1 and sum(summary.rows.values()) == 1796
    assert rejections(tmp_path / "out")["digits-00003"]["position"] == 7


def test_rows_lie_in_the_order_of_their_keys_hashes(prepared_digits):
    """Neighbours in the source are not neighbours in a shard, and the order needs no state to reproduce."""
    import hashlib

    import tensorflow as tf

    for split in ("train", "test"):
        files = sorted(pathlib.Path(prepared_digits).glob(f"digits-{split}.tfrecord-*"))
        dataset = tf.data.TFRecordDataset([str(file) for file in files])
        found = [tf.train.Example.FromString(data.numpy()) for data in dataset]
        keys = [example.features.feature["key"].bytes_list.value[0] for example in found]
        assert keys == sorted(keys, key=lambda key: hashlib.sha256(key).digest())


class TestAgain:
    def test_a_second_run_does_nothing(self, tmp_path):
        output = tmp_path / "out"
        preprocess.run("digits", None, str(output), rows_per_shard=300)
        before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
        summary = preprocess.run("digits", None, str(output), rows_per_shard=300)
        after = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
        assert summary.units_done == 0 and summary.rows_read == 0
        del before[output / "_work" / "lock"], after[output / "_work" / "lock"]
        assert before == after

    @pytest.mark.parametrize("victim", ["_work/commits/{unit}.json", "digits-{unit}", "statistics.json", "report.html"])
    def test_only_what_is_missing_is_done(self, tmp_path, victim):
        output = tmp_path / "out"
        preprocess.run("digits", None, str(output), rows_per_shard=300)
        whole = artifacts(output)
        name = victim.replace("digits-{unit}", "digits-train.tfrecord-00001-of-00006")
        (output / name.format(unit="train-00001-of-00006")).unlink()
        shard = output / "digits-train.tfrecord-00000-of-00006"
        untouched = shard.stat().st_mtime_ns
        summary = preprocess.run("digits", None, str(output), rows_per_shard=300)
        assert summary.units_done == (1 if "unit" in victim else 0)
        assert artifacts(output) == whole and shard.stat().st_mtime_ns == untouched

    def test_a_shard_changed_behind_our_back_is_noticed(self, tmp_path):
        output = tmp_path / "out"
        preprocess.run("digits", None, str(output), rows_per_shard=300)
        whole = artifacts(output)
        shard = output / "digits-train.tfrecord-00001-of-00006"
        content = bytearray(shard.read_bytes())
        content[100] ^= 1
        shard.write_bytes(content)
        (output / "manifest.json").unlink()
        assert preprocess.run("digits", None, str(output), rows_per_shard=300).units_done == 1
        assert artifacts(output) == whole

    def test_a_shard_changed_while_the_job_ran_fails_it(self, tmp_path, monkeypatch):
        output = tmp_path / "out"
        preprocess.run("digits", None, str(output), rows_per_shard=300)
        whole = artifacts(output)
        (output / "digits-train.tfrecord-00002-of-00006").unlink()
        shard, write = output / "digits-train.tfrecord-00001-of-00006", shards.WriteShard._write
        change = lambda self, *unit: shard.write_bytes(b"other") and write(self, *unit)  # noqa: E731
        with monkeypatch.context() as patch, pytest.raises(PipelineError, match="00001-of-00006 changed after it was"):
            patch.setattr(shards.WriteShard, "_write", change)
            preprocess.run("digits", None, str(output), rows_per_shard=300)
        assert not (output / "manifest.json").exists()
        preprocess.run("digits", None, str(output), rows_per_shard=300)
        assert artifacts(output) == whole

    def test_a_commit_record_of_another_job_does_not_count(self, tmp_path):
        output = tmp_path / "out"
        preprocess.run("digits", None, str(output), rows_per_shard=300)
        whole = artifacts(output)
        path = output / "_work" / "commits" / "train-00003-of-00006.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 64}))
        assert preprocess.run("digits", None, str(output), rows_per_shard=300).units_done == 1
        assert artifacts(output) == whole

    def test_an_output_that_is_being_mended_has_no_manifest(self, tmp_path, monkeypatch):
        output = tmp_path / "out"
        preprocess.run("digits", None, str(output), rows_per_shard=300)
        (output / "digits-train.tfrecord-00001-of-00006").unlink()
        monkeypatch.setattr("pipelines.formats.tfrecords.framed", lambda *_: 1 / 0)
        with pytest.raises(PipelineError, match=r"^ZeroDivisionError"):
            preprocess.run("digits", None, str(output), rows_per_shard=300)
        assert not (output / "manifest.json").exists()

    def test_a_try_that_the_runner_repeats_is_no_failure(self, tmp_path, monkeypatch):
        """Flink and Dataflow repeat a bundle that raised; here the second try is made by hand."""
        process, failed = shards.WriteShard.process, []

        def flaky(self, unit):
            if not failed:
                failed.append(unit.name)
                with pytest.raises(OSError), jobs.reporting(self._output, unit):
                    raise OSError("the network was gone")
            yield from process(self, unit)

        monkeypatch.setattr(shards.WriteShard, "process", flaky)
        preprocess.run("digits", None, str(tmp_path / "out"))
        assert failed

    def test_a_unit_that_is_committed_is_not_done_again(self, tmp_path, monkeypatch):
        """A runner that lost a worker starts the whole job anew."""
        preprocess.run("digits", None, str(tmp_path / "fresh"), rows_per_shard=300)
        write, written = shards.WriteShard._write, []
        monkeypatch.setattr(
            shards.WriteShard, "_write", lambda self, unit, out: written.append(unit.name) or write(self, unit, out)
        )
        monkeypatch.setattr(preprocess.beam, "Create", lambda units: _Create([*units, *units]))
        summary = preprocess.run("digits", None, str(tmp_path / "out"), rows_per_shard=300)
        assert len(written) == len(set(written)) == summary.units
        assert artifacts(tmp_path / "out") == artifacts(tmp_path / "fresh")

    def test_a_failure_of_a_unit_that_another_try_committed_is_none(self, tmp_path, monkeypatch):
        """As of a worker that the runner had given up and that did not know it yet."""
        process = shards.WriteShard.process

        def late(self, unit):
            yield from process(self, unit)
            self._output.fail(unit, OSError("the channel is closed"))

        monkeypatch.setattr(shards.WriteShard, "process", late)
        assert preprocess.run("digits", None, str(tmp_path / "out")).exit_code == 0

    def test_a_changed_option_or_input_is_refused_unless_overwritten(self, tmp_path):
        np.save(tmp_path / "x.npy", np.ones((50, 2), np.float32))
        arguments = ("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"))
        preprocess.run(*arguments, rows_per_shard=7)
        whole = artifacts(tmp_path / "out")
        with pytest.raises(PipelineError, match="--overwrite"):
            preprocess.run(*arguments, rows_per_shard=8)
        np.save(tmp_path / "x.npy", np.zeros((50, 2), np.float32))
        with pytest.raises(PipelineError, match="--overwrite"):
            preprocess.run(*arguments, rows_per_shard=7)
        assert artifacts(tmp_path / "out") == whole
        (tmp_path / "out" / "mine.txt").write_text("not a pipeline's")
        preprocess.run(*arguments, rows_per_shard=8, overwrite=True)
        preprocess.run(*arguments[:2], str(tmp_path / "fresh"), rows_per_shard=8)
        replaced = artifacts(tmp_path / "out")
        assert replaced.pop("mine.txt") == b"not a pipeline's"
        assert replaced == artifacts(tmp_path / "fresh")

    def test_a_folder_that_is_not_ours_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        for overwrite in (False, True):
            with pytest.raises(PipelineError, match=r"1 entries that no pipeline wrote \('thesis.txt'"):
                preprocess.run("digits", None, str(tmp_path), overwrite=overwrite)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_two_jobs_at_once(self, tmp_path):
        from pipelines.jobs.commits import Output

        with (
            Output(str(tmp_path / "out")).lock(),
            pytest.raises(PipelineError, match="another job is writing"),
        ):
            preprocess.run("digits", None, str(tmp_path / "out"))

    def test_killed_half_way_then_resumed(self, tmp_path):
        """kill -9 in the middle of the shards: the second run does the rest, and the bytes are those of one run."""
        np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(25_000, 8)).astype(np.float32))
        flags = ["--source", "npy", "--input", str(tmp_path / "x.npy"), "--rows-per-shard", "250"]
        line = [sys.executable, "-m", "pipelines.preprocess", *flags, "--output", str(tmp_path / "out")]
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        commits = tmp_path / "out" / "_work" / "commits"
        deadline = time.monotonic() + 60
        while not (commits.exists() and len(list(commits.iterdir())) >= 5):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = len(list(commits.glob("*.json")))
        assert not (tmp_path / "out" / "manifest.json").exists()
        arguments = ("npy", str(tmp_path / "x.npy"))
        summary = preprocess.run(*arguments, str(tmp_path / "out"), rows_per_shard=250)
        assert 5 <= done < summary.units and summary.units_done == summary.units - done
        preprocess.run(*arguments, str(tmp_path / "fresh"), rows_per_shard=250)
        assert artifacts(tmp_path / "out") == artifacts(tmp_path / "fresh")


class TestStops:
    def test_a_worker_that_fails_says_why_and_leaves_no_manifest(self, tmp_path, monkeypatch):
        from pipelines.sources.digits import Digits

        def broken(self, file):
            raise PipelineError("the disk caught fire: buy another")

        with monkeypatch.context() as patch:
            patch.setattr(Digits, "arrays", broken)
            with pytest.raises(PipelineError, match=r"^the disk caught fire: buy another$"):
                preprocess.run("digits", None, str(tmp_path / "out"))
        assert not (tmp_path / "out" / "manifest.json").exists()
        assert preprocess.run("digits", None, str(tmp_path / "out")).exit_code == 0

    def test_a_runner_that_gives_up(self, tmp_path, monkeypatch):
        def give_up(self):
            raise RuntimeError("a long report\n\n  with its reason last\n>\n")

        monkeypatch.setattr(preprocess.beam.Pipeline, "run", give_up)
        with pytest.raises(PipelineError, match=r"^with its reason last: run the same command again"):
            preprocess.run("digits", None, str(tmp_path / "out"))

    def test_a_runner_that_loses_a_unit(self, tmp_path, monkeypatch):
        monkeypatch.setattr(preprocess.beam, "Create", lambda units: _Create(units[:-1]))
        with pytest.raises(PipelineError, match="1 of 2 units left no commit record"):
            preprocess.run("digits", None, str(tmp_path / "out"))

    def test_a_worker_that_loses_a_row(self, tmp_path, monkeypatch):
        from pipelines.sources.digits import Digits

        read = Digits.read_rows

        def losing(self, rows, schema):
            batch = read(self, rows, schema)
            return dataclasses.replace(batch, good=batch.good[1:], x=batch.x[1:], labels=batch.labels[1:])

        monkeypatch.setattr(Digits, "read_rows", losing)
        with pytest.raises(PipelineError, match=r"wrote .* rows and rejected 0, expected"):
            preprocess.run("digits", None, str(tmp_path / "out"))

    def test_no_good_row(self, tmp_path):
        np.save(tmp_path / "x.npy", np.full((9, 2), np.nan, np.float32))
        with pytest.raises(PipelineError, match="no row of split 'train' is good"):
            preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0)
        # It has made nothing, so that the same folder takes other options.
        found = preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0, missing=True)
        assert found.rows == {"train": 9}

    def test_what_was_begun_by_other_options_is_refused(self, tmp_path, monkeypatch):
        np.save(tmp_path / "x.npy", np.arange(20, dtype=np.float32).reshape(10, 2))
        with monkeypatch.context() as patch:
            patch.setattr(preprocess.beam, "Create", lambda units: _Create(units[:-1]))
            with pytest.raises(PipelineError, match="of 2 units left no commit record"):
                preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0.5)
        with pytest.raises(PipelineError, match="made from other inputs or options"):
            preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0.4)

    @pytest.mark.parametrize(
        ("rows", "hint"),
        [
            (np.ones([9, 2], np.uint8), "or take bytes as numbers, --dtype float32$"),
            (np.ones([9, 4097]), "leave it out$"),
        ],
    )
    def test_columns_that_cannot_be_standardized(self, tmp_path, rows, hint):
        np.save(tmp_path / "x.npy", rows)
        with pytest.raises(PipelineError, match=f"is for vectors of at most 4,096 float32, the rows are .*{hint}"):
            preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), standardize=True)

    def test_an_empty_split(self, tmp_path):
        np.save(tmp_path / "x.npy", np.ones((2, 2), np.float32))
        with pytest.raises(PipelineError, match="split 'test' would get none of the 2 rows"):
            preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=1e-9)

    def test_rows_that_all_have_one_key(self, tmp_path):
        (tmp_path / "x.csv").write_text("key,a\n" + "one,1\n" * 50)
        sentence = (
            "none of the 1 rows that can be taken, 49 cannot, the first is x.csv:12 .duplicate key, first at x.csv:6"
        )
        with pytest.raises(PipelineError, match=rf"{sentence}\): .*, or give more rows, each with a key of its own"):
            preprocess.run("csv", str(tmp_path / "x.csv"), str(tmp_path / "out"))

    @pytest.mark.parametrize(
        "options",
        [
            {"test_fraction": 1.0},
            {"test_fraction": -0.1},
            {"test_fraction": float("nan")},
            {"test_fraction": 0.5, "validation_fraction": 0.5},
            {"rows_per_shard": 0},
            {"max_pixels": 0},
            {"beam_args": ["--no_such_flag"]},
            {"beam_args": ["--runner", "DaskRunner"]},
            {"beam_args": ["--runner", "DataflowRunner"]},
            {"beam_args": ["--flink_conf_dir", "conf"]},  # which only a Flink job server knows
            {"beam_args": ["--runner", "FlinkRunner", "--flink_conf_dri", "conf"]},
        ],
    )
    def test_options_that_make_no_sense(self, tmp_path, options):
        with pytest.raises(PipelineError):
            preprocess.run("digits", None, str(tmp_path / "out"), **options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("", "needs --project, --region, --temp_location, which are not given: for example --project my-project"),
            ("--project p --region r", "needs --temp_location, which is not given"),
            ("--region r --staging_location gs://b/s", "needs --project, which is not given"),
            ("--project p --region r --temp_location /tmp", "--temp_location is /tmp, expected a place in Google's"),
        ],
        ids=["nothing", "no place", "no project", "a place here"],
    )
    def test_what_dataflow_does_not_begin_without(self, tmp_path, monkeypatch, given, said):
        monkeypatch.setattr("pipelines.jobs.options._region", lambda: None)
        with pytest.raises(PipelineError) as raised:
            preprocess.run(
                "digits", None, str(tmp_path / "out"), beam_args=["--runner", "DataflowRunner", *given.split()]
            )
        assert said in str(raised.value) and not (tmp_path / "out").exists()


class TestCommand:
    def test_exit_code_0_and_a_table(self, tmp_path):
        done = command(
            "pipelines.preprocess", "--source", "digits", "--output", tmp_path / "out", "--direct_num_workers", "1"
        )
        assert done.returncode == 0, done.stderr
        assert "rows in train    1,607" in done.stdout and "Traceback" not in done.stderr

    def test_exit_code_3_with_rejected_rows(self, folder_of_images, tmp_path, capsys):
        flags = ["--source", "images", "--input", str(folder_of_images[0]), "--test-fraction", "0.3"]
        code = preprocess.main([*flags, "--output", str(tmp_path / "out")])
        assert code == 3 and "rows rejected    3, see" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            (["--source", "idx", "--input", "/nowhere"], "/nowhere is not a folder"),
            (
                ["--source", "digits", "--rows-per-shrad", "3"],
                "did you mean --rows-per-shard?",
            ),
            (["--source", "digits", "--direct_num_worker", "3"], "did you mean --direct_num_workers"),
            (
                ["--source", "digits", "--rows-per-shard", "many"],
                "expected a whole number such as 1000 or 1e7, received many",
            ),
            (
                ["--source", "digits", "stray"],
                "unknown argument 'stray', neither ours nor Beam's: the option before it",
            ),
            (["--source", "digits", "--shape", "28x28"], "received 28x28: write several apart, --shape 28 28 (see"),
            (
                ["--source", "digits", "--direct_num_workers", "x"],
                "--direct_num_workers is 'x', expected a whole number",
            ),
        ],
    )
    def test_exit_code_1_and_one_line(self, tmp_path, capsys, extra, message):
        assert preprocess.main([*extra, "--output", str(tmp_path / "out")]) == 1
        printed = capsys.readouterr().err
        assert message in printed and len(printed.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_progress_is_told_of_every_unit(tmp_path):
    told = []
    summary = preprocess.run("digits", None, str(tmp_path / "out"), rows_per_shard=300, progress=told.append)
    assert told[0] == (0, summary.units, 0, 1797, 0)
    assert told[-1] == (summary.units, summary.units, 1797, 1797, 0)
    assert all(before <= after for before, after in itertools.pairwise(told))
    again: list = []
    record = tmp_path / "out" / "_work" / "commits" / "train-00001-of-00006.json"
    missing = json.loads(record.read_text())["rows"]
    record.unlink()
    preprocess.run("digits", None, str(tmp_path / "out"), rows_per_shard=300, progress=again.append)
    assert again[0] == (summary.units - 1, summary.units, 1797 - missing, 1797, 0) and again[-1] == told[-1]


TINY_PICTURES = """
import numpy as np
import tensorflow_datasets as tfds

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 3), dtype=np.uint8)

class TinyPictures(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=["a", "b"])
        features = {"image": tfds.features.Image(shape=(4, 5, 3)), "label": label}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 6), "test": self._generate_examples(6, 9)}

    def _generate_examples(self, first, end):
        for index in range(first, end):
            yield index, {"image": IMAGES[index], "label": index % 2}
"""


def test_a_registered_tfds_dataset(tmp_path, monkeypatch):
    (tmp_path / "tiny_pictures").mkdir()  # a package, as TFDS wants
    (tmp_path / "tiny_pictures" / "__init__.py").write_text(TINY_PICTURES)
    monkeypatch.syspath_prepend(tmp_path)
    images = importlib.import_module("tiny_pictures").IMAGES
    output = str(tmp_path / "out")
    preprocess.run("tfds:tiny_pictures", str(tmp_path / "tfds"), output)
    rows = read_dataset(output, "train") | read_dataset(output, "test")
    assert sorted(rows) == [f"test-{i:05d}" for i in range(3)] + [f"train-{i:05d}" for i in range(6)]
    found = sorted((x.tobytes(), label) for x, label in rows.values())
    assert found == sorted((image.tobytes(), index % 2) for index, image in enumerate(images))
    with pytest.raises(PipelineError, match="cannot prepare 'no_such_dataset'"):
        preprocess.run("tfds:no_such_dataset", str(tmp_path / "tfds"), str(tmp_path / "out2"))


def test_mnist(mnist_dir, tmp_path):
    output = str(tmp_path / "mnist")
    summary = preprocess.run("idx", str(mnist_dir), output)
    assert summary.rows == {"train": 60_000, "test": 10_000} and summary.exit_code == 0
    raw = {}
    for stem in ("train", "t10k"):
        with gzip.open(mnist_dir / f"{stem}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        with gzip.open(mnist_dir / f"{stem}-labels-idx1-ubyte.gz") as file:
            raw[stem] = images, np.frombuffer(file.read(), np.uint8, offset=8)
    rows = read_dataset(output, "test")
    assert len(rows) == 10_000
    for key, (x, label) in rows.items():
        index = int(key.removeprefix("test-"))
        assert label == raw["t10k"][1][index] and (x == raw["t10k"][0][index]).all()
    statistics = json.loads((tmp_path / "mnist" / "statistics.json").read_text())["splits"]["train"]
    assert statistics["x"]["mean"] == pytest.approx(raw["train"][0].mean(), rel=1e-12)
    assert list(statistics["labels"].values()) == np.bincount(raw["train"][1]).tolist()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"test_fraction": "a"}, "test_fraction is 'a', expected a number, 0 or more"),
        ({"validation_fraction": float("nan")}, "validation_fraction is nan, expected a number, 0 or more"),
        ({"rows_per_shard": 2.5}, "rows_per_shard is 2.5, expected a whole number, 1 or more"),
        ({"max_pixels": True}, "max_pixels is True, expected a whole number, 1 or more"),
        ({"drop": "a"}, r"drop is 'a', expected a list of names, such as \['label'\]"),
        ({"categories": (name for name in "ab")}, "categories is <generator .*, expected a list of names"),
        ({"beam_args": "--runner FlinkRunner"}, "beam_args is '--runner FlinkRunner', expected a list"),
    ],
)
def test_settings_of_another_kind_are_told(settings, sentence, tmp_path):
    with pytest.raises(PipelineError, match=sentence):
        preprocess.run("digits", None, str(tmp_path / "out"), **settings)


def test_numpy_s_numbers_are_numbers(tmp_path):
    np.save(tmp_path / "x.npy", np.ones([9, 2], np.float32))
    run = lambda *numbers: preprocess.run(  # noqa: E731
        "npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=numbers[0], rows_per_shard=numbers[1]
    )
    assert run(np.float64(0.5), np.int64(3)).units_done and not run(0.5, 3).units_done


@pytest.mark.parametrize("pattern", ["{}", "{}/**/*.tfrecord*", "{}/*/*"])
def test_an_output_that_its_own_input_would_read_is_refused(pattern, tmp_path, prepared_digits):
    """Its next run would take every row twice."""
    folder = tmp_path / "in"
    folder.mkdir()
    for file in pathlib.Path(prepared_digits).glob("*test.tfrecord*"):
        shutil.copy(file, folder)
    settings = {"shape": [8, 8], "dtype": "uint8", "test_fraction": 0}
    run = lambda path, out: preprocess.run("tfrecord", path, str(out), **settings)  # noqa: E731
    with pytest.raises(PipelineError, match=r"lies in the input .*, which would read it: choose a folder beside it"):
        run(pattern.format(folder), folder / "prepared")
    assert sum(run(f"{folder}/*.tfrecord*", folder / "prepared").rows.values()) == 190
    assert not run(f"{folder}/*.tfrecord*", folder / "prepared").units_done


@pytest.mark.parametrize("kind", ["images", "csv", "parquet"])
def test_an_output_and_its_input_lie_beside_each_other(kind, tmp_path):
    """Nothing is written: of a folder with a prepared dataset in it ``embed`` could not say what the files are."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "row").write_bytes(b"")
    for path, out in ((folder, folder / "out"), (folder, folder / "a" / "b"), (f"{folder}/**/*", folder / "out")):
        with pytest.raises(PipelineError, match=r"the output .* lies in the input .*: choose a folder beside it"):
            preprocess.run(kind, str(path), str(out))
    for path in (folder, folder / "row", f"{folder}/*"):
        with pytest.raises(PipelineError, match=r"the input .*in.* lies in the output .*: choose a folder beside it"):
            preprocess.run(kind, str(path), str(tmp_path), overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "row"]


def test_an_output_that_is_no_folder_is_told(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "absent" / "folder")
    with pytest.raises(PipelineError, match="is a link to nothing: make that folder"):
        preprocess.run("digits", None, str(tmp_path / "link"))
    with pytest.raises(PipelineError, match="holds a zero byte: no file can be called so"):
        preprocess.run("digits", None, str(tmp_path / "a\0b"))
