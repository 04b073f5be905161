"""What every flow must satisfy."""

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import families


def check_jacobian(flow: families.Flow, noise: tf.Tensor, rtol: float) -> None:
    """log q(z) = log q_0(z_0) - log |det dz/dz_0| for z_0 ``[K, B, D]``, the Jacobian by autodiff, its det by LU."""
    with tf.GradientTape() as tape:
        tape.watch(noise)
        z, log_det = flow.forward(noise)
        total = tf.reduce_sum(z, axis=[0, 1])  # a row's z depends on its own noise alone
    jacobian = np.moveaxis(tape.jacobian(total, noise).numpy().astype(np.float64), 0, -2)
    sign, expected = np.linalg.slogdet(jacobian)
    assert (sign > 0).all()
    np.testing.assert_allclose(log_det, expected, rtol=rtol, atol=rtol)


def check_integral(flow: tfd.Distribution, reach: float = 14.0, cells: int = 700) -> None:
    """The midpoint rule in the plane, for a flow of one row."""
    middles = (np.arange(cells, dtype=np.float32) + 0.5) / cells * 2 * reach - reach
    grid = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 1, 2)
    total = np.sum(np.exp(flow.log_prob(tf.constant(grid)).numpy().astype(np.float64))) * (2 * reach / cells) ** 2
    np.testing.assert_allclose(total, 1.0, atol=2e-3)
