"""The wake-sleep algorithm (Hinton, Dayan, Frey & Neal, 1995), the paper's main baseline.

Wake: z ~ q(z|x) for data x, and the decoder learns log p(x, z). Sleep: z, x ~ p(x, z) is dreamed, and the encoder
learns log q(z|x). Neither follows the gradient of one bound, and none flows through z; the ELBO is reported all
the same.
"""

from typing import final

import keras
import tensorflow as tf

from tfvae import families, posteriors
from tfvae.baselines.base import Trainer
from tfvae.engine import replicas
from tfvae.engine.model import Loss, with_gradient_of
from tfvae.models.vae import VAE, Batch, report
from tfvae.objectives import Terms


@final
@keras.saving.register_keras_serializable("tfvae")
class WakeSleep(Trainer):
    """Trains the networks of a VAE by wake-sleep, through ``compile`` and ``fit`` like the VAE itself.

    Args:
        vae: Its networks, distributions, weight prior and number of samples are used; its objective is not.
        seed: Fixes noise and shuffles; the VAE's by default.

    Example:
        >>> from tfvae import likelihoods, networks
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> model = WakeSleep(vae)
        >>> model.compile()
        >>> sorted(model.fit(tf.eye(8), verbose=0).history)
        ['elbo', 'kl', 'log_likelihood', 'loss']
    """

    reported = VAE.reported

    def __init__(self, vae: VAE, seed: int | None = None, name: str = "wake_sleep"):
        super().__init__(vae, seed, name)

    def batch_loss(self, inputs: dict[str, tf.Tensor], weights: tf.Tensor, training: bool) -> Loss:
        """-log p(x, z) for z ~ q(z|x), and -log q(z|x) for a dream; their gradients do not mix, the value is -ELBO."""
        batch = self.vae.batch(self.with_noise(inputs, training))
        terms = self._wake(batch, training)
        numbers = report(terms)
        loss, zero = -numbers["elbo"], tf.constant(0.0)
        if not training:
            return Loss(loss, zero, numbers)
        wake = tf.reduce_mean(terms.log_joint, axis=0)
        penalty = self.vae.penalty() - tf.reduce_mean(self._sleep(batch))
        return Loss(with_gradient_of(loss, -wake), with_gradient_of(zero, penalty), numbers)

    def _wake(self, batch: Batch, training: bool) -> Terms:
        q = self.vae.encode(batch, training=training)
        seed = self.next_seed(training)
        z, log_posterior = posteriors.draw(q, self.vae.num_samples, seed)
        z, log_posterior = tf.stop_gradient(z), tf.stop_gradient(log_posterior)
        prior = self.vae.prior_of_step(batch, seed, training)
        return self.vae.terms_at(batch, q, z, training, log_posterior, prior)

    def _sleep(self, batch: Batch) -> tf.Tensor:
        """log q(z|x) of dreams z ~ p(z), x ~ p(x|z), one for each row of the batch, ``[B]``, nats."""
        first, second = tf.unstack(tf.random.experimental.stateless_split(self.next_seed(True), 2))
        prior = self.vae.prior(batch.condition)
        one_for_all = prior.batch_shape.rank == 0
        z = replicas.sample(prior, first, row_shape=[tf.shape(batch.x)[0]] if one_for_all else [])
        p = families.with_total_of(self.vae.decode(z, batch.condition, training=True), batch.x)
        x = replicas.sample(p, second)
        dream = batch._replace(x=tf.stop_gradient(x))
        return self.vae.encode(dream, training=True).log_prob(tf.stop_gradient(z))
