"""The metrics of a job as a text file, read back by Prometheus's own grammar, written here once more."""

import re
import time

import numpy as np
import pytest

from pipelines import preprocess
from pipelines.errors import PipelineError
from pipelines.jobs import prometheus

_LABEL = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*"'
_SAMPLE = re.compile(rf"([a-zA-Z_:][\w:]*)\{{((?:{_LABEL})(?:,{_LABEL})*)\}} (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def read(path) -> dict[tuple[str, ...], float]:
    """Samples by name and labels but job and output. A name's lines follow one another, after help and type."""
    found, name = {}, ""
    content = path.read_text(encoding="utf-8")
    assert content.endswith("\n")
    for line in content.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in {key[0] for key in found}
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {name} gauge"
        else:
            sample, labels, value = _SAMPLE.fullmatch(line).groups()
            pairs = [
                (key, re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), quoted))
                for key, quoted in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)
            ]
            assert sample == name and [key for key, _ in pairs[:2]] == ["job", "output"]
            key = (sample, *(one for _, one in pairs[2:]))
            assert key not in found
            found[key] = float(value)
    return found


@pytest.fixture
def rows(tmp_path):
    """Forty rows, of which three are no numbers."""
    x = np.arange(120, dtype=np.float32).reshape(40, 3)
    x[[3, 8]], x[20, 1] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    return str(tmp_path / "x.npy")


def test_a_job_tells_its_rows_and_when_it_ended(rows, tmp_path):
    output, path = tmp_path / 'out "a\\b"', tmp_path / "prepare.prom"
    began = time.time()
    summary = preprocess.run("npy", rows, str(output), metrics_file=str(path))
    assert f'output="{tmp_path}/out \\"a\\\\b\\""' in path.read_text()
    found = read(path)
    assert {key[1]: value for key, value in found.items() if key[0] == "tfvae_rows"} == summary.rows
    assert found["tfvae_rows_rejected", "N of N values are not finite"] == 3 == summary.rejected
    assert found["tfvae_job_rows_read",] == 40 and found["tfvae_job_rows_written",] == 37
    assert found["tfvae_job_rows_rejected",] == 3 and found["tfvae_job_units",] == summary.units_done
    assert began - 1 <= found["tfvae_job_finished_timestamp_seconds",] <= time.time() + 1
    assert 0 < found["tfvae_job_seconds",] < 600
    preprocess.run("npy", rows, str(output), metrics_file=str(path))  # with nothing left to do
    again = read(path)
    assert again["tfvae_job_rows_read",] == 0 and again["tfvae_rows", "train"] == found["tfvae_rows", "train"]
    assert again["tfvae_job_finished_timestamp_seconds",] > found["tfvae_job_finished_timestamp_seconds",]


def test_a_job_that_fails_leaves_the_file_as_it_was(rows, tmp_path):
    path = tmp_path / "prepare.prom"
    path.write_text("as it was\n")
    with pytest.raises(PipelineError, match="leave no row to train"):
        preprocess.run(
            "npy", rows, str(tmp_path / "out"), test_fraction=0.6, validation_fraction=0.6, metrics_file=str(path)
        )
    assert path.read_text() == "as it was\n" and {one.name for one in tmp_path.iterdir()} == {"x.npy", "prepare.prom"}
    with pytest.raises(PipelineError, match=r"metrics_file is .*none/a.prom, but .*none is no folder"):
        preprocess.run("npy", rows, str(tmp_path / "out"), metrics_file=str(tmp_path / "none" / "a.prom"))
    assert not (tmp_path / "out").exists()


def test_many_reasons_are_few_series(tmp_path):
    (tmp_path / "rejected").mkdir()
    words = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)]
    lines = [f'{{"reason": "column \'{word}{i}\' is {word}"}}\n' for i, word in enumerate(words) for _ in range(i + 1)]
    (tmp_path / "rejected" / "a.jsonl").write_text("".join(lines))
    reasons = prometheus._reasons(str(tmp_path))
    assert len(reasons) == 21 and reasons["column '...' is ch"] == 60 and sum(reasons.values()) == 60 * 61 // 2
    assert reasons["other reasons"] == 40 * 41 // 2
