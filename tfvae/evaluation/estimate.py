"""What every estimate of log p(x) gives, and how it is taken over many rows."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae import families
from tfvae.arguments import check_at_least, check_kind, check_whole, some
from tfvae.engine import batches
from tfvae.engine.map_rows import map_rows
from tfvae.models.rows import RowShape
from tfvae.models.vae import VAE

_TRUSTED_SAMPLES = 10  # effective ones; a few large weights say little of those that were not drawn
_TRUSTED_SHAPE = 0.7  # of Pareto's tail (arXiv 1507.02646, section 3.3)


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over independent draws.

    Attributes:
        mean: The mean.
        standard_error: What other draws would move it by.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Any) -> "Mean":
        """The mean of numbers ``[N]``, N at least 2.

        Example:
            >>> Mean.of([1.0, 3.0])
            Mean(mean=2.0, standard_error=1.0)
        """
        values = np.asarray(values, np.float64)
        return cls(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))

    @classmethod
    def of_shares(cls, found: Any) -> "Mean":
        """The share of N answers that are true; its error is as if one more were true and one more false.

        So that all true, or none, is not taken for certain (Agresti and Coull, The American Statistician 52, 1998).

        Example:
            >>> Mean.of_shares([True] * 14).standard_error
            0.0625
        """
        found = np.asarray(found, bool)
        share = (found.sum() + 1) / (len(found) + 2)
        return cls(float(found.mean()), math.sqrt(share * (1 - share) / (len(found) + 1)))


@dataclasses.dataclass(frozen=True)
class MarginalEstimate:
    """log p(x) of each row, as NumPy arrays ``[N]``.

    Attributes:
        log_marginal: The estimate of log p(x), nats. In expectation, importance sampling's is a lower bound of log p(x)
            and HMC's an upper bound.
        standard_error: That of ``log_marginal``, by the delta method, nats. Weights that were not drawn are
            not in it: where k̂ is between 0.4 and 0.7 other draws move the estimate by 1.0 to 1.6 times as much.
        effective_sample_size: (Σw)² / Σw², between 1 and the number of samples.
        acceptance_rate: HMC's; None for importance sampling.
        pareto_shape: k̂ of the weights, ``evaluation.pareto_shape``, for importance sampling by 25 samples or more, else
            NaN or None; above 0.7 neither the estimate nor its standard error can be trusted.
    """

    log_marginal: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray
    acceptance_rate: np.ndarray | None = None
    pareto_shape: np.ndarray | None = None

    @classmethod
    def of_weights(cls, log_weight: np.ndarray, acceptance_rate: np.ndarray | None = None) -> "MarginalEstimate":
        """The estimate that independent log w ``[N, K]`` make, K at least 2.

        Example:
            >>> MarginalEstimate.of_weights(np.log([[1.0, 3.0]])).log_marginal.round(4).tolist()
            [0.6931]
        """
        log_weight = np.asarray(log_weight, np.float64)
        peak = log_weight.max(axis=1)
        weight = np.exp(log_weight - peak[:, np.newaxis])
        return cls.of_sums(peak, weight.sum(axis=1), (weight**2).sum(axis=1), log_weight.shape[1], acceptance_rate)

    @classmethod
    def of_sums(
        cls,
        peak: np.ndarray,
        total: np.ndarray,
        square: np.ndarray,
        count: int,
        acceptance_rate: Any = None,
        pareto_shape: np.ndarray | None = None,
    ) -> "MarginalEstimate":
        """The same from m, Σ w/eᵐ and Σ (w/eᵐ)² over ``count`` weights of each row, ``[N]``.

        Example:
            >>> peak, total, square = np.zeros(1), np.array([4.0]), np.array([10.0])
            >>> MarginalEstimate.of_sums(peak, total, square, 2).effective_sample_size.tolist()
            [1.6]
        """
        with np.errstate(divide="ignore"):  # where every weight is 0, log p(x) is -inf
            effective = total**2 / np.where(square > 0, square, 1.0)
            spread = np.sqrt(np.maximum(1 / effective - 1 / count, 0) * count / (count - 1))
            return cls(peak + np.log(total / count), spread, effective, acceptance_rate, pareto_shape)

    def negated(self) -> "MarginalEstimate":
        """This estimate of -log p(x), made from reciprocal weights, as one of log p(x)."""
        return dataclasses.replace(self, log_marginal=-self.log_marginal)

    def __str__(self) -> str:
        """The mean and its error.

        Example:
            >>> print(MarginalEstimate(np.array([-2.0, -4.0]), np.ones(2), np.full(2, 50.0)))
            -3.00 ± 1.00 nats
        """
        if not self.is_trusted:
            return f"{self.mean:.2f} nats, not to be trusted"
        error = self.mean_standard_error
        return f"{self.mean:.2f} nats of one row" if error is None else f"{self.mean:.2f} ± {error:.2f} nats"

    @property
    def is_trusted(self) -> bool:
        """Whether half of the rows rest on ten effective samples or more, and half have a k̂ of at most 0.7, if known.

        Else errors are too small to be shown.
        """
        enough = np.median(self.effective_sample_size) >= _TRUSTED_SAMPLES
        return bool(enough and (self.median_pareto_shape or 0.0) <= _TRUSTED_SHAPE)

    @property
    def median_pareto_shape(self) -> float | None:
        """k̂ of half of the rows is no more; None where it is known of none."""
        known = [] if self.pareto_shape is None else self.pareto_shape[~np.isnan(self.pareto_shape)]
        return float(np.median(known)) if len(known) else None

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the rows, nats."""
        return float(np.mean(self.log_marginal))

    @property
    def mean_standard_error(self) -> float | None:
        """The standard error of ``mean``, nats: what another sample of rows and of noise would move it by.

        None of one row, which says nothing of others; ``standard_error`` has what other noise would move it by.
        """
        count = len(self.log_marginal)
        return float(np.std(self.log_marginal) / math.sqrt(count - 1)) if count > 1 else None

    @property
    def trusted_standard_error(self) -> float | None:
        """``mean_standard_error`` for who shows it beside the mean; None where ``is_trusted`` says not to."""
        return self.mean_standard_error if self.is_trusted else None


def some_rows(vae: VAE, x: Any) -> dict[str, tf.Tensor]:
    """Rows as ``fit`` takes them, once they are rows of the model and one at least."""
    rows = vae.checked(x)
    some(range(batches.num_rows(rows)), "estimate")
    return rows


def made_rows(vae: VAE, num_rows: int, condition: Any, seed: int) -> dict[str, tf.Tensor]:
    """Rows that the model makes: z ~ p(z), x ~ p(x|z), and the condition, by name."""
    first, second = tf.unstack(tf.random.experimental.stateless_split(tf.constant([seed, 3], tf.int32), 2))
    condition = RowShape(vae.event_shape, vae.condition_shape).condition(condition, num_rows)
    given = {} if condition is None else {"condition": condition}
    prior = vae.prior(given.get("condition"))
    z = prior.sample([num_rows] if prior.batch_shape.rank == 0 else [], seed=first)
    p = vae.decode(z, given.get("condition"))
    if families.is_given_total(p):
        raise ValueError(
            "These counts are scored given the total of their row, which nothing here draws, so that the model makes "
            "no rows: judge it on rows of data, as log_marginal does."
        )
    x = p.sample(seed=second)
    return {"z": z, "x": tf.cast(x, tf.float32), **given}


def made_in_batches(vae: VAE, num_rows: int, condition: Any, batch_size: int, seed: int) -> dict[str, tf.Tensor]:
    """``made_rows``, ``batch_size`` at a time: of many rows, only what is made is kept."""
    condition = RowShape(vae.event_shape, vae.condition_shape).condition(condition, num_rows)
    pieces = []
    for start in range(0, num_rows, batch_size):
        count = min(batch_size, num_rows - start)
        part = None if condition is None else condition[start : start + count]
        pieces.append(made_rows(vae, count, part, seed ^ (start << 8 & 0x7FFFFFFF)))
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *pieces)


def over_rows(
    program: Callable,
    vae: VAE,
    x: Any,
    batch_size: int,
    seed: int,
    progress: Callable[[int], None] | None,
    looked_at: Callable[[Any], Any] = lambda found: found,
) -> Any:
    """``program(rows, seed)`` over all the rows of x, ``batch_size`` at a time, with a seed of its own for each batch.

    x has the model's noise, drawn once for each row. ``progress`` is called with the rows done after each batch. What
    is ``looked_at``, all that is found by default, must be no NaN.
    """
    found = over_prepared(
        lambda rows, key: program(vae.drawn(rows, key), key), some_rows(vae, x), batch_size, seed, progress
    )
    vae.of_numbers(looked_at(found), may_be_infinite=True)
    return found


def check_progress(progress: Any, of: str = "rows") -> None:
    """Raise ValueError unless progress is a function, or None.

    Example:
        >>> check_progress(True)
        Traceback (most recent call last):
        ValueError: progress is True, expected a function of the number of rows that are done.
    """
    if progress is not None:
        check_kind("progress", progress, Callable, f"a function of the number of {of} that are done")


def over_prepared(
    program: Callable, rows: Any, batch_size: int, seed: int, progress: Callable[[int], None] | None = None
) -> Any:
    """``over_rows`` for a nest of tensors that needs neither a look nor noise."""
    check_at_least(1, batch_size=batch_size)
    check_whole(seed=seed)
    check_progress(progress)
    done, count = 0, batches.num_rows(rows)

    def one_batch(rows: Any) -> tuple[tf.Tensor, ...]:
        nonlocal done
        key = tf.constant([seed, done], tf.int32)
        result = program(rows, key)
        done += batch_size
        if progress:
            progress(min(done, count))
        return result

    return map_rows(one_batch, rows, batch_size)
