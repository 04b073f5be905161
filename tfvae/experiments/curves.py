"""Learning curves over samples evaluated, minibatches times 100: the axis of the paper's Figures 2 and 3.

A model is trained from one of the paper's points to the next and measured at each. With a folder to keep them in, the
model and its points survive a stop, and a later run goes on as if there had been none.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import keras
from tqdm import tqdm

from tfvae.engine.model import UnsupervisedModel
from tfvae.experiments import checkpoints
from tfvae.experiments.aevb import settings
from tfvae.experiments.checkpoints import Measured, Point
from tfvae.models.vae import VAE

# The paper's curves were read off at these, in samples evaluated.
POINTS = [d * 10**k for k in range(5, 9) for d in (1, 2, 3, 5)]


Measure = Callable[[UnsupervisedModel, settings.Data, dict[str, list[float]]], Measured]


def bounds(model: UnsupervisedModel, data: settings.Data, history: dict[str, list[float]]) -> Measured:
    """The ELBO of the test set, and its mean over the minibatches since the point before.

    That is the paper's training curve, which therefore lags early on.
    """
    test = model.evaluate(data.test, batch_size=1000, return_dict=True, verbose=0)["elbo"]
    return Measured(history["elbo"][0], test)


def curve(
    data: settings.Data,
    latent_dim: int,
    method: str,
    samples: int,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    measure: Measure = bounds,
    points: Sequence[int] | None = None,
) -> Iterator[Point]:
    """Train one model and measure it at each of ``points``, the paper's by default, up to ``samples``.

    With a ``checkpoint`` folder the model and its points are kept after each, and a later call goes on from there.
    ``progress`` is called with the samples evaluated so far; ``measure`` with the model, the data and the history of
    the training since the point before.

    Raises:
        ValueError: If no point lies within ``samples``.
    """
    points = POINTS if points is None else points
    if samples < points[0]:
        raise ValueError(f"A curve starts at {points[0]:,} samples, received {samples:,}: take as many at least.")
    yield from checkpoints.stretches(
        pathlib.Path(checkpoint) if checkpoint else None,
        [point for point in points if point <= samples],
        lambda: settings.build(data, latent_dim, method, seed),
        lambda model, start, end, more: _fit(model, data, method, start, end, progress, more),
        lambda model, history: measure(model, data, history),
    )


def _fit(
    model: UnsupervisedModel,
    data: settings.Data,
    method: str,
    start: int,
    end: int,
    progress: Callable[[int], None] | None,
    more: list[keras.callbacks.Callback],
) -> dict[str, list[float]]:
    batch_size = settings.batch_size(method, len(data.train))
    # Monte Carlo EM updates the weights several times on a minibatch, and each evaluates its samples.
    size = batch_size * getattr(model, "num_updates", 1)
    return model.fit(
        data.train,
        batch_size=batch_size,
        steps_per_epoch=max(1, end // size - start // size),
        verbose=0,
        callbacks=[_Report(progress, start, size), *more],
    ).history


def follow(
    name: str,
    data: settings.Data,
    latent_dim: int,
    method: str,
    samples: int,
    output: str | os.PathLike[str],
    seed: int = 0,
    measure: Measure = bounds,
    points: Sequence[int] | None = None,
) -> list[Point]:
    """``curve`` with a progress bar, kept under ``output/checkpoints/name``; see ``checkpoints.place``."""
    with tqdm(total=samples, desc=name, unit="sample", unit_scale=True) as bar:

        def report(done: int) -> None:
            bar.update(done - bar.n)

        folder, measured = checkpoints.place(output, name, seed), []
        for point in curve(data, latent_dim, method, samples, folder, seed, report, measure, points):
            measured.append(point)
            if point.failed_rows:
                bar.write(f"{name}: no estimate for {point.failed_rows} rows at {point.samples:,} samples")
            bar.set_postfix_str(f"test {point.test:.1f} nats", refresh=False)
            report(point.samples)
    return measured


@dataclasses.dataclass(frozen=True)
class Curve:
    """One of the bound's curves in the paper, and our model of it: Figures 2, 4 and 5 show the same ones.

    Attributes:
        dataset: ``mnist`` or ``frey``.
        latent_dim: The size of z.
        method: A name in ``settings.METHODS``.
    """

    dataset: str
    latent_dim: int
    method: str

    @property
    def name(self) -> str:
        """The folder in which the curve is kept.

        Example:
            >>> Curve("mnist", 20, "AEVB").name
            'mnist-20-AEVB-step0.01'
        """
        return f"{self.dataset}-{self.latent_dim}-{self.method}-step{self.step_size:g}"

    @property
    def step_size(self) -> float:
        """Adagrad's step.

        The paper took it from 0.01, 0.02 and 0.1 and does not say which where; of these, it comes nearest to its curve.

        Example:
            >>> Curve("mnist", 20, "AEVB").step_size, Curve("mnist", 20, "WS").step_size
            (0.01, 0.02)
        """
        return 0.01 if self.dataset == "frey" or (self.latent_dim, self.method) == (20, "AEVB") else 0.02

    def follow(self, data: settings.Data, samples: int, output: str | os.PathLike[str], seed: int = 0) -> list[Point]:
        """The curve on its dataset ``data`` up to ``samples``; see the function ``follow``."""
        data = dataclasses.replace(data, learning_rate=self.step_size)
        return follow(self.name, data, self.latent_dim, self.method, samples, output, seed)


def vae_of(model: UnsupervisedModel) -> VAE:
    """The VAE that the model is or that it trains."""
    return model if isinstance(model, VAE) else model.vae


class _Report(keras.callbacks.Callback):
    """Tells how many samples have been evaluated."""

    def __init__(self, progress: Callable[[int], None] | None, start: int, size: int):
        super().__init__()
        self._progress, self._start, self._size = progress, start, size

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._progress:
            steps = min(self.params["steps"], batch + 1)  # a group may reach beyond the stretch
            self._progress(self._start + steps * self._size)
