"""An objective with a constraint: the KL as small as may be while log p(x|z) is as large as is asked for (GECO)."""

import keras
import tensorflow as tf

from tfvae.arguments import check_number
from tfvae.objectives.elbo import elbo
from tfvae.objectives.stateful import Stateful
from tfvae.objectives.terms import Estimate, Terms

_MOST = 1.0  # nats of the constraint that a step heeds, so that λ changes by ``rate`` at most
_RANGE = (1e-6, 1e6)  # of λ


@keras.saving.register_keras_serializable("tfvae")
class ConstrainedLikelihood(Stateful):
    """GECO (Rezende & Viola, arXiv 1810.00597, algorithm 1): the least KL for which E log p(x|z) reaches a target.

    λ (E log p(x|z) - target) - KL is maximised, and λ, a multiplier, is found on the way: at each step of training
    λ ← λ exp(rate · C), C the moving average of target - E log p(x|z) over batches, cut off at 1 nat either way (our
    addition: nats a row are hundreds at first). In the end log p(x|z) is the target in the mean, unless the model
    cannot reach it. Under a normal with a fixed scale s and D pixels, a mean squared error of κ² a pixel is a target of
    -D (κ² / s² + log 2πs²) / 2. λ and the average are weights of the model, saved with it; under ``tf.distribute`` each
    replica has its own, of its own rows, and their mean is what is read. Rows that fill a batch do not count.

    Args:
        target: Nats a row that E log p(x|z) should reach.
        rate: By how much λ changes in a step, for each nat; 0 holds λ at 1.
        smoothing: What of the average is kept at each step, from 0 to below 1.

    Raises:
        ValueError: For numbers out of range.

    Example:
        >>> objective = ConstrainedLikelihood(target=2.0)
        >>> objective(terms).objective.numpy().tolist()  # 1 · (3 - 2) - 1
        [0.0, 0.0]
        >>> float(objective.multiplier)
        1.0
    """

    _arguments = ("target", "rate", "smoothing")

    def __init__(self, target: float, rate: float = 0.01, smoothing: float = 0.99):
        check_number(-float("inf"), is_open=True, target=target)
        check_number(0, rate=rate, smoothing=smoothing)
        if smoothing >= 1:
            raise ValueError(f"smoothing is {smoothing}, expected a number from 0 to below 1: 1 would never learn.")
        super().__init__()
        self.target, self.rate, self.smoothing = float(target), float(rate), float(smoothing)
        self.multiplier = self.add_state("multiplier", 1.0)
        self._sum, self._weight = self.add_state("sum", 0.0), self.add_state("weight", 0.0)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``ConstrainedLikelihood``."""
        log_likelihood = tf.reduce_mean(terms.log_likelihood, axis=0)
        kl = terms.kl if terms.kl_is_exact else tf.reduce_mean(terms.log_posterior - terms.log_prior, axis=0)
        multiplier = self._next(terms, log_likelihood) if terms.training else self.multiplier.value
        gain = multiplier * (log_likelihood - self.target) - kl
        return Estimate(elbo(terms).bound, gain, objective=gain)

    def _next(self, terms: Terms, log_likelihood: tf.Tensor) -> tf.Tensor:
        """λ as this step uses it; the state moves on. A batch of which no row counts changes nothing."""
        some = tf.cast(tf.reduce_sum(terms.row_weights) > 0.0, tf.float32)
        kept = 1.0 - some * (1.0 - self.smoothing)
        lacking = self.target - terms.batch_mean(tf.stop_gradient(log_likelihood))
        total = kept * self._sum.value + (1.0 - kept) * lacking
        weight = kept * self._weight.value + (1.0 - kept)
        average = tf.clip_by_value(tf.math.divide_no_nan(total, weight), -_MOST, _MOST)
        before = self.multiplier.value
        # λ of the next step is found from the one value that is read here: no read can come after the write.
        after = tf.clip_by_value(before * tf.exp(some * self.rate * average), *_RANGE)
        for variable, value in ((self._sum, total), (self._weight, weight), (self.multiplier, after)):
            variable.assign(value)
        return after
