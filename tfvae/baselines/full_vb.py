"""Full variational Bayes (appendix F): a distribution over the generative weights θ as well as over z.

q(θ) = N(μ, diag σ²) is learned beside q(z|x), for the prior p(θ) = N(0, scale² I). Each minibatch draws one
θ~ = μ + σ ζ, ζ ~ N(0, I) (algorithm 2), and maximises the lower bound on log p(X), for each of its N rows:
the mean bound on log p(x|θ~), less KL(q(θ)‖p(θ)) / N. Both are normal, so that this KL has a closed form (F.1); that of
q(z|x) is the VAE's own affair.
"""

import math
from typing import Any, final

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.baselines.base import Trainer
from tfvae.engine.model import Loss
from tfvae.models.vae import VAE


@final
@keras.saving.register_keras_serializable("tfvae")
class FullVB(Trainer):
    """Trains a VAE with a posterior over its generative weights, through ``compile`` and ``fit`` like the VAE itself.

    The weights of ``vae`` are μ: ``model.vae`` is the VAE at the mean of q(θ) at any time, to embed, export or evaluate
    with. ``fit`` and ``evaluate`` draw θ~ for each batch, so that both report estimates of the same bound: in nats for
    each row, ``loss`` is ``weights_kl - elbo``, an upper bound on -log p(X) / N where the VAE's objective is the ELBO.
    Every trainable weight of p(x, z) has the prior, biases too, which ``priors.WeightPrior`` leaves out.

    Args:
        vae: Its parts, objective and number of samples are used; its weights are where μ starts.
        num_rows: N, the rows of the training data.
        scale: Standard deviation of a weight under p(θ).
        initial_scale: Standard deviation σ of each weight under q(θ) before training.
        seed: Fixes noise and shuffles; the VAE's by default.

    Raises:
        ValueError: If the VAE has a weight prior already, or a number is out of range.

    Example:
        >>> from tfvae import likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> model = FullVB(vae, num_rows=8)
        >>> model.compile()
        >>> sorted(model.fit(tf.eye(8), verbose=0).history)
        ['elbo', 'kl', 'log_likelihood', 'loss', 'weights_kl']
        >>> [q.event_shape.as_list() for q in model.weights_posterior()]
        [[2, 4], [4], [4, 8], [8]]
    """

    reported = (*VAE.reported, "weights_kl")
    _arguments = ("num_rows", "scale", "initial_scale")
    _has_objective = True

    def __init__(
        self,
        vae: VAE,
        num_rows: int,
        scale: float = 1.0,
        initial_scale: float = 0.01,
        seed: int | None = None,
        name: str = "full_vb",
    ):
        super().__init__(vae, seed, name)
        if num_rows < 1 or scale <= 0 or initial_scale <= 0:
            raise ValueError(
                "FullVB needs num_rows >= 1, scale > 0 and initial_scale > 0, received "
                f"{num_rows}, {scale} and {initial_scale}."
            )
        if vae.weight_prior is not None:
            raise ValueError(
                "The VAE has a weight_prior, which would count p(θ) twice: leave it out and pass FullVB its scale."
            )
        self.num_rows = int(num_rows)
        self.scale, self.initial_scale = float(scale), float(initial_scale)
        initial = keras.initializers.Constant(math.log(initial_scale))
        self.log_scales = [
            self.add_weight(shape=w.shape, initializer=initial, dtype="float32", name=f"log_scale_{i}")
            for i, w in enumerate(vae.generative_weights)
        ]

    def weights_posterior(self) -> list[tfd.Distribution]:
        """q(θ), one normal for each of ``vae.generative_weights``, in their order and of their shapes."""
        locs = [tf.cast(w.value, tf.float32) for w in self.vae.generative_weights]
        return [
            tfd.Independent(families.Normal(loc, tf.exp(log_scale.value)), loc.shape.rank)
            for loc, log_scale in zip(locs, self.log_scales, strict=True)
        ]

    def weights_kl(self) -> tf.Tensor:
        """KL(q(θ)‖p(θ)) of all weights together, nats (appendix F.1, for a prior of any scale).

        Example:
            >>> from tfvae import likelihoods, networks, posteriors
            >>> net = networks.mlp([4])
            >>> vae = VAE(net, net, posteriors.diagonal_normal(2), likelihoods.bernoulli([2]))
            >>> vae.set_weights([np.ones_like(w) for w in vae.get_weights()])
            >>> float(FullVB(vae, num_rows=1, initial_scale=1.0).weights_kl())  # 22 weights: Σ μ² / 2
            11.0
        """
        prior = tfd.Normal(0.0, self.scale)
        kls = [tf.reduce_sum(tfd.kl_divergence(q.distribution, prior)) for q in self.weights_posterior()]
        return sum(kls, start=tf.constant(0.0))

    def draw_weights(self, seed: tf.Tensor) -> list[tf.Tensor]:
        """θ~ = μ + σ ζ, one tensor for each of ``vae.generative_weights``; ``seed`` is int32 ``[2]``."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, len(self.log_scales)))
        return [q.sample(seed=one) for q, one in zip(self.weights_posterior(), seeds, strict=True)]

    def sample_vae(self, seed: int | None = None) -> VAE:
        """A VAE of its own with generative weights drawn from q(θ); several of them show what θ leaves uncertain."""
        key = self.next_seed(False) if seed is None else tf.constant([0, seed], tf.int32)
        drawn = VAE.from_config(self.vae.get_config())
        drawn.set_weights(self.vae.get_weights())
        for weight, value in zip(drawn.generative_weights, self.draw_weights(key), strict=True):
            weight.assign(value)
        return drawn

    def batch_loss(self, inputs: dict[str, tf.Tensor], weights: tf.Tensor, training: bool) -> Loss:
        """The VAE's loss at one θ~, and KL(q(θ)‖p(θ)) / N beside the VAE's penalty."""
        drawn = self.with_noise(inputs, training)
        first, second = tf.unstack(tf.random.experimental.stateless_split(self.next_seed(training), 2))
        loss = self._loss_at_drawn_weights(drawn, weights, first, second, training)
        weights_kl = self.weights_kl() / self.num_rows
        return Loss(loss.rows, weights_kl + loss.penalty, {**loss.report, "weights_kl": weights_kl})

    def _loss_at_drawn_weights(
        self,
        inputs: dict[str, tf.Tensor],
        weights: tf.Tensor,
        weights_seed: tf.Tensor,
        seed: tf.Tensor,
        training: bool,
    ) -> Loss:
        """The VAE's loss while its generative weights read as θ~."""
        drawn = zip(self.vae.generative_weights, self.draw_weights(weights_seed), strict=True)
        step = tf.convert_to_tensor(self.optimizer.iterations) if self.compiled else None
        # Inside the scope a regulariser sees no weight that the scope was not given.
        as_they_are = [(w, tf.convert_to_tensor(w.value)) for w in self.vae.recognition_weights]
        with keras.StatelessScope([*as_they_are, *drawn], collect_losses=True) as scope:
            loss = self.vae.loss_of_draw(inputs, weights, seed, training, step)
        # The scope holds back what layers write too: moving averages and the states of dropout's streams.
        for variable in self.vae.non_trainable_variables:
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return loss

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """See ``UnsupervisedModel.save_own_variables``; σ is saved here too."""
        super().save_own_variables(store)
        for i, log_scale in enumerate(self.log_scales):
            store[f"log_scale_{i}"] = log_scale.numpy()

    def load_own_variables(self, store: dict[str, Any]) -> None:
        super().load_own_variables(store)
        for i, log_scale in enumerate(self.log_scales):
            log_scale.assign(store[f"log_scale_{i}"])
