"""Tests of two samples against sums over all pairs, normal distributions, and their own level."""

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import scipy.stats

import tfvae
from tfvae import evaluation
from tfvae.evaluation import attributes, discrepancy
from tfvae.plots import pictures


def normal(rng: np.random.Generator, count: int, mean: float = 0.0, size: int = 3) -> np.ndarray:
    return rng.normal(mean, 1, [count, size])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("kernel", ["cubic", "inverse_multiquadric"])
def test_mmd_is_the_mean_over_all_pairs(kernel, rng, monkeypatch):
    a, b = normal(rng, 7, 0.3), normal(rng, 9)
    if kernel == "cubic":
        k = (np.concatenate([a, b]) @ np.concatenate([a, b]).T / 3 + 1) ** 3
    else:
        squares = scipy.spatial.distance.pdist(np.concatenate([a, b]), "sqeuclidean")
        scales = np.median(squares) * np.array([0.1, 0.2, 0.5, 1, 2, 5, 10])
        k = sum(c / (c + scipy.spatial.distance.squareform(squares)) for c in scales)
    pairs = (
        [k[i, j] for i in range(7) for j in range(7) if i != j],
        [k[i, j] for i in range(7, 16) for j in range(7, 16) if i != j],
    )
    exact = np.mean(pairs[0]) + np.mean(pairs[1]) - 2 * k[:7, 7:].mean()
    assert evaluation.maximum_mean_discrepancy(a, b, kernel).mmd_squared == pytest.approx(exact, rel=1e-9)
    monkeypatch.setattr(discrepancy, "_FLOATS_AT_ONCE", 40)  # in parts
    assert evaluation.maximum_mean_discrepancy(a, b, kernel).mmd_squared == pytest.approx(exact, rel=1e-9)
    assert evaluation.maximum_mean_discrepancy(b, a, kernel).mmd_squared == pytest.approx(exact, rel=1e-9)


def test_the_permutation_test_has_its_level_and_its_power(rng):
    found = [
        evaluation.maximum_mean_discrepancy(normal(rng, 30), normal(rng, 40), num_permutations=39) for _ in range(400)
    ]
    p_values = [one.p_value for one in found]
    rejected = np.mean(np.array(p_values) <= 0.05)
    assert abs(rejected - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    values, errors = ([getattr(one, name) for one in found] for name in ("mmd_squared", "standard_error"))
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(400)  # unbiased, so often below 0
    assert 0.7 < np.mean(errors) / np.std(values) < 1.5
    wider = evaluation.maximum_mean_discrepancy(normal(rng, 300), 1.5 * normal(rng, 300))
    assert wider.p_value == pytest.approx(1 / 201)


def test_the_error_of_mmd_is_that_of_other_samples(rng):
    found = [
        evaluation.maximum_mean_discrepancy(normal(rng, 60), normal(rng, 60, 0.7), "cubic", 20) for _ in range(150)
    ]
    values, errors = ([getattr(one, name) for one in found] for name in ("mmd_squared", "standard_error"))
    assert 0.7 < np.mean(errors) / np.std(values) < 1.4


def test_subsets_have_the_mmd_of_the_distributions(rng):
    """(1 + x y)³ of N(m, 1) and N(0, 1) sees 3 Δ₁² + 3 Δ₂² + Δ₃², Δ_i the differences of the moments."""
    a, b = normal(rng, 2000, 0.8, 1), normal(rng, 2000, 0.0, 1)
    found = evaluation.kernel_distance(a, b, num_subsets=40, subset_size=200)
    exact = 3 * 0.8**2 + 3 * 0.64**2 + (0.8**3 + 3 * 0.8) ** 2
    assert abs(found.mean - exact) < 4 * found.standard_deviation * np.sqrt(200 / 2000 + 1 / 40)
    assert evaluation.kernel_distance(a[:20], b, num_subsets=2).subset_size == 10


@pytest.mark.parametrize(("moved", "most"), [(0.0, 1.4), (1.0, 1.25)])
def test_the_deviation_of_subsets_is_that_of_fresh_samples(moved, most, rng):
    """Also of subsets of half of the rows, which the default makes of few: of all rows there would be but one."""
    fresh = [
        evaluation.kernel_distance(normal(rng, 60), normal(rng, 60, moved), num_subsets=50, seed=i) for i in range(60)
    ]
    size = fresh[0].subset_size
    values = [
        evaluation.maximum_mean_discrepancy(normal(rng, size), normal(rng, size, moved), "cubic", 1).mmd_squared
        for _ in range(300)
    ]
    ratio = np.sqrt(np.mean([one.standard_deviation**2 for one in fresh])) / np.std(values)
    assert size == 30 and 0.8 < ratio < most
    with pytest.raises(ValueError, match="expected 4 or more"):
        evaluation.kernel_distance(normal(rng, 3), normal(rng, 9))


def test_frechet_is_scipys_and_extrapolates_to_the_closed_form(rng):
    mixing = rng.normal(size=[5, 5])
    a, b = normal(rng, 3000, size=5), 0.5 + normal(rng, 3000, size=5) @ mixing
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    sampled = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    found = evaluation.frechet_distance(a, b)
    assert found.distance == pytest.approx(sampled, rel=1e-8)
    true = mixing.T @ mixing
    exact = 5 * 0.25 + np.trace(np.eye(5) + true - 2 * scipy.linalg.sqrtm(true).real)
    assert abs(found.distance - exact) < 0.1 * exact
    far = 1000.0  # a common place costs no digits
    assert evaluation.frechet_distance(a + far, b + far).distance == pytest.approx(sampled, rel=1e-8)


def test_of_like_samples_the_extrapolation_takes_the_bias_away(rng):
    found = [evaluation.frechet_distance(normal(rng, 400, size=20), normal(rng, 400, size=20)) for _ in range(12)]
    distance = np.mean([one.distance for one in found])
    extrapolated = np.array([one.extrapolated for one in found])
    assert distance > 0.4 and found[0].num_rows == (400, 400)
    assert abs(extrapolated.mean()) < 0.2 * distance


@pytest.mark.slow
def test_a_classifier_sees_classes_and_is_the_same_again(rng):
    centres = 2 * np.eye(4)
    label = np.arange(600) % 4
    x, more = (centres[label] + 0.5 * rng.normal(size=[600, 4]) for _ in range(2))
    features = evaluation.classifier_features(x, label, seed=3)
    assert features.accuracy > 0.9
    np.testing.assert_array_equal(features(x), evaluation.classifier_features(x, label, seed=3)(x))
    alike = evaluation.frechet_classifier_distance(x, more, features)
    one_class = evaluation.frechet_classifier_distance(x, more[label == 0], features)
    assert alike.distance < 0.1 * one_class.distance
    with pytest.raises(ValueError, match=r"x has rows of shape \[3\], expected \[4\]"):
        features(np.zeros([5, 3]))


def test_neighbors_are_counted_as_by_hand(rng, monkeypatch):
    real, generated = normal(rng, 40, size=2), normal(rng, 50, 0.7, 2)
    cross = scipy.spatial.distance.cdist(real, generated)
    of_real = np.sort(scipy.spatial.distance.cdist(real, real), axis=1)[:, 3]
    of_generated = np.sort(scipy.spatial.distance.cdist(generated, generated), axis=1)[:, 3]
    inside = cross < of_real[:, None]
    exact = {
        "precision": inside.any(axis=0).mean(),
        "recall": (cross < of_generated).any(axis=1).mean(),
        "density": inside.sum() / (3 * 50),
        "coverage": (cross.min(axis=1) < of_real).mean(),
    }
    for at_once in (4_000_000, 300):
        monkeypatch.setattr("tfvae.evaluation.neighbors._FLOATS_AT_ONCE", at_once)
        found = evaluation.precision_recall(real, generated, k=3)
        assert {name: getattr(found, name).mean for name in exact} == pytest.approx(exact)
    share = (50 * exact["precision"] + 1) / 52  # as if one more were inside, and one more outside
    assert found.precision.standard_error == pytest.approx(np.sqrt(share * (1 - share) / 51))
    alike = evaluation.precision_recall(real, real + 1e-6, k=3).precision
    assert alike.mean == 1.0 and 0.02 < alike.standard_error < 0.03


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_rows_that_come_again_lie_in_the_balls_of_each_other(scale, rng):
    """Of eight bits 256 rows are possible: of 1,200 each comes five times, and a ball of five is of radius 0 or 1."""
    bits = scale * rng.integers(0, 2, [1200, 8]) + 1 / 3
    for one, other in ((bits, bits), (bits[:600], bits[600:]), (np.ones([20, 3]), np.ones([30, 3]))):
        found = evaluation.precision_recall(one, other)
        assert min(found.precision.mean, found.recall.mean, found.coverage.mean) > 0.97
    apart = evaluation.precision_recall(bits, bits + scale * 10)
    assert apart.precision.mean == apart.recall.mean == apart.coverage.mean == 0


def test_samples_that_do_not_fit_are_told(rng):
    with pytest.raises(ValueError, match="b has rows of 2 numbers, expected 3"):
        evaluation.maximum_mean_discrepancy(normal(rng, 5), normal(rng, 5, size=2))
    with pytest.raises(ValueError, match="kernel is 'rbf', expected 'inverse_multiquadric' or 'cubic'"):
        evaluation.kernel_distance(normal(rng, 5), normal(rng, 5), "rbf")
    with pytest.raises(ValueError, match=r"generated has shape \(5, 3\), expected \[N, ...\] with 6 rows or more"):
        evaluation.precision_recall(normal(rng, 6), normal(rng, 5))
    with pytest.raises(ValueError, match="a holds numbers that are not finite"):
        evaluation.maximum_mean_discrepancy([[np.nan], [1.0]], [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("score", "shape"),
    [
        (lambda x: evaluation.watanabe_akaike(x), [2, 3]),
        (lambda x: evaluation.perplexity([-1.0, -2.0], x), [2, 3]),
        (lambda x: evaluation.bits_per_dimension(x, [2]), [2, 3]),
        (lambda x: evaluation.pareto_shape(x), [30, 2]),
        (lambda x: evaluation.detection(x, x), [6]),
        (lambda x: evaluation.precision_recall(x, x, k=1), [6, 2]),
    ],
    ids=["watanabe_akaike", "perplexity", "bits", "pareto", "detection", "precision_recall"],
)
def test_what_is_behind_a_mask_and_beside_the_real_axis_is_told(score, shape):
    x = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    score(x)
    with pytest.raises(ValueError, match="masked array with 1 cell masked"):
        score(np.ma.masked_equal(x, 1))
    with pytest.raises(ValueError, match=r"expected .*number"):
        score(x + 1j)


@pytest.mark.parametrize(
    "given",
    [
        lambda x: tfvae.priors.ExemplarPrior(2, x),
        lambda x: tfvae.DistributionLayer("Normal", [2, 2], scale=x),
        lambda x: pictures.first_rows(x, 2),
    ],
    ids=["exemplars", "parameter", "plots"],
)
def test_numbers_behind_a_mask_are_told_by_whoever_keeps_them(given):
    given(np.ones([2, 2]) + np.eye(2))
    with pytest.raises(ValueError, match="masked array with 2 cells masked"):
        given(np.ma.masked_equal(np.ones([2, 2]) + np.eye(2), 2))


def test_bytes_behind_a_mask_are_told():
    with pytest.raises(ValueError, match="masked array with 1 cell masked"):
        evaluation.compressed_bits(np.ma.masked_equal(np.uint8([[1, 2]]), 1))
    with pytest.raises(ValueError, match="masked array with 1 cell masked"):
        attributes.checked_attribute(np.ma.masked_equal([1, 0, 1], 0), 3)


@pytest.mark.parametrize("test", [evaluation.maximum_mean_discrepancy, evaluation.frechet_distance])
def test_numbers_whose_powers_no_float_holds_are_told(test):
    rows = np.random.default_rng(0).normal(size=[12, 3])
    with pytest.raises(ValueError, match=r"numbers beyond 3.4e\+38, those of float32: scale all rows"):
        test(rows, rows * 1e200)


def test_a_classifier_of_one_class_is_refused(rng):
    with pytest.raises(ValueError, match="label is 3 for all 30 rows, expected two classes or more"):
        evaluation.classifier_features(rng.normal(size=[30, 4]), np.full(30, 3))
