"""Whatever is maximised, the history has the ELBO beside the loss, in nats a row: held against its closed form."""

import numpy as np
import pytest

from tests import linear_gaussian
from tests.conformance import models

pytestmark = pytest.mark.xla

WIDER, SHIFT = 1.5, 0.4  # of the catalogue's q(z|x) for its objectives


def exact_elbo(x: np.ndarray) -> np.ndarray:
    """log p(x) - KL(q(z|x)‖p(z|x)), ``[N]``, of normals whose scales differ by a factor, their means by a shift."""
    kl = -np.log(WIDER) + (WIDER**2 - 1) / 2 + SHIFT**2 / (2 * linear_gaussian.VARIANCE)
    return linear_gaussian.Exact(False).log_marginal(x) - kl.sum()


@pytest.mark.parametrize("name", models.OBJECTIVES)
def test_a_history_has_the_true_elbo_of_every_objective(name):
    vae, rows = models.made(f"objective {name}")
    vae.compile("sgd", run_eagerly=True)
    vae.optimizer.learning_rate.assign(0.0)
    x = np.tile(rows["x"], [200, 1])
    history = vae.fit(x, batch_size=len(x), verbose=0).history
    assert {"loss", *vae.reported} <= set(history) and vae.reported == ("elbo", "log_likelihood", "kl")
    expected = exact_elbo(x).mean()
    assert history["elbo"][0] == pytest.approx(expected, abs=0.25)
    assert history["elbo"][0] == pytest.approx(history["log_likelihood"][0] - history["kl"][0], rel=1e-4)
    if name in ("elbo", "elbo_b"):
        assert history["loss"][0] == pytest.approx(-history["elbo"][0], rel=1e-5)
    if name.startswith("Weighted") and name != "Weighted, a schedule":
        assert abs(history["loss"][0] + expected) > 0.25  # another number, beside which the ELBO stands
