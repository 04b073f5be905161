"""log p(x) by annealed importance sampling, and how far off it can be: bidirectional Monte Carlo.

A chain walks from p(z) to p(z|x) through the densities p(z) p(x|z)^β, with β from 0 to 1, by an HMC transition at each:
log w = Σ (β_t - β_{t-1}) log p(x|z_{t-1}) has E w = p(x) however few and poor the transitions are (Neal, "Annealed
importance sampling", 2001; for decoders Wu et al., arXiv 1611.04273). A chain that walks back from an exact draw of
p(z|x), which a simulated x brings along, has E 1/w = 1/p(x) (Grosse et al., arXiv 1511.02543).

The step size of each row and β is found by a short walk before, so that the walk that counts adapts nothing.
"""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least, check_whole
from tfvae.engine import batches, programs, xla
from tfvae.engine.map_rows import waited_for
from tfvae.engine.pace import Pace
from tfvae.evaluation import hmc
from tfvae.evaluation.estimate import MarginalEstimate, made_rows, over_prepared, over_rows
from tfvae.models.vae import VAE, check_vae

_RADIUS = 4.0  # of the logistic schedule of β, as Wu et al. have it
_TARGET_ACCEPT = 0.65  # the best for HMC (Beskos et al., arXiv 1001.4460)
_FIRST_STEP, _ADAPTATION, _WARM_UP = 0.3, 0.3, 20  # of the walk before


class Sandwich(NamedTuple):
    """Two estimates of log p(x) for rows that the model itself made.

    Attributes:
        lower: By the walk from p(z): in expectation a lower bound.
        upper: By the walk back from the z that made x: in expectation an upper bound.
        x: The rows, ``[N, *event_shape]``.
    """

    lower: MarginalEstimate
    upper: MarginalEstimate
    x: np.ndarray

    @property
    def gap(self) -> float:
        """The mean of upper - lower over the rows, nats: what the mean of either is off by at most, in expectation."""
        return self.upper.mean - self.lower.mean


def annealed_log_marginal(
    vae: VAE,
    x: Any,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog_steps: int = 10,
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> MarginalEstimate:
    """log p(x) of each row by annealed importance sampling, which needs no q(z|x): for where that misses p(z|x).

    Memory is that of ``num_chains`` times ``batch_size`` decoded rows and their gradients, whatever the rest.

    Args:
        vae: The model; z must have a density on a space that TFP maps to one without bounds.
        x: Rows as ``fit`` takes them.
        num_temperatures: T, steps from p(z) to p(z|x); the error falls with it.
        num_chains: Walks of each row; their weights are averaged.
        num_leapfrog_steps: Gradients of log p(x|z) for each step.
        batch_size: Rows at once.
        seed: Fixes the walks.
        progress: Called with the number of rows done after each batch.

    Returns:
        A MarginalEstimate of ``num_chains`` weights a row, in expectation a lower bound. An ``acceptance_rate`` far
        from 0.65 says that T should grow; ``bidirectional`` says how far off such numbers are.

    Raises:
        ValueError: For numbers out of range, an empty x, or a prior without such a map.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> annealed_log_marginal(vae, np.eye(8, dtype="float32"), num_temperatures=10).log_marginal.shape
        (8,)
    """
    check_vae(vae)
    _check(num_temperatures, num_chains, num_leapfrog_steps)
    walk = _walk(vae, num_temperatures, num_chains, num_leapfrog_steps, False)
    log_weight, acceptance_rate = over_rows(walk, vae, x, batch_size, seed, progress)
    return MarginalEstimate.of_weights(log_weight, acceptance_rate)


def bidirectional(
    vae: VAE,
    num_rows: int = 100,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog_steps: int = 10,
    batch_size: int = 100,
    seed: int = 0,
    condition: Any = None,
    progress: Callable[[int], None] | None = None,
) -> Sandwich:
    """log p(x) from below and from above, of rows that the model makes: x ~ p(x|z), z ~ p(z).

    Where the two meet, ``annealed_log_marginal`` with the same numbers is right for data that are like the model's.

    Args:
        vae: The model.
        num_rows: N, rows to make.
        num_temperatures, num_chains, num_leapfrog_steps, batch_size, seed: See ``annealed_log_marginal``.
        condition: ``[N, *condition_shape]``, where the model has one.
        progress: Called after each batch with the number of rows done, of 2 N: each goes both ways.

    Raises:
        ValueError: See ``annealed_log_marginal``.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> sandwich = bidirectional(vae, num_rows=5, num_temperatures=20)
        >>> sandwich.x.shape, bool(abs(sandwich.gap) < 1.0)
        ((5, 8), True)
    """
    check_vae(vae)
    _check(num_temperatures, num_chains, num_leapfrog_steps)
    check_at_least(1, num_rows=num_rows)
    check_whole(seed=seed)
    made = made_rows(vae, num_rows, condition, seed)
    both = []
    for back in (False, True):
        walk = _walk(vae, num_temperatures, num_chains, num_leapfrog_steps, back)
        report = (lambda done, before=num_rows * back: progress(before + done)) if callable(progress) else progress
        log_weight, acceptance_rate = over_prepared(walk, made, batch_size, seed + 1, report)
        both.append(MarginalEstimate.of_weights(-log_weight if back else log_weight, acceptance_rate))
    lower, upper = both
    return Sandwich(lower, upper.negated(), made["x"].numpy())


def schedule(num_temperatures: int) -> np.ndarray:
    """β_0 = 0 to β_T = 1 by a logistic curve, dense at both ends, ``[T + 1]``.

    Example:
        >>> [round(float(beta), 3) for beta in schedule(4)]
        [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    curve = 1.0 / (1.0 + np.exp(-_RADIUS * np.linspace(-1.0, 1.0, num_temperatures + 1)))
    return ((curve - curve[0]) / (curve[-1] - curve[0])).astype(np.float32)


def _check(num_temperatures: int, num_chains: int, num_leapfrog_steps: int) -> None:
    check_at_least(1, num_temperatures=num_temperatures, num_leapfrog_steps=num_leapfrog_steps)
    check_at_least(2, num_chains=num_chains)


class _State(NamedTuple):
    """Where chains stand, u ``[C, B, E]``, with what is needed of the two densities there, for any β."""

    u: tf.Tensor
    log_prior: tf.Tensor
    log_likelihood: tf.Tensor
    prior_gradient: tf.Tensor
    likelihood_gradient: tf.Tensor


class _Target:
    """p(u) p(x|u)^β for a batch of rows, u in the space without bounds."""

    def __init__(self, vae: VAE, rows: dict[str, tf.Tensor]):
        self.batch = vae.batch({name: part for name, part in rows.items() if name != "z"})
        self.vae, self.bijector = vae, hmc.unbounded(vae, self.batch)

    def at(self, u: tf.Tensor) -> _State:
        """Both densities and their gradients, by one pass through the decoder and back."""
        prior = self.vae.prior(self.batch.condition)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(u)
            z = self.bijector.forward(u)
            log_prior = prior.log_prob(z) + self.bijector.forward_log_det_jacobian(u, event_ndims=1)
            log_likelihood = self.vae.decode(z, self.batch.condition).log_prob(self.batch.x)
        gradients = (tape.gradient(value, u, unconnected_gradients="zero") for value in (log_prior, log_likelihood))
        return _State(u, log_prior, log_likelihood, *gradients)

    def from_prior(self, num_chains: int, seed: tf.Tensor) -> _State:
        prior = self.vae.prior(self.batch.condition)
        rows = [] if prior.batch_shape.rank else [tf.shape(self.batch.x)[0]]
        return self.from_z(prior.sample([num_chains, *rows], seed=seed))

    def from_z(self, z: tf.Tensor) -> _State:
        return self.at(tf.identity(self.bijector.inverse(tf.identity(z))))

    def transition(
        self, state: _State, beta: tf.Tensor, step_size: tf.Tensor, num_leapfrog_steps: int, seed: tf.Tensor
    ) -> tuple[_State, tf.Tensor]:
        """The next state and the probability of acceptance ``[C, B]``; ``step_size`` is of each row, ``[B]``."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        shape = tf.shape(state.log_prior)
        factor = tf.random.stateless_uniform(shape, seeds[0], 1.0 - hmc.JITTER, 1.0 + hmc.JITTER)
        step = (step_size * factor)[..., tf.newaxis]
        momentum = tf.random.stateless_normal(tf.shape(state.u), seeds[1])

        def kicked(momentum: tf.Tensor, at: _State, part: float) -> tf.Tensor:
            return momentum + part * step * (at.prior_gradient + beta * at.likelihood_gradient)

        def leap(i: tf.Tensor, momentum: tf.Tensor, *at: tf.Tensor) -> tuple[tf.Tensor, ...]:
            moved = self.at(at[0] + step * momentum)
            return i + 1, kicked(momentum, moved, 1.0), *moved

        last = (tf.constant(0), kicked(momentum, state, 0.5), *state)
        _, end, *there = tf.while_loop(lambda i, *_: i < num_leapfrog_steps, leap, last)
        proposed = _State(*there)
        end = kicked(end, proposed, -0.5)  # the last kick was a whole one
        gain = _energy(proposed, beta, end) - _energy(state, beta, momentum)
        rate = tf.where(tf.math.is_finite(gain), tf.exp(tf.minimum(gain, 0.0)), 0.0)
        accepted = tf.random.stateless_uniform(shape, seeds[2]) < rate
        chosen = (
            tf.where(accepted if new.shape.rank == 2 else accepted[..., tf.newaxis], new, old)
            for new, old in zip(proposed, state, strict=True)
        )
        return _State(*chosen), rate


def _energy(state: _State, beta: tf.Tensor, momentum: tf.Tensor) -> tf.Tensor:
    return state.log_prior + beta * state.log_likelihood - 0.5 * tf.reduce_sum(momentum**2, axis=-1)


@programs.kept
def _walk(
    vae: VAE, num_temperatures: int, num_chains: int, num_leapfrog_steps: int, back: bool
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """(log w ``[B, C]``, acceptance rate ``[B]``) of a batch of rows, in programs of some temperatures."""
    betas = tf.constant(schedule(num_temperatures))
    paces: dict[int, Pace] = collections.defaultdict(Pace)
    step_sizes = _step_sizes(vae, num_temperatures, num_leapfrog_steps)

    @functools.partial(xla.compiled_where_it_pays, vae)
    def begin(rows: Any, seed: tf.Tensor) -> _State:
        target = _Target(vae, rows)
        if back:
            return target.from_z(tf.repeat(rows["z"][tf.newaxis], num_chains, axis=0))
        return target.from_prior(num_chains, seed)

    @functools.partial(xla.compiled_where_it_pays, vae)
    def some(
        rows: Any, seed: tf.Tensor, steps: tf.Tensor, first: tf.Tensor, stop: tf.Tensor, *state: tf.Tensor
    ) -> list[tf.Tensor]:
        target = _Target(vae, rows)

        def body(i: tf.Tensor, log_weight: tf.Tensor, total: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
            t = num_temperatures - i if back else i + 1
            here, rise = _State(*state), betas[t] - betas[t - 1]
            step_size = steps[(t - 1) * steps.shape[0] // num_temperatures]
            there, rate = target.transition(
                here, betas[t], step_size, num_leapfrog_steps, tf.random.experimental.stateless_fold_in(seed, t)
            )
            log_weight += rise * (there if back else here).log_likelihood
            return i + 1, log_weight, total + tf.reduce_mean(rate, axis=0), *there

        return tf.while_loop(lambda i, *_: i < stop, body, (first, *state))[1:]

    def walk(rows: Any, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pilot_seed, start_seed, walk_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        steps = step_sizes(rows, pilot_seed)
        state = begin(rows, start_seed)
        zeros = tf.zeros_like(state.log_prior)
        log_weight, total, *_ = paces[batches.num_rows(rows)].through(
            num_temperatures,
            [zeros, zeros[0], *state],
            lambda first, stop, now: waited_for(
                some(rows, walk_seed, steps, tf.constant(first), tf.constant(stop), *now)
            ),
        )
        return tf.transpose(log_weight), total / num_temperatures

    return walk


def _step_sizes(vae: VAE, num_temperatures: int, num_leapfrog_steps: int) -> Callable[..., tf.Tensor]:
    """Step sizes ``[P, B]`` for P stretches of the way, by a walk of four chains that adapts its own."""
    num_stretches = max(1, min(num_temperatures, max(20, num_temperatures // 10)))
    betas = tf.constant(schedule(num_stretches)[1:])
    paces: dict[int, Pace] = collections.defaultdict(Pace)

    @functools.partial(xla.compiled_where_it_pays, vae)
    def begin(rows: Any, seed: tf.Tensor) -> _State:
        return _Target(vae, rows).from_prior(4, seed)

    @functools.partial(xla.compiled_where_it_pays, vae)
    def some(rows: Any, seed: tf.Tensor, first: tf.Tensor, stop: tf.Tensor, *state: tf.Tensor) -> list[tf.Tensor]:
        target = _Target(vae, rows)

        def body(i: tf.Tensor, step: tf.Tensor, found: tf.Tensor, *state: tf.Tensor) -> tuple[Any, ...]:
            stretch = tf.maximum(i - _WARM_UP, 0)
            there, rate = target.transition(
                _State(*state),
                betas[stretch],
                step,
                num_leapfrog_steps,
                tf.random.experimental.stateless_fold_in(seed, i),
            )
            step *= tf.exp(_ADAPTATION * (tf.reduce_mean(rate, axis=0) - _TARGET_ACCEPT))
            return i + 1, step, tf.tensor_scatter_nd_update(found, [[stretch]], [step]), *there

        return tf.while_loop(lambda i, *_: i < stop, body, (first, *state))[1:]

    def step_sizes(rows: Any, seed: tf.Tensor) -> tf.Tensor:
        state = begin(rows, seed)
        step = tf.fill(tf.shape(state.log_prior)[1:], _FIRST_STEP)
        found = tf.zeros([num_stretches, *step.shape])
        return paces[batches.num_rows(rows)].through(
            num_stretches + _WARM_UP,
            [step, found, *state],
            lambda first, stop, now: waited_for(some(rows, seed, tf.constant(first), tf.constant(stop), *now)),
        )[1]

    return step_sizes
