"""Detection against scikit-learn, and scores where it is known which rows are odd."""

import io

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from PIL import Image

from tests import linear_gaussian
from tfvae import evaluation


@pytest.mark.parametrize("digits", [9, 1])  # the second with ties
def test_detection_is_scikit_learns(digits):
    rng = np.random.default_rng(0)
    ordinary, odd = rng.normal(size=300).round(digits), rng.normal(1, 1, 170).round(digits)
    truth, scores = np.repeat([0, 1], [300, 170]), np.concatenate([ordinary, odd])
    false, true, _ = sklearn.metrics.roc_curve(truth, scores, drop_intermediate=False)
    found = evaluation.detection(ordinary, odd)
    assert found.auroc == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores))
    assert found.auprc == pytest.approx(sklearn.metrics.average_precision_score(truth, scores))
    assert found.false_positives == pytest.approx(false[true >= 0.8].min())


@pytest.mark.parametrize("count", [2, 20])
def test_rows_that_are_all_told_apart_are_no_certainty(count):
    """Where n of n are right a further row may not be: p of a uniform prior is then of Beta(n + 1, 1)."""
    found = evaluation.detection(np.arange(count), np.arange(3 * count) + count)
    assert (found.auroc, found.auprc, found.false_positives) == (1, 1, 0)
    errors = [found.auroc_standard_error, found.auprc_standard_error, found.false_positives_standard_error]
    np.testing.assert_allclose(errors, scipy.stats.beta(count + 1, 1).std(), rtol=0.35)


@pytest.mark.slow
def test_the_errors_are_those_of_other_rows():
    rng = np.random.default_rng(1)
    found = [evaluation.detection(rng.normal(size=100), rng.normal(1, 1, 100)) for _ in range(60)]
    for name in ("auroc", "auprc", "false_positives"):
        values, errors = ([getattr(one, name + end) for one in found] for end in ("", "_standard_error"))
        assert 0.6 < np.mean(errors) / np.std(values) < 1.6, name


def test_where_log_p_fails_typicality_and_complexity_tell():
    """Of a normal p in 50 dimensions the origin has the largest density of all and lies where no row does."""
    rng = np.random.default_rng(0)

    def log_p(x: np.ndarray) -> np.ndarray:
        return -0.5 * (x**2 + np.log(2 * np.pi)).sum(axis=1)

    ordinary, more, odd = rng.normal(size=[200, 50]), rng.normal(size=[200, 50]), 0.1 * rng.normal(size=[200, 50])
    assert evaluation.detection(-log_p(ordinary), -log_p(odd)).auroc == 0.0
    scores = [evaluation.typicality(log_p(x), log_p(more)) for x in (ordinary, odd)]
    assert evaluation.detection(*scores).auroc > 0.99
    noise = rng.integers(0, 256, [40, 16, 16, 1], dtype=np.uint8)
    flat = np.broadcast_to(rng.integers(0, 256, [40, 1, 1, 1], dtype=np.uint8), noise.shape)
    nats = np.full(40, -256 * np.log(256))  # of a model that gives every picture the same
    scores = [evaluation.complexity_corrected(nats, x) for x in (noise, flat)]
    assert evaluation.detection(*scores).auroc == 1.0


def test_a_background_takes_away_what_all_rows_share():
    """The model knows a third number that its background does not; the first two make most of log p."""
    rng = np.random.default_rng(0)
    shared = -0.5 * rng.normal(0, 10, [300, 2]) ** 2
    meant = -0.5 * np.stack([rng.normal(0, 1, 300), rng.normal(3, 1, 300)]) ** 2
    ordinary, odd = (
        shared[half].sum(1) + own[half] for half, own in ((slice(150), meant[0]), (slice(150, 300), meant[1]))
    )
    background = shared.sum(axis=1) - 1.5
    alone = evaluation.detection(-ordinary, -odd).auroc
    scores = [
        evaluation.likelihood_ratio(log_p, background[half])
        for log_p, half in ((ordinary, slice(150)), (odd, slice(150, 300)))
    ]
    assert evaluation.detection(*scores).auroc > 0.93 > alone


def test_models_that_disagree_make_a_row_odd():
    vaes = [linear_gaussian.vae(shift=shift) for shift in (0.0, 0.5)]
    near, far = linear_gaussian.rows(50)[0], 8 + linear_gaussian.rows(50)[0]
    bounds = [np.stack([vae.elbo(x, 5).numpy() for vae in vaes]) for x in (near, far)]
    scores = [evaluation.watanabe_akaike(bound) for bound in bounds]
    np.testing.assert_allclose(scores[0], bounds[0].var(axis=0) - bounds[0].mean(axis=0), rtol=1e-6)
    assert evaluation.detection(*scores).auroc > 0.95


def test_bits_are_about_those_of_png():
    ramp = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    spot = ((np.indices([64, 64]) - 32) ** 2).sum(axis=0) < 300
    pictures = np.stack(
        [ramp, 255 * spot.astype(np.uint8), np.random.default_rng(0).integers(0, 256, [64, 64], np.uint8)]
    )
    for bits, picture in zip(evaluation.compressed_bits(pictures[..., None]), pictures, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG", optimize=True)
        assert 0.5 * bits - 800 < 8 * len(file.getvalue()) < 1.3 * bits + 800


def test_perturbed_rows_keep_their_kind():
    rng = np.random.default_rng(0)
    greys = rng.integers(10, 200, [50, 30], dtype=np.uint8)
    found = evaluation.perturbed(greys, 0.3, seed=1)
    assert found.dtype == np.uint8 and found.min() >= 10 and found.max() <= 199
    assert abs(np.mean(found != greys) - 0.3) < 0.05
    reals = rng.normal(size=[50, 30]).astype(np.float32)
    assert evaluation.perturbed(reals, 0.1).dtype == np.float32
    np.testing.assert_array_equal(evaluation.perturbed(reals, 0.0), reals)
    pixels = (reals > 0).astype(np.float32)
    np.testing.assert_array_equal(evaluation.perturbed(pixels, 1.0), 1 - pixels)


def test_what_is_no_score_is_told():
    with pytest.raises(ValueError, match=r"odd has shape \(2, 2\), expected \[N\]"):
        evaluation.detection([1.0, 2.0], np.zeros([2, 2]))
    with pytest.raises(ValueError, match="background has 3 rows, expected 2"):
        evaluation.likelihood_ratio([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"x is float32 of shape .* expected rows of uint8"):
        evaluation.compressed_bits(np.zeros([2, 4, 4], np.float32))
    with pytest.raises(ValueError, match="rate is 2, expected a share"):
        evaluation.perturbed(np.zeros([2, 2]), 2)


def test_one_row_is_scored():
    assert evaluation.typicality([-10.0], [-9.0, -11.0]).tolist() == [0.0]
    assert evaluation.likelihood_ratio([-10.0], [-12.0]).tolist() == [-2.0]
    assert evaluation.complexity_corrected([-10.0], np.zeros([1, 4], np.uint8)).shape == (1,)
