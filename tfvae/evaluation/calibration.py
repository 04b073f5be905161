"""Whether a distribution promises what comes: ranks of the truth among its draws, which are uniform where it does.

For z* ~ p(z) and x ~ p(x|z*), z* is a draw of p(z|x): among L draws of a q(z|x) that is p(z|x) it has each rank 0 to L
equally often (Talts et al., arXiv 1804.06788). So have the numbers of a held-out x among draws of a p(x) that is right.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae import families
from tfvae.arguments import check_at_least, check_number, check_whole
from tfvae.engine import xla
from tfvae.evaluation.estimate import made_in_batches, over_prepared, over_rows, some_rows
from tfvae.models.vae import VAE, check_vae
from tfvae.posteriors import draw

_FEWEST_IN_BIN = 5  # expected ones, below which the statistic is not distributed as chi-square


class Coverage(NamedTuple):
    """How often the truth lay inside the central interval.

    Attributes:
        level: How often it should: the nearest to what was asked for that the draws can tell.
        share: How often it did, for each number.
        standard_error: That of a share of ``level``: what chance alone moves ``share`` by.
    """

    level: float
    share: np.ndarray
    standard_error: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Ranks of the truth among L draws.

    Attributes:
        ranks: Draws below the truth, 0 to L, ``[N, *event]``.
        num_draws: L.
        chi_square: Σ (observed - expected)² / expected over bins of ranks, for each number, ``[*event]``.
        p_value: Chance of a ``chi_square`` as large under uniform ranks, ``[*event]``.
    """

    ranks: np.ndarray
    num_draws: int
    chi_square: np.ndarray
    p_value: np.ndarray

    @classmethod
    def of(cls, ranks: np.ndarray, num_draws: int, num_bins: int) -> "Calibration":
        """The test of ranks ``[N, *event]`` in equal bins.

        Example:
            >>> Calibration.of(np.arange(40)[:, None] % 4, num_draws=3, num_bins=4).p_value.tolist()
            [1.0]
        """
        bins = ranks * num_bins // (num_draws + 1)
        observed = np.stack([np.sum(bins == i, axis=0) for i in range(num_bins)])
        expected = len(ranks) / num_bins
        chi_square = np.sum((observed - expected) ** 2 / expected, axis=0)
        p_value = tf.math.igammac(tf.cast((num_bins - 1) / 2, tf.float64), chi_square / 2).numpy()
        return cls(ranks, num_draws, chi_square, p_value)

    @property
    def corrected_p_value(self) -> float:
        """Of all numbers together: the smallest p-value times their count (Bonferroni); below 0.05 one is off."""
        return min(1.0, float(np.min(self.p_value)) * self.p_value.size)

    def coverage(self, level: float = 0.9) -> Coverage:
        """How often the truth lay in the central interval of that level of the draws.

        Example:
            >>> found = Calibration.of(np.arange(40)[:, None] % 4, num_draws=3, num_bins=4).coverage(0.5)
            >>> found.level, found.share.tolist()
            (0.5, [0.5])
        """
        check_number(0, is_open=True, level=level)
        if level >= 1:
            raise ValueError(f"level is {level!r}, expected a share between 0 and 1, such as 0.9.")
        outside = min(round((1 - level) / 2 * (self.num_draws + 1)), self.num_draws // 2)  # ranks at each end
        level = 1 - 2 * outside / (self.num_draws + 1)
        inside = (self.ranks >= outside) & (self.ranks <= self.num_draws - outside)
        return Coverage(level, inside.mean(axis=0), float(np.sqrt(level * (1 - level) / len(inside))))


def simulation_based_calibration(
    vae: VAE,
    num_rows: int = 1000,
    num_draws: int = 99,
    num_bins: int = 20,
    batch_size: int = 100,
    seed: int = 0,
    condition: Any = None,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Whether q(z|x) is p(z|x), each unit by itself, for rows that the model makes: ranks of z* among draws of q(z|x).

    Ranks in the middle too often: q is too wide; at the ends: too narrow; at one end: its mean is off. It judges the
    encoder against this decoder and prior and says nothing of data that are unlike the model's. Uniform ranks do not
    prove that q is right: units may still be tied otherwise than in p(z|x).

    Args:
        vae: The model.
        num_rows: N, pairs of z* and x; each bin must expect five.
        num_draws: L, draws of q(z|x).
        num_bins: Bins of the chi-square test; they must divide L + 1.
        batch_size: Rows at once.
        seed: Fixes rows and draws.
        condition: ``[N, *condition_shape]``, where the model has one.
        progress: Called with the number of rows done after each batch.

    Raises:
        ValueError: For numbers out of range, or bins that do not fit.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> simulation_based_calibration(vae, num_rows=100, num_draws=9, num_bins=5).ranks.shape
        (100, 2)
    """
    check_vae(vae)
    check_at_least(1, num_rows=num_rows, batch_size=batch_size)
    _check_bins(num_rows, num_draws, num_bins)
    check_whole(seed=seed)

    def ranks(rows: Any, seed: tf.Tensor) -> tf.Tensor:  # eager: a program would be compiled for a few batches
        q = vae.encode(vae.batch({name: part for name, part in rows.items() if name != "z"}))
        return tf.reduce_sum(tf.cast(draw(q, num_draws, seed)[0] < rows["z"], tf.int32), axis=0)

    made = made_in_batches(vae, num_rows, condition, batch_size, seed)
    return Calibration.of(over_prepared(ranks, made, batch_size, seed, progress), num_draws, num_bins)


def predictive_calibration(
    vae: VAE,
    x: Any,
    num_draws: int = 99,
    num_bins: int = 20,
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Whether each number of x is distributed as p(x) says: its rank among draws of p(x), given the row's condition.

    ``coverage(0.9)`` is then how often held-out numbers lie in the model's interval of 90 %. Where draws equal x, as
    pixels of 0 and 1 do, chance decides the rank, so that ranks of a right model are uniform there too. Each number is
    judged by itself: how they go together is for ``maximum_mean_discrepancy``. Counts that are given their row's total
    (bags of words, counts of a library) are drawn for that total. Greys under a Bernoulli, whose draws are 0 and 1, can
    never pass.

    Args:
        vae: The model.
        x: Rows that it was not trained on, as ``fit`` takes them; of a model with ``noise``, one draw of each.
        num_draws, num_bins, batch_size, seed, progress: See ``simulation_based_calibration``.

    Raises:
        ValueError: See ``simulation_based_calibration``; and for rows of which numbers are missing, which have no rank.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> x = np.random.default_rng(0).integers(0, 2, [60, 8]).astype("float32")
        >>> predictive_calibration(vae, x, num_draws=9, num_bins=5).coverage(0.8).share.shape
        (8,)
    """
    check_vae(vae)
    check_at_least(1, num_draws=num_draws, num_bins=num_bins)
    x = some_rows(vae, x)
    if bool(tf.reduce_any(vae.likelihood.holes(x["x"]))):
        raise ValueError("x has numbers that are missing, which have no rank among draws: judge rows without holes.")

    @xla.compiled_where_possible
    def ranks(rows: Any, seed: tf.Tensor) -> tf.Tensor:
        batch = vae.batch(rows)

        def body(i: tf.Tensor, below: tf.Tensor, equal: tf.Tensor) -> tuple[tf.Tensor, ...]:
            first, second = tf.unstack(
                tf.random.experimental.stateless_split(tf.random.experimental.stateless_fold_in(seed, i), 2)
            )
            prior = vae.prior(batch.condition)
            z = prior.sample([] if prior.batch_shape.rank else tf.shape(batch.x)[:1], seed=first)
            p = families.with_total_of(vae.decode(z, batch.condition), batch.x)
            drawn = tf.cast(p.sample(seed=second), batch.x.dtype)
            return i + 1, below + tf.cast(drawn < batch.x, tf.int32), equal + tf.cast(drawn == batch.x, tf.int32)

        zeros = tf.zeros(tf.shape(batch.x), tf.int32)
        _, below, equal = tf.while_loop(lambda i, *_: i < num_draws, body, (tf.constant(0), zeros, zeros))
        among = tf.random.stateless_uniform(tf.shape(zeros), tf.random.experimental.stateless_fold_in(seed, -1))
        return below + tf.minimum(tf.cast(among * tf.cast(equal + 1, tf.float32), tf.int32), equal)

    found = over_rows(ranks, vae, x, batch_size, seed, progress)
    _check_bins(len(found), num_draws, num_bins)
    return Calibration.of(found, num_draws, num_bins)


def _check_bins(num_rows: int, num_draws: int, num_bins: int) -> None:
    check_at_least(1, num_draws=num_draws)
    check_at_least(2, num_bins=num_bins)
    if (num_draws + 1) % num_bins:
        raise ValueError(
            f"num_bins is {num_bins}, expected a divisor of num_draws + 1 = {num_draws + 1}, so that bins are equal."
        )
    if num_rows < _FEWEST_IN_BIN * num_bins:
        raise ValueError(
            f"num_bins is {num_bins} for {num_rows} rows, expected at most {num_rows // _FEWEST_IN_BIN}: take more "
            "rows, or fewer bins."
        )
