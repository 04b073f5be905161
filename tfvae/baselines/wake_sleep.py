"""The wake-sleep algorithm (Hinton, Dayan, Frey & Neal, 1995), the paper's main baseline.

Wake: z ~ q(z|x) for data x, and the decoder learns log p(x, z). Sleep: z, x ~ p(x, z) is dreamed, and the encoder
learns log q(z|x). Neither follows the gradient of one bound, and none flows through z; the ELBO is reported all
the same.
"""

from typing import final

import keras
import tensorflow as tf

from tfvae import objectives, posteriors, replicas
from tfvae.baselines.base import Trainer
from tfvae.vae import VAE


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

    def __init__(self, vae: VAE, seed: int | None = None, name: str = "wake_sleep"):
        super().__init__(vae, seed, name)

    def batch_loss(self, x: tf.Tensor, weights: tf.Tensor, training: bool) -> tf.Tensor:
        """-log p(x, z) for z ~ q(z|x), and -log q(z|x) for a dream; their gradients do not mix."""
        self._clear_losses()
        terms = self._wake(x, training)
        self.update_metrics(terms, -objectives.elbo(terms).bound, weights)
        if not training:
            return tf.constant(0.0)
        wake = tf.reduce_mean(terms.log_likelihood + terms.log_prior, axis=0)
        gain = tf.math.divide_no_nan(tf.reduce_sum(weights * wake), tf.reduce_sum(weights))
        return self.vae.penalty() - gain - tf.reduce_mean(self._sleep(tf.shape(x)[0]))

    def _wake(self, x: tf.Tensor, training: bool) -> objectives.Terms:
        q = self.vae.encode(x, training)
        z, log_posterior = posteriors.draw(q, self.vae.num_samples, self.next_seed(training))
        return self.vae.terms_at(x, q, tf.stop_gradient(z), training, tf.stop_gradient(log_posterior))

    def _sleep(self, num_rows: tf.Tensor) -> tf.Tensor:
        """log q(z|x) of dreams z ~ p(z), x ~ p(x|z), as many as rows in the batch, ``[B]``, nats."""
        first, second = tf.unstack(tf.random.experimental.stateless_split(self.next_seed(True), 2))
        z = replicas.sample(self.vae.prior, first, after=[num_rows])
        x = replicas.sample(self.vae.decode(z, training=True), second)
        return self.vae.encode(tf.stop_gradient(x), training=True).log_prob(tf.stop_gradient(z))
