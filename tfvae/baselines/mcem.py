"""Monte Carlo EM (Wei & Tanner, 1990; appendix E of arXiv 1312.6114): the paper's baseline without an encoder.

E: each training row has a Markov chain that is kept for the whole run; where its minibatch comes, the chain makes one
HMC transition towards p(z|x) ∝ p(x|z) p(z) under the weights of the moment. M: a few optimiser steps raise log p(x, z)
at the state it came to. The paper takes 10 leapfrog steps, steps tuned to an acceptance of 90 %, and 5 weight updates.

Each weight update evaluates the minibatch once more. On the axis of the paper's Figure 3, which it leaves undefined for
this method, a visit of B rows is counted here as ``num_updates * B`` samples; ``optimizer.iterations`` counts updates.
"""

from typing import Any, final

import keras
import tensorflow as tf

from tfvae.arguments import check_at_least
from tfvae.baselines.base import Trainer
from tfvae.engine import batches, keras_private
from tfvae.engine.model import Loss, gradients_of, with_gradient_of
from tfvae.engine.replicas import Rows
from tfvae.evaluation import hmc
from tfvae.models.vae import VAE, Batch

_FIRST_STEP_SIZE = 0.1  # in the units of a Chain's u; ten times too small or too large is put right in ten visits


@final
@keras.saving.register_keras_serializable("tfvae")
class MonteCarloEM(Trainer):
    """Trains the decoder of a VAE by Monte Carlo EM, through ``compile`` and ``fit`` like the VAE itself.

    There is one chain for each row of the training data, known by the row's number: ``fit`` takes the same array in the
    same order each time (shuffling inside is fine). The VAE's encoder and posterior stay as they are; so do its
    objective and number of samples, which are not used.

    The history has ``loss`` (the mean of -log p(x, z)), ``log_likelihood`` (of log p(x|z)), both in nats and over all
    updates, and ``acceptance_rate``. None of them bounds log p(x), and a row outside the training data has no chain, so
    that there is no ``evaluate``: ``evaluation.hmc_log_marginal(model.vae, x)`` is the paper's measure for this method.

    Args:
        vae: Its decoder, likelihood, prior and weight prior are used.
        num_rows: Rows of the training data.
        num_leapfrog_steps: Leapfrog steps of a transition.
        num_updates: Weight updates after each transition, all at the same z.
        target_accept: The acceptance rate that the step size, one for all chains, is adapted to.
        seed: Fixes where the chains start, noise and shuffles; the VAE's by default.

    Attributes:
        chains: Where the chains stand, ``chains.z`` ``[num_rows, D]``, and their ``chains.step_size``.

    Raises:
        ValueError: For numbers out of range; in ``fit``, for data other than an array of ``num_rows`` rows.

    Example:
        >>> from tfvae import likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> model = MonteCarloEM(vae, num_rows=8)
        >>> model.compile()
        >>> sorted(model.fit(tf.eye(8), batch_size=4, verbose=0).history)
        ['acceptance_rate', 'log_likelihood', 'loss']
        >>> int(model.optimizer.iterations)  # 2 batches, 5 updates at each
        10
    """

    reported = ("log_likelihood", "acceptance_rate")
    _arguments = ("num_rows", "num_leapfrog_steps", "num_updates", "target_accept")

    def __init__(
        self,
        vae: VAE,
        num_rows: int,
        num_leapfrog_steps: int = 10,
        num_updates: int = 5,
        target_accept: float = 0.9,
        seed: int | None = None,
        name: str = "monte_carlo_em",
    ):
        super().__init__(vae, seed, name)
        if vae.noise is not None:
            raise ValueError(
                "Monte Carlo EM keeps a chain for each row, which must not change: put the noise into x itself."
            )
        check_at_least(1, num_rows=num_rows, num_updates=num_updates)
        self.num_rows, self.num_updates = int(num_rows), int(num_updates)
        self.num_leapfrog_steps, self.target_accept = int(num_leapfrog_steps), float(target_accept)
        self.chains = _Chains(vae.prior().sample(self.num_rows, seed=self.next_seed(True)))
        hmc.check_settings(1, self.num_leapfrog_steps, 0, self.target_accept)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """θ alone: the optimiser keeps no state for an encoder that it never moves."""
        return self.vae.generative_weights

    def batch_loss(self, inputs: dict[str, tf.Tensor], weights: tf.Tensor, training: bool) -> Loss:
        raise ValueError(
            "Monte Carlo EM has no q(z|x), so no bound to evaluate, on validation data neither: call "
            "tfvae.evaluation.hmc_log_marginal(model.vae, x)."
        )

    def step(self, inputs: dict[str, tf.Tensor], rows: Rows) -> None:
        """One transition of the batch's chains, and then some updates of the weights where they came to."""
        batch = self.vae.batch(inputs)
        z, acceptance_rate = self._transition(batch, rows)
        variables = self.trainable_variables

        def update(k):
            with tf.GradientTape() as tape:
                keras_private.clear_losses(self)
                loss = self.record(self._loss_at(batch, z, acceptance_rate), rows)
                loss = self.optimizer.scale_loss(loss)
            self.optimizer.apply(gradients_of(loss, variables, tape), variables)
            return (k + 1,)

        tf.while_loop(lambda k: k < self.num_updates, update, (tf.constant(0),))

    def _loss_at(self, batch: Batch, z: tf.Tensor, acceptance_rate: tf.Tensor) -> Loss:
        """-log p(x, z) for the chains' states z ``[B, D]``; the VAE's penalty is learned from and not reported."""
        log_likelihood = self.vae.decode(z, batch.condition, training=True).log_prob(batch.x)
        seed = tf.stack([tf.cast(keras_private.steps_taken(self), tf.int32), 0])
        log_joint = log_likelihood + self.vae.prior_of_step(batch, seed).log_prob(z)
        penalty = with_gradient_of(tf.constant(0.0), self.vae.penalty())
        return Loss(-log_joint, penalty, {"log_likelihood": log_likelihood, "acceptance_rate": acceptance_rate})

    def _transition(self, batch: Batch, rows: Rows) -> tuple[tf.Tensor, tf.Tensor]:
        """Where the chains of the batch stand after one HMC transition, ``[B, D]``, and how each accepted, ``[B]``."""
        step_size = tf.fill([tf.shape(rows.numbers)[0], 1], self.chains.step_size.value)
        chain = hmc.continue_chain(
            self.vae, batch, self.chains.of(rows.numbers), step_size, 1, self.num_leapfrog_steps, self.next_seed(True)
        )
        self.chains.move(rows.numbers, rows.counts, chain.z[0])
        self.chains.adapt(chain.acceptance_rate, rows.counts, self.target_accept)
        return chain.z[0], chain.acceptance_rate

    def _batches(
        self, x: Any, batch_size: int, steps: int | None, shuffle: bool = False, sample_weight: Any = None
    ) -> Any:
        if keras_private.strategy(self) is not None:
            raise ValueError("Monte Carlo EM keeps its chains on one device: train it without tf.distribute.")
        made = super()._batches(x, batch_size, steps, shuffle, sample_weight)
        if isinstance(made, batches.StreamBatches):
            raise ValueError(
                f"Monte Carlo EM keeps a chain for each row, and a {type(x).__name__} does not say which row is which: "
                "pass all the training data as one array."
            )
        self._check_rows(x)
        return made

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``train_on_batch``, for all the training data as one batch: of fewer rows it says no numbers."""
        self._check_rows(x)
        return super().train_on_batch(x, *args, **kwargs)

    def _check_rows(self, x: Any) -> None:
        count = batches.num_rows(x)
        if count != self.num_rows:
            raise ValueError(
                f"Monte Carlo EM has a chain for each of {self.num_rows} training rows, received {count} rows: pass "
                "all the training data, or give MonteCarloEM another num_rows. Other rows have no chain: for them call "
                "tfvae.evaluation.hmc_log_marginal(model.vae, x)."
            )


class _Chains(keras.layers.Layer):
    """The state of every row's chain and the step size they share: a layer, so that Keras saves them."""

    def __init__(self, z: tf.Tensor):
        super().__init__(name="chains", dtype="float32")
        self.z = self.add_weight(name="z", shape=z.shape, initializer="zeros", trainable=False)
        self.z.assign(z)
        first = keras.initializers.Constant(_FIRST_STEP_SIZE)
        self.step_size = self.add_weight(name="step_size", shape=(), initializer=first, trainable=False)

    def of(self, rows: tf.Tensor) -> tf.Tensor:
        """The states of the rows of these numbers ``[B]``, ``[B, D]``."""
        return tf.gather(self.z.value, rows)

    def move(self, rows: tf.Tensor, weights: tf.Tensor, z: tf.Tensor) -> None:
        """Put the chains of those rows that count at z ``[B, D]``."""
        # A filling may repeat a row of the batch, and which of two writes wins is open: all fillings write what the
        # first row does, which always counts.
        source = tf.where(weights > 0.0, tf.range(tf.shape(rows)[0]), 0)
        self.z.value.scatter_update(tf.IndexedSlices(tf.gather(z, source), tf.gather(rows, source)))

    def adapt(self, acceptance_rate: tf.Tensor, weights: tf.Tensor, target: float) -> None:
        """Longer steps where the batch ``[B]`` accepted more than the target, else shorter ones."""
        num_rows = tf.reduce_sum(weights)
        rate = tf.reduce_sum(weights * acceptance_rate) / num_rows
        # The authors' rule: the more rows the rate is a mean of, the more it is trusted.
        factor = tf.minimum(1.25, 1.02 ** tf.minimum(100.0, num_rows))
        self.step_size.assign(self.step_size * tf.where(rate > target, factor, 1.0 / factor))
