"""Small inputs joined in parts of a size: every row once, in its order; what is done stays; and each part says its own.

A row is 12 bytes of an embedding and 24 for the key, as it is reckoned: 360 bytes are ten rows.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import embed, preprocess
from pipelines.embedding import joining
from pipelines.embedding.reading import ReadUnit
from pipelines.errors import PipelineError
from pipelines.mend import mend
from pipelines.verify import verify

from ..conftest import Linear, artifacts
from ..test_damage import flip
from ..test_embed import read_parts
from ..test_nightly import WRITERS, Nights, image_model, rows_and_rejections

WHITE = np.ones(4, np.float32)  # which the model rejects


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(embed, "MEGABYTE", 360)


@pytest.fixture
def nights(models, tmp_path) -> Nights:
    return Nights(models, tmp_path)


def write(folder: pathlib.Path, name: str, keys: list[str], seed: int = 0, **columns) -> None:
    """A file of random rows; one whose key ends in ``!`` is rejected."""
    x = np.random.default_rng([seed, *name.encode()]).uniform(0.1, 0.9, [len(keys), 4]).astype(np.float32)
    x[[key.endswith("!") for key in keys]] = WHITE
    path = folder / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True, parents=True)
    table = {"key": pa.array(keys, pa.string()), "x": pa.FixedSizeListArray.from_arrays(x.ravel(), 4)} | columns
    pq.write_table(pa.table(table), path)
    os.utime(path, (9, 9))  # whose times no later run takes for new


def keys(name: str, rows: int = 4) -> list[str]:
    return [f"{name}{i}" for i in range(rows)]


def parts(output: pathlib.Path) -> dict[tuple[str, ...], list[str]]:
    """The keys of each part, by the files that the lineage says it was made from."""
    found = {}
    for line in map(json.loads, (output / "lineage.jsonl").open()):
        tables = [pq.read_table(output / name, partitioning=None) for name in line["parts"]]
        made_from = tuple(entry["path"].removesuffix(".parquet") for entry in line["inputs"])
        found[made_from] = [key for table in tables for key in table["key"].to_pylist()]
        assert line["rows"] == len(found[made_from])
    return found


def places(output: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in (output / "parts").rglob("*.parquet"))
    return {str(path.relative_to(output)): (path.stat().st_ino, path.read_bytes()) for path in files}


class TestJoined:
    @pytest.mark.slow
    def test_rows_of_small_files_are_one_part_in_their_order(self, models, tmp_path):
        """Of the rejected ones too; files without rows make none, and the last part has what is left."""
        folder = tmp_path / "in"
        for name in "abcdefg":
            write(folder, name, [] if name == "d" else [f"{name}0", f"{name}1!", f"{name}2!", f"{name}3"])
        joined = embed.run(str(models), str(folder), str(tmp_path / "out"), part_size=1)
        embed.run(str(models), str(folder), str(tmp_path / "plain"))
        assert joined.units == 3 and joined.rejected == 12
        assert rows_and_rejections(tmp_path / "out") == rows_and_rejections(tmp_path / "plain")
        assert parts(tmp_path / "out") == {
            tuple(names): [f"{name}{i}" for name in names for i in (0, 3)] for names in ("ab", "ce", "fg")
        }
        for path in (tmp_path / "out" / "rejected").iterdir():
            told = [(row["source"], row["position"]) for row in map(json.loads, path.open())]
            assert told == sorted(told) and len(told) == 4
        table = embed.read_embeddings(str(tmp_path / "out"))
        assert table["key"].to_pylist() == [f"{name}{i}" for name in "abcefg" for i in (0, 3)]

    def test_slices_of_a_large_file_too(self, models, tmp_path, monkeypatch):
        """A file's own units, of at most so many rows, are joined with each other and with their neighbours."""
        for module in ("base", "parquet"):
            monkeypatch.setattr(f"pipelines.inputs.{module}.BLOCK_ROWS", 4)
        write(tmp_path / "in", "b", keys("b", 20))
        table = pq.read_table(tmp_path / "in" / "b.parquet")
        pq.write_table(table, tmp_path / "in" / "b.parquet", row_group_size=4)
        write(tmp_path / "in", "c", keys("c", 3))
        embed.run(str(models), str(tmp_path / "in"), str(tmp_path / "out"), part_size=1)
        found = [
            (line["rows"], len(line["inputs"])) for line in map(json.loads, (tmp_path / "out/lineage.jsonl").open())
        ]
        assert found == [(8, 1), (8, 1), (7, 2)]
        assert list(read_parts(tmp_path / "out")) == keys("b", 20) + keys("c", 3)

    @pytest.mark.slow
    def test_a_part_has_about_the_size(self, models, tmp_path, monkeypatch):
        """Keys of other lengths than reckoned: no part is a rest that is cut off, and none much too large."""
        monkeypatch.setattr(embed, "MEGABYTE", 3600)
        for length in (2, 20, 80):
            folder = tmp_path / str(length)
            for number in range(100):
                write(folder / "in", f"{number:03}", [f"{number:03}{i}".rjust(length, "k") for i in range(5)])
            embed.run(str(models), str(folder / "in"), str(folder / "out"), part_size=1)
            sizes = [pq.read_table(path).nbytes for path in (folder / "out" / "parts").glob("*.parquet")]
            assert max(sizes) <= 1.25 * 3600 and len(sizes) <= 1 + sum(sizes) / (0.4 * 3600)

    def test_many_rows_go_through_the_model_and_the_writer_at_once(self, models, tmp_path, monkeypatch):
        monkeypatch.setattr(embed, "MEGABYTE", 36_000)
        for number in range(20):
            write(tmp_path / "in", f"{number:02}", keys(f"k{number:02}", 3))
        embed.run(str(models), str(tmp_path / "in"), str(tmp_path / "out"), part_size=1)
        [path] = (tmp_path / "out" / "parts").glob("*.parquet")
        assert pq.read_metadata(path).num_row_groups == 1

    def test_columns_that_files_store_otherwise(self, models, tmp_path):
        """Text, and the same as a dictionary: in files of their own, for a file has one schema."""
        for name, kind in (("a", pa.string()), ("b", pa.dictionary(pa.int32(), pa.string())), ("c", pa.string())):
            write(tmp_path / "in", name, keys(name, 2), note=pa.array(["x", "y"]).cast(kind))
        for name, options in (("out", {"part_size": 1}), ("plain", {})):
            embed.run(str(models), str(tmp_path / "in"), str(tmp_path / name), keep=["note"], **options)
        joined, plain = (
            [
                row
                for path in sorted((tmp_path / name / "parts").rglob("*.parquet"))
                for row in pq.read_table(path).to_pylist()
            ]
            for name in ("out", "plain")
        )
        assert sorted(joined, key=str) == sorted(plain, key=str) and len(joined) == 6

    def test_a_file_that_changes_while_it_is_read(self, models, tmp_path, monkeypatch):
        for name in "ab":
            write(tmp_path / "in", name, keys(name))
        of_slice = ReadUnit._of_slice
        planned = lambda one: dataclasses.replace(one, rows=one.rows + (one.file == "b.parquet"))  # noqa: E731
        monkeypatch.setattr(ReadUnit, "_of_slice", lambda self, one, blocks: of_slice(self, planned(one), blocks))
        with pytest.raises(PipelineError, match=r"b.parquet gave 4 of 5 rows: it has changed"):
            embed.run(str(models), str(tmp_path / "in"), str(tmp_path / "out"), part_size=1)


KINDS = ("csv", "npz", "tfrecord", "images", "pictures of a size", "prepared")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_of_any_format(kind, models, tmp_path, monkeypatch):
    """Rows and rejections are those without joining, in fewer parts; and so they are a night later."""
    is_images, folder, options = kind in ("images", "pictures of a size"), tmp_path / "in", {}
    monkeypatch.setattr("pipelines.inputs.images.UNIT_IMAGES", 3)
    model = image_model(tmp_path / "model") if kind == "images" else str(models)
    if kind == "pictures of a size":
        model = Linear(tmp_path / "model" / "1", (2, 2, 1)).path
    monkeypatch.setattr(embed, "MEGABYTE", 36 * 10)
    source = folder
    for night in ("bdegh", "caf"):
        for name in night:
            x = np.random.default_rng([*name.encode()]).integers(1, 254, [3, 2, 2, 1] if is_images else [3, 4])
            x[1] = 255  # which the model rejects, but of encoded images
            x = x.astype(np.uint8)
            folder.mkdir(exist_ok=True)
            if kind == "prepared":
                x = x[[0, 2]]
            writes = WRITERS["images" if is_images else "npz" if kind == "prepared" else kind]
            writes(folder / name, x / np.float32(255) if kind == "csv" else x)
        if kind == "pictures of a size" and not options:
            shapes = tmp_path / "shapes"
            preprocess.run("images", str(folder), str(shapes), resize="2x2", test_fraction=0)
            options = {"prepared_with": str(shapes)}
        if kind == "prepared":
            source, options = tmp_path / f"prepared-{night}", {"split": "all"}
            preprocess.run("npz", str(folder), str(source), test_fraction=0.3, rows_per_shard=3)
        out = tmp_path / ("out" if kind != "prepared" else f"out-{night}")
        joined = embed.run(model, str(source), str(out), part_size=1, **options)
        plain = embed.run(model, str(source), str(tmp_path / f"plain-{night}"), **options)
        assert rows_and_rejections(out) == rows_and_rejections(tmp_path / f"plain-{night}")
        assert joined.units < plain.units and joined.rows == plain.rows
        assert embed.run(model, str(source), str(out), part_size=1, **options).units_done == 0
        assert verify(str(out)).damaged == ()


class TestEveryNight:
    @pytest.mark.slow
    def test_what_is_done_stays_and_what_is_new_is_joined(self, nights):
        for name in "abcd":
            write(nights.input, name, keys(name))
        assert nights.run(part_size=1).units_done == 2
        first = places(nights.output)
        for name in ("aa", "bb", "e"):
            write(nights.input, name, keys(name, 3))
        second = nights.run(part_size=1)
        assert (second.units_done, second.units, second.new, second.changed) == (1, 3, 3, 0)
        now = places(nights.output)
        assert len(now) == 3 and first.items() <= now.items()
        assert list(parts(nights.output)) == [("a", "b"), ("aa", "bb", "e"), ("c", "d")]
        third = nights.run(part_size=1)
        assert third.units_done == 0 and places(nights.output) == now

    @pytest.mark.slow
    def test_a_part_of_which_a_file_changed_or_is_gone_is_replaced(self, nights):
        """What is left of it is joined with what is new; the report is that of a run without joining."""
        for name in "abcdef":
            write(nights.input, name, keys(name))
        nights.run(part_size=1)
        first = places(nights.output)
        write(nights.input, "b", keys("b", 3), seed=1)
        (nights.input / "d.parquet").unlink()
        second = nights.run(part_size=1)
        assert (second.units_done, second.new, second.changed, [*second.gone]) == (2, 0, 1, ["d.parquet"])
        assert "input files      0 new, 1 changed" in second.table()
        assert "gone             d.parquet: the output has no rows of them any more" in second.table()
        assert list(parts(nights.output)) == [("a", "b"), ("c",), ("e", "f")]
        kept = {name: place for name, place in places(nights.output).items() if "-e-" in name}
        assert len(kept) == 1 and kept.items() <= first.items()
        [generations] = [[line["generation"] for line in map(json.loads, (nights.output / "lineage.jsonl").open())]]
        assert generations == [2, 2, 1]
        write(nights.input, "g", keys("g"))
        assert nights.run(part_size=1).units_done == 1  # what is alone in its part stays so
        assert list(parts(nights.output)) == [("a", "b"), ("c",), ("e", "f"), ("g",)]

    @pytest.mark.slow
    @pytest.mark.parametrize("folders", [[], ["country"]])
    def test_a_key_keeps_its_first_row_by_the_order_of_the_files(self, folders, nights):
        """Also where that came later, and lies, by that order, between files of one part."""
        options = {"part_size": 1, "partition_by": folders}
        country = {"country": ["at", "de", "at"]}
        write(nights.input, "b", ["b", "k", "b"], **country)
        write(nights.input, "d", ["d", "k", "l"], **country)
        assert nights.run(**options).rejected == 2
        write(nights.input, "c", ["c", "l", "k"], **country)
        assert nights.run(**options).rejected == 4
        write(nights.input, "a", ["a", "k", "c"], **country)
        assert nights.run(**options).rejected == 6
        (nights.input / "a.parquet").unlink()
        assert nights.run(**options).rejected == 4
        (nights.input / "b.parquet").unlink()
        assert nights.run(**options).rejected == 2

    @pytest.mark.slow
    def test_a_new_model_joins_all_anew(self, models, nights, tmp_path):
        shutil.copytree(models, tmp_path / "rows")
        nights.model = str(tmp_path / "rows")
        for name in "abc":
            write(nights.input, name, keys(name, 3))
            nights.run(part_size=1)
        assert list(parts(nights.output)) == [("a",), ("b",), ("c",)]
        shutil.copytree(models.parent / "2", tmp_path / "rows" / "2")
        assert nights.run(part_size=1).units_done == 1
        assert list(parts(nights.output)) == [("a", "b", "c")]

    @pytest.mark.slow
    def test_parts_of_an_earlier_release_stay(self, nights, monkeypatch):
        """Which knew of no joining: a part was a slice."""
        for name in "abc":
            write(nights.input, name, keys(name))
        with monkeypatch.context() as patch:
            patch.setattr(joining.Joining, "joined", lambda self, units, earlier: units)
            nights.run(part_size=1)
        before = places(nights.output)
        assert nights.run(part_size=1).units_done == 0
        write(nights.input, "d", keys("d"))
        write(nights.input, "e", keys("e"))
        assert nights.run(part_size=1).units_done == 1
        assert before.items() <= places(nights.output).items()
        assert list(parts(nights.output)) == [("a",), ("b",), ("c",), ("d", "e")]


class TestFolders:
    @pytest.mark.parametrize("of", ["columns", "files"])
    def test_files_of_a_folder_alone_are_joined(self, of, models, tmp_path):
        truth = collections.defaultdict(list)
        for number in range(12):
            country = ("at", "de", "ch")[number % 3]
            name = f"country={country}/{number:02}" if of == "files" else f"{number:02}"
            write(
                tmp_path / "in", name, keys(f"k{number:02}"), **({"country": [country] * 4} if of == "columns" else {})
            )
            truth[f"country={country}"] += keys(f"k{number:02}")
        embed.run(str(models), str(tmp_path / "in"), str(tmp_path / "out"), part_size=1, partition_by=["country"])
        sizes = collections.Counter()
        for path in sorted((tmp_path / "out" / "parts").rglob("*.parquet")):
            sizes[path.parent.name, pq.read_metadata(path).num_rows >= 8] += 1
        table = embed.read_embeddings(str(tmp_path / "out"))
        found = collections.defaultdict(list)
        for key, country in zip(table["key"].to_pylist(), table["country"].to_pylist(), strict=True):
            found[f"country={country}"].append(key)
        assert found == truth and all(sizes[name, True] >= 1 >= sizes[name, False] for name in truth)

    def test_more_folders_than_open_files(self, models, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.embedding.parquet_parts._MOST_FOLDERS", 3)
        for number in range(4):
            write(tmp_path / "in", f"{number}", keys(f"k{number}", 3), day=[7 * number, 7 * number + 1, 99])
        arguments = (str(models), str(tmp_path / "in"), str(tmp_path / "out"))
        assert embed.run(*arguments, part_size=1, partition_by=["day"]).units == 1
        table = embed.read_embeddings(str(tmp_path / "out"))
        found = dict(zip(table["key"].to_pylist(), table["day"].to_pylist(), strict=True))
        assert found == {f"k{n}{i}": day for n in range(4) for i, day in enumerate((7 * n, 7 * n + 1, 99))}
        write(tmp_path / "in", "4", keys("k4", 20), day=[*range(200, 220)])
        with pytest.raises(PipelineError, match=r"makes more than 15 folders of the rows of 0.parquet and 4 more"):
            embed.run(*arguments, part_size=1, partition_by=["day"], overwrite=True)


@pytest.fixture
def grown(models, tmp_path) -> pathlib.Path:
    """An output of two nights, with rows that are rejected, one for its key."""
    for night in ("abc", ("aa", "d")):
        for name in night:
            write(tmp_path / "in", name, [*keys(name, 3), f"{name}!", "k"])
        embed.run(str(models), str(tmp_path / "in"), str(tmp_path / "out"), part_size=1)
    assert list(parts(tmp_path / "out")) == [("a", "b"), ("aa", "d"), ("c",)]
    return tmp_path


class TestDamage:
    @pytest.mark.slow
    def test_any_file_that_is_damaged_is_made_again(self, grown, models):
        output, below = grown / "out", "generations/000002/"
        now = {name: content for name, content in artifacts(output).items() if name.startswith(below) and content}
        for name in now:
            if name.endswith("command.json"):
                continue
            again = lambda: embed.run(str(models), str(grown / "in"), str(output), part_size=1).damaged  # noqa: E731
            for repair in (again, lambda: mend(str(output)).made):
                flip(output / name, 0.5)
                assert verify(str(output)).damaged == (name,)
                assert [*repair()] == [name]
                found = artifacts(output)
                assert {name: found[name] for name in now} == now, name

    @pytest.mark.slow
    def test_a_damaged_part_is_mended_and_no_other(self, grown):
        output = grown / "out"
        before = places(output)
        name = next(name for name in before if "-a-" in name)
        flip(output / name, 0.5)
        assert mend(str(output)).made == (f"generations/000002/{name}",)
        now = places(output)
        assert now[name][1] == before[name][1] and {n for n in now if now[n] != before[n]} == {name}


CHANGES = ("replacing", "link", "remove", "point", "remove_folder", "remove_folder_if_empty", "make_folder")


class Killed(BaseException):
    """No cleaning up after it can change anything any more."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of drafts that lie about
@pytest.mark.parametrize("folders", [[], ["country"]])
def test_killed_at_any_change_of_a_file(folders, models, tmp_path, monkeypatch):
    """In a night that joins what is new with what is left: the next run ends in the bytes of an undisturbed one."""
    run = lambda name: embed.run(  # noqa: E731
        str(models), str(tmp_path / "in"), str(tmp_path / name), part_size=1, partition_by=folders
    )
    files = lambda name: {  # noqa: E731
        file: content for file, content in artifacts(tmp_path / name).items() if "command" not in file
    }
    changes, moment = [0], [10**9]

    def counted(function):
        def change(*given, **more):
            changes[0] += 1
            if changes[0] >= moment[0]:
                raise Killed
            return function(*given, **more)

        return change

    for names, seed in (("bcdefg", 0), ("ach", 1)):
        for name in names:
            rows = [*keys(name, 2 - seed), f"{name}!", "k"]
            write(tmp_path / "in", name, rows, seed, country=["at", "de", "at", "ch"][: len(rows)])
        if not seed:
            run("first")
    shutil.copytree(tmp_path / "first", tmp_path / "whole", symlinks=True)
    assert run("whole").units_done == (1 if folders else 2)
    whole = files("whole")
    for name in CHANGES:
        monkeypatch.setattr(embed.storage, name, counted(getattr(embed.storage, name)))
    killed = 0
    for first in range(1, 200, 5):
        shutil.copytree(tmp_path / "first", tmp_path / "out", symlinks=True)
        changes[0], moment[0] = 0, first
        with contextlib.suppress(Killed, PipelineError):
            run("out")
        killed += changes[0] >= first
        moment[0] = 10**9
        run("out")
        assert files("out") == whole, first
        shutil.rmtree(tmp_path / "out")
        if changes[0] < first:
            break
    assert killed > 8


def test_rows_that_are_first_now_are_counted_among_those_of_this_run(models, tmp_path):
    """The unit of the second file is as it was; what it holds depends on the first one's keys."""
    for name, numbers in {"b": range(4), "c": range(2, 6)}.items():
        write(tmp_path / "in", name, [f"k{number}" for number in numbers])
    first = embed.run(str(models), str(tmp_path / "in"), str(tmp_path / "out"))
    assert (first.rows_written, first.rows_rejected, first.units_done) == (6, 2, 2)
    (tmp_path / "in" / "b.parquet").unlink()
    again = embed.run(str(models), str(tmp_path / "in"), str(tmp_path / "out"))
    assert (again.rows["all"], again.rows_written, again.rows_rejected, again.units_done) == (4, 4, 0, 1)
