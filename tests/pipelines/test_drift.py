"""Two outputs beside each other: planted shifts are found, none is found where there is none."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy import stats

from tfvae.cli import main
from tfvae.pipelines import drift
from tfvae.pipelines.embedding.parquet_parts import part_table
from tfvae.pipelines.errors import PipelineError
from tfvae.pipelines.jobs.commits import Output


def write(folder, columns: dict[str, np.ndarray], model: str = "a", parts: int = 3, score: int = 1) -> str:
    output, names = Output(str(folder)), []
    for number, rows in enumerate(np.array_split(np.arange(len(columns["embedding"])), parts)):
        with output.writing(names.append(f"part-{number}.parquet") or names[-1]) as file:
            values = {name: column[rows].astype(np.float32) for name, column in columns.items()}
            pq.write_table(part_table([f"{row}" for row in rows], values), file)
    output.finish({"kind": "embeddings", "model": {"sha256": model}, "options": {"score": score}}, names, [])
    return str(folder)


def rows(seed: int, count: int = 2000, shift: float = 0.0, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=[count, 5])
    z[:, 2] = scale * z[:, 2] + shift
    return {"embedding": z, "embedding_stddev": np.full([count, 5], 0.5), "score": rng.normal(-80, 5, count)}


def test_a_column_that_moved_is_named_and_no_other(tmp_path):
    found = drift.compare(write(tmp_path / "a", rows(0)), write(tmp_path / "b", rows(1, shift=0.5)))
    assert found.exit_code == 3 and {"embedding[2]"} <= {c.name for c in found.drifted} <= {
        "embedding[2]",
        "kl to N(0, I)",
    }
    moved = next(column for column in found.columns if column.name == "embedding[2]")
    # Of two normals a shift d apart the index is d² (the symmetric Kullback-Leibler divergence); bins lose some of it.
    assert 0.15 < moved.stability_index < 0.3
    assert abs(moved.distance - (2 * stats.norm.cdf(0.25) - 1)) < 0.04
    assert (moved.mean, moved.new_mean) == pytest.approx((0, 0.5), abs=0.06) and moved.std == pytest.approx(1, abs=0.05)
    assert sum(moved.shares) == pytest.approx(1) and moved.shares[-1] > 0.15 > 0.1 > moved.shares[0]


def test_numbers_are_those_of_scipy_and_of_numpy(tmp_path):
    before, after = rows(0, 700), rows(1, 900, scale=1.3)
    found = drift.compare(write(tmp_path / "a", before), write(tmp_path / "b", after, parts=7))
    assert [column.name for column in found.columns] == [
        "score",
        "kl to N(0, I)",
        *(f"embedding[{d}]" for d in range(5)),
    ]
    tests = [stats.ks_2samp(*(np.float32(side["embedding"][:, d]) for side in (before, after))) for d in range(5)]
    tests.insert(0, stats.ks_2samp(*(np.float32(side["score"]) for side in (before, after))))
    for column, test in zip([found.columns[0], *found.columns[2:]], tests, strict=True):
        assert column.distance == pytest.approx(test.statistic)
    kl = 0.5 * (after["embedding"] ** 2 + 0.25 - 1 - np.log(0.25)).sum(axis=1)
    assert found.columns[1].new_mean == pytest.approx(kl.mean(), rel=1e-5)
    assert found.columns[1].new_std == pytest.approx(kl.std(), rel=1e-5)


def test_corrected_p_values_are_those_of_holm():
    given = [0.01, 0.04, 0.03, 0.005]  # 0.005 * 4, 0.01 * 3, 0.03 * 2, max(0.06, 0.04 * 1)
    assert drift._holm(given) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_same_kind_of_rows_has_not_drifted_in_a_hundred_nights(tmp_path):
    reference = drift._Side.of(write(tmp_path / "a", rows(0)))
    nights = [write(tmp_path / f"{night}", rows(night, 300, 0.0), parts=1) for night in range(1, 101)]
    alarms = 0
    for night in nights:
        columns = [drift._column(name, reference, drift._Side.of(night)) for name in reference.names]
        alarms += drift.Drift((1, 1), tuple(columns), 0.1).exit_code == 3  # uncorrected: more alarms than with Holm's
    assert alarms <= 12  # 7 columns at 1 % each, each night


def test_a_sample_of_many_rows_stands_for_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "_SAMPLE", 1000)
    values = rows(0, 6000)
    values["score"] = np.arange(6000.0)  # in order: the first thousand would be no sample
    side = drift._Side.of(write(tmp_path / "a", values, parts=9))
    assert side.sample.shape == (1000, 7) and side.moments.rows == 6000
    assert stats.kstest(side.sample[:, 0] / 6000, "uniform").pvalue > 0.01


def test_what_cannot_be_compared_is_told(tmp_path):
    good = write(tmp_path / "good", rows(0))
    with pytest.raises(PipelineError, match="are of two models"):
        drift.compare(good, write(tmp_path / "other", rows(0), model="b"))
    with pytest.raises(PipelineError, match="has 20 rows: drift needs 50"):
        drift.compare(good, write(tmp_path / "few", rows(0, 20)))
    with pytest.raises(PipelineError, match="is not a complete output of tfvae embed"):
        drift.compare(good, str(tmp_path))
    with pytest.raises(PipelineError, match="most is nan"):
        drift.compare(good, good, most=float("nan"))
    bare = write(tmp_path / "bare", {"embedding": rows(2)["embedding"]})
    for sides, side in (((good, bare), "new output"), ((bare, good), "reference")):
        found = drift.compare(*sides)
        assert found.not_compared == ("kl to N(0, I)", "score")
        kl, score = found.left_out()
        assert kl == f"kl to N(0, I) was not compared, the {side} lacks it: embed that with --stddev, and --overwrite"
        assert score.startswith(f"score was not compared, the {side} lacks it: embed that with --score")
        assert kl.encode() in found.page()


def test_a_constant_column_has_drifted_when_it_moves_and_only_then(tmp_path):
    still = {"embedding": np.zeros([200, 1])}
    same = drift.compare(write(tmp_path / "a", still), write(tmp_path / "b", still))
    assert same.exit_code == 0 and same.columns[0].stability_index == pytest.approx(0, abs=1e-9)
    moved = drift.compare(str(tmp_path / "a"), write(tmp_path / "c", {"embedding": np.ones([200, 1])}))
    assert moved.exit_code == 3


def test_the_command_prints_a_table_writes_a_page_and_ends_with_3(tmp_path):
    same, moved = write(tmp_path / "a", rows(0)), write(tmp_path / "b", rows(1, shift=1.0))
    page = tmp_path / "pages" / "drift.html"
    done = CliRunner().invoke(main, ["drift", same, moved, "--report", str(page)])
    assert done.exit_code == 3 and re.search(r"embedding\[2\] .* drifted", done.output)
    text = page.read_text()
    assert "columns have drifted" in text and "<script" not in text and "embedding[4]" in text
    assert CliRunner().invoke(main, ["drift", same, same]).exit_code == 0
    (tmp_path / "empty").mkdir()
    for name, words in (("absent", "absent is not there: expected the embeddings"), ("empty", "not a complete output")):
        failed = CliRunner().invoke(main, ["drift", same, str(tmp_path / name)])
        assert failed.exit_code == 1 and words in failed.output


def test_scores_of_other_numbers_of_samples_are_not_compared(tmp_path):
    one, many = write(tmp_path / "one", rows(0)), write(tmp_path / "many", rows(0), score=100)
    found = drift.compare(one, many)
    assert "score" not in [column.name for column in found.columns] and len(found.columns) == 6
    (told,) = found.left_out()
    assert "the reference's is of 1 samples of z and the new one's of 100: embed both with the same --score" in told
    assert next(column.name for column in drift.compare(many, many).columns) == "score"
