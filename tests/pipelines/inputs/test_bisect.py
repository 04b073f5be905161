"""Halving down to the rows that fail by themselves."""

import pytest

from pipelines.inputs.base import bisect


@pytest.mark.parametrize("bad", [set(), {0}, {6}, {2, 3}, set(range(7))])
def test_bisection_does_each_good_row_once_and_names_the_bad(bad):
    done, rejected = [], []

    def work(rows):
        if bad & set(rows):
            raise ValueError("bad")
        done.extend(rows)

    bisect(range(7), work, lambda row, error: rejected.append(row))
    assert done == sorted(set(range(7)) - bad) and rejected == sorted(bad)
