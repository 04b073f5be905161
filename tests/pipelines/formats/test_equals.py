"""Which rows equal an earlier one: what a dictionary would say, in memory and by way of files."""

import numpy as np
import pytest

from pipelines.formats import equals


def by_dictionary(digests: np.ndarray) -> list[tuple[int, int]]:
    first: dict[bytes, int] = {}
    pairs = [(row, first.setdefault(digest.tobytes(), row)) for row, digest in enumerate(digests)]
    return [(row, earlier) for row, earlier in pairs if earlier != row]


@pytest.mark.parametrize("size", [0, 1, 2, 50, 5000])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_pairs_of_a_dictionary(size, width, tmp_path, monkeypatch):
    monkeypatch.setattr(equals, "_ROWS_A_FILE", 700)
    digests = np.random.default_rng(size).integers(0, 4, (size, width), dtype=np.uint64)
    expected = by_dictionary(digests)
    later, first = equals.later_of_equals(digests)
    assert list(zip(later.tolist(), first.tolist(), strict=True)) == expected
    blocks = np.array_split(digests, 7)
    later, first = equals.later_of_many(iter(blocks), size, str(tmp_path))
    assert list(zip(later.tolist(), first.tolist(), strict=True)) == expected
    assert not list(tmp_path.iterdir())
