"""The digits as a source: the rows of scikit-learn, one to one."""

import numpy as np
from sklearn.datasets import load_digits

from pipelines.sources import make_source

from ..conftest import column, read_all


def test_digits(digits_images):
    plan, rows = read_all(make_source("digits", None))
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), digits_images)
    np.testing.assert_array_equal([row.label for row in rows], load_digits().target)
    assert len(set(column(plan, "key"))) == 1797 and len(np.unique(digits_images)) == 17
