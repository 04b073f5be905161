"""The exemplar prior (Norouzi et al., Exemplar VAE, arXiv 2004.04795): a component at the code of each training row."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.arguments import check_at_least, check_room, found_by
from tfvae.families import draws
from tfvae.families.equal_normals import EqualNormals
from tfvae.priors.base import Encode, Prior

_LOWEST_SCALE = 1e-2  # below, distances of float32 do not tell components apart
_BLOCK = 4096  # exemplars at once
_ODD = -7046029254386353131  # 2^64 divided by the golden ratio, as int64


@keras.saving.register_keras_serializable("tfvae")
class ExemplarPrior(Prior):
    """p(z) = (1/N) Σ_n N(z; μ(x_n), σ² I): a component at the encoder's mean of each exemplar, σ learned.

    A row that is an exemplar itself would find its own code there. So a step of training leaves out, for each row, the
    exemplars that are equal to it, as ``fit`` takes them, before any noise: its own, and copies of it. It does so of
    ``num_drawn`` exemplars, drawn anew by each step and encoded as in inference; their mean density is the bound's, so
    that fewer make a lower bound. (The authors take those nearest to the row.) Outside of training all N count, and are
    encoded each time: ``held`` is the prior of a trained model that need not.

    A file of the model holds the exemplars. On a GPU distances are as exact as its matrix products, of TF32 by default:
    see ``tf.config.experimental.enable_tensor_float_32_execution``.

    Args:
        latent_dim: D.
        exemplars: N rows, ``[N, *x_shape]``, as ``fit`` takes them: all the training data, or some.
        num_drawn: Exemplars of a step of training; all, where there are fewer.
        name: Keras's.

    Raises:
        ValueError: For exemplars that are no rows, or all the same.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors
        >>> x = np.eye(8, dtype="float32")
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]),
        ...           prior=ExemplarPrior(2, x))
        >>> vae.compile()
        >>> history = vae.fit(x, verbose=0)
        >>> vae.with_prior(vae.prior.held()).sample(3, seed=0).shape
        (3, 8)
    """

    of_rows = True

    def __init__(self, latent_dim: int, exemplars: Any, num_drawn: int = 500, name: str = "prior"):
        super().__init__(latent_dim, name=name)
        check_at_least(2, num_drawn=num_drawn)
        self.num_drawn = int(num_drawn)
        self._encode: Encode | None = None
        rows = exemplars if isinstance(exemplars, keras.InputSpec) else _rows(exemplars)
        self.num_exemplars = int(rows.shape[0])
        settings = {"initializer": "zeros", "trainable": False}
        self.exemplars = self.add_weight(name="exemplars", shape=rows.shape, dtype=str(rows.dtype), **settings)
        self.raw_scale = self.add_weight(name="raw_scale", shape=(), initializer=_scale_of(1.0))
        if isinstance(rows, np.ndarray):
            if (rows == rows[0]).all():
                raise ValueError("The exemplars are all the same: leaving out a row's own would leave none.")
            self.exemplars.assign(rows)
            self.new_rows = rows

    @property
    def scale(self) -> tf.Tensor:
        """σ."""
        return _scale(self.raw_scale)

    def bind(self, encode: Encode) -> None:
        """See ``Prior.bind``."""
        self._encode = encode

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``.

        Raises:
            ValueError: Before a VAE has taken it as its prior.
        """
        return EqualNormals(self._means(tf.convert_to_tensor(self.exemplars.value)), self.scale)

    def in_training(
        self, condition: tf.Tensor | None, seed: tf.Tensor, rows: tf.Tensor | None = None
    ) -> tfd.Distribution:
        """See ``Prior.in_training``: without the exemplars that are equal to a row, of batch shape ``[B]`` then."""
        exemplars = tf.convert_to_tensor(self.exemplars.value)
        if self.num_drawn < self.num_exemplars:
            u = tfd.Normal(0.0, 1.0).cdf(families.standard_normal([self.num_drawn], seed))  # as in an XLA program
            drawn = tf.cast(u * self.num_exemplars, tf.int32)
            exemplars = tf.gather(exemplars, tf.minimum(drawn, self.num_exemplars - 1))
        if rows is not None and rows.dtype != exemplars.dtype:
            raise ValueError(
                f"The rows are {rows.dtype.name} and the exemplars {exemplars.dtype.name}, so that none would be known "
                "again: make the prior of rows as fit takes them."
            )
        own = None if rows is None else _keys(rows)[:, tf.newaxis] == _keys(exemplars)
        return EqualNormals(self._means(exemplars), self.scale, own)

    def _means(self, exemplars: tf.Tensor) -> tf.Tensor:
        if self._encode is None:
            raise ValueError("An ExemplarPrior is made of a model's encoder: pass it to VAE(prior=...), or call bind.")
        return draws.mean(self._encode(exemplars))

    def held(self) -> "HeldExemplars":
        """This prior as it is now, its means kept as numbers: the exemplars are neither encoded again nor in its files.

        Means and σ do not follow the encoder any more: take it for a model that has been trained.
        """
        prior = HeldExemplars(self.latent_dim, self.num_exemplars, name=self.name)
        parts = np.array_split(self.exemplars.numpy(), -(-self.num_exemplars // _BLOCK))
        prior.means.assign(np.concatenate([self._means(tf.constant(part)) for part in parts]))
        prior.raw_scale.assign(self.raw_scale)
        return prior

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "num_drawn", "name")
        kind = {"shape": list(self.exemplars.shape), "dtype": str(self.exemplars.dtype)}
        return {**{name: getattr(self, name) for name in names}, "exemplars": kind}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ExemplarPrior":
        """The exemplars themselves are weights."""
        return cls(**{**config, "exemplars": keras.InputSpec(**config["exemplars"])})


@keras.saving.register_keras_serializable("tfvae")
class HeldExemplars(Prior):
    """What ``ExemplarPrior.held`` gives: (1/N) Σ_n N(z; m_n, σ² I) with N means that stay as they are.

    Args:
        latent_dim: D.
        num_exemplars: N.
        name: Keras's.

    Example:
        >>> HeldExemplars(2, num_exemplars=5)().sample(3, seed=(0, 1)).shape
        TensorShape([3, 2])
    """

    def __init__(self, latent_dim: int, num_exemplars: int, name: str = "prior"):
        super().__init__(latent_dim, name=name)
        check_at_least(1, num_exemplars=num_exemplars)
        check_room("The exemplars", num_exemplars, self.latent_dim)
        self.num_exemplars = int(num_exemplars)
        shape = (self.num_exemplars, self.latent_dim)
        self.means = self.add_weight(name="means", shape=shape, initializer="zeros", trainable=False)
        self.raw_scale = self.add_weight(name="raw_scale", shape=(), initializer=_scale_of(1.0), trainable=False)

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``."""
        return EqualNormals(tf.convert_to_tensor(self.means.value), _scale(self.raw_scale))

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("latent_dim", "num_exemplars", "name")}


def _scale_of(scale: float) -> keras.initializers.Initializer:
    return keras.initializers.Constant(float(np.log(np.expm1(scale - _LOWEST_SCALE))))


def _scale(raw: keras.Variable) -> tf.Tensor:
    return _LOWEST_SCALE + tf.nn.softplus(tf.convert_to_tensor(raw.value))


def _rows(given: Any) -> np.ndarray:
    """As ``fit`` takes them: bytes, or float32."""
    expected = "2 rows or more as fit takes them, [N, *x_shape]"
    rows = found_by(np.asarray, "exemplars", given, expected)
    rows = (
        rows if rows.dtype == np.uint8 else found_by(lambda x: np.asarray(x, np.float32), "exemplars", given, expected)
    )
    if rows.ndim < 2 or len(rows) < 2:
        raise ValueError(f"exemplars has shape {rows.shape}, expected {expected}.")
    return rows


def _keys(rows: tf.Tensor) -> tf.Tensor:
    """A number for each row, int64 ``[B]``: of equal rows the same, of others but by a chance of 2^-60 another."""
    bits = tf.cast(rows, tf.int64) if rows.dtype == tf.uint8 else tf.cast(tf.bitcast(rows, tf.int32), tf.int64)
    bits = tf.reshape(bits, [tf.shape(rows)[0], int(np.prod(rows.shape[1:]))])
    mixed = bits * _ODD
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 31))
    factors = np.random.default_rng(0).integers(-(2**63), 2**63, bits.shape[1], np.int64)
    return tf.reduce_sum(mixed * factors, axis=1)
