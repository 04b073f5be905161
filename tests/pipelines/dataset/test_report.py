"""The report says what the dataset holds, and nothing in the dataset can make it do anything."""

import base64
import hashlib
import io
import itertools
import json
import pathlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import PIL.Image
import pytest

from pipelines import preprocess
from pipelines.dataset import html, report, shard_summary, thumbnails
from pipelines.errors import Rejection
from pipelines.jobs.commits import Unit
from pipelines.sources import Batch, Schema

from ..conftest import ROOT, read_dataset, rejections, write_png

_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "table", "thead", "tbody"),
    *("tr", "th", "td", "svg", "rect", "figure", "figcaption", "img", "details", "summary"),
}


class Page(HTMLParser):
    """A page as a browser sees it: its tags with attributes, the cells of its tables, the titles of its bars."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.tables: list[list[list[str]]] = []
        self.histograms: list[list[str]] = []
        self.style = self.words = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif dict(attrs).get("class") == "histogram":
            self.histograms.append([])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words += data
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self._open[-2:] == ["rect", "title"]:
            self.histograms[-1].append(data)
        elif self._open and self._open[-1] == "style":
            self.style += data

    def images(self) -> list[np.ndarray]:
        """The pictures in the page, `[H, W]` or `[H, W, 3]`."""
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        files = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]
        return [np.asarray(PIL.Image.open(io.BytesIO(file))) for file in files]


def read(folder) -> Page:
    return Page((pathlib.Path(folder) / "report.html").read_text(encoding="utf-8"))


def in_order(dataset: str, split: str) -> np.ndarray:
    """All rows of a split in the order of the shards, by TensorFlow's own reader: TFDS would interleave them."""
    import tensorflow as tf

    statistics = json.loads((pathlib.Path(dataset) / "statistics.json").read_text())
    shards = sorted(map(str, pathlib.Path(dataset).glob(f"*-{split}.tfrecord-*")))
    rows = [tf.train.Example.FromString(data.numpy()).features.feature for data in tf.data.TFRecordDataset(shards)]
    x = b"".join(row["x"].bytes_list.value[0] for row in rows)
    return np.frombuffer(x, statistics["dtype"]).reshape(len(rows), *statistics["shape"])


def cells(sheet: np.ndarray, size: int, count: int) -> np.ndarray:
    """The first images of a sheet: `size` pixels high and wide, eight in a row, one pixel between them."""
    corners = [(i // 8 * (size + 1), i % 8 * (size + 1)) for i in range(count)]
    return np.stack([sheet[top : top + size, left : left + size] for top, left in corners])


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_counts_are_those_of_the_dataset(prepared_digits):
    rows = {split: read_dataset(prepared_digits, split) for split in ("train", "test")}
    head, total, *labels = read(prepared_digits).tables[0]
    assert head == ["label", "train", "", "test", ""]
    assert [number(total[1]), number(total[3])] == [len(rows["train"]), len(rows["test"])]
    assert [line[0] for line in labels] == [str(digit) for digit in range(10)]
    for digit, line in enumerate(labels):
        counted = [sum(label == digit for _, label in rows[split].values()) for split in ("train", "test")]
        assert [number(line[1]), number(line[3])] == counted


def test_the_histograms_bars_are_the_values(prepared_digits):
    page = read(prepared_digits)
    for split, bars in zip(("train", "test"), page.histograms, strict=True):
        x = in_order(prepared_digits, split)
        found = {int(value): number(count) for value, count in (bar.split(": ") for bar in bars)}
        assert found == {value: count for value, count in enumerate(np.bincount(x.ravel())) if count}
        assert sum(found.values()) == x.size
    rectangles = [attributes for tag, attributes in page.tags if tag == "rect" and "x" in attributes]
    for bar in rectangles:
        assert float(bar["y"]) + float(bar["height"]) == pytest.approx(100, abs=0.011)
    assert max(float(bar["height"]) for bar in rectangles) == 100


@pytest.mark.parametrize("rows_per_shard", [10, 300])
def test_the_sheet_holds_the_first_rows_exactly(tmp_path, rows_per_shard):
    output = str(tmp_path / "out")
    preprocess.run("digits", None, output, rows_per_shard=rows_per_shard)
    for split, sheet in zip(("train", "test"), read(output).images(), strict=True):
        assert sheet.shape == (8 * 9 - 1, 8 * 9 - 1)
        np.testing.assert_array_equal(cells(sheet, 8, 64), in_order(output, split)[:64, :, :, 0])


def test_colours_stay_and_transparency_goes(tmp_path):
    rng = np.random.default_rng(0)
    x = {name: rng.integers(0, 256, (5, 6, 6, channels), dtype=np.uint8) for name, channels in (("la", 2), ("rgba", 4))}
    for name, rows in x.items():
        np.save(tmp_path / f"{name}.npy", rows)
        output = str(tmp_path / name)
        preprocess.run("npy", str(tmp_path / f"{name}.npy"), output, test_fraction=0)
        [sheet] = read(output).images()
        colours = sheet[..., None] if name == "la" else sheet
        np.testing.assert_array_equal(cells(colours, 6, 5), in_order(output, "train")[..., : colours.shape[-1]])


@pytest.mark.parametrize(("low", "high", "black", "white"), [(0.0, 1.0, 0, 1), (-3.0, 5.0, None, None)])
def test_float_images_are_stretched_by_the_range_of_their_split(tmp_path, low, high, black, white):
    x = np.random.default_rng(0).uniform(low, high, (100, 4, 4, 1)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0, rows_per_shard=30)
    black, white = (float(x.min()), float(x.max())) if black is None else (black, white)
    [sheet] = read(tmp_path / "out").images()
    first = in_order(str(tmp_path / "out"), "train")[:64].astype(np.float64)
    expected = np.rint(255 * (first - black) / (white - black))
    np.testing.assert_array_equal(cells(sheet, 4, 64), expected[..., 0])


def test_large_images_are_thinned_and_few(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (60, 130, 300, 3), dtype=np.uint8)
    assert thumbnails.limit(x.shape[1:], "uint8") == 64 and thumbnails.limit(x.shape[1:], "float32") == 39
    np.testing.assert_array_equal(thumbnails.thumbnails(x), x[:, ::3, ::3])
    assert thumbnails.limit((128, 128, 3), "uint8") == 42 and thumbnails.limit((1, 1, 1), "float32") == 64
    assert not any(thumbnails.limit(shape, "uint8") for shape in ((784,), (4, 4, 5), (2, 2, 2, 1), (0, 2, 1), ()))


def test_bad_rows_leave_no_gap_in_the_sheet(tmp_path):
    x = np.random.default_rng(0).uniform(size=(40, 2, 2, 1)).astype(np.float32)
    x[::3] = np.nan
    np.save(tmp_path / "x.npy", x)
    preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0, rows_per_shard=4)
    [sheet] = read(tmp_path / "out").images()
    good = in_order(str(tmp_path / "out"), "train")[..., 0]
    np.testing.assert_array_equal(cells(sheet, 2, len(good)), np.rint(255 * good.astype(np.float64)))
    assert len(good) == 26


def test_first_rows_that_are_all_bad_make_an_empty_picture():
    schema = Schema((2, 2, 1), "float32", None)
    x = np.ones((3, 2, 2, 1), np.float32)
    tally = shard_summary.Tally(schema, shown=4)
    tally.add(Batch(np.array([4, 5, 6]), x, None, dict.fromkeys(range(4), "bad")), np.arange(7))
    tally.add(Batch(np.array([0]), x[:1], None, {}), np.array([7]))
    told = json.loads(json.dumps(tally.facts()))
    unit = Unit("a", 8, ("a",), "", {"split": "train"})
    assert shard_summary.pictures(schema, [unit], [{"facts": told}])["train"].shape == (0, 2, 2, 1) and tally.rows == 4


def test_columns_of_float_vectors(tmp_path):
    x = np.random.default_rng(0).normal(3, [1, 20, 300], (500, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), rows_per_shard=70)
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())["splits"]
    page = read(tmp_path / "out")
    for split, (head, *lines) in zip(("train", "test"), page.tables[2:4], strict=True):
        truth = in_order(str(tmp_path / "out"), split).astype(np.float64)
        expected = np.stack([truth.mean(0), truth.std(0), truth.min(0), truth.max(0)])
        assert head == ["column", "mean", "std", "min", "max"] and [line[0] for line in lines] == ["0", "1", "2"]
        np.testing.assert_allclose(np.float64([line[1:] for line in lines]).T, expected, rtol=1e-5)
        np.testing.assert_allclose([statistics[split]["columns"][name] for name in head[1:]], expected, rtol=1e-9)
    assert not page.images() and not page.histograms


def test_long_vectors_have_no_columns(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((9, 4097), np.float32))
    preprocess.run("npy", str(tmp_path / "x.npy"), str(tmp_path / "out"), test_fraction=0)
    assert "columns" not in json.loads((tmp_path / "out" / "statistics.json").read_text())["splits"]["train"]
    assert "Columns" not in read(tmp_path / "out").words


HOSTILE = ("<script>alert(1)<", "cat' onload=alert(1) x='")
CORRUPT = '"><img src=x onerror=alert(1)>.png'


@pytest.fixture
def hostile(tmp_path):
    """Images whose labels and file names are markup."""
    rng = np.random.default_rng(0)
    for index in range(12):
        write_png(tmp_path / "raw" / HOSTILE[index % 2] / f"{index}.png", rng.integers(0, 256, (8, 8), dtype=np.uint8))
    (tmp_path / "raw" / HOSTILE[0] / CORRUPT).write_bytes(b"\x89PNG\r\n\x1a\n")
    preprocess.run("images", str(tmp_path / "raw"), str(tmp_path / "out"), test_fraction=0.3)
    return tmp_path / "out"


def test_strings_from_data_are_inert(hostile):
    page = read(hostile)
    assert {tag for tag, _ in page.tags} <= _TAGS
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("href", "style", "action") for name in attributes)
        assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
    assert [line[0] for line in page.tables[0][2:]] == sorted(HOSTILE)
    key = f"{HOSTILE[0]}/{CORRUPT}"
    [found] = rejections(hostile).values()
    assert page.tables[-1][1] == [key, key, "0", found["reason"]] and page.tables[-2][1] == ["1", found["reason"]]


def test_the_page_forbids_everything_but_its_own_style(hostile):
    page = read(hostile)
    [policy] = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'" and rules.pop("img-src") == "data:"
    assert rules == {"style-src": f"'sha256-{digest}'", "base-uri": "'none'", "form-action": "'none'"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.style)


def test_rejected_rows_are_counted_by_reason_and_the_first_shown():
    reasons = [*(["common"] * 70), *(f"reason {i}" for i in range(150)), "common"]
    rows = [Rejection(f"key {i}", "file", i, reason) for i, reason in enumerate(reasons)]
    moments = {"mean": 0.0, "std": 0.0, "min": 0.0, "max": 0.0}
    statistics = {"shape": [2], "dtype": "float32", "splits": {"train": {"rows": 1, "x": moments}}}
    page = Page(report.render("tiny", statistics, {}, iter(rows)).decode())
    by_reason, first = page.tables[-2:]
    assert by_reason[1] == ["71", "common"] and by_reason[-1] == ["51", "51 further reasons"]
    assert sum(number(line[0]) for line in by_reason[1:]) == len(rows)
    assert first[1:] == [[row.key, row.source, str(row.position), row.reason] for row in rows[:50]]


def test_what_cannot_be_seen_is_spelt_out_and_what_is_long_is_cut():
    assert Page(html.element("p", "a\u202eb\0c\udcff\x85é🦉")).words == "a\\u202eb\\x00c\\udcff\\x85é🦉"
    assert Page(html.text("<" * 10**6)).words == "<" * 2000 + "… (1,000,000 characters)"
    assert [len(Page(html.element("i", title=character)).tags[0][1]) for character in "\"'<>& "] == [1] * 6


def test_the_same_page_for_any_workers(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 3, 3, 1)).astype(np.float32))
    for name, workers in itertools.product("ab", "12"):
        preprocess.run(
            *("npy", str(tmp_path / "x.npy"), str(tmp_path / f"{name}{workers}")),
            rows_per_shard=11,
            beam_args=["--direct_num_workers", workers],
        )
    pages = {path.read_bytes() for path in tmp_path.glob("*/report.html")}
    assert len(pages) == 1 and str(tmp_path).encode() not in pages.pop()


@pytest.mark.slow
def test_preparing_with_a_report_needs_no_tensorflow(tmp_path):
    program = (
        "import sys; from pipelines import preprocess; preprocess.run('digits', None, sys.argv[1]);"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    )
    line = [sys.executable, "-c", program, str(tmp_path / "out")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and (tmp_path / "out" / "report.html").exists()
