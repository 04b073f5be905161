"""Moments of all rows, however the rows were cut into parts."""

import functools
import operator

import numpy as np
import pytest

from pipelines.dataset.moments import ColumnMoments, Moments, combine


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moments_do_not_depend_on_the_cuts(dtype):
    x = (np.random.default_rng(0).normal(100, 20, 1001)).astype(dtype)
    whole, cut = Moments.of(x), combine(Moments.of(part) for part in np.split(x, [1, 7, 500]))
    through_json = Moments.from_json(cut.to_json())
    for found in (whole.summary(), cut.summary(), through_json.summary(), (Moments() + cut).summary()):
        assert found["mean"] == pytest.approx(x.mean(dtype=np.float64), rel=1e-14)
        assert found["std"] == pytest.approx(x.std(dtype=np.float64), rel=1e-12)
        assert (found["min"], found["max"]) == (x.min(), x.max())
    if dtype == np.uint8:
        assert whole.summary()["histogram"] == np.bincount(x, minlength=256).tolist()


def test_columns_do_not_depend_on_the_cuts():
    scale, shift = np.float32([1, 1e-2, 1e3]), np.float32([0, 1e4, -5])  # cancels in naive sums
    x = (np.random.default_rng(0).normal(size=(1001, 3)) * scale + shift).astype(np.float32)
    cut = functools.reduce(operator.add, (ColumnMoments.of(part) for part in np.split(x, [1, 7, 500])))
    truth = x.astype(np.float64)
    for found in (ColumnMoments.of(x).summary(), cut.summary(), ColumnMoments.from_json(cut.to_json()).summary()):
        np.testing.assert_allclose(found["mean"], truth.mean(axis=0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found["std"], truth.std(axis=0), rtol=1e-9)
        assert found["min"] == truth.min(axis=0).tolist() and found["max"] == truth.max(axis=0).tolist()
