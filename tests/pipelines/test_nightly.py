"""A folder that grows, embedded every night: what is done stays, and the output is that of one run over the folder."""

import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import embed
from pipelines.errors import PipelineError
from pipelines.formats import files, tfrecords

from .conftest import artifacts, rejections, write_png
from .test_embed import read_parts

RNG = np.random.default_rng(0)


def write(folder: pathlib.Path, name: str, keys: list[str], seed: int = 0) -> dict[str, np.ndarray]:
    """A Parquet file of random rows, which are returned by key."""
    x = np.random.default_rng([seed, *name.encode()]).uniform(0.1, 0.9, [len(keys), 4]).astype(np.float32)
    folder.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table({"key": keys, "x": pa.FixedSizeListArray.from_arrays(x.ravel(), 4)}), folder / name)
    return dict(zip(keys, x, strict=True))


def rows_and_rejections(output: pathlib.Path):
    rows = {key: {name: x.tolist() for name, x in row.items()} for key, row in read_parts(output).items()}
    found = [json.loads(line) for path in (output / "rejected").iterdir() for line in path.open()]
    return rows, sorted(found, key=lambda row: (row["source"], row["position"]))


class Nights:
    """The same command again and again; each output is held against that of a run that knows of no other night."""

    def __init__(self, model, folder: pathlib.Path):
        self.model, self.input, self.output = str(model), folder / "in", folder / "out"
        self._fresh, self._nights = folder / "fresh", 0

    def run(self, **options):
        summary = embed.run(self.model, str(self.input), str(self.output), **options)
        self._nights += 1
        fresh = self._fresh / str(self._nights)
        embed.run(self.model, str(self.input), str(fresh), **options)
        assert rows_and_rejections(self.output) == rows_and_rejections(fresh)
        return summary


@pytest.fixture
def nights(models, tmp_path) -> Nights:
    return Nights(models, tmp_path)


def places(output: pathlib.Path) -> dict[str, int]:
    """The inode of each part."""
    return {path.name: path.stat().st_ino for path in (output / "parts").glob("*.parquet")}


class TestGrowing:
    def test_new_changed_and_gone_files(self, nights):
        truth = {name: write(nights.input, name, [f"{name}{i}" for i in range(5)]) for name in ("a", "b", "c.parquet")}
        for name in ("a", "b"):
            (nights.input / name).rename(nights.input / f"{name}.parquet")
        first = nights.run()
        assert (first.units_done, first.new, first.changed, list(first.gone)) == (3, 0, 0, [])
        before = places(nights.output)
        truth["b"] = write(nights.input, "b.parquet", ["b0", "other"])
        truth["d"] = write(nights.input / "2026" / "11", "d.parquet", ["d0"])
        (nights.input / "c.parquet").unlink()
        second = nights.run()
        assert (second.units_done, second.new, second.changed, list(second.gone)) == (2, 1, 1, ["c.parquet"])
        assert "input files      1 new, 1 changed" in second.table() and second.exit_code == 0
        assert "gone             c.parquet: the output has no rows of them any more" in second.table()
        now = places(nights.output)
        assert [name.split("-")[1] for name, place in now.items() if before.get(name) == place] == ["a"]
        rows = truth["a"] | truth["b"] | truth["d"]
        assert read_parts(nights.output).keys() == rows.keys()
        third = nights.run()
        assert third.units_done == 0 and not third.gone and places(nights.output) == now

    def test_repeated_keys_across_nights(self, nights):
        """The first row of a key is kept, by the order of the files; one that was left out comes back, if that goes."""
        write(nights.input, "b.parquet", ["k", "b", "k"])
        write(nights.input, "c.parquet", ["c", "k"])
        assert nights.run().rejected == 2
        write(nights.input, "d.parquet", ["d", "k", "c"])
        assert nights.run().units_done == 1
        write(nights.input, "a.parquet", ["a", "k"])
        summary = nights.run()
        assert summary.units_done == 1 and summary.rejected == 5
        (nights.input / "a.parquet").unlink()
        assert nights.run().rejected == 4
        (nights.input / "b.parquet").unlink()
        assert nights.run().rejected == 2
        assert rejections(nights.output)["c"]["reason"] == "duplicate key, first at c.parquet:0"

    @pytest.mark.parametrize(
        "kind", ["csv", *(pytest.param(k, marks=pytest.mark.slow) for k in ("tfrecord", "npz", "images"))]
    )
    def test_of_any_format_the_new_file_alone_is_done(self, kind, models, tmp_path):
        event = (2, 2, 1) if kind == "images" else (4,)
        model = image_model(tmp_path / "model") if kind == "images" else str(models)
        nights = Nights(model, tmp_path)
        nights.input.mkdir()
        for night in ("bd", "c", "a"):
            for name in night:
                x = RNG.integers(1, 254, [3, *event]).astype(np.uint8)
                WRITERS[kind](nights.input / name, x / np.float32(255) if kind == "csv" else x)
            summary = nights.run()
            assert summary.units_done == (2 if night == "bd" and kind != "images" else 1)
        assert len(read_parts(nights.output)) == 12

    @pytest.mark.slow
    def test_many_small_units_of_images_are_joined(self, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.inputs.images._MOST_SMALL", 3)
        nights = Nights(image_model(tmp_path / "model"), tmp_path)
        counts = []
        for night in range(5):
            write_png(nights.input / f"{9 - night}.png", np.full([2, 2], night, np.uint8))
            nights.run()
            counts.append(len(places(nights.output)))
        assert counts == [1, 2, 3, 1, 2]

    def test_another_input_is_refused(self, nights, tmp_path):
        write(nights.input, "a.parquet", ["a"])
        nights.run()
        write(tmp_path / "other", "b.parquet", ["b"])
        before = artifacts(nights.output)
        with pytest.raises(PipelineError, match=r"was made from 1 files \(a.parquet, ...\), none of which is in"):
            embed.run(nights.model, str(tmp_path / "other"), str(nights.output))
        assert artifacts(nights.output) == before
        embed.run(nights.model, str(tmp_path / "other"), str(nights.output), overwrite=True)
        assert read_parts(nights.output).keys() == {"b"}

    def test_a_damaged_part_is_not_carried(self, nights):
        for name in ("a", "b"):
            write(nights.input, f"{name}.parquet", [name])
        nights.run()
        part = next((nights.output / "parts").glob("*-a-*"))
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        write(nights.input, "c.parquet", ["c"])
        summary = nights.run()
        assert summary.units_done == 2 and list(summary.damaged) == [f"generations/000002/parts/{part.name}"]


class TestKnown:
    def test_a_file_of_the_same_size_and_time_is_not_read(self, nights, monkeypatch):
        read, sha256 = [], files.storage.sha256
        monkeypatch.setattr(files.storage, "sha256", lambda path: read.append(os.path.basename(path)) or sha256(path))
        for name in ("a", "b", "c"):
            write(nights.input, f"{name}.parquet", [name])
            os.utime(nights.input / f"{name}.parquet", ns=(0, 1_700_000_000_000_000_000))
        inputs = lambda: sorted(name for name in read if name in ("a.parquet", "b.parquet", "c.parquet"))  # noqa: E731
        arguments = (nights.model, str(nights.input), str(nights.output))
        embed.run(*arguments)
        assert inputs() == ["a.parquet", "b.parquet", "c.parquet"]
        read.clear()
        os.utime(nights.input / "a.parquet", ns=(0, 1_700_000_000_000_000_001))  # touched, and the same
        write(nights.input, "b.parquet", ["b"], seed=1)  # of the same size
        summary = embed.run(*arguments)
        assert inputs() == ["a.parquet", "b.parquet"] and (summary.units_done, summary.changed) == (1, 1)

    def test_a_file_that_was_just_written_is_read_again(self, nights):
        """Its next change may bear the same time."""
        write(nights.input, "a.parquet", ["a"])
        embed.run(nights.model, str(nights.input), str(nights.output))
        [line] = (nights.output / "lineage.jsonl").read_text().splitlines()
        assert json.loads(line)["inputs"][0]["modified"] is None


def test_lineage(nights, models):
    write(nights.input, "a.parquet", ["a", "b"])
    nights.run(batch_size=7)
    write(nights.input, "b.parquet", ["c"])
    nights.run(batch_size=9)
    lines = [json.loads(line) for line in (nights.output / "lineage.jsonl").open()]
    assert [(line["generation"], line["rows"], len(line["parts"])) for line in lines] == [(1, 2, 1), (2, 1, 1)]
    for line, name in zip(lines, ("a.parquet", "b.parquet"), strict=True):
        [entry] = line["inputs"]
        assert entry["path"] == name and entry["sha256"] == files.storage.sha256(str(nights.input / name))
        assert line["model"]["version"] == 1 and line["options"]["stddev"] is False and line["tfvae_version"]
        keys = pq.read_table(nights.output / line["parts"][0])["key"].to_pylist()
        assert keys == (["a", "b"] if name == "a.parquet" else ["c"])


class TestGenerations:
    def test_a_new_version_of_the_model_is_switched_at_the_end(self, models, nights, tmp_path, monkeypatch):
        base = tmp_path / "rows"
        shutil.copytree(models, base)
        nights.model = str(base)
        truth = write(nights.input, "a.parquet", ["a", "b"])
        nights.run()
        old = rows_and_rejections(nights.output)
        shutil.copytree(models.parent / "2", base / "2")
        seen = []
        reject = embed.repeated_keys.reject
        look = lambda *given: seen.append(rows_and_rejections(nights.output)) or reject(*given)  # noqa: E731
        monkeypatch.setattr(embed.repeated_keys, "reject", look)
        summary = embed.run(nights.model, str(nights.input), str(nights.output))
        assert summary.units_done == 1 and seen == [old]
        rows = read_parts(nights.output)
        assert all(row["embedding"].shape == (2,) for row in rows.values()) and rows.keys() == truth.keys()
        assert os.readlink(nights.output / "current") == "generations/000002"
        assert sorted(os.listdir(nights.output / "generations")) == ["000001", "000002"]
        monkeypatch.undo()
        write(nights.input, "b.parquet", ["c"])
        assert nights.run().units_done == 1
        assert sorted(os.listdir(nights.output / "generations")) == ["000002", "000003"]

    @pytest.mark.slow
    def test_killed_while_a_carried_part_leaves_a_row_out(self, nights, tmp_path, monkeypatch):
        """Its rejected row was told and its record not yet written: it is carried again, and still of its own night."""
        write(nights.input, "b.parquet", ["b", "k"])
        nights.run()
        write(nights.input, "a.parquet", ["a", "k"])
        os.utime(nights.input / "a.parquet", (9, 9))  # the time of a file that is seconds old is not told
        shutil.copytree(nights.output, tmp_path / "whole", symlinks=True)
        embed.run(nights.model, str(nights.input), str(tmp_path / "whole"))
        write_record = embed.Output.write_record

        def killed(self, name, value):
            if value.get("rejected"):
                raise KeyboardInterrupt
            write_record(self, name, value)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(embed.Output, "write_record", killed)
            embed.run(nights.model, str(nights.input), str(nights.output))
        assert len(list((nights.output / "generations" / "000002" / "rejected").iterdir())) == 1
        assert embed.run(nights.model, str(nights.input), str(nights.output)).units_done == 0
        whole, again = artifacts(tmp_path / "whole"), artifacts(nights.output)
        assert {name for name in whole if whole[name] != again[name]} == set() and whole.keys() == again.keys()

    def test_a_copy_without_its_links(self, nights, tmp_path):
        write(nights.input, "a.parquet", ["a"])
        nights.run()
        copy = tmp_path / "copy"
        shutil.copytree(nights.output, copy)
        assert read_parts(copy).keys() == {"a"}
        nights.output = copy
        with pytest.raises(PipelineError, match=r"current is no link.*remove current, parts, rejected, "):
            nights.run()
        for name in ("current", "parts", "rejected"):
            shutil.rmtree(copy / name)
        for name in ("manifest.json", "lineage.jsonl"):
            (copy / name).unlink()
        assert nights.run().units_done == 0 and (copy / "parts").is_symlink()

    def test_killed_before_the_switch(self, nights, monkeypatch):
        """The next run shows what was whole, or goes on from it with what came since."""
        write(nights.input, "a.parquet", ["a"])
        nights.run()
        write(nights.input, "b.parquet", ["b"])

        def killed(self, number):
            raise KeyboardInterrupt

        for more in ((), ("c",)):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr("pipelines.jobs.generations.Generations.switch", killed)
                embed.run(nights.model, str(nights.input), str(nights.output))
            assert read_parts(nights.output).keys() == {"a"}
            for name in more:
                write(nights.input, f"{name}.parquet", [name])
            (nights.input / "b.parquet").touch()
        summary = nights.run()
        assert summary.units_done == 1 and summary.new == 2 and read_parts(nights.output).keys() == {"a", "b", "c"}


def image_model(path: pathlib.Path) -> str:
    """A model of encoded images of 2 by 2 pixels."""
    import tensorflow as tf

    module = tf.Module()

    def embedding(image_bytes):
        decode = lambda content: tf.reshape(tf.io.decode_png(content, channels=1), [4])  # noqa: E731
        x = tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8)
        return {"embedding": tf.cast(x, tf.float32)}

    module.embed = tf.function(embedding, input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    tf.saved_model.save(module, str(path), {"embed_image_bytes": module.embed})
    return str(path)


def write_records(path: pathlib.Path, x: np.ndarray) -> None:
    records = [tfrecords.example(f"{path.name}{i}", row.tobytes()) for i, row in enumerate(x)]
    path.with_suffix(".tfrecord").write_bytes(b"".join(map(tfrecords.frame, records)))


WRITERS = {
    "tfrecord": write_records,
    "csv": lambda path, x: np.savetxt(path.with_suffix(".csv"), x, "%.7g", ",", header="p,q,r,s", comments=""),
    "npz": lambda path, x: np.savez(path.with_suffix(".npz"), x=x),
    "images": lambda path, x: [write_png(path / f"{i}.png", row[..., 0]) for i, row in enumerate(x)],
}
