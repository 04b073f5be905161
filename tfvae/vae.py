"""VAE: Auto-Encoding Variational Bayes (Kingma & Welling, arXiv 1312.6114) as a Keras model.

An encoder and a posterior layer make q(z|x), a decoder and a likelihood layer make p(x|z), a prior is p(z), and an
objective turns their terms into a bound on log p(x). The class composes these and owns nothing else: a variant of the
model is another argument, not a subclass.
"""

import functools
from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import batches, families, objectives, observations, posteriors, priors, replicas, training, xla
from tfvae.distribution_layer import DistributionLayer
from tfvae.objectives import Estimate, Terms

Objective = Callable[[Terms], Estimate]


@final
@keras.saving.register_keras_serializable("tfvae")
class VAE(training.UnsupervisedModel):
    """A variational autoencoder, trained with ``compile`` and ``fit``.

    Observations x are ``[N, *event_shape]``: float32, or uint8 pictures, which are divided by 255 inside the model
    (uint8 counts and indicators are taken as they are). There are no targets.

    Args:
        encoder: Keras layer or model, x -> features.
        decoder: Keras layer or model, z ``[B, D]`` -> features.
        posterior: DistributionLayer for q(z|x), event shape ``[D]``.
        likelihood: DistributionLayer for p(x|z), event shape that of one observation.
        prior: p(z); N(0, I) by default.
        objective: Terms -> Estimate, what ``fit`` maximises; ``objectives.elbo`` by default.
        num_samples: Samples of z for each row in ``fit`` and ``evaluate``, the paper's L.
        weight_prior: p(θ) on the generative weights, for a MAP estimate; none by default.
        binarize: Whether ``fit`` and ``evaluate`` draw each pixel of x as 0 or 1, with its intensity as probability,
            anew whenever they see a row (dynamic binarisation, arXiv 1509.00519, section 5). All else takes x as it is.
        seed: Fixes initial noise and shuffles; drawn from Keras's global seed by default.

    Raises:
        ValueError: If the parts do not fit each other.

    Example:
        >>> vae = VAE(
        ...     encoder=keras.layers.Dense(16, "tanh"),
        ...     decoder=keras.layers.Dense(16, "tanh"),
        ...     posterior=DistributionLayer("Normal", [2]),
        ...     likelihood=DistributionLayer("Bernoulli", [8]),
        ... )
        >>> vae.compile()
        >>> history = vae.fit(np.eye(8, dtype="float32"), epochs=2, verbose=0)
        >>> sorted(history.history)
        ['elbo', 'kl', 'log_likelihood', 'loss']
        >>> vae.embed(np.eye(8, dtype="float32")).shape
        (8, 2)
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        posterior: DistributionLayer,
        likelihood: DistributionLayer,
        prior: priors.Prior | None = None,
        objective: Objective | None = None,
        num_samples: int = 1,
        seed: int | None = None,
        weight_prior: priors.WeightPrior | None = None,
        binarize: bool = False,
        name: str = "vae",
    ):
        super().__init__(seed, name)
        _check_num_samples(num_samples)
        if binarize and (likelihood.facts is None or likelihood.facts.support is not families.facts.BINARY):
            raise ValueError(
                f"binarize=True makes pixels of 0 and 1, which a {likelihood.family.__name__} likelihood does not "
                "score: use likelihoods.bernoulli, or leave x as it is."
            )
        self.encoder, self.decoder = encoder, decoder
        self.posterior, self.likelihood = posterior, likelihood
        self.prior_layer = prior or priors.StandardNormal(posterior.event_shape[-1])
        self.objective = objective or objectives.elbo
        self.num_samples, self.weight_prior, self.binarize = int(num_samples), weight_prior, bool(binarize)
        self.build((None, *self.event_shape))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights by one pass over a row of zeros, and checks that the parts fit."""
        if self.built:
            return
        with tf.init_scope():
            q = self.posterior(self.encoder(tf.zeros([1, *self.event_shape])))
            posteriors.check_posterior(self.posterior, q)
            priors.check_prior(self.prior, q, self.posterior.family.__name__)
            self.likelihood(self.decoder(tf.zeros([1, self.latent_dim])))
        self.built = True

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self.likelihood.event_shape

    @property
    def latent_dim(self) -> int:
        """D, the length of z."""
        return self.posterior.event_shape[-1]

    @property
    def prior(self) -> tfd.Distribution:
        """p(z), event shape ``[D]``."""
        return self.prior_layer.distribution()

    def encode(self, x: Any, training: bool = False) -> tfd.Distribution:
        """q(z|x), batch shape ``[B]``, event shape ``[D]``, for x ``[B, *event_shape]``."""
        return self.posterior(self.encoder(self._floats(self.observations(x)), training=training))

    def decode(self, z: Any, training: bool = False) -> tfd.Distribution:
        """p(x|z), batch shape ``[..., B]``, for z ``[..., B, D]``."""
        z = tf.convert_to_tensor(z, tf.float32)
        if z.shape.rank < 2 or z.shape[-1] != self.latent_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}, expected [..., B, {self.latent_dim}].")
        features = self.decoder(tf.reshape(z, [-1, self.latent_dim]), training=training)
        if z.shape.rank != 2:
            features = tf.reshape(features, tf.concat([tf.shape(z)[:-1], tf.shape(features)[1:]], axis=0))
        return self.likelihood(features)

    def call(self, x: Any, training: bool = False) -> tf.Tensor:
        """The mean of p(x|z) at the mean of q(z|x), ``[B, *event_shape]``."""
        return self.decode(posteriors.mean(self.encode(x, training)), training).mean()

    def terms(self, x: Any, num_samples: int = 1, seed: tf.Tensor | None = None, training: bool = False) -> Terms:
        """The terms of the bound for x ``[B, *event_shape]``; see ``objectives.Terms``.

        ``seed`` is an int32 tensor ``[2]``; by default the next of the model's training or evaluation stream.
        """
        _check_num_samples(num_samples)
        seed = self.next_seed(training) if seed is None else seed
        q = self.encode(x, training)
        z, log_posterior = posteriors.draw(q, num_samples, seed)
        if not getattr(self.objective, "pathwise", True):
            return self.terms_at(x, q, tf.stop_gradient(z), training)
        return self.terms_at(x, q, z, training, log_posterior)

    def terms_at(
        self,
        x: Any,
        posterior: tfd.Distribution,
        z: tf.Tensor,
        training: bool = False,
        log_posterior: tf.Tensor | None = None,
    ) -> Terms:
        """The terms of the bound at given samples z ``[K, B, D]`` of the given q(z|x); see ``objectives.Terms``.

        ``log_posterior`` is log q(z|x) where it came with the draw.
        """
        log_likelihood = self.decode(z, training).log_prob(self._floats(self.observations(x)))
        log_prior = self.prior.log_prob(z)
        log_posterior = posterior.log_prob(z) if log_posterior is None else log_posterior
        kl = priors.closed_form_kl(posterior, self.prior)
        return Terms(
            z=z,
            log_likelihood=log_likelihood,
            log_prior=log_prior,
            log_posterior=log_posterior,
            kl=tf.reduce_mean(log_posterior - log_prior, axis=0) if kl is None else kl,
            kl_is_exact=kl is not None,
        )

    def elbo(self, x: Any, num_samples: int = 1, seed: tf.Tensor | None = None) -> tf.Tensor:
        """The evidence lower bound of each row, ``[B]``, nats (equation 7 where KL is exact, else 6)."""
        return objectives.elbo(self.terms(x, num_samples, seed)).bound

    def embed(self, x: Any, batch_size: int = 1024) -> np.ndarray:
        """Posterior means, NumPy ``[N, D]``, for x ``[N, *event_shape]`` of any length."""
        return self._map(self._embed, x, [self.latent_dim], batch_size)

    def reconstruct(self, x: Any, batch_size: int = 1024) -> np.ndarray:
        """The mean of p(x|z) at the posterior mean, NumPy ``[N, *event_shape]``."""
        return self._map(self._reconstruct, x, self.event_shape, batch_size)

    def sample(self, n: int, seed: int | None = None) -> np.ndarray:
        """n means of p(x|z) for z ~ p(z), NumPy ``[n, *event_shape]``; for drawn pixels, ``decode(z).sample()``."""
        key = self.next_seed(False) if seed is None else tf.constant([0, seed], tf.int32)
        return self.decode(self.prior.sample(n, seed=key)).mean().numpy()

    @functools.cached_property
    def _embed(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return xla.compiled_for(self, lambda x: posteriors.mean(self.encode(x)))

    @functools.cached_property
    def _reconstruct(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return xla.compiled_for(self, lambda x: self(x))

    def _map(self, function: Callable, x: Any, shape: Any, batch_size: int) -> np.ndarray:
        x = self.observations(x)
        if x.shape[0] == 0:
            return np.zeros([0, *shape], np.float32)
        return batches.map_rows(function, x, batch_size)

    def observations(self, x: Any) -> tf.Tensor:
        """x as a uint8 or float32 tensor ``[N, *event_shape]``, or a ValueError that says what came."""
        x = tf.convert_to_tensor(x)
        if x.shape.rank != len(self.event_shape) + 1 or not x.shape[1:].is_compatible_with(self.event_shape):
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (N, {', '.join(map(str, self.event_shape))}): reshape it, or "
                "give the likelihood another event_shape."
            )
        if not (x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool):
            raise ValueError(f"x has dtype {x.dtype.name}, expected uint8 or a float.")
        return x if x.dtype == tf.uint8 else tf.cast(x, tf.float32)

    def check_observations(self, x: tf.Tensor) -> None:
        """See ``observations.check``."""
        observations.check(self.likelihood, x)

    def _floats(self, x: tf.Tensor) -> tf.Tensor:
        if x.dtype != tf.uint8:
            return x
        return tf.cast(x, tf.float32) / observations.byte_scale(self.likelihood)

    def drawn_observations(self, x: tf.Tensor, seeds: Callable[[], tf.Tensor]) -> tf.Tensor:
        """What is learned from x: pixels of 0 and 1 where the VAE binarises, x itself where it does not."""
        return replicas.sample(families.Bernoulli(probs=self._floats(x)), seeds()) if self.binarize else x

    def batch_loss(self, x: tf.Tensor, weights: tf.Tensor, training: bool) -> tf.Tensor:
        """The mean negative surrogate plus the networks' own penalties; the metrics are updated on the way."""
        self._clear_losses()
        terms = self.terms(x, self.num_samples, training=training)
        estimate = self.objective(terms)
        penalty = self.penalty()
        self.update_metrics(terms, penalty - estimate.bound, weights)
        return penalty - tf.math.divide_no_nan(tf.reduce_sum(weights * estimate.surrogate), tf.reduce_sum(weights))

    def penalty(self) -> tf.Tensor:
        """What is added to the mean negative bound: the networks' regularisers and -log p(θ) / N."""
        penalties = [tf.cast(loss, tf.float32) for loss in self.losses]  # an activity's is of its layer's dtype
        if self.weight_prior is not None:
            penalties.append(-self.weight_prior(self.generative_weights))
        return tf.add_n(penalties) if penalties else tf.constant(0.0)

    @property
    def generative_weights(self) -> list[keras.Variable]:
        """θ: the trainable weights of p(x, z)."""
        return [w for part in (self.decoder, self.likelihood, self.prior_layer) for w in part.trainable_variables]

    @property
    def recognition_weights(self) -> list[keras.Variable]:
        """φ: the trainable weights of q(z|x)."""
        return [w for part in (self.encoder, self.posterior) for w in part.trainable_variables]

    def make_predict_function(self, force: bool = False) -> None:
        if self._distribute_strategy is not None or self.run_eagerly:
            super().make_predict_function(force)
        elif self.predict_function is None or force:
            self.predict_function = self._predict

    def _predict(self, inputs: list[Any]) -> tf.Tensor:
        xs = [self._stream_element(batch) for batch in inputs]
        return tf.concat([batches.map_rows(self._reconstruct, x, x.shape[0]) for x in xs], axis=0)

    def get_config(self) -> dict[str, Any]:
        parts = ("encoder", "decoder", "posterior", "likelihood", "prior_layer", "objective", "weight_prior")
        config = {part.removesuffix("_layer"): getattr(self, part) for part in parts}
        return {
            **{part: keras.saving.serialize_keras_object(value) for part, value in config.items()},
            "num_samples": self.num_samples,
            "binarize": self.binarize,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VAE":
        parts = ("encoder", "decoder", "posterior", "likelihood", "prior", "objective", "weight_prior")
        loaded = {part: keras.saving.deserialize_keras_object(config[part]) for part in parts if part in config}
        return cls(**{**config, **loaded})


def _check_num_samples(num_samples: int) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, received {num_samples}.")
