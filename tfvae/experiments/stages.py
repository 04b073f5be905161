"""Training by stages of falling learning rates, and log p(x) where it ends: what the papers after the first one do.

A model is a VAE of one stochastic layer between fully connected ones, as Burda et al. (arXiv 1509.00519) describe
theirs: weights Glorot-uniform, biases 0 but for those of the pixels, σ the exponential of a linear map.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from tfvae import evaluation, objectives, observations
from tfvae.arguments import check_at_least
from tfvae.distribution_layer import DistributionLayer
from tfvae.experiments import checkpoints
from tfvae.models.vae import VAE, Objective

_ROWS_A_STRETCH = 2_000_000  # trained between two points: a few minutes of two cores

# What is maximised, by the names that the papers' tables have for it. VAE is estimator A, as in Burda's code.
METHODS: dict[str, Objective] = {
    "VAE": objectives.elbo_a,
    "IWAE": objectives.importance_weighted,
    "DReG": objectives.doubly_reparameterized,
    "alpha-0.5": objectives.Renyi(0.5),
    "VR-max": objectives.Renyi(-np.inf),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long a model is trained with which learning rate.

    Attributes:
        epochs: Passes over the rows, for each stage.
        rates: The learning rate of each stage.
        batch_size: Rows of a minibatch.
        patience: Epochs without a better validation ELBO after which a stage ends, with the weights of the best.
        warm_up: Epochs before they count.
    """

    epochs: tuple[int, ...]
    rates: tuple[float, ...]
    batch_size: int
    patience: int | None = None
    warm_up: int = 0

    @classmethod
    def falling(cls, base: int, rate: float, batch_size: int = 20) -> "Plan":
        """Burda's eight stages: ``base``^i epochs with ``rate``·10^(-i/7), i from 0 to 7.

        Example:
            >>> plan = Plan.falling(3, 1e-3)
            >>> sum(plan.epochs), [round(rate, 6) for rate in plan.rates[:3]]
            (3280, [0.001, 0.00072, 0.000518])
        """
        return cls(tuple(base**i for i in range(8)), tuple(rate * 10 ** (-i / 7) for i in range(8)), batch_size)

    def optimizer(self, num_rows: int, epsilon: float) -> keras.optimizers.Optimizer:
        """Adam, whose rate falls from stage to stage; of a stop it knows nothing."""
        steps = -(-num_rows // self.batch_size)
        last = [steps * epochs - 1 for epochs in itertools.accumulate(self.epochs)]
        rates: Any = keras.optimizers.schedules.PiecewiseConstantDecay(last[:-1], list(self.rates))
        return keras.optimizers.Adam(rates if len(self.rates) > 1 else self.rates[0], epsilon=epsilon)

    def stopping(self) -> list[keras.callbacks.Callback]:
        """What ends a stage before its epochs are over."""
        if self.patience is None:
            return []
        kept = {"mode": "max", "restore_best_weights": True, "start_from_epoch": self.warm_up}
        return [keras.callbacks.EarlyStopping("val_elbo", patience=self.patience, **kept)]

    def ends(self, stages: int, num_rows: int) -> list[int]:
        """Where to measure, in rows trained: at the end of a stage, and on the way where that is long."""
        check_at_least(1, stages=stages)
        if stages > len(self.epochs):
            raise ValueError(f"stages is {stages}, expected {len(self.epochs)} at most: the schedule ends there.")
        most = max(1, _ROWS_A_STRETCH // num_rows) if self.patience is None else max(self.epochs)
        found, before = [], 0
        for epochs in self.epochs[:stages]:
            found += [before + part for part in (*range(most, epochs, most), epochs)]
            before += epochs
        return [epochs * num_rows for epochs in found]


@dataclasses.dataclass(frozen=True)
class Model:
    """One row of a table.

    Attributes:
        method: A name in ``METHODS``, or an objective.
        num_samples: K of training.
        hidden: Units of the encoder's layers; the decoder has them in reverse.
        latent_dim: Size of z.
        activation: The hidden layers'.
        likelihood: p(x|z), given the initializers of its kernel and bias.
        noise: What is drawn of x at each presentation.
    """

    method: str | Objective
    num_samples: int
    hidden: tuple[int, ...]
    latent_dim: int
    activation: str
    likelihood: Callable[..., DistributionLayer]
    noise: observations.Noise | None = None

    def build(self, pixel_bias: np.ndarray, seed: int) -> VAE:
        """The model with its weights; ``pixel_bias`` are those of p(x|z)."""
        seeds = itertools.count(1000 * seed)

        def initial() -> keras.initializers.Initializer:
            return keras.initializers.GlorotUniform(seed=next(seeds))

        def network(name: str, sizes: Sequence[int]) -> keras.Sequential:
            layers = [keras.layers.Dense(size, self.activation, kernel_initializer=initial()) for size in sizes]
            return keras.Sequential(layers, name=name)

        return VAE(
            network("encoder", self.hidden),
            network("decoder", self.hidden[::-1]),
            DistributionLayer(
                "Normal",
                [self.latent_dim],
                constraints={"scale": "exp"},
                kernel_initializer=initial(),
                name="posterior",
            ),
            self.likelihood(initial(), keras.initializers.Constant(pixel_bias)),
            objective=METHODS[self.method] if isinstance(self.method, str) else self.method,
            num_samples=self.num_samples,
            noise=self.noise,
            seed=seed,
        )


def bernoulli(kernel_initializer: Any, bias_initializer: Any, num_pixels: int = 784) -> DistributionLayer:
    """Pixels of 0 and 1."""
    initial = {"kernel_initializer": kernel_initializer, "bias_initializer": bias_initializer}
    return DistributionLayer("Bernoulli", [num_pixels], name="likelihood", **initial)


def bits(measured: dict[str, Any], event_shape: Sequence[int]) -> tuple[float, float | None]:
    """log p(x) as bits per dimension, and its standard error, where it has one.

    Example:
        >>> value, error = bits({"log_marginal": -8.0 * np.log(2.0), "standard_error": np.log(2.0)}, [2])
        >>> float(value), float(error)
        (4.0, 0.5)
    """
    error = measured["standard_error"]
    return (
        evaluation.bits_per_dimension(measured["log_marginal"], event_shape),
        None if error is None else -evaluation.bits_per_dimension(error, event_shape),
    )


def logits_of_mean(x: np.ndarray) -> np.ndarray:
    """The bias with which a decoder begins: each pixel's own mean, kept from 0 and 1.

    Example:
        >>> logits_of_mean(np.array([[0.0, 0.5]])).round(2).tolist()
        [-6.91, 0.0]
    """
    mean = np.clip(x.mean(axis=0, dtype=np.float64), 0.001, 0.999)
    return np.log(mean) - np.log1p(-mean)


@dataclasses.dataclass(frozen=True)
class Run:
    """A model, how it is trained and on what.

    Attributes:
        name: The folder in which it is kept.
        model: See ``Model``.
        plan: See ``Plan``.
        train, test: Rows, float32.
        pixel_bias: That of p(x|z) before training, of each pixel.
        epsilon: Adam's, beside the mean gradient of a minibatch.
        seed: Fixes weights, shuffles and noise.
        validation: Rows for a plan with patience.
    """

    name: str
    model: Model
    plan: Plan
    train: np.ndarray
    test: np.ndarray
    pixel_bias: np.ndarray
    epsilon: float = 1e-7
    seed: int = 0
    validation: np.ndarray | None = None

    def measure(self, output: str, stages: int, num_samples: int) -> dict[str, Any]:
        """log p(x) of the test rows by importance sampling, its error over rows, the active units; kept under output.

        Raises:
            ValueError: Where the model that is kept has gone further than ``stages`` already.
        """
        check_at_least(2, num_samples=num_samples)
        place = self._place(output, stages, num_samples)
        return checkpoints.remembered(place, lambda: self._numbers(*self.finish(output, stages), num_samples))

    def _place(self, output: str, stages: int, num_samples: int) -> pathlib.Path:
        end = self.plan.ends(stages, len(self.train))[-1]
        name = f"measured-{end}-{num_samples}-{len(self.test)}.json"
        return checkpoints.place(output, self.name, self.seed) / name

    def finish(self, output: str, stages: int) -> tuple[VAE, checkpoints.Point]:
        """The model after so many stages, from where it was kept, and its last point."""
        folder = checkpoints.place(output, self.name, self.seed)
        ends = self.plan.ends(stages, len(self.train))
        if (kept := checkpoints.read_points(folder)) and kept[-1].samples > ends[-1]:
            raise ValueError(
                f"The model in {folder} has seen {kept[-1].samples:,} rows, beyond the {ends[-1]:,} of {stages} "
                "stages: take as many stages as it has, or another output."
            )
        with tqdm(total=ends[-1], desc=self.name, unit="row", unit_scale=True) as bar:
            for point in checkpoints.stretches(folder, ends, self.build, self._fitting(bar), self._measure):
                bar.update(point.samples - bar.n)
                bar.set_postfix_str(f"test ELBO {point.test:.2f} nats")
        return checkpoints.load(folder), point

    def _numbers(self, vae: VAE, point: checkpoints.Point, num_samples: int) -> dict[str, Any]:
        with tqdm(total=len(self.test), desc=f"{self.name}: log p(x)", unit="row") as bar:
            found = evaluation.log_marginal(
                vae, self.test, num_samples, seed=self.seed, progress=lambda done: bar.update(done - bar.n)
            )
        return self._told(vae, point, found)

    def _told(self, vae: VAE, point: checkpoints.Point, found: evaluation.MarginalEstimate) -> dict[str, Any]:
        return {
            "log_marginal": found.mean,
            "standard_error": found.trusted_standard_error,
            "effective_samples": float(np.median(found.effective_sample_size)),
            "active": evaluation.active_units(vae, self.train),
            "epochs": int(vae.optimizer.iterations) // -(-len(self.train) // self.plan.batch_size),
            "minutes": point.seconds / 60,
        }

    def build(self) -> VAE:
        """The model before training, compiled."""
        vae = self.model.build(self.pixel_bias, self.seed)
        vae.compile(self.plan.optimizer(len(self.train), self.epsilon))
        return vae

    def receive(
        self,
        output: str,
        stages: int,
        vae: VAE,
        elbo: float,
        seconds: float,
        measured: tuple[int, evaluation.MarginalEstimate],
    ) -> dict[str, Any]:
        """Keep a model that was trained and measured on another machine as if that had been here.

        Args:
            output, stages: As of ``measure``, whose result this is.
            vae: The model, compiled.
            elbo: That of its last epoch, nats a row.
            seconds: What the training took there.
            measured: With how many samples log p(x) of the test rows was measured, and it.
        """
        num_samples, found = measured
        test = self._measure(vae, {"elbo": [elbo]}).test
        point = checkpoints.Point(self.plan.ends(stages, len(self.train))[-1], elbo, test, round(seconds, 1))
        checkpoints.keep(checkpoints.place(output, self.name, self.seed), vae, [point])
        place = self._place(output, stages, num_samples)
        return checkpoints.remembered(place, lambda: self._told(vae, point, found))

    def _fitting(self, bar: tqdm) -> Callable[..., dict[str, list[float]]]:
        def fit(vae: Any, start: int, end: int, more: list[Any]) -> dict[str, list[float]]:
            bar.update(start - bar.n)
            epochs = (end - start) // len(self.train)
            callbacks = [_Bar(bar, start, len(self.train)), *self.plan.stopping(), *more]
            size, held_out = self.plan.batch_size, self.validation
            fitted = vae.fit(
                self.train, validation_data=held_out, batch_size=size, epochs=epochs, verbose=0, callbacks=callbacks
            )
            return fitted.history

        return fit

    def _measure(self, vae: Any, history: dict[str, list[float]]) -> checkpoints.Measured:
        test = vae.evaluate(self.test, batch_size=500, return_dict=True, verbose=0)
        return checkpoints.Measured(history["elbo"][-1], test["elbo"])


class _Bar(keras.callbacks.Callback):
    """Moves a progress bar by the rows of each epoch."""

    def __init__(self, bar: tqdm, start: int, num_rows: int):
        super().__init__()
        self._bar, self._start, self._num_rows = bar, start, num_rows

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._bar.update(self._start + (epoch + 1) * self._num_rows - self._bar.n)
