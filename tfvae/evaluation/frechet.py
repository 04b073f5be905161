"""The Fréchet distance of two normal distributions that have the means and covariances of two samples.

It is what FID is of Inception's features (Heusel et al., arXiv 1706.08500). Those are in no package, so that nothing
here is called FID: the features are the user's own, or those of a small classifier of the same data.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from tfvae.arguments import check_kind, check_whole
from tfvae.evaluation.samples import labels, sample, two_samples

_SIZES, _SMALLEST = 10, 0.2  # of the samples that the extrapolation rests on; the smallest as a share of all rows
_HIDDEN, _FEATURES, _EPOCHS, _BATCH, _HELD_OUT = 256, 64, 10, 100, 10


@dataclasses.dataclass(frozen=True)
class FrechetDistance:
    """The squared distance, which of few rows is too large, and what it tends to.

    Attributes:
        distance: |μ - μ'|² + tr(Σ + Σ' - 2 (Σ Σ')^½) of all rows. It compares only between the same numbers of rows.
        extrapolated: The value for endless rows: that of a line in 1/N through samples of ten sizes.
        extrapolated_standard_error: How well that line is known.
        num_rows: How many rows the two have.
    """

    distance: float
    extrapolated: float
    extrapolated_standard_error: float
    num_rows: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ClassifierFeatures:
    """x -> the last hidden layer of a small classifier, ``[N, 64]``.

    Attributes:
        network: x of float32 ``[N, *event]`` -> features.
        accuracy: Its share of right classes among rows that it was not trained on.
    """

    network: keras.Model
    accuracy: float

    def __call__(self, x: Any, name: str = "x") -> np.ndarray:
        x = _reals(name, x)
        expected = self.network.input_shape[1:]
        if x.shape[1:] != expected:
            raise ValueError(
                f"{name} has rows of shape {list(x.shape[1:])}, expected {list(expected)}, as it was trained."
            )
        return np.concatenate([np.asarray(self.network(x[i : i + 1000])) for i in range(0, len(x), 1000)])


def frechet_distance(features_a: Any, features_b: Any, seed: int = 0) -> FrechetDistance:
    """The squared Fréchet distance of two samples' normal distributions, in float64, by eigenvalues.

    Args:
        features_a, features_b: ``[M, D]`` and ``[N, D]``; more rows than D each, or the covariances are singular and
            the distance far too large. 10,000 rows a side are usual.
        seed: Fixes the smaller samples that ``extrapolated`` (Chong and Forsyth, arXiv 1911.07023) rests on.

    Raises:
        ValueError: For rows that do not fit, or fewer than ten.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = frechet_distance(rng.normal(size=[2000, 2]), rng.normal(1, 1, [2000, 2]))
        >>> round(found.distance)
        2
    """
    a, b = two_samples("features_a", features_a, "features_b", features_b, least=10)
    check_whole(seed=seed)
    rng = np.random.default_rng(abs(seed))
    shares = np.linspace(_SMALLEST, 1, _SIZES)
    values = [_distance(*(_some(part, share, rng) for part in (a, b))) for share in shares]
    # a line in 1/N: its height at 0, and that height's error
    design = np.stack([np.ones(_SIZES), 1 / shares], axis=1)
    found, *_ = np.linalg.lstsq(design, values, rcond=None)
    noise = np.sum((values - design @ found) ** 2) / (_SIZES - 2)
    error = np.sqrt(noise * np.linalg.inv(design.T @ design)[0, 0])
    return FrechetDistance(float(values[-1]), float(found[0]), float(error), (len(a), len(b)))


def classifier_features(x: Any, label: Any, seed: int = 0) -> ClassifierFeatures:
    """A small classifier of labelled rows, for ``frechet_classifier_distance``; a tenth of the rows tells its accuracy.

    Two hidden layers, 256 and 64, ten epochs of Adam. With the same rows and seed it is the same.

    Args:
        x: ``[N, *event]``, real numbers.
        label: The class of each row, ``[N]``, from 0.
        seed: Fixes its weights and the order of rows.

    Raises:
        ValueError: For fewer than 20 rows, labels that do not fit, or one class alone.

    Example: See ``frechet_classifier_distance``.
    """
    check_whole(seed=seed)
    x = _reals("x", x)
    label = labels("label", label, len(x))
    if len(x) < 2 * _HELD_OUT or label.min() < 0:
        raise ValueError(
            f"label or x: {len(x)} rows and classes from {label.min()}, expected 20 rows and classes from 0."
        )
    if label.min() == label.max():
        raise ValueError(
            f"label is {label.min()} for all {len(x)} rows, expected two classes or more: a classifier of one sees "
            "nothing of x. Take frechet_distance of the rows, or of other features."
        )
    order = np.random.default_rng(abs(seed)).permutation(len(x))
    test, train = np.split(order, [len(x) // _HELD_OUT])
    inputs = keras.Input(x.shape[1:])
    hidden = _dense(_HIDDEN, "relu", abs(seed))(keras.layers.Flatten()(inputs))
    features = _dense(_FEATURES, "relu", abs(seed) + 1)(hidden)
    model = keras.Model(inputs, _dense(int(label.max()) + 1, None, abs(seed) + 2)(features))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(x[train], label[train], _BATCH, _EPOCHS, shuffle=False, verbose=0)
    accuracy = float(np.mean(np.argmax(model(x[test]), axis=1) == label[test]))
    return ClassifierFeatures(keras.Model(inputs, features), accuracy)


def frechet_classifier_distance(a: Any, b: Any, features: ClassifierFeatures, seed: int = 0) -> FrechetDistance:
    """``frechet_distance`` of what a classifier of the data sees in two samples. Never to be called FID.

    It compares between models under the same ``features`` alone: tell their accuracy with it.

    Args:
        a, b: Rows ``[M, *event]`` and ``[N, *event]``: of the data, and samples of a model.
        features: ``classifier_features`` of other rows.
        seed: See ``frechet_distance``.

    Raises:
        ValueError: See ``frechet_distance``.

    Example:
        >>> label = np.arange(400) % 4
        >>> x = np.random.default_rng(0).normal(size=[400, 4]) + 9 * np.eye(4)[label]
        >>> features = classifier_features(x, label)
        >>> features.accuracy
        1.0
        >>> bool(abs(frechet_classifier_distance(x, x, features).distance) < 1e-6)
        True
    """
    check_kind("features", features, ClassifierFeatures, "what classifier_features gives")
    return frechet_distance(features(a, "a"), features(b, "b"), seed)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    one, other = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (a, b))
    # tr (Σ Σ')^½ is the sum of the singular values of Σ^½ Σ'^½, which loses fewer digits than roots of eigenvalues
    mixed = np.linalg.svd(_root(one) @ _root(other), compute_uv=False).sum()
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(one) + np.trace(other) - 2 * mixed)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _some(part: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return part if share == 1 else rng.choice(part, max(2, round(share * len(part))), replace=False)


def _dense(units: int, activation: str | None, seed: int) -> keras.layers.Layer:
    return keras.layers.Dense(units, activation, kernel_initializer=keras.initializers.GlorotUniform(seed))


def _reals(name: str, x: Any) -> np.ndarray:
    """Finite numbers of any shape, float32."""
    rows = sample(name, x, least=1)
    return rows.astype(np.float32).reshape(np.shape(x))
