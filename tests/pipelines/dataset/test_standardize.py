"""Standardized rows: by the training rows alone, as scikit-learn has them, and later data in the same units."""

import json

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

import tfvae
from benchmarks import torture
from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from tfvae import data, likelihoods, networks, posteriors, runs
from tfvae.exporting import provenance

from ..conftest import Linear, read_dataset, rejections
from ..test_embed import read_parts


def test_train_test_and_later_rows_have_the_units_of_the_training_rows(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(60, 2)) * [3, 1e-3] + [1e4, 0.1]).astype(np.float32)
    lines = [f"r{i},{a!r},{'red' if i % 3 else 'blue'},{b!r},5" for i, (a, b) in enumerate(x.tolist())]
    header = "key,a,colour,b,constant"
    (tmp_path / "x.csv").write_text("\n".join([header, *lines, "bad,1,red,,5"]))
    options = {"categories": ["colour"], "standardize": True, "test_fraction": 0.3}
    preprocess.run("csv", str(tmp_path / "x.csv"), str(tmp_path / "p"), **options)
    splits = {split: read_dataset(str(tmp_path / "p"), split) for split in ("train", "test")}
    scaler = StandardScaler().fit(x[[int(key[1:]) for key in splits["train"]]].astype(np.float64))
    for rows in splits.values():
        numbers = [int(key[1:]) for key in rows]
        found = np.stack([row for row, _ in rows.values()])
        np.testing.assert_allclose(
            found[:, [0, 3]], scaler.transform(x[numbers].astype(np.float64)), rtol=1e-5, atol=1e-5
        )
        assert (found[:, 4] == 0).all() and (found[:, 2] == [i % 3 > 0 for i in numbers]).all()
    kept = json.loads((tmp_path / "p" / "manifest.json").read_text())["standardized"]
    np.testing.assert_allclose(np.array(kept["deviation"])[[0, 3]], scaler.scale_, rtol=1e-6)

    model = Linear(tmp_path / "m", (5,), uint8=False)
    (tmp_path / "y.csv").write_text("\n".join([header, *lines[:20], "huge,1,red,1e38,5"]))
    done = embed.run(model.path, str(tmp_path / "y.csv"), str(tmp_path / "e"), prepared_with=str(tmp_path / "p"))
    both = {key: row for rows in splits.values() for key, (row, _) in rows.items()}
    rows = read_parts(tmp_path / "e")
    assert done.rows == {"all": 20} and rows.keys() == {f"r{i}" for i in range(20)}
    truth = model.embed(np.stack([both[key] for key in rows]))
    np.testing.assert_allclose(np.stack([row["embedding"] for row in rows.values()]), truth, atol=1e-5)
    assert rejections(tmp_path / "e")["huge"]["reason"] == "x has values that are not finite after --standardize"


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (
            [1.7e9 + 0.5 * i for i in range(40)],
            "column 't' has numbers up to 1700000000 that float32 holds to 64",
        ),
        (
            [1e6 + 0.01 * i for i in range(40)],
            "up to 1000000.375 that float32 holds to 0.03125, and their standard dev",
        ),
        ([1e6 + 10 * i + 0.5 for i in range(40)], None),
        ([16777000 + i for i in range(40)], None),
        ([5.5] * 40, None),
        ([0.1 + 1e-4 * i for i in range(40)], None),
    ],
)
def test_what_float32_has_rounded_away_is_told(numbers, sentence, tmp_path):
    lines = [f"r{i},{t!r},{i % 7}" for i, t in enumerate(numbers)]
    (tmp_path / "x.csv").write_text("\n".join(["key,t,b", *lines]))
    options = {"standardize": True, "test_fraction": 0.0}
    if sentence is None:
        preprocess.run("csv", str(tmp_path / "x.csv"), str(tmp_path / "p"), **options)
        rows = read_dataset(str(tmp_path / "p"), "train")
        found, given = np.array([rows[f"r{i}"][0][0] for i in range(40)]), np.array(numbers)
        np.testing.assert_allclose(found, (given - given.mean()) / (given.std() or 1), atol=0.01)
        return
    with pytest.raises(PipelineError, match=sentence):
        preprocess.run("csv", str(tmp_path / "x.csv"), str(tmp_path / "p"), **options)


@pytest.mark.slow
def test_rows_in_other_units_than_the_models_are_refused(tmp_path):
    """Whichever side was standardized, unless the user says by --signature that the units are the same."""
    numbers = np.random.default_rng(0).normal(size=(60, 3)) * [3, 1e-3, 50] + [1e4, 0.1, 0]
    lines = [f"r{i}," + ",".join(map(repr, row)) for i, row in enumerate(numbers.tolist())]
    (tmp_path / "x.csv").write_text("\n".join(["key,a,b,c", *lines]))
    models = {}
    for standardize in (True, False):
        name = str(tmp_path / f"{standardize}")
        preprocess.run("csv", str(tmp_path / "x.csv"), name, standardize=standardize)
        parts = networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.normal([3])
        known = provenance.Provenance(provenance.Dataset(**data.identity(name)))
        model = tmp_path / f"m{standardize}"
        tfvae.export(tfvae.VAE(*parts, seed=0), model, warmup_batch_sizes=[1], provenance=known)
        models[standardize] = str(model)
    raw, scaled = str(tmp_path / "x.csv"), {"prepared_with": str(tmp_path / "True")}
    with pytest.raises(PipelineError, match=r"trained on columns that .*--standardize.*--prepared-with.*--signature"):
        embed.run(models[True], raw, str(tmp_path / "e"))
    with pytest.raises(PipelineError, match="trained on columns as they are, and these rows are standardized"):
        embed.run(models[False], raw, str(tmp_path / "e"), **scaled)
    with pytest.raises(PipelineError, match="trained on columns as they are, and these rows are standardized"):
        embed.run(models[False], str(tmp_path / "True"), str(tmp_path / "e"))
    embed.run(models[True], raw, str(tmp_path / "with"), **scaled)
    embed.run(models[True], str(tmp_path / "True"), str(tmp_path / "prepared"), split="all")
    embed.run(models[True], raw, str(tmp_path / "told"), signature="embed")
    (tmp_path / "turned.csv").write_text("\n".join(["key,c,a,b", *lines]))
    turned = str(tmp_path / "turned.csv")
    with pytest.raises(PipelineError, match=r"are not those that .* was trained on, or come in another order"):
        embed.run(models[False], turned, str(tmp_path / "e"))
    preprocess.run("csv", turned, str(tmp_path / "turned"), standardize=True)
    with pytest.raises(PipelineError, match=r"are not those that .* was trained on, or come in another order"):
        embed.run(models[True], turned, str(tmp_path / "e"), prepared_with=str(tmp_path / "turned"))
    rows = {name: read_parts(tmp_path / name) for name in ("with", "prepared", "told")}
    one, other, unscaled = (np.stack([found[f"r{i}"]["embedding"] for i in range(60)]) for found in rows.values())
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(one - unscaled).max() > 0.1


@pytest.mark.slow
def test_a_run_is_not_measured_on_other_columns_or_in_other_units(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(60, 2)) * [3, 1]
    lines = [f"r{i}," + ",".join(map(repr, row)) for i, row in enumerate(numbers.tolist())]
    for name, header in (("ab", "key,a,b"), ("ba", "key,b,a")):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]))
        preprocess.run("csv", str(tmp_path / f"{name}.csv"), str(tmp_path / name))
    preprocess.run("csv", str(tmp_path / "ab.csv"), str(tmp_path / "scaled"), standardize=True)
    preprocess.run("csv", str(tmp_path / "ab.csv"), str(tmp_path / "more"), test_fraction=0.5)
    (tmp_path / "model.py").write_text(torture.MODEL.replace("bernoulli", "normal"))
    for own, others in (("ab", ("ba", "scaled")), ("scaled", ("ab", "ba"))):
        run = tmp_path / f"run of {own}"
        runs.train(str(tmp_path / own), run, f"{tmp_path / 'model.py'}:build", epochs=1)
        for other in others:
            with pytest.raises(ValueError, match=f"are not those that .* was trained on.*own dataset, .*{own}, or"):
                runs.evaluate(run, tmp_path / other, num_samples=2)
            with pytest.raises(ValueError, match=f"are not those that .* was trained on.*own dataset, .*{own}, or"):
                runs.plot(run, tmp_path / "plots", tmp_path / other)
        assert runs.evaluate(run, tmp_path / own, num_samples=2)["rows"] > 0
    assert runs.evaluate(tmp_path / "run of ab", tmp_path / "more", num_samples=2)["rows"] > 0
