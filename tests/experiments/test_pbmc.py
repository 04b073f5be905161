"""The comparison with scvi-tools at a tiny size: our side, what is kept, and the errors of the other's environment."""

import csv
import sys

import numpy as np
import pytest

from tfvae.experiments.single_cell import pbmc, scvi_side

pytestmark = pytest.mark.slow


def test_our_side_is_measured_kept_and_not_trained_again(tmp_path, monkeypatch):
    (tmp_path / "pbmc").mkdir()
    counts = np.random.default_rng(0).poisson(3.0, [60, 5]).astype(np.uint16)
    np.savez(tmp_path / "pbmc" / "pbmc_counts.npz", counts=counts)
    tiny = {"output": str(tmp_path / "out"), "data_dir": str(tmp_path), "seeds": [0, 1], "epochs": 2}
    tiny |= {"families": ["NegativeBinomial"], "marginal_samples": 20}
    (row,) = pbmc.pbmc(**tiny)
    assert row["side"] == "tfvae" and row["seeds"] == 2
    assert -60 < row["elbo"] <= row["log_marginal"] + 0.5 < 0.5 and row["elbo_error"] > 0
    with open(tmp_path / "out" / "pbmc.csv", encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["elbo"]) == row["elbo"]
    monkeypatch.setattr(pbmc, "_ours", None)  # all is there
    assert pbmc.pbmc(**tiny) == [row]
    with pytest.raises(ValueError, match="ended with 1: ModuleNotFoundError: No module named 'anndata'"):
        pbmc.pbmc(**tiny, environment=sys.prefix)
    with pytest.raises(ValueError, match="must be 2 at least, received 1, 20 and 2"):
        pbmc.pbmc(**{**tiny, "epochs": 1})


def test_the_held_out_are_a_fifth_and_no_others():
    counts = np.arange(50.0).reshape(50, 1)
    train, test = pbmc._split(counts, 3)
    # Both sides have the same batches, of which the last is as large as the others.
    assert scvi_side.BATCH_SIZE == pbmc.BATCH_SIZE and 560 % pbmc.BATCH_SIZE == 0 and scvi_side.DRAWS == pbmc.DRAWS
    assert len(test) == 10 and sorted([*train[:, 0], *test[:, 0]]) == list(range(50))
