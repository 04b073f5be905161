"""Scores of planted codes: the factors themselves, mixtures of them, and nothing; and pictures of known factors."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tfvae import evaluation
from tfvae.evaluation import sprite_set as module

SIZES = (3, 4, 5)
GRID = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)  # every value beside every other, once
SCORES = {
    "mig": lambda code, factors: evaluation.mutual_information_gap(code, factors).value,
    "modularity": lambda code, factors: evaluation.modularity(code, factors).value,
    "irs": lambda code, factors: evaluation.interventional_robustness(code, factors).value,
    "sap": lambda code, factors: evaluation.separated_predictability(code, factors).value,
    "factor_vae": lambda code, factors: evaluation.factor_vae_score(code, factors, 300, 200).mean,
    "beta_vae": lambda code, factors: evaluation.beta_vae_score(code, factors, 300, 200).mean,
    "disentanglement": lambda code, factors: evaluation.disentanglement_completeness(code, factors).disentanglement,
}
UP_TO_SCALE_OF_UNITS = set(SCORES) - {"irs"}  # whose mean is weighted by how far a unit goes


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def rows(rng: np.random.Generator, count: int) -> np.ndarray:
    return GRID[rng.integers(len(GRID), size=count)]


@pytest.mark.parametrize("name", SCORES)
def test_the_factors_score_one_in_any_order_and_scale(name, rng):
    factors = np.tile(GRID, [4, 1])
    scale = np.array([2.0, -0.5, 1.0]) if name in UP_TO_SCALE_OF_UNITS else 3.0
    code = scale * factors[:, [2, 0, 1]] - 7
    dead = 1e-3 * rng.normal(size=[len(code), 1])  # a unit that the model does not use
    for one in (factors, code, np.concatenate([code, dead], axis=1)):
        assert SCORES[name](one, factors) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", sorted(set(SCORES) - {"irs"}))
def test_noise_scores_what_chance_does(name, rng):
    factors, code = rows(rng, 2000), rng.normal(size=[2000, 4])
    chance = {"factor_vae": 1 / 3, "beta_vae": 1 / 3, "modularity": 0.6, "disentanglement": 0.1}
    assert SCORES[name](code, factors) == pytest.approx(chance.get(name, 0.0), abs=0.13 if name in chance else 0.06)


def test_a_rotation_has_no_gap_but_all_the_information(rng):
    factors = np.stack([rng.integers(0, 5, 2000) for _ in range(4)], axis=1)
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    turned = (factors - 2) @ hadamard
    assert SCORES["mig"](turned, factors) < 0.03
    assert SCORES["sap"](turned, factors) < 0.05
    found = evaluation.disentanglement_completeness(turned, factors)
    assert found.disentanglement < 0.2 and found.completeness < 0.2 and found.informativeness > 0.75
    assert SCORES["irs"](turned, factors) < 0.6 and SCORES["modularity"](turned, factors) < 0.25


def test_mig_and_modularity_are_those_of_scikit_learns_information(rng):
    factors = rows(rng, 500)
    code = factors @ rng.normal(size=[3, 3]) + 0.3 * rng.normal(size=[500, 3])
    bins = [np.digitize(unit, np.histogram(unit, 20)[1][:-1]) for unit in code.T]
    information = np.array([[sklearn.metrics.mutual_info_score(b, f) for f in factors.T] for b in bins])
    entropy = [sklearn.metrics.mutual_info_score(f, f) for f in factors.T]
    ordered = np.sort(information, axis=0)
    found = evaluation.mutual_information_gap(code, factors)
    np.testing.assert_allclose(found.parts, (ordered[-1] - ordered[-2]) / entropy, rtol=1e-9)
    best = information.max(axis=1)
    by_unit = 1 - ((information**2).sum(axis=1) - best**2) / (2 * best**2)
    np.testing.assert_allclose(evaluation.modularity(code, factors).parts, by_unit, rtol=1e-9)


def test_irs_and_sap_are_those_of_their_formulas(rng):
    factors = rows(rng, 300)
    code = np.concatenate([factors @ rng.normal(size=[3, 2]), rng.normal(size=[300, 1])], axis=1)
    furthest = np.abs(code - code.mean(axis=0)).max(axis=0)
    robust = np.zeros([3, 3])
    for unit in range(3):
        for k in range(3):
            moved = []
            for value in np.unique(factors[:, k]):
                group = code[factors[:, k] == value, unit]
                moved.append(np.quantile(np.abs(group - group.mean()), 0.99))
            robust[unit, k] = 1 - np.mean(moved) / furthest[unit]
    found = evaluation.interventional_robustness(code, factors)
    np.testing.assert_allclose(found.parts, robust.max(axis=1), rtol=1e-9)
    assert found.value == pytest.approx(np.sum(robust.max(axis=1) * furthest) / furthest.sum())
    lines = [[scipy.stats.linregress(unit, factor).rvalue ** 2 for factor in factors.T] for unit in code.T]
    ordered = np.sort(lines, axis=0)
    assert evaluation.separated_predictability(code, factors).value == pytest.approx(np.mean(ordered[-1] - ordered[-2]))


def test_votes_that_are_all_right_are_no_certainty():
    for score in (evaluation.factor_vae_score, evaluation.beta_vae_score):
        found = score(GRID, GRID, 200, 14)
        assert (found.mean, found.standard_error) == (1.0, 0.0625)


def test_a_code_of_two_of_three_factors_gets_two_of_three_votes(rng):
    factors = rows(rng, 3000)
    found = evaluation.factor_vae_score(factors[:, :2], factors, 1000, 2000)
    assert abs(found.mean - 2 / 3) < 4 * found.standard_error
    assert SCORES["beta_vae"](factors[:, :2], factors) > 0.95  # pairs that share neither are those of the third


@pytest.mark.slow
def test_the_error_of_a_score_is_that_of_other_rows(rng):
    mixing = rng.normal(size=[3, 3])
    values, errors = [], []
    for _ in range(25):
        factors = rows(rng, 600)
        found = evaluation.mutual_information_gap(factors @ mixing + 0.3 * rng.normal(size=[600, 3]), factors)
        values.append(found.value), errors.append(found.standard_error)
    assert 0.5 < np.mean(errors) / np.std(values) < 1.8


def test_a_class_gets_a_classifier(rng):
    factors = np.stack([rng.integers(0, 2, 400), rng.integers(0, 4, 400)], axis=1)
    code = factors + 0.01 * rng.normal(size=factors.shape)
    found = evaluation.separated_predictability(code, factors, categorical=[0])
    assert found.matrix[0, 0] == 1.0 and abs(found.matrix[1, 0] - 0.5) < 0.15
    shape = rng.integers(0, 3, 400)
    mixed = np.stack([np.array([1, 0, 2])[shape], factors[:, 1]], axis=1)  # numbers in another order
    dci = evaluation.disentanglement_completeness(mixed, np.stack([shape, factors[:, 1]], axis=1), categorical=[0])
    assert dci.by_factor[0] == 1.0 and dci.disentanglement > 0.99 and dci.completeness > 0.99


def test_what_is_no_code_is_told():
    with pytest.raises(ValueError, match="factors has 59 rows, expected 60"):
        evaluation.modularity(GRID, GRID[1:])
    with pytest.raises(ValueError, match="factors has one value alone in column 1"):
        evaluation.mutual_information_gap(GRID, GRID * [1, 0, 1])
    with pytest.raises(ValueError, match=r"factors has shape .* expected 180 whole numbers"):
        evaluation.mutual_information_gap(GRID, GRID + 0.5)
    with pytest.raises(ValueError, match="categorical names column 3, expected 0 to 2"):
        evaluation.separated_predictability(GRID, GRID, categorical=[3])
    with pytest.raises(ValueError, match="code is the same for every row"):
        evaluation.factor_vae_score(np.ones([60, 2]), GRID)
    each = np.column_stack([GRID, np.arange(60)])
    for score in (evaluation.interventional_robustness, evaluation.factor_vae_score, evaluation.beta_vae_score):
        with pytest.raises(ValueError, match="factors has another value for each row in column 3"):
            score(GRID, each)


def test_values_of_one_row_do_not_make_a_code_robust(rng):
    """A factor of which most values come once: what moves of those that come again is small for no unit."""
    rare = np.r_[np.arange(400), np.zeros(100, int)]
    found = evaluation.interventional_robustness(rng.normal(size=[500, 3]), np.column_stack([rare, rare % 3]))
    assert found.value < 0.5


def test_sprites_move_grow_and_turn_by_their_factors():
    base = np.array([1, 3, 7, 15, 15])  # an ellipse
    at = lambda **change: np.ravel_multi_index(  # noqa: E731
        [change.get(name, value) for name, value in zip(module.FACTORS, base, strict=True)], module.SIZES
    )
    [mine, right, below, larger] = evaluation.sprites([at(), at(x=31), at(y=31), at(scale=5)])[..., 0]
    np.testing.assert_array_equal(np.roll(mine, 17, axis=1), right)  # round(32 · 31 / 31) - round(32 · 15 / 31)
    np.testing.assert_array_equal(np.roll(mine, 17, axis=0), below)
    area = np.pi / 2 * (module._RADIUS * np.linspace(0.5, 1, 6)[[3, 5]]) ** 2
    np.testing.assert_allclose([mine.sum(), larger.sum()], area, rtol=0.03)
    every = np.arange(0, module.NUM_SPRITES, 997)
    np.testing.assert_array_equal(np.ravel_multi_index(evaluation.sprite_factors(every).T, module.SIZES), every)
    pictures = evaluation.sprites(every)
    assert set(np.unique(pictures)) == {0.0, 1.0} and pictures.shape[1:] == (64, 64, 1)


def test_no_pixel_leaves_the_frame_and_orientations_are_as_many_as_symmetry_leaves():
    masks = module._masks()
    areas = masks.sum(axis=(3, 4))  # a shape that was cut off would lose some as it turns
    assert (np.ptp(areas[:, 5], axis=-1) < 0.08 * areas[:, 5].mean(axis=-1)).all()
    distinct = [
        [len(np.unique(masks[shape, scale].reshape(40, -1), axis=0)) for scale in range(6)] for shape in range(3)
    ]
    assert max(distinct[0]) <= 39 and sum(distinct[0]) < 6 * 39  # near-duplicates after a quarter of a turn
    assert distinct[1][-1] == distinct[2][-1] == 39
    np.testing.assert_array_equal(masks[:, :, 0], masks[:, :, 39])
    heart = masks[2, 5, 0]
    np.testing.assert_array_equal(heart, heart[:, ::-1])
    assert heart[:16].sum() > heart[16:].sum()  # its tip is below
