"""z ~ p(z|x) by Hamiltonian Monte Carlo: the paper's appendices D and E.

A chain for each row of x, all in step, in the space without bounds that the prior's support is mapped to: z = f(u),
where f is the identity for a normal prior. Each row has a step size of its own, adapted while the chain burns in.

Steps of one length can bring a trajectory back to where it began, or to its mirror image, so each transition scales
them by a random factor (Neal, "MCMC using Hamiltonian dynamics", section 3.2, arXiv 1206.1901).
"""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfvae import posteriors
from tfvae.arguments import check_at_least
from tfvae.engine import batches, programs, xla
from tfvae.engine.map_rows import waited_for
from tfvae.engine.pace import Pace
from tfvae.evaluation.estimate import check_progress, some_rows
from tfvae.families import facts
from tfvae.models.vae import VAE, Batch, check_vae

JITTER = 0.2  # a transition's steps are 0.8 to 1.2 times the step size
_ADAPTED = 0.8  # of the burn-in; in the rest of it the chain forgets the adaptation
_SHRINKAGE = 0.2  # TFP's 0.05 explores so widely that 300 steps end at an acceptance of 0.94 for 0.9
_START_DRAWS = 16  # of q(z|x); their spread is the first guess of a step size
_PRIOR_ROUNDS = 64  # as many draws again of p(z), so often: an encoder that was never trained knows no mode


class Chain(NamedTuple):
    """S transitions of the chains of B rows.

    Attributes:
        z: Draws of p(z|x), ``[S, B, D]``.
        u: The same in the space without bounds, z = f(u), ``[S, B, E]``; E is D - 1 on a simplex, else D.
        log_joint: log p(x, u) = log p(x|z) + log p(z) + log |dz/du|, ``[S, B]``, nats.
        acceptance_rate: The mean probability of acceptance of each row, ``[B]``.
        step_size: The step of each row, in units of u, ``[B, 1]``.
    """

    z: tf.Tensor
    u: tf.Tensor
    log_joint: tf.Tensor
    acceptance_rate: tf.Tensor
    step_size: tf.Tensor


def sample_posterior(
    vae: VAE,
    x: Any,
    num_samples: int,
    num_leapfrog_steps: int = 10,
    num_burnin_steps: int = 300,
    target_accept: float = 0.9,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Chain:
    """Draws of p(z|x) ∝ p(x|z) p(z) for each row by HMC (arXiv 1312.6114, appendices D, E).

    A chain starts at the likeliest of some draws of q(z|x) and many of p(z).

    All rows at once, in programs of some transitions: give it a batch, not a dataset.

    Args:
        vae: The model.
        x: A batch of rows.
        num_samples: S, draws of each row: successive states of one chain, so near to one another.
        num_leapfrog_steps: Leapfrog steps of a transition; each costs a gradient of log p(x|z).
        num_burnin_steps: Transitions before the first draw; the step sizes are adapted in the first 80 %.
        target_accept: The acceptance rate that a row's step size is adapted to.
        seed: Fixes the draws.
        progress: Called after each program with the number of transitions done, of ``num_burnin_steps + num_samples``.

    Returns:
        A Chain. An ``acceptance_rate`` far from the target says that the row needs a longer burn-in.

    Raises:
        ValueError: For numbers out of range, an empty x, or a prior whose support TFP cannot map to a space without
            bounds.

    Example:
        >>> from tfvae import networks, likelihoods
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> chain = sample_posterior(vae, np.eye(8, dtype="float32"), num_samples=5, num_burnin_steps=10)
        >>> chain.z.shape, chain.acceptance_rate.shape
        (TensorShape([5, 8, 2]), TensorShape([8]))
    """
    check_vae(vae)
    check_settings(num_samples, num_leapfrog_steps, num_burnin_steps, target_accept)
    check_progress(progress, "transitions")
    x = some_rows(vae, x)
    made = chains(vae, num_samples, num_leapfrog_steps, num_burnin_steps, target_accept)
    return made(x, tf.constant([seed, 0], tf.int32), progress)


def check_settings(
    num_samples: int, num_leapfrog_steps: int, num_burnin_steps: int, target_accept: float = 0.9
) -> None:
    """Raise ValueError unless every number is in range."""
    check_at_least(1, num_samples=num_samples, num_leapfrog_steps=num_leapfrog_steps)
    check_at_least(0, num_burnin_steps=num_burnin_steps)
    if not 0 < target_accept < 1:
        raise ValueError(f"target_accept must lie between 0 and 1, received {target_accept}. The paper's is 0.9.")


@programs.kept
def chains(
    vae: VAE, num_samples: int, num_leapfrog_steps: int, num_burnin_steps: int, target_accept: float = 0.9
) -> Callable[..., Chain]:
    """What makes the chains of ``sample_posterior``: of a batch of rows, by a seed, int32 ``[2]``, telling of progress.

    Example:
        >>> from tfvae import networks, likelihoods
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> chains(vae, 5, 4, 10)({"x": tf.eye(8)}, tf.constant([0, 1])).u.shape
        TensorShape([5, 8, 2])
    """
    paces: dict[int, Pace] = collections.defaultdict(Pace)

    def kernel(x: Any, bijector: Any, step_size: tf.Tensor) -> tfp.mcmc.DualAveragingStepSizeAdaptation:
        return tfp.mcmc.DualAveragingStepSizeAdaptation(
            _hmc(vae, x, bijector, step_size, num_leapfrog_steps),
            num_adaptation_steps=int(_ADAPTED * num_burnin_steps),
            target_accept_prob=target_accept,
            shrinkage_target=step_size,
            exploration_shrinkage=_SHRINKAGE,
        )

    @functools.partial(xla.compiled_where_it_pays, vae)
    def begin(x: Any, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
        first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        batch = vae.batch(x)
        bijector = unbounded(vae, batch)
        draws = bijector.inverse(posteriors.draw(vae.encode(batch), _START_DRAWS, first)[0])
        spread = tf.reduce_mean(tf.math.reduce_std(draws, axis=0), axis=-1, keepdims=True)
        step_size = tf.where(tf.math.is_finite(spread), spread, 1.0)  # a draw on the rim of a simplex has no u
        u = _likeliest(vae, x, bijector, draws, second)
        return step_size, u, kernel(x, bijector, step_size).bootstrap_results(u)

    @functools.partial(xla.compiled_where_it_pays, vae)
    def some(
        x: Any, seed: tf.Tensor, step_size: tf.Tensor, first: tf.Tensor, stop: tf.Tensor, u: tf.Tensor, *state: Any
    ) -> Any:
        adapted = kernel(x, unbounded(vae, vae.batch(x)), step_size)

        def body(i: tf.Tensor, u: tf.Tensor, results: Any, kept: tuple[tf.Tensor, ...]) -> tuple[Any, ...]:
            u, results = adapted.one_step(u, results, seed=tf.random.experimental.stateless_fold_in(seed, i))
            place = [[tf.maximum(i - num_burnin_steps, 0)]]  # where the burn-in is written over
            new = (u, *_told(results.inner_results))
            kept = tuple(tf.tensor_scatter_nd_update(a, place, b[tf.newaxis]) for a, b in zip(kept, new, strict=True))
            return i + 1, u, results, kept

        return tf.while_loop(lambda i, *_: i < stop, body, (first, u, *state))[1:]

    @functools.partial(xla.compiled_where_it_pays, vae)
    def end(x: Any, results: Any, kept: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> Chain:
        return _chain(unbounded(vae, vae.batch(x)), *kept, results.inner_results)

    def made(x: Any, seed: tf.Tensor, progress: Callable[[int], None] | None = None) -> Chain:
        def part(first: int, stop: int, now: Any) -> Any:
            then = waited_for(some(x, walk, step_size, tf.constant(first), tf.constant(stop), *now))
            if progress:
                progress(stop)
            return then

        start, walk = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        step_size, u, results = begin(x, start)
        kept = tuple(tf.zeros([num_samples, *part.shape]) for part in (u, *_told(results.inner_results)))
        pace = paces[batches.num_rows(x)]
        _, results, kept = pace.through(num_burnin_steps + num_samples, (u, results, kept), part)
        return end(x, results, kept)

    return made


def _likeliest(vae: VAE, x: Any, bijector: tfp.bijectors.Bijector, draws: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Of the draws ``[S, B, E]`` and many of the prior, the one of the largest log p(x, u), ``[B, E]``.

    p(z|x) has modes that no chain leaves, and one that starts in a poor one measures that one alone.
    """
    batch = vae.batch(x)
    log_joint = _log_joint(vae, batch, bijector)

    def best(draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = log_joint(draws)
        values = tf.where(tf.math.is_finite(values), values, -np.inf)
        which = tf.argmax(values, axis=0)
        chosen = tf.gather(tf.transpose(draws, [1, 0, 2]), which, batch_dims=1)
        return chosen, tf.reduce_max(values, axis=0)

    def look(i: tf.Tensor, u: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, ...]:
        prior = vae.prior(batch.condition)
        rows = [tf.shape(draws)[1]] if prior.batch_shape.rank == 0 else []
        z = prior.sample([_START_DRAWS, *rows], seed=seed + tf.stack([0, i]))
        other, other_value = best(bijector.inverse(z))
        return i + 1, tf.where((other_value > value)[:, tf.newaxis], other, u), tf.maximum(other_value, value)

    return tf.while_loop(lambda i, *_: i < _PRIOR_ROUNDS, look, (tf.constant(0), *best(draws)))[1]


def continue_chain(
    vae: VAE,
    x: Any,
    z: tf.Tensor,
    step_size: tf.Tensor,
    num_transitions: int,
    num_leapfrog_steps: int,
    seed: tf.Tensor,
) -> Chain:
    """``num_transitions`` more states of the chains that stand at ``z``, by steps of the given size.

    It compiles nothing by itself, so that it can be part of a larger program, as in Monte Carlo EM.

    Args:
        vae: The model.
        x: A batch of rows.
        z: Where the chains stand, ``[B, D]``.
        step_size: The step of each row, ``[B, 1]``.
        num_transitions: S, transitions to make.
        num_leapfrog_steps: Leapfrog steps of a transition.
        seed: Fixes the transitions; int32 ``[2]``.

    Example:
        >>> from tfvae import networks, likelihoods
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> x, z, step_size, seed = tf.eye(8), tf.zeros([8, 2]), tf.fill([8, 1], 0.1), tf.constant([0, 1])
        >>> continue_chain(vae, x, z, step_size, 3, 4, seed).z.shape
        TensorShape([3, 8, 2])
    """
    bijector = unbounded(vae, vae.batch(x))
    hmc = _hmc(vae, x, bijector, step_size, num_leapfrog_steps)
    u = tf.identity(bijector.inverse(z))  # a new tensor: for the old one TFP has z in its cache, which u cannot move
    states, (log_joint, log_ratio), last = tfp.mcmc.sample_chain(
        num_transitions,
        u,
        kernel=hmc,
        trace_fn=lambda _, results: _told(results),
        return_final_kernel_results=True,
        seed=seed,
    )
    return _chain(bijector, states, log_joint, log_ratio, last)


class _Jittered(tfp.mcmc.TransitionKernel):
    """An HMC kernel whose step size is scaled anew in each transition, by a factor of each row's own."""

    def __init__(self, inner_kernel: tfp.mcmc.HamiltonianMonteCarlo):
        self.inner_kernel, self.parameters = inner_kernel, {"inner_kernel": inner_kernel}

    @property
    def is_calibrated(self) -> bool:
        return True

    def bootstrap_results(self, state: tf.Tensor) -> Any:
        return self.inner_kernel.bootstrap_results(state)

    def one_step(self, state: tf.Tensor, results: Any, seed: tf.Tensor | None = None) -> tuple[tf.Tensor, Any]:
        first, rest = tfp.random.split_seed(seed)
        step_size = results.accepted_results.step_size
        factor = tf.random.stateless_uniform(tf.shape(step_size), first, 1 - JITTER, 1 + JITTER)
        state, results = self.inner_kernel.one_step(state, _with_step_size(results, factor * step_size), seed=rest)
        return state, _with_step_size(results, step_size)


def _with_step_size(results: Any, step_size: tf.Tensor) -> Any:
    return results._replace(accepted_results=results.accepted_results._replace(step_size=step_size))


def unbounded(vae: VAE, batch: Batch) -> tfp.bijectors.Bijector:
    """f, from the space without bounds to the prior's support.

    Raises:
        ValueError: If TFP knows none.

    Example:
        >>> from tfvae import networks, likelihoods
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> unbounded(vae, vae.batch(tf.zeros([1, 8]))).name
        'identity'
    """
    prior = vae.prior(batch.condition)
    if isinstance(prior, tfp.distributions.MixtureSameFamily):
        prior = prior.components_distribution  # with a bijector for each component, where one serves all
        return tfp.bijectors.Identity() if _is_real(prior) else _no_bijector(prior)
    known = facts.of(prior)
    if known is not None and known.support is facts.SIMPLEX:
        return tfp.bijectors.IteratedSigmoidCentered()  # TFP's default for it fails under NumPy 2.4
    try:
        return prior.experimental_default_event_space_bijector() or _no_bijector(prior)
    except NotImplementedError:
        return _no_bijector(prior)


def _is_real(distribution: tfp.distributions.Distribution) -> bool:
    known = facts.of(distribution)
    return known is not None and known.support is facts.REAL


def _no_bijector(prior: tfp.distributions.Distribution) -> tfp.bijectors.Bijector:
    raise ValueError(f"TFP maps no unbounded space to the support of the prior {prior.name}: HMC needs one.")


def _log_joint(vae: VAE, x: Any, bijector: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """u ``[..., B, E]`` -> log p(x, u) ``[..., B]``, nats."""
    batch = vae.batch(x)

    def log_joint(u: tf.Tensor) -> tf.Tensor:
        # log p(x, u) = log p(x|z) + log p(z) + log |dz/du|
        z = bijector.forward(u)
        return vae.log_joint(batch, z) + bijector.forward_log_det_jacobian(u, event_ndims=1)

    return log_joint


def _hmc(vae: VAE, x: Any, bijector: Any, step_size: tf.Tensor, num_leapfrog_steps: int) -> _Jittered:
    target = _log_joint(vae, x, bijector)
    hmc = tfp.mcmc.HamiltonianMonteCarlo(target, step_size, num_leapfrog_steps, store_parameters_in_results=True)
    return _Jittered(hmc)


def _told(results: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """log p(x, u) of a state and the log ratio of its acceptance, each ``[B]``."""
    return results.accepted_results.target_log_prob, results.log_accept_ratio


def _chain(bijector: Any, u: tf.Tensor, log_joint: tf.Tensor, log_ratio: tf.Tensor, last: Any) -> Chain:
    acceptance_rate = tf.reduce_mean(tf.exp(tf.minimum(log_ratio, 0.0)), axis=0)
    return Chain(bijector.forward(u), u, log_joint, acceptance_rate, last.accepted_results.step_size)
