"""The total correlation by a network that tells draws of q(z) from draws of its marginals (FactorVAE)."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfvae.arguments import check_latent_dim, check_number, check_whole, checked_shape
from tfvae.objectives.configured import Schedule, at_step, check_schedule
from tfvae.objectives.elbo import elbo
from tfvae.objectives.stateful import Stateful
from tfvae.objectives.terms import Estimate, Terms

_SLOPE = 0.2  # of the leaky units below 0
_BETAS = {"beta_1": 0.5, "beta_2": 0.9}


@keras.saving.register_keras_serializable("tfvae")
class AdversarialTotalCorrelation(Stateful):
    """FactorVAE (Kim & Mnih, arXiv 1802.05983, equation 2): the ELBO - γ KL(q(z)‖Π q(z_d)), by a discriminator D.

    The divergence is E log D(z) / (1 - D(z)), the mean of D's logits. D learns in the same program: to say yes to draws
    z of the even rows of a batch, and no to those of the odd rows with each unit shuffled among them by itself, which
    are draws of the marginals (algorithm 2). Its weights are the model's, saved with it, but another optimiser moves
    them, the paper's Adam(1e-4, 0.5, 0.9), and the model's cannot. Rows that fill a batch are in neither half; sample
    weights do not matter to D. What K samples a row there are, D learns of the first.

    Args:
        latent_dim: Size of z.
        gamma: γ, 0 or more: a number, or a schedule of Keras's over the optimiser's steps.
        hidden: Units of D's layers.
        learning_rate: That of D's Adam.
        seed: Fixes D's initial weights.

    Raises:
        ValueError: For numbers out of range, or a model whose z has another size.

    Example:
        >>> objective = AdversarialTotalCorrelation(latent_dim=1, hidden=[4], gamma=0.0)
        >>> objective(terms).objective.numpy().tolist()  # the ELBO
        [2.0, 2.0]
    """

    _arguments = ("latent_dim", "gamma", "hidden", "learning_rate", "seed")

    def __init__(
        self,
        latent_dim: int,
        gamma: Schedule = 35.0,
        hidden: Sequence[int] = (1000,) * 6,
        learning_rate: float = 1e-4,
        seed: int = 0,
    ):
        check_latent_dim(latent_dim)
        check_schedule("gamma", gamma)
        check_number(0, is_open=True, learning_rate=learning_rate)
        check_whole(seed=seed)
        super().__init__()
        self.latent_dim, self.gamma, self.hidden = int(latent_dim), gamma, list(checked_shape("hidden", hidden))
        self.learning_rate, self.seed = float(learning_rate), int(seed)
        self._layers_of_d = self._made()
        self.optimizer = keras.optimizers.Adam(self.learning_rate, **_BETAS)
        self.optimizer.build(self.trainable_variables)

    def _made(self) -> list[tuple[Any, Any]]:
        """Kernel and bias of each layer."""
        sizes, made = [self.latent_dim, *self.hidden, 1], []
        for i, shape in enumerate(itertools.pairwise(sizes)):
            he = keras.initializers.HeUniform(seed=1000 * self.seed + i)
            kernel = self.add_weight(name=f"kernel_{i}", shape=shape, initializer=he)
            made.append((kernel, self.add_weight(name=f"bias_{i}", shape=shape[1:], initializer="zeros")))
        return made

    def logits(self, z: tf.Tensor, held: bool = False) -> tf.Tensor:
        """log D(z) / (1 - D(z)) of z ``[..., D]``, which estimates log q(z) / Π q(z_d); ``held`` stops D's gradient."""
        for i, layer in enumerate(self._layers_of_d):
            kernel, bias = (tf.stop_gradient(w.value) if held else w.value for w in layer)
            z = tf.tensordot(z if i == 0 else tf.nn.leaky_relu(z, _SLOPE), kernel, 1) + bias
        return z[..., 0]

    def __call__(self, terms: Terms) -> Estimate:
        """See ``AdversarialTotalCorrelation``."""
        z = self._checked(terms)
        bound = elbo(terms).bound
        gain = bound - at_step(self.gamma, terms.step) * tf.reduce_mean(self.logits(z, held=True), axis=0)
        return Estimate(bound, gain - self._loss(tf.stop_gradient(z[0]), terms), objective=gain)

    def _checked(self, terms: Terms) -> tf.Tensor:
        if len(terms.latents) > 1 or terms.z.shape[-1] != self.latent_dim:
            sizes = " and ".join(str(latent.z.shape[-1]) for latent in terms.latents)
            raise ValueError(f"z has {sizes} units, but the discriminator was made with latent_dim={self.latent_dim}.")
        return terms.z

    def _loss(self, z: tf.Tensor, terms: Terms) -> tf.Tensor:
        """D's cross-entropy, a scalar; 0 where a half has no rows."""
        counts = tf.cast(terms.row_weights > 0.0, tf.float32)
        (joint, of_joint), (others, of_others) = ((z[half::2], counts[half::2]) for half in (0, 1))
        seed = tf.constant([0, 0]) if terms.seed is None else terms.seed
        product, of_product = _shuffled(others, of_others, seed)
        right = _mean(tf.nn.softplus(-self.logits(joint)), of_joint)
        wrong = _mean(tf.nn.softplus(self.logits(product)), of_product)
        both = tf.cast((tf.reduce_sum(of_joint) > 0.0) & (tf.reduce_sum(of_others) > 0.0), tf.float32)
        return 0.5 * both * (right + wrong)


def _shuffled(z: tf.Tensor, counts: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """z ``[B, D]`` with each unit shuffled by itself among the rows that count; these come first. Their new counts."""
    keys = tf.random.stateless_uniform(tf.shape(z), seed) + 2.0 * (1.0 - counts)[:, tf.newaxis]
    order = tf.argsort(keys, axis=0)
    shuffled = tf.transpose(tf.gather(tf.transpose(z), tf.transpose(order), axis=1, batch_dims=1))
    return shuffled, tf.sort(counts, direction="DESCENDING")


def _mean(values: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(tf.reduce_sum(counts * values), tf.reduce_sum(counts))
