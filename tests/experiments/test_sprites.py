"""β-VAE and β-TCVAE on sprites at a tiny size: what is in the table is of the models that were kept."""

import numpy as np
import pytest

from tfvae import evaluation
from tfvae.evaluation.sprite_set import NUM_SPRITES
from tfvae.experiments import checkpoints
from tfvae.experiments.isolating import sprites


@pytest.mark.slow
def test_the_gap_is_that_of_the_kept_models_on_other_images(as_graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(sprites, "_HIDDEN", (8,))
    monkeypatch.setattr(sprites, "_SCORED", 600)
    monkeypatch.setattr(sprites, "_BATCH_SIZE", 20)
    settings = {"images": 60, "epochs": 2, "beta": 3.0, "seeds": [0, 1]}
    beta, correlation = sprites.sprites(str(tmp_path), **settings)
    assert (beta["method"], correlation["method"]) == ("beta", "TC")
    for row, kind in ((beta, "Weighted"), (correlation, "TotalCorrelation")):
        gaps = []
        for seed, ending in ((0, ""), (1, "-seed1")):
            numbers = np.random.default_rng(seed).choice(NUM_SPRITES, 660, replace=False)[60:]
            vae = checkpoints.load(tmp_path / "checkpoints" / f"sprites-{row['method']}-3-60{ending}")
            assert type(vae.objective).__name__ == kind and vae.objective.beta == 3.0
            code = vae.embed(evaluation.sprites(numbers).reshape(-1, 4096))
            gaps.append(evaluation.mutual_information_gap(code, evaluation.sprite_factors(numbers)).value)
        assert row["gap"] == pytest.approx(np.mean(gaps), abs=1e-6)
        assert row["standard_error"] == pytest.approx(abs(gaps[0] - gaps[1]) / 2, abs=1e-6)
    assert vae.objective.num_rows == 60
    monkeypatch.setattr(sprites, "Run", None)
    with pytest.raises(TypeError):  # another size is not read
        sprites.sprites(str(tmp_path), **settings | {"images": 61})


def test_numbers_out_of_range_are_refused():
    for wrong, words in (({"images": 730_000}, "expected 727,280 at most"), ({"seeds": []}, "seeds must be")):
        with pytest.raises(ValueError, match=words):
            sprites.sprites(**wrong)
