"""A VAE of which every number is known: p(z) = N(0, I), p(x|z, c) = N(z W + c A + b, s² I), q(z|x, c) normal."""

import dataclasses

import keras
import numpy as np
import scipy.stats

from tfvae import VAE, DistributionLayer

SCALE = 0.7
LOC = np.array([0.3, -0.2, 0.1, 0.5])
# With orthogonal rows p(z|x) has a diagonal covariance, so that a diagonal q can be exact.
W = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, -1.5]])
A = np.array([[0.5, -1.0, 2.0, 0.0], [1.5, 0.3, 0.0, -0.7], [0.0, 0.4, -0.6, 1.0]])


def two_inputs(first: int, condition: int, units: int | None = None) -> keras.Model:
    """[x, c] or [z, c] side by side, through a layer of ``units`` where they are given."""
    inputs = [keras.Input([first]), keras.Input([condition])]
    joined = keras.layers.Concatenate()(inputs)
    return keras.Model(inputs, joined if units is None else keras.layers.Dense(units, "tanh")(joined))


@dataclasses.dataclass(frozen=True)
class Exact:
    """What is known of the model with a condition, or with none."""

    conditional: bool

    def mean(self, c: np.ndarray | None) -> np.ndarray:
        return LOC + c @ A if self.conditional else LOC

    def log_marginal(self, x: np.ndarray, c: np.ndarray | None = None) -> np.ndarray:
        """log p(x|c), ``[N]``."""
        covariance = W.T @ W + SCALE**2 * np.eye(4)
        return scipy.stats.multivariate_normal(np.zeros(4), covariance).logpdf(x - self.mean(c))

    def log_joint(self, x: np.ndarray, z: np.ndarray, c: np.ndarray | None = None) -> np.ndarray:
        """log p(x, z|c), ``[K, N]`` for z ``[K, N, 2]``."""
        likelihood = scipy.stats.norm(z @ W + self.mean(c), SCALE).logpdf(x).sum(axis=-1)
        return likelihood + scipy.stats.norm.logpdf(z).sum(axis=-1)


# p(z|x, c) = N((x - b - c A) W' S / s², S), S = (I + W W' / s²)⁻¹, a diagonal matrix here
VARIANCE = np.diag(np.linalg.inv(np.eye(2) + W @ W.T / SCALE**2))
KERNEL = W.T * VARIANCE / SCALE**2


def vae(conditional: bool = False, wider: float = 1.0, shift: float = 0.0, **more) -> VAE:
    """The model. q(z|x) is p(z|x), with ``wider`` times its scale and its mean shifted."""
    networks = [two_inputs(n, 3) for n in (4, 2)] if conditional else [keras.layers.Identity() for _ in range(2)]
    made = VAE(
        *networks,
        DistributionLayer("Normal", [2]),
        DistributionLayer("Normal", [4], scale=SCALE),
        condition_shape=[3] if conditional else None,
        **more,
    )
    made.likelihood.projection.set_weights([np.concatenate([W, A]) if conditional else W, LOC])
    means = np.concatenate([KERNEL, -A @ KERNEL]) if conditional else KERNEL
    raw_scale = np.log(np.expm1(wider * np.sqrt(VARIANCE)))
    kernel = np.concatenate([means, np.zeros_like(means)], axis=1)
    made.posterior.projection.set_weights([kernel, np.concatenate([shift - LOC @ KERNEL, raw_scale])])
    return made


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x ``[N, 4]`` and c ``[N, 3]``, of no model in particular."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=[count, 4]).astype(np.float32), rng.normal(size=[count, 3]).astype(np.float32)
