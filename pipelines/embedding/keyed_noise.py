"""Standard normal numbers that belong to a key: the same on every run, runner and batch.

A score draws samples of z. Drawn from a generator's stream they would depend on the order of the rows; drawn from the
row's key they do not, and neither do a job that was killed and its second run differ.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

_GOLDEN, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def standard_normal(keys: Sequence[str], num_samples: int, dimension: int) -> np.ndarray:
    """Float32 ``[N, num_samples, dimension]``, from N(0, 1), each row a function of its key alone.

    SplitMix64 (Steele, Lea and Flood, 2014) counts on from a hash of the key; Box and Muller make normals of its bits.

    Example:
        >>> together, alone = standard_normal(["a", "b"], 2, 3), standard_normal(["b"], 2, 3)
        >>> together.shape, bool((together[1] == alone[0]).all())
        ((2, 2, 3), True)
    """
    size = num_samples * dimension
    hashes = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    count = size + size % 2
    state = np.frombuffer(hashes, "<u8")[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    state = (state ^ state >> np.uint64(30)) * _FIRST
    state = (state ^ state >> np.uint64(27)) * _SECOND
    uniform = ((state ^ state >> np.uint64(31)) >> np.uint64(11)) * 2.0**-53 + 2.0**-54  # never 0
    radius, angle = np.sqrt(-2 * np.log(uniform[:, ::2])), 2 * np.pi * uniform[:, 1::2]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]
    return normal.astype(np.float32).reshape(len(keys), num_samples, dimension)
