"""Scores of disentanglement that rest on learned predictors: DCI, SAP and β-VAE's. They need scikit-learn."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfvae.arguments import check_at_least, check_whole
from tfvae.evaluation.disentanglement import active, paired_rows, repeated
from tfvae.evaluation.estimate import Mean

_HELD_OUT = 3  # one row of so many tests a predictor


@dataclasses.dataclass(frozen=True)
class Informativeness:
    """DCI: what a code tells of factors, and how it is spread.

    Attributes:
        disentanglement: 1 - H of a unit's importances over factors, base K, weighted by the unit's share: 1 where each
            unit is for one factor.
        completeness: 1 - H of a factor's importances over units, base D: 1 where one unit holds a factor.
        informativeness: How well held-out factors are predicted, a mean over factors of R², or accuracy.
        by_factor: ``informativeness`` of each, ``[K]``.
        importance: Share of each unit in each factor's predictor, ``[D, K]``, columns that sum to 1.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    by_factor: np.ndarray
    importance: np.ndarray


@dataclasses.dataclass(frozen=True)
class Predictability:
    """SAP.

    Attributes:
        value: The mean of ``by_factor``.
        by_factor: The gap between the two best units, ``[K]``.
        matrix: How well each unit by itself tells each factor of held-out rows, ``[D, K]``.
    """

    value: float
    by_factor: np.ndarray
    matrix: np.ndarray


def disentanglement_completeness(
    code: Any, factors: Any, categorical: Sequence[int] = (), seed: int = 0
) -> Informativeness:
    """DCI (Eastwood and Williams, ICLR 2018) by the importances of gradient-boosted trees.

    Args:
        code, factors: See ``mutual_information_gap``. A third of the rows, drawn by ``seed``, tests.
        categorical: Columns of ``factors`` whose numbers have no order, such as shape: they get a classifier, which
            takes as many times longer as they have values; the others a regression.
        seed: Fixes the rows that test, and the trees.

    Raises:
        ModuleNotFoundError: Without scikit-learn.
        ValueError: See ``mutual_information_gap``.

    Example:
        >>> factors = np.tile(np.stack(np.unravel_index(np.arange(60), [3, 4, 5]), axis=1), [3, 1])
        >>> found = disentanglement_completeness(factors, factors)
        >>> found.disentanglement > 0.99, found.completeness > 0.99, found.informativeness > 0.99
        (True, True, True)
    """
    from tfvae.pipelines import extras  # here: the pipelines are no part of the package's own import

    with extras.needed("sklearn"):
        from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
    code, factors = active(code, factors, least_factors=2)
    is_class = _columns(categorical, factors.shape[1])
    train, test = _split(len(code), seed)
    importance, told = [], []
    for factor, one in zip(factors.T, is_class, strict=True):
        trees = (GradientBoostingClassifier if one else GradientBoostingRegressor)(random_state=abs(seed))
        trees.fit(code[train], factor[train])
        importance.append(trees.feature_importances_)
        told.append(trees.score(code[test], factor[test]))
    matrix = np.stack(importance, axis=1)
    by_unit, by_factor = _concentration(matrix), _concentration(matrix.T)
    return Informativeness(
        float(np.average(by_unit, weights=matrix.sum(axis=1) + np.finfo(float).tiny)),
        float(np.average(by_factor, weights=matrix.sum(axis=0) + np.finfo(float).tiny)),
        float(np.mean(told)),
        np.array(told),
        matrix,
    )


def separated_predictability(code: Any, factors: Any, categorical: Sequence[int] = (), seed: int = 0) -> Predictability:
    """SAP (Kumar et al., arXiv 1711.00848): the mean over factors of the gap between the two best units.

    A unit tells an ordered factor by the R² of a line, a categorical one by the accuracy of a linear support vector
    machine on held-out rows, which of three classes along one unit never finds the middle one.

    Args:
        code, factors, categorical, seed: See ``disentanglement_completeness``.

    Raises:
        ModuleNotFoundError: Without scikit-learn, where there are categorical factors.
        ValueError: See ``mutual_information_gap``.

    Example:
        >>> factors = np.stack(np.unravel_index(np.arange(60), [3, 4, 5]), axis=1)
        >>> round(separated_predictability(factors, factors).value, 6)
        1.0
    """
    code, factors = active(code, factors)
    is_class = _columns(categorical, factors.shape[1])
    columns = [
        _accuracies(code, factor, seed) if one else np.array([np.corrcoef(unit, factor)[0, 1] ** 2 for unit in code.T])
        for factor, one in zip(factors.T, is_class, strict=True)
    ]
    matrix = np.stack(columns, axis=1)
    ordered = np.sort(np.concatenate([np.zeros([1, matrix.shape[1]]), matrix]), axis=0)
    gaps = ordered[-1] - ordered[-2]
    return Predictability(float(gaps.mean()), gaps, matrix)


def beta_vae_score(
    code: Any, factors: Any, num_train: int = 10_000, num_test: int = 5000, num_pairs: int = 64, seed: int = 0
) -> Mean:
    """β-VAE's: how well a linear classifier tells which factor pairs share, from the mean |z - z'| of 64 pairs.

    Higgins et al., ICLR 2017, appendix A.4. Any linear mixture of factors may score well. Units are put to scale first.

    Args:
        code, factors: See ``mutual_information_gap``; two factors at least.
        num_train, num_test: Points that train the classifier, and that are scored.
        num_pairs: Pairs of a point.
        seed: Fixes the pairs.

    Returns:
        The accuracy, and its standard error over the points.

    Raises:
        ModuleNotFoundError: Without scikit-learn.
        ValueError: See ``mutual_information_gap``.

    Example:
        >>> factors = np.stack(np.unravel_index(np.arange(60), [3, 4, 5]), axis=1)
        >>> beta_vae_score(factors, factors, num_train=200, num_test=50).mean
        1.0
    """
    from tfvae.pipelines import extras  # here: the pipelines are no part of the package's own import

    with extras.needed("sklearn"):
        from sklearn.linear_model import LogisticRegression
    code, factors = repeated(*active(code, factors, least_factors=2))
    check_at_least(2, num_train=num_train, num_test=num_test, num_pairs=num_pairs)
    code = code / code.std(axis=0)
    points = [
        (factor, np.abs(code[rows] - code[partners]).mean(axis=1))
        for factor, rows, partners in paired_rows(factors, num_train + num_test, num_pairs, code.shape[1], seed)
    ]
    factor, distance = (np.concatenate(part) for part in zip(*points, strict=True))
    distance = (distance - distance[:num_train].mean(axis=0)) / distance[:num_train].std(axis=0)
    classifier = LogisticRegression(max_iter=1000).fit(distance[:num_train], factor[:num_train])
    return Mean.of_shares(classifier.predict(distance[num_train:]) == factor[num_train:])


def _accuracies(code: np.ndarray, factor: np.ndarray, seed: int) -> np.ndarray:
    """Of each unit by itself."""
    from tfvae.pipelines import extras  # here: the pipelines are no part of the package's own import

    with extras.needed("sklearn"):
        from sklearn.svm import LinearSVC
    train, test = _split(len(code), seed)
    code = (code - code[train].mean(axis=0)) / code[train].std(axis=0)
    machines = [LinearSVC(C=0.01, class_weight="balanced", random_state=abs(seed)) for _ in code.T]
    return np.array(
        [
            machine.fit(unit[train, np.newaxis], factor[train]).score(unit[test, np.newaxis], factor[test])
            for machine, unit in zip(machines, code.T, strict=True)
        ]
    )


def _columns(categorical: Sequence[int], count: int) -> np.ndarray:
    given: list[Any] = list(categorical) if isinstance(categorical, (list, tuple, range, np.ndarray)) else [categorical]
    for column in given:
        check_at_least(0, categorical=column)
        if column >= count:
            raise ValueError(f"categorical names column {column}, expected 0 to {count - 1}: factors has {count}.")
    return np.isin(np.arange(count), given)


def _split(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    check_whole(seed=seed)
    order = np.random.default_rng(abs(seed)).permutation(count)
    return order[count // _HELD_OUT :], order[: count // _HELD_OUT]


def _concentration(matrix: np.ndarray) -> np.ndarray:
    """1 - H of each row, to the base of its length; of a row of zeros 0."""
    total = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.where(total > 0, total, 1)
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1)), axis=1) / np.log(max(2, matrix.shape[1]))
    return np.where(total[:, 0] > 0, 1 - entropy, 0.0)
