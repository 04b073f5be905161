"""VAE: Auto-Encoding Variational Bayes (Kingma & Welling, arXiv 1312.6114) as a Keras model.

An encoder and a posterior layer make q(z|x), a decoder and a likelihood layer make p(x|z), a prior is p(z), and an
objective turns their terms into a bound on log p(x). The class composes these and owns nothing else: a variant of the
model is another argument, not a subclass.
"""

import dataclasses
import functools
import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import divergences, families, networks, objectives, observations, posteriors, priors
from tfvae.arguments import check_at_least, check_kind, check_room, check_whole, checked_shape, refuse_unknown
from tfvae.distribution_layer import DistributionLayer
from tfvae.engine import batches, keras_private, overrides, programs, saving, scope, streams, xla
from tfvae.engine import model as engine
from tfvae.engine.map_rows import map_rows
from tfvae.engine.model import Loss
from tfvae.families import draws
from tfvae.mixed_layer import MixedLayer
from tfvae.models import imputation
from tfvae.models.path_weight import PathWeight
from tfvae.models.rows import Batch, RowShape, codes, with_condition
from tfvae.objectives import Estimate, Latent, Terms
from tfvae.priors.base import check_latent_dims, check_prior
from tfvae.priors.family import check_support

Objective = Callable[[Terms], Estimate]
# The constructor's arguments: those that Keras serialises, and those that JSON holds.
_PARTS = ("encoder", "decoder", "posterior", "likelihood", "prior", "objective", "weight_prior", "noise")
_GONE = "binarize=True is noise=tfvae.observations.Binarized() now."
_GIVEN = "given"  # x before noise, among the parts of a row
_PLAIN = ("num_samples", "condition_shape", "seed", "name")
_SET = ("objective", "noise", "weight_prior")  # parts whose settings a program holds as constants
_FIXED = {*_PARTS, *_PLAIN} - {"name"}
_OBJECTIVES = [name for name in objectives.__all__ if name not in ("Cyclic", "Estimate", "Latent", "Terms")]
_BOUND = "A bound of yours is an objective: VAE(..., objective=), a function of the terms of a batch."
_NEVER_CALLED = {"predict_step": "override call, which predict goes through"}
# What else than training calls them: a subclass that overrides one has changed that alone.
_NOT_TRAINED = {
    "call": "predict and reconstruct do; what is to be trained belongs into a network or a layer.",
    "encode": "embed and log_marginal do; what is to be trained belongs into the encoder or the posterior.",
    "terms": _BOUND,
    "elbo": _BOUND,
}
_DECODED = 8192  # of the rows of ``sample`` at once: a fraction of a second, after which Ctrl-C is heard


@final
@keras.saving.register_keras_serializable("tfvae")
class VAE(engine.UnsupervisedModel):
    """A variational autoencoder, trained with ``compile`` and ``fit``.

    Observations x are ``[N, *event_shape]``: float32, or uint8 pictures, which are divided by 255 inside the model
    (uint8 counts and indicators are taken as they are). There are no targets. Where a row is more than x, it is a
    mapping: ``{"x": x, "condition": c, "label": y}``. With ``condition_shape`` it has a condition, which the encoder
    and the decoder are given beside x and z, and the prior may take: the model is then of p(x|c). Labels are carried
    for models that learn from them; this one does not.

    Args:
        encoder: Keras layer or model, x -> features; with a condition ``[x, condition]`` -> features.
        decoder: Keras layer or model, z ``[B, D]`` -> features; with a condition ``[z, condition]`` -> features. A
            network that was built for one input alone is not given the condition.
        posterior: DistributionLayer for q(z|x), event shape ``[D]``.
        likelihood: DistributionLayer for p(x|z), event shape that of one observation; or ``likelihoods.mixed``. Numbers
            of x may be missing, as NaN, under ``likelihoods.missing``, which says what the encoder then sees.
        prior: p(z); N(0, I) by default.
        objective: Terms -> Estimate, what ``fit`` maximises; ``objectives.elbo`` by default.
        num_samples: Samples of z for each row in ``fit`` and ``evaluate``, the paper's L.
        weight_prior: p(θ) on the generative weights, for a MAP estimate; none by default.
        noise: What is drawn of x whenever a row is scored: ``observations.Binarized()`` or
            ``observations.Dequantized()``; nothing by default. ``fit`` and ``evaluate`` draw anew each time, ``elbo``
            and what ``evaluation`` says of log p(x) by their seed: their numbers are means over draws, as the field
            reports them. x that is 0 and 1 already stays so under ``Binarized``. Embeddings and reconstructions, and
            all that is asked of a batch, such as ``terms``, take x as it is.
        condition_shape: Shape of the condition of one row, ``[]`` for one number; None where there is no condition.
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

    reported = ("elbo", "log_likelihood", "kl")

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
        noise: observations.Noise | None = None,
        condition_shape: Sequence[int] | None = None,
        name: str = "vae",
        **gone: Any,
    ):
        super().__init__(seed, name)
        refuse_unknown(VAE, gone, _GONE if "binarize" in gone else "")
        _check_layers(encoder=encoder, decoder=decoder, posterior=posterior, likelihood=likelihood)
        check_at_least(1, num_samples=num_samples)
        _check_called(objective=objective, noise=noise, weight_prior=weight_prior)
        if noise is not None:
            noise.check(likelihood)
        self.condition_shape = None if condition_shape is None else checked_shape("condition_shape", condition_shape)
        self._rows = RowShape(likelihood.event_shape, self.condition_shape)
        self.encoder, self.decoder = encoder, decoder
        self.posterior, self.likelihood = posterior, likelihood
        self.prior = priors.StandardNormal(posterior.event_shape[-1]) if prior is None else prior
        _check_prior_is_one(self.prior)
        check_latent_dims(self.prior, self.latent_dim)
        self.objective = objectives.elbo if objective is None else objective
        self.num_samples, self.weight_prior, self.noise = int(num_samples), weight_prior, noise
        self.build((None, *self.event_shape))

    def __setattr__(self, name: str, value: Any) -> None:
        """A made model keeps its parts: its weights and programs are of those, and would go on as they were."""
        if name in _FIXED and getattr(self, "built", False):
            raise ValueError(
                f"{name} is a part of a model that is made, and stays: make another VAE with the same other parts, "
                "which keep their weights, or with_prior(prior)."
            )
        super().__setattr__(name, value)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights by one pass over a row of zeros, and checks that the parts fit."""
        if self.built:
            return
        with tf.init_scope():
            c = None if self.condition_shape is None else tf.zeros([1, *self.condition_shape])
            x, z = self.likelihood.seen(tf.zeros([1, *self.event_shape])), tf.zeros([1, self.latent_dim])
            likely = self._likely_mistake("encoder")
            features = _asked("encoder", "x", x, lambda: self._network(self.encoder, x, c), likely)
            _check_features(features)
            q = self.posterior(features)
            posteriors.check_posterior(self.posterior, q)
            self._check_new_rows()
            self.bind(self.prior)
            check_prior(_asked("prior", "z", z, lambda: self.prior(c)), q, self.posterior.family.__name__)
            check_support(self.prior, self.posterior)
            likely = self._likely_mistake("decoder")
            features = _asked("decoder", "z", z, lambda: self._network(self.decoder, z, c), likely)
            if not tf.is_tensor(features) or features.shape.rank < 2:
                raise ValueError(f"The decoder gives {_what(features)} for one z, expected features (1, ..., F).")
            self.likelihood(features)
        self.built = True

    def check_overrides(self) -> None:
        """See ``UnsupervisedModel.check_overrides``; what training alone does not call is warned of."""
        super().check_overrides()
        overrides.refuse(type(self), VAE, _NEVER_CALLED)
        overrides.warn(type(self), VAE, _NOT_TRAINED)

    def _likely_mistake(self, part: str) -> str:
        """What may have been meant where a network does not go with what the model gives it."""
        network, dim, size = getattr(self, part), math.prod(self.posterior.event_shape), math.prod(self.event_shape)
        if dim > size:
            return (
                f" The posterior is of {dim} numbers and the likelihood of {size}: are they swapped? The order is "
                "VAE(encoder, decoder, posterior, likelihood)."
            )
        if self.condition_shape is None:
            return ""
        if isinstance(network, networks.Conditional):
            return (
                " networks.Conditional lays a flattened input and the condition side by side: a network that needs the "
                "picture's shape is a Keras model of two inputs, as docs/howto/model.md has it."
            )
        return (
            f" The model has a condition, and gives its {part} two inputs: make it networks.Conditional(network), or a "
            "Keras model of two inputs."
        )

    def check_num_rows(self, count: int) -> None:
        """See ``UnsupervisedModel.check_num_rows``; the objective and the prior of the weights may have been told."""
        for part in (self.objective, self.weight_prior):
            warn_of_num_rows(part, count)

    def _check_new_rows(self) -> None:
        rows, self.prior.new_rows = self.prior.new_rows, None
        try:
            self.checked({"x": rows}) if rows is not None and self.condition_shape is None else None
        except ValueError as error:
            raise ValueError(f"The prior's exemplars are no rows of this model: {error}") from None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self.likelihood.event_shape

    @property
    def latent_dim(self) -> int:
        """D, the length of z."""
        return self.posterior.event_shape[-1]

    def bind(self, prior: priors.Prior) -> None:
        """Give a prior this model's encoder, with x ``[C, *event_shape]`` as floats, as in inference.

        Raises:
            ValueError: If the prior asks for it and the encoder needs a condition as well.
        """

        def encode(x: tf.Tensor) -> tfd.Distribution:
            if self.condition_shape is not None:
                raise ValueError(
                    f"A {type(prior).__name__} encodes inputs of its own, but this encoder needs a condition for each: "
                    "take another prior, such as priors.Mixture."
                )
            if isinstance(self.likelihood, MixedLayer) and not prior.of_rows:
                raise ValueError(
                    f"A {type(prior).__name__} learns rows of its own, but columns of several families hold numbers of "
                    "several kinds: take another prior, such as priors.Mixture."
                )
            return self.posterior(self.encoder(self.likelihood.seen(self._floats(x)), training=False))

        prior.bind(encode)

    def with_prior(self, prior: priors.Prior) -> "VAE":
        """This model with another prior, one that ``priors.fit`` has fitted, say; all other parts are the same ones."""
        same = {name: getattr(self, name) for name in (*_PARTS, *_PLAIN)}
        return VAE(**{**same, "prior": prior})

    def _network(self, network: Any, first: tf.Tensor, condition: tf.Tensor | None, training: bool = False) -> Any:
        """The features of x or z, and of the condition where there is one and the network takes two inputs."""
        if condition is None or len(getattr(network, "inputs", None) or (first, condition)) == 1:
            return network(first, training=training)
        return network([first, condition], training=training)

    def _features(self, batch: Batch, training: bool) -> tf.Tensor:
        return self._network(self.encoder, self.likelihood.seen(batch.x), batch.condition, training)

    def encode(self, x: Any, condition: Any = None, training: bool = False) -> tfd.Distribution:
        """q(z|x), batch shape ``[B]``, event shape ``[D]``, for x ``[B, *event_shape]`` or a row's parts by name."""
        return self.posterior(self._features(self.batch(with_condition(x, condition)), training))

    def decode(self, z: Any, condition: Any = None, training: bool = False, library: Any = None) -> tfd.Distribution:
        """p(x|z), batch shape ``[..., B]``, for z ``[..., B, D]`` and a condition ``[B, *condition_shape]``.

        ``library`` ``[B]`` is the total count of each row, for ``likelihoods.library_counts``: without it a row is
        scored by its own total, and means and draws are of a total of 1, which is to say shares.
        """
        z = codes(z)
        if z.shape.rank < 2 or z.shape[-1] != self.latent_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}, expected [..., B, {self.latent_dim}].")
        condition = self._condition(condition, z.shape[-2])
        if condition is not None:
            size = list(condition.shape[1:])
            shape = tf.concat([tf.shape(z)[:-1], size], axis=0)
            condition = tf.reshape(tf.broadcast_to(condition, shape), [-1, *size])
        features = self._network(self.decoder, tf.reshape(z, [-1, self.latent_dim]), condition, training)
        if z.shape.rank != 2:
            features = tf.reshape(features, tf.concat([tf.shape(z)[:-1], tf.shape(features)[1:]], axis=0))
        p = self.likelihood(features)
        return p if library is None else families.with_library(p, self._library(library, z.shape[:-1]))

    def _condition(self, given: Any, count: int) -> tf.Tensor | None:
        """The condition of z's rows; what a user gives is judged as ``fit`` does, what a program has was judged."""
        condition = self._rows.condition(given, count)
        if condition is not None and not tf.is_tensor(given):
            _judge_parts(*_broken_parts({"condition": condition}).numpy())
        return condition

    def _library(self, library: Any, batch: Sequence[int]) -> tf.Tensor:
        if not self.likelihood.of_library:
            raise ValueError(
                f"A library came, but a {self.likelihood.family.__name__} likelihood has none: leave it out, or take "
                "likelihoods.library_counts."
            )
        return self._rows.library(library, batch)

    @keras_private.in_own_words
    def call(self, x: Any, training: bool = False) -> tf.Tensor:
        """The mean of p(x|z) at the mean of q(z|x), ``[B, *event_shape]``."""
        batch = self.batch(x)
        z = draws.mean(self.posterior(self._features(batch, training)))
        return draws.mean(families.with_library_of(self.decode(z, batch.condition, training), batch.x))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Keras's: of a reconstruction, ``(N, *event_shape)``, for the shape of x or those of a row's parts by name."""
        given: Any = input_shape.get("x") if isinstance(input_shape, Mapping) else input_shape
        is_shape = isinstance(given, (tuple, list)) and len(given) > 0
        if not is_shape or tuple(given[1:]) != self.event_shape:
            expected = (None, *self.event_shape)
            raise ValueError(f"input_shape is {input_shape!r:.80}, expected {expected}, the shape of x.")
        return (given[0], *self.event_shape)

    def terms(
        self,
        x: Any,
        num_samples: int = 1,
        seed: int | tf.Tensor | None = None,
        training: bool = False,
        weights: tf.Tensor | None = None,
        step: tf.Tensor | None = None,
    ) -> Terms:
        """The terms of the bound for rows as ``fit`` takes them, a batch; see ``objectives.Terms``.

        ``seed`` is a whole number or int32 ``[2]``; by default the next of the model's training or evaluation stream.
        ``weights`` ``[B]`` and ``step`` are for objectives that ask for them: ones and 0 by default.
        """
        return self._path_weighted_terms(x, num_samples, seed, training, weights, step)[0]

    def _path_weighted_terms(
        self,
        x: Any,
        num_samples: int,
        seed: int | tf.Tensor | None,
        training: bool,
        weights: tf.Tensor | None,
        step: tf.Tensor | None,
    ) -> tuple[Terms, PathWeight]:
        check_at_least(1, num_samples=num_samples)
        seed = self.seed_or_next(seed, training)
        batch, path = self.batch(x), PathWeight()
        check_room("The samples of a batch", num_samples, *(size or 1 for size in batch.x.shape))
        features = self._features(batch, training)
        if isinstance(self.posterior, DistributionLayer):
            q, held = self.posterior.with_held(features)
        else:
            q, held = self.posterior(features), None
        z, log_posterior = posteriors.draw(q, num_samples, seed)
        prior = self.prior_of_step(batch, seed, training)
        terms = self.terms_at(batch, q, path.of(z), training, log_posterior, prior)
        latents = (dataclasses.replace(terms.latents[0], held=held),)
        weights = tf.ones(tf.shape(batch.x)[:1]) if weights is None else weights
        step = tf.constant(0) if step is None else step
        more = {"weights": weights, "step": step, "seed": _folded(seed, 1), "training": training}
        return dataclasses.replace(terms, latents=latents, **more), path

    def terms_at(
        self,
        x: Any,
        posterior: tfd.Distribution,
        z: tf.Tensor,
        training: bool = False,
        log_posterior: tf.Tensor | None = None,
        prior: tfd.Distribution | None = None,
    ) -> Terms:
        """The terms of the bound at given samples z ``[K, B, D]`` of the given q(z|x); see ``objectives.Terms``.

        ``log_posterior`` is log q(z|x) where it came with the draw; ``prior`` is p(z) where it is known.
        """
        batch = self.batch(x)
        prior = self.prior(batch.condition) if prior is None else prior
        log_likelihood = self.decode(z, batch.condition, training).log_prob(batch.x)
        log_prior = prior.log_prob(z)
        log_posterior = posterior.log_prob(z) if log_posterior is None else log_posterior
        kl = divergences.closed_form_kl(posterior, prior)
        latent = Latent(
            z=z,
            posterior=posterior,
            prior=prior,
            log_posterior=log_posterior,
            log_prior=log_prior,
            kl=tf.reduce_mean(log_posterior - log_prior, axis=0) if kl is None else kl,
            kl_is_exact=kl is not None,
        )
        return Terms((latent,), log_likelihood)

    def prior_of_step(self, batch: Batch, seed: tf.Tensor, training: bool = True) -> tfd.Distribution:
        """p(z) for a batch; in training as ``Prior.in_training`` has it, with draws of its own by the seed."""
        if not training:
            return self.prior(batch.condition)
        known = {"rows": batch.given} if self.prior.of_rows else {}
        return self.prior.in_training(batch.condition, _folded(seed, 2), **known)

    def log_weights(
        self, x: Any, num_samples: int, seed: int | tf.Tensor, posterior: tfd.Distribution | None = None
    ) -> tf.Tensor:
        """log w = log p(x, z) - log q(z|x) of samples z ~ q(z|x), ``[K, B]``, nats, for a batch of rows.

        ``posterior`` is q(z|x) where it is known: who draws of the same rows again need not encode them again.
        """
        check_at_least(1, num_samples=num_samples)
        batch, seed = self.batch(x), self.seed_or_next(seed)
        z, log_posterior = posteriors.draw(self.encode(batch) if posterior is None else posterior, num_samples, seed)
        return self.log_joint(batch, z) - log_posterior

    def log_joint(self, x: Any, z: tf.Tensor) -> tf.Tensor:
        """log p(x, z) = log p(x|z) + log p(z), ``[..., B]``, nats, for z ``[..., B, D]`` and a batch of rows."""
        batch = self.batch(x)
        return self.decode(z, batch.condition).log_prob(batch.x) + self.prior(batch.condition).log_prob(z)

    def elbo(self, x: Any, num_samples: int = 1, seed: int | tf.Tensor | None = None) -> tf.Tensor:
        """The evidence lower bound of each row, ``[B]``, nats (equation 7 where KL is exact, else 6).

        Of x with the model's ``noise``, where it has one; the seed fixes that too.
        """
        seed = self.seed_or_next(seed)
        batch = self._batch(self.drawn(self.checked(x), seed))
        return objectives.elbo(self.terms(batch, num_samples, seed)).bound

    def embed(self, x: Any, batch_size: int = 1024) -> np.ndarray:
        """Posterior means, NumPy ``[N, D]``, for any number of rows, given as to ``fit``.

        Where a mean has no formula, as that of a flow, it is that of 100 fixed draws: the same for a row each time, and
        about 0.01 of the posterior's deviation from the truth; see ``families.draws.mean``.
        """
        scope.refuse_programs("embed")
        return self.of_numbers(self._map(self._embed, x, [self.latent_dim], batch_size), refused=True)

    def reconstruct(self, x: Any, batch_size: int = 1024) -> np.ndarray:
        """The mean of p(x|z) at the posterior mean, NumPy ``[N, *event_shape]``, for rows given as to ``fit``.

        Of classes, grades and rankings the likeliest: their numbers have no meaningful mean.
        """
        scope.refuse_programs("reconstruct")
        return self.of_numbers(self._map(self._reconstruct, x, self.event_shape, batch_size))

    def sample(self, n: int, seed: int | None = None, condition: Any = None, library: Any = None) -> np.ndarray:
        """n means of p(x|z) for z ~ p(z), NumPy ``[n, *event_shape]``; for drawn pixels, ``decode(z).sample()``.

        Classes, grades and rankings are the likeliest given z, as in ``reconstruct``.
        ``condition`` is ``[n, *condition_shape]``, where the model has one; ``library`` as in ``decode``.
        """
        scope.refuse_programs("sample")
        check_at_least(0, n=n)
        check_room("The samples", n, max(self.latent_dim, math.prod(self.event_shape)))
        key = self.seed_or_next(seed)
        given = self._condition(condition, n)
        prior = self.prior(given)
        z = prior.sample(n, seed=key) if prior.batch_shape.rank == 0 else prior.sample(seed=key)
        if library is not None:
            library = tf.broadcast_to(self._library(library, [n]), [n, *self.event_shape[:-1]])

        def decoded(start: int) -> np.ndarray:
            some = slice(start, start + _DECODED)
            parts = [None if part is None else part[some] for part in (z, given, library)]
            return draws.mean(self.decode(parts[0], parts[1], library=parts[2])).numpy()

        return self.of_numbers(np.concatenate([decoded(start) for start in range(0, max(n, 1), _DECODED)]))

    def impute(self, x: Any, num_samples: int = 1000, seed: int = 0, num_draws: int = 0) -> imputation.Imputation:
        """What is missing of each row, given what is there: expected values, and draws if wanted; see ``Imputation``.

        K = ``num_samples`` of z ~ q(z|x) are weighted by w = p(x, z) / q(z|x), x being what is there. The expected
        value of a missing number is Σ w E[x|z] / Σ w (Mattei & Frellsen, arXiv 1812.02633, equation 7); each of
        ``num_draws`` takes one z by its weight and draws of p(x|z) (sampling importance resampling). Both are of
        p(x missing | x there) as K grows, and the effective sample size says how near.

        ``seed`` fixes what is drawn for the same rows, given together: as in ``draws`` and ``evaluation``, a row has
        other draws in another batch.

        Raises:
            ValueError: If the likelihood leaves nothing out.
        """
        scope.refuse_programs("impute")
        check_at_least(1, num_samples=num_samples)
        check_at_least(0, num_draws=num_draws)
        check_whole(seed=seed)
        return imputation.impute(self, self.checked(x), int(num_samples), int(seed), int(num_draws))

    def draws(self, x: Any, seed: int = 0, batch_size: int = 1024) -> np.ndarray:
        """A draw of q(z|x) for each row, NumPy ``[N, D]``, for rows given as to ``fit``.

        ``seed`` fixes the draws for the same rows and ``batch_size``: each batch has a seed of its own.
        """
        scope.refuse_programs("draws")
        check_whole(seed=seed)
        done = 0

        def one_batch(rows: Any) -> tf.Tensor:
            nonlocal done
            done += 1
            return self._draw(rows, tf.constant([seed, done], tf.int32))

        return self.of_numbers(self._map(one_batch, x, [self.latent_dim], batch_size), refused=True)

    @functools.cached_property
    def _embed(self) -> Callable[[Any], tf.Tensor]:
        return xla.compiled_where_it_pays(self, lambda x: draws.mean(self.encode(x)))

    @functools.cached_property
    def _draw(self) -> Callable[[Any, tf.Tensor], tf.Tensor]:
        return xla.compiled_where_it_pays(self, lambda x, seed: posteriors.draw(self.encode(x), 1, seed)[0][0])

    @functools.cached_property
    def _reconstruct(self) -> Callable[[Any], tf.Tensor]:
        return xla.compiled_where_it_pays(self, lambda x: self(x))

    def forget_programs(self) -> None:
        """See ``UnsupervisedModel.forget_programs``."""
        for name in ("_embed", "_draw", "_reconstruct"):
            self.__dict__.pop(name, None)
        programs.forget(self)

    def _map(self, function: Callable, x: Any, shape: Any, batch_size: int) -> np.ndarray:
        check_at_least(1, batch_size=batch_size)
        if self.is_stream(x):
            rows = (self.checked_element(batch).inputs for batch in streams.elements(x))
            parts = [self._through(function, batch, shape, batch_size) for batch in rows]
            return np.concatenate([np.zeros([0, *shape], np.float32), *parts])
        return self._through(function, self.checked(x), shape, batch_size)

    def _through(self, function: Callable, rows: dict[str, tf.Tensor], shape: Any, batch_size: int) -> np.ndarray:
        if batches.num_rows(rows) == 0:
            return np.zeros([0, *shape], np.float32)
        return map_rows(function, rows, batch_size)

    def prepare(self, inputs: Any) -> dict[str, tf.Tensor]:
        """A row's parts by name, as tensors ``[N, ...]`` of the model's shapes; a ValueError says what else came."""
        rows = self._rows.prepare(inputs)
        given = inputs["x"] if batches.in_parts(inputs) else inputs
        if hasattr(given, "dtypes") and rows["x"].dtype == tf.uint8 and observations.is_picture(self.likelihood):
            raise ValueError(
                "x is a table whose columns are all uint8. Pass .to_numpy() of it where they are pixels, which the "
                "model divides by 255, or .astype('float32') where they are numbers."
            )
        return rows

    def batch(self, rows: Any) -> Batch:
        """Rows as the networks see them; outside of a program, once their values are those that the model scores."""
        if isinstance(rows, Batch):
            return rows
        if isinstance(rows, Mapping) and _GIVEN in rows:
            others = {name: part for name, part in rows.items() if name != _GIVEN}
            return self.batch(others)._replace(given=rows[_GIVEN])
        return self._batch(self.checked(rows))

    def _batch(self, prepared: dict[str, tf.Tensor]) -> Batch:
        return Batch(**{_GIVEN: prepared["x"], **prepared, "x": self._floats(prepared["x"])})

    def check(self, inputs: dict[str, tf.Tensor]) -> None:
        """See ``UnsupervisedModel.check`` and ``observations.check``."""
        observations.check(self.likelihood, inputs["x"])
        _judge_parts(*_broken_parts(inputs).numpy())

    def measure(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """See ``UnsupervisedModel.measure`` and ``observations.extent``."""
        return tf.concat([observations.measured(self.likelihood, inputs["x"]), _broken_parts(inputs)], axis=0)

    def judge(self, measured: np.ndarray) -> None:
        """See ``UnsupervisedModel.judge`` and ``observations.complaint``."""
        *extent, condition, label = measured.tolist()
        problem = observations.complaint(self.likelihood, extent)
        if problem is not None:
            raise ValueError(problem)
        _judge_parts(condition, label)

    def checked(self, x: Any) -> dict[str, tf.Tensor]:
        """Rows as ``prepare`` gives them, once their values are those that the model scores.

        Of a stream, the rows of all its batches. Inside a program, where values are not known yet, they are taken at
        their word.
        """
        if self.is_stream(x):
            parts = [self.checked_element(batch).inputs for batch in streams.elements(x)]
            if not parts:
                raise ValueError("x has no rows: the stream gives no batch.")
            return tf.nest.map_structure(lambda *leaves: tf.concat(leaves, axis=0), *parts)
        rows = self.prepare(x)
        if tf.executing_eagerly():
            self.check(rows)
        return rows

    def _floats(self, x: tf.Tensor) -> tf.Tensor:
        if x.dtype != tf.uint8:
            return x
        return tf.cast(x, tf.float32) / observations.byte_scale(self.likelihood)

    def with_noise(self, inputs: dict[str, tf.Tensor], seeds: Callable[[], tf.Tensor]) -> dict[str, tf.Tensor]:
        """Prepared rows as ``fit`` learns from them: x with the model's noise, from the next of ``seeds``."""
        if self.noise is None:
            return inputs
        x = self._floats(inputs["x"])
        drawn = self.noise(x, seeds())
        known = {_GIVEN: inputs["x"]} if self.prior.of_rows else {}
        drawn = tf.where(self.likelihood.holes(x), x, drawn) if self.likelihood.missing else drawn
        return {**inputs, **known, "x": drawn}

    def drawn(self, inputs: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Prepared rows with the model's noise, by another seed than that of the z that ``seed`` is for."""
        return self.with_noise(inputs, lambda: _folded(seed, tf.int32.max))

    def batch_loss(self, inputs: dict[str, tf.Tensor], weights: tf.Tensor, training: bool) -> Loss:
        """The negative objective of each row, and the networks' own penalties."""
        drawn = self.with_noise(inputs, lambda: self.next_seed(training))
        step = tf.convert_to_tensor(self.optimizer.iterations) if self.compiled else None
        return self.loss_of_draw(drawn, weights, None, training, step)

    def loss_of_draw(
        self,
        inputs: dict[str, tf.Tensor],
        weights: tf.Tensor,
        seed: tf.Tensor | None,
        training: bool,
        step: tf.Tensor | None,
    ) -> Loss:
        """``batch_loss`` of rows that have their noise, with the seed of z and the step that schedules see."""
        terms, path = self._path_weighted_terms(inputs, self.num_samples, seed, training, weights, step)
        estimate = _checked_estimate(self.objective(terms), terms)
        path.weight = estimate.path_weight
        value = estimate.bound if estimate.objective is None else estimate.objective
        gain = engine.with_gradient_of(value, estimate.surrogate)
        return Loss(-gain, self.penalty(), report(terms))

    def why_no_number(self, validation: bool = False) -> str:
        """See ``UnsupervisedModel.why_no_number``; beyond an end that is learned x has no density."""
        for part in getattr(self.likelihood, "parts", [self.likelihood]):
            if ends := getattr(part, "learned_ends", []):
                name = part.family.__name__
                fixed = ", ".join(f"{end}=..." for end in ends)
                return (
                    f"{name} learns its {' and '.join(ends)}, beyond which x has no density: where x lies there at the "
                    "start, nothing pulls them back. Fix what is an end of x: "
                    f"DistributionLayer({name!r}, {list(part.event_shape)}, {fixed})."
                )
        return super().why_no_number(validation)

    def penalty(self) -> tf.Tensor:
        """What is added to the mean negative bound: the networks' regularisers and -log p(θ) / N."""
        penalties = [tf.cast(loss, tf.float32) for loss in self.losses]  # an activity's is of its layer's dtype
        if self.weight_prior is not None:
            penalties.append(-self.weight_prior(self.generative_weights))
        return tf.add_n(penalties) if penalties else tf.constant(0.0)

    @property
    def updates(self) -> list[tuple[keras.optimizers.Optimizer, list[keras.Variable]]]:
        """See ``UnsupervisedModel``; an objective that has an optimiser trains its own weights by that."""
        optimizer = getattr(self.objective, "optimizer", None)
        if optimizer is None:
            return super().updates
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                f"{type(self.objective).__name__} has an optimiser of its own, which takes no scaled loss: let the "
                "layers compute in float32 or bfloat16."
            )
        its = self.objective.trainable_variables  # type: ignore[union-attr]
        others = {id(weight) for weight in its}
        return [(self.optimizer, [w for w in self.trainable_variables if id(w) not in others]), (optimizer, its)]

    @property
    def generative_weights(self) -> list[keras.Variable]:
        """θ: the trainable weights of p(x, z)."""
        return [w for part in (self.decoder, self.likelihood, self.prior) for w in part.trainable_variables]

    @property
    def recognition_weights(self) -> list[keras.Variable]:
        """φ: the trainable weights of q(z|x)."""
        return [w for part in (self.encoder, self.posterior) for w in part.trainable_variables]

    def set_parts(self) -> dict[str, Any]:
        """See ``UnsupervisedModel.set_parts``."""
        return {part: getattr(self, part) for part in _SET}

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        **unknown: Any,
    ) -> np.ndarray:
        """Keras's ``predict``: ``reconstruct`` of rows given as to ``fit``."""
        more = {"batch_size": batch_size, "verbose": verbose, "steps": steps, "callbacks": callbacks, **unknown}
        overrides.refuse(type(self), VAE, _NEVER_CALLED)
        if not self.is_stream(x):
            x = self.prepare(x) if keras_private.strategy(self) is None else self.checked(x)
            if batches.num_rows(x) == 0:
                return np.zeros([0, *self.event_shape], np.float32)
            return super().predict(x, **more)
        if self._keras_predicts:
            more["steps"] = steps or batches.steps_in_an_epoch(x, 1)
            rows = (self.checked_element(batch).inputs for batch in streams.elements(x))
            if (first := next(rows, None)) is None:
                return np.zeros([0, *self.event_shape], np.float32)
            x = (one for one in itertools.chain([first], rows))
        self._has_predicted = self._keras_predicts
        try:
            with streams.reading(x) as x:
                return super().predict(x, **more)
        except UnboundLocalError:  # Keras puts its answer together of batches, without asking whether there were any
            if self._has_predicted:
                raise
            return np.zeros([0, *self.event_shape], np.float32)

    @property
    def _keras_predicts(self) -> bool:
        """Whether batches go through Keras's own step, over replicas or as plain Python."""
        return keras_private.strategy(self) is not None or self.run_eagerly

    def make_predict_function(self, force: bool = False) -> None:
        if self._keras_predicts:
            super().make_predict_function(force)
        elif self.predict_function is None or force:
            self.predict_function = self._predict

    def _predict(self, inputs: list[Any]) -> tf.Tensor:
        self._has_predicted = True
        rows = [self.checked_element(batch).inputs for batch in inputs]
        return tf.concat(
            [self._through(self._reconstruct, one, self.event_shape, len(one["x"])) for one in rows], axis=0
        )

    def get_config(self) -> dict[str, Any]:
        saving.refuse_h5()
        return {
            **{part: keras.saving.serialize_keras_object(getattr(self, part)) for part in _PARTS},
            **{name: getattr(self, name) for name in _PLAIN},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VAE":
        check_kind("config", config, Mapping, "a mapping as get_config gives it")
        config = dict(config)
        if lacking := [part for part in _PARTS[:4] if part not in config]:
            raise ValueError(f"config has no {', '.join(lacking)}, expected a mapping as get_config gives it.")
        if config.pop("binarize", False):  # as files of 0.1 have it
            config["noise"] = keras.saving.serialize_keras_object(observations.Binarized())
        loaded = {part: keras.saving.deserialize_keras_object(config[part]) for part in _PARTS if part in config}
        return cls(**{**config, **loaded})


def report(terms: Terms) -> dict[str, tf.Tensor]:
    """What every history of a bound has: ELBO, log p(x|z) and KL of each row, ``[B]``, nats."""
    log_likelihood = tf.reduce_mean(terms.log_likelihood, axis=0)
    return {"elbo": objectives.elbo(terms).bound, "log_likelihood": log_likelihood, "kl": terms.kl}


def _folded(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)


def _broken_parts(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """``[2]``: 1 where the condition has a NaN, and where a label is no class; else 0."""
    broken, label = [tf.constant(False)] * 2, inputs.get("label")
    if "condition" in inputs:
        broken[0] = ~tf.reduce_all(tf.math.is_finite(inputs["condition"]))
    if label is not None:
        broken[1] = tf.reduce_any((label < -1) | (label == label.dtype.max))  # where a larger one was cut off
    return tf.cast(tf.stack(broken), tf.float32)


def _judge_parts(condition: float, label: float) -> None:
    if condition:
        raise ValueError("condition holds NaN or infinite values: remove or repair those rows.")
    if label:
        raise ValueError("label holds numbers that are no class: expected 0, 1, 2, ..., and -1 where it is unknown.")


def warn_of_num_rows(part: Any, count: int) -> None:
    """Warns of a part of a model that was told of another number of rows than ``fit`` has."""
    told = getattr(part, "num_rows", count)
    if told != count:
        name = type(part).__name__
        warnings.warn(
            f"{name} has num_rows={told}, but fit has {count} rows to train on: what it weighs is of {told}. "
            f"Make it {name}(num_rows={count}), unless these are a part of the training data.",
            stacklevel=4,
        )


def check_vae(vae: Any) -> None:
    """Raise ValueError unless it is a VAE, for whoever takes one.

    Example:
        >>> check_vae("mnist.keras")
        Traceback (most recent call last):
        ValueError: vae is 'mnist.keras', expected a tfvae.VAE: one of a file is keras.saving.load_model(path).
    """
    check_kind("vae", vae, VAE, "a tfvae.VAE: one of a file is keras.saving.load_model(path)")
    scope.refuse_programs("What is asked of vae")


def _check_prior_is_one(prior: Any) -> None:
    if not isinstance(prior, priors.Prior):
        raise ValueError(
            f"The prior is a {type(prior).__name__}, expected one of priors, such as priors.StandardNormal(2) or "
            'priors.Family("Normal", [2], loc=0.0, scale=1.0).'
        )


def _check_layers(**parts: Any) -> None:
    for name, part in parts.items():
        if not isinstance(part, keras.layers.Layer):
            mend = "networks.mlp([500])" if name in ("encoder", "decoder") else 'DistributionLayer("Normal", [2])'
            raise ValueError(f"The {name} is {part!r}, expected a Keras layer or model, such as tfvae.{mend}.")
        if name in ("posterior", "likelihood") and not isinstance(part, (DistributionLayer, MixedLayer)):
            raise ValueError(
                f"The {name} is a {type(part).__name__}, a layer that says nothing of a family, expected a "
                "tfvae.DistributionLayer or a class derived from it: a family of yours is one's first argument, see "
                "families.register."
            )


def _check_called(**parts: Any) -> None:
    examples = {
        "objective": "objectives.elbo",
        "noise": "observations.Binarized()",
        "weight_prior": "priors.WeightPrior(num_rows)",
    }
    for name, part in parts.items():
        if isinstance(part, type):
            one = part.__name__
            raise ValueError(f"The {name} is the class {one}, expected an object of it: {one}(...).")
        if part is not None and not callable(part):
            also = f"; there are {', '.join(_OBJECTIVES)}" if name == "objective" else ""
            raise ValueError(
                f"The {name} is {part!r}, expected a function or an object, such as {examples[name]}{also}."
            )


def _asked(part: str, name: str, given: tf.Tensor, ask: Callable[[], Any], likely: str = "") -> Any:
    """What a part answers to a row, or a sentence with what it, or Keras, says against it, and what is likely."""
    try:
        return ask()
    except Exception as error:  # whatever a user's own network raises
        lines = [re.sub("\x1b\\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
        why = next((line for line in lines if line and not line.startswith("Exception encountered")), "")
        why = why if isinstance(error, ValueError) and why else f"{type(error).__name__}: {why}"
        why = f"{why.removesuffix('.')}.{likely}" if likely else why
        raise ValueError(f"The {part} does not go with {name} of shape {tuple(given.shape)}, one row: {why}") from error


def _what(features: Any) -> str:
    return f"features of shape {tuple(features.shape)}" if tf.is_tensor(features) else f"a {type(features).__name__}"


def _check_features(features: Any) -> None:
    if not tf.is_tensor(features):
        raise ValueError(f"The encoder gives {_what(features)} for one row, expected a tensor of features (1, F).")
    if features.shape.rank != 2:
        raise ValueError(
            f"The encoder gives features of shape {tuple(features.shape)} for one row, expected (1, F): let it end, or "
            "begin, with keras.layers.Flatten()."
        )


def _checked_estimate(estimate: Any, terms: Terms) -> Estimate:
    if not isinstance(estimate, Estimate):
        raise ValueError(
            f"The objective returned a {type(estimate).__name__}, expected objectives.Estimate(bound, surrogate), each "
            "of one number a row, in nats."
        )
    rows = terms.log_likelihood.shape[1:]
    for name in ("bound", "surrogate", "objective"):
        value = getattr(estimate, name)
        if value is not None and not tf.convert_to_tensor(value).shape.is_compatible_with(rows):
            raise ValueError(
                f"The objective's {name} has shape {tuple(value.shape)}, expected {tuple(rows)}: one number a row, of "
                "which the model takes the mean itself."
            )
    return estimate
