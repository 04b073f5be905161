"""Whether tonight's rows are of the kind that they were: two outputs of ``tfvae embed``, column by column.

What is compared are the coordinates of the embeddings, the score (the ELBO of a row, in nats) and how far a normal with
the embedding's means and standard deviations is from N(0, I), which is KL(q(z|x) ‖ p(z)) of a model that has these two,
where both outputs have what it takes. Moments are of all rows; the population stability index and the test of
Kolmogorov and Smirnov are of a sample, so that memory does not grow with the rows. With many rows a difference of no
consequence is significant, and with few a large index is chance: a column has drifted where both speak for it.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from . import contract, extras
from .dataset import html, report
from .dataset.moments import ColumnMoments
from .errors import PipelineError, number

with extras.needed("pipelines"):
    from scipy import stats

from .embedding.parquet_parts import complete_parts

SIGNIFICANCE = 0.01  # of the test, for all columns together
_SAMPLE, _BINS = 100_000, 10
_FEWEST = 50  # rows, below which nothing can be told
_KL = "kl to N(0, I)"
_OPTIONS = {_KL: "--stddev", contract.ROW_SCORE: "--score"}  # of tfvae embed, that make what these columns take
_HEAD = ("column", "mean", "std", "new mean", "new std", "PSI", "KS", "p", "")


@dataclasses.dataclass(frozen=True)
class Column:
    """What was found of one column.

    Attributes:
        name: ``score`` and ``kl to N(0, I)`` in nats, or ``embedding[d]``.
        mean: The mean of all rows of the reference, as ``std`` is their standard deviation; ``new_mean`` and
            ``new_std`` are those of the new ones.
        stability_index: Σ (p - q) log(p / q) over the deciles of the reference, half a row added to each bin.
        distance: Largest difference of the two distribution functions (Kolmogorov and Smirnov).
        p_value: How likely so large a distance is by chance, corrected by Holm for the number of columns.
        shares: What part of the new rows lies in each decile of the reference: a tenth, where nothing has drifted.
    """

    name: str
    mean: float
    std: float
    new_mean: float
    new_std: float
    stability_index: float
    distance: float
    p_value: float
    shares: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Drift:
    """Columns of two outputs beside each other.

    Attributes:
        rows: How many the reference and the new output have.
        columns: What was found of each.
        most: The largest stability index of a column that has not drifted.
        not_compared: Columns that one of the outputs lacks.
        only_new: Those of them that the reference lacks.
        scored: By how many samples of z the rows of either were scored, where the numbers differ.
    """

    rows: tuple[int, int]
    columns: tuple[Column, ...]
    most: float
    not_compared: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()
    scored: tuple[int, int] | None = None

    @property
    def drifted(self) -> list[Column]:
        """Columns whose index is above ``most`` and whose distance is no chance."""
        return [c for c in self.columns if c.stability_index > self.most and c.p_value < SIGNIFICANCE]

    @property
    def exit_code(self) -> int:
        """3, done but to be looked at, where a column has drifted; else 0."""
        return 3 if self.drifted else 0

    def left_out(self) -> list[str]:
        """A sentence for each column that was not compared: which side lacks it, and how to embed that one.

        Example:
            >>> Drift((500, 500), (), 0.1, ("kl to N(0, I)", "score"), ("kl to N(0, I)",)).left_out()
            ['kl to N(0, I) was not compared, the reference lacks it: embed that with --stddev, and --overwrite', \
'score was not compared, the new output lacks it: embed that with --score, and --overwrite']
        """
        told = []
        for name in self.not_compared:
            side = "reference" if name in self.only_new else "new output"
            remedy = f": embed that with {option}, and --overwrite" if (option := _OPTIONS.get(name)) else ""
            told.append(f"{name} was not compared, the {side} lacks it{remedy}")
        if self.scored:
            told.append(
                f"{contract.ROW_SCORE} was not compared, the reference's is of {self.scored[0]} samples of z and the "
                f"new one's of {self.scored[1]}: embed both with the same --score, and --overwrite"
            )
        return told

    def table(self) -> list[tuple[str, ...]]:
        """Cells for a terminal, the first row the head."""
        return [_HEAD, *(tuple(f"{v:.4g}" if isinstance(v, float) else v for v in row) for row in self._lines())]

    def page(self) -> bytes:
        """The same as a page that needs nothing else, with the deciles of each column."""
        drifted = self.drifted
        found = f"{len(drifted)} of {len(self.columns)} columns have drifted" if drifted else "No column has drifted"
        body = [
            html.element("h1", "Drift"),
            html.element("p", f"{found}: {self.rows[0]:,} rows of the reference, {self.rows[1]:,} new ones."),
            *(html.element("p", f"{told}.") for told in self.left_out()),
            html.table(_HEAD, self._lines()),
            html.element("h2", "New rows in each decile of the reference"),
            html.table(["column", *("" for _ in range(_BINS))], ([c.name, *map(_bar, c.shares)] for c in self.columns)),
        ]
        return html.page("Drift", report.STYLE, body)

    def _lines(self) -> list[list[Any]]:
        drifted = set(self.drifted)
        return [[*dataclasses.astuple(column)[:-1], "drifted" if column in drifted else ""] for column in self.columns]


def _bar(share: float) -> html.Html:
    return html.bar(round(1000 * share), 1000)


def compare(reference: str, new: str, *, most: float = 0.1) -> Drift:
    """Holds the embeddings of new rows beside those of a reference.

    Args:
        reference: A complete output of ``tfvae embed``, of rows that the model is known to be good for.
        new: Another of the same model.
        most: Largest population stability index that is no drift. 0.1 is usual, 0.25 a great change (Siddiqi, Credit
            Risk Scorecards, 2006); of a normal column it is the square of the shift of its mean in standard deviations.

    Raises:
        PipelineError: One is no complete output, they are of two models, or one has too few rows.

    Example:
        >>> import pyarrow.parquet as pq
        >>> from tfvae.pipelines.embedding.parquet_parts import part_table
        >>> from tfvae.pipelines.jobs.commits import Output
        >>> for name, mean in (("may", 0.0), ("june", 1.0)):  # by hand, what ``tfvae embed`` does
        ...     output, z = Output(name), np.random.default_rng(0).normal(mean, size=[500, 1])
        ...     with output.writing("part.parquet") as file:
        ...         keys = [f"{row}" for row in range(500)]
        ...         pq.write_table(part_table(keys, {"embedding": z.astype("float32")}), file)
        ...     output.finish({"kind": "embeddings", "model": {"sha256": "a"}}, ["part.parquet"], [])
        >>> [column.name for column in compare("may", "june").drifted]
        ['embedding[0]']
    """
    if not number("most", most, 0, whole=False):
        raise PipelineError(f"most is {most}, expected a stability index above 0, such as 0.1")
    sides = [_Side.of(folder) for folder in (reference, new)]
    if sides[0].model != sides[1].model:
        raise PipelineError(
            f"{reference} and {new} are of two models, whose embeddings do not compare: embed both by the same version"
        )
    scored = (sides[0].scored, sides[1].scored)
    unlike = None if None in scored or scored[0] == scored[1] else scored
    names = [name for name in sides[0].names if name in sides[1].names and not (unlike and name == contract.ROW_SCORE)]
    old, new_ones = set(sides[0].names), set(sides[1].names)
    found = [_column(name, *sides) for name in names]
    corrected = zip(found, _holm([column.p_value for column in found]), strict=True)
    columns = tuple(dataclasses.replace(column, p_value=p) for column, p in corrected)
    return Drift(
        (sides[0].moments.rows, sides[1].moments.rows),
        columns,
        most,
        tuple(sorted(old ^ new_ones)),
        tuple(sorted(new_ones - old)),
        unlike,
    )


@dataclasses.dataclass
class _Side:
    """One output: its columns' names, their moments over all rows, and a sample of rows."""

    model: Any
    scored: Any
    names: list[str]
    moments: ColumnMoments
    sample: np.ndarray

    @functools.cached_property
    def summary(self) -> dict[str, list[float]]:
        """The moments of each column, by their names."""
        return self.moments.summary()

    @classmethod
    def of(cls, folder: str) -> "_Side":
        manifest, tables = complete_parts(folder)
        rng, moments = np.random.default_rng(0), None
        names: list[str] = []
        sample, lots = np.zeros([0, 0]), np.zeros(0)
        for table in tables:
            if not len(table):
                continue
            names, values = _values(table)
            mine = ColumnMoments.of(values)
            moments = mine if moments is None else moments + mine
            # The rows of the smallest lots are a sample of all, whatever parts they came in.
            lots = np.concatenate([lots, rng.random(len(values))])
            sample = np.concatenate([sample.reshape(-1, len(names)), values])
            if len(lots) > _SAMPLE:
                kept = np.argpartition(lots, _SAMPLE)[:_SAMPLE]
                lots, sample = lots[kept], sample[kept]
        if moments is None or moments.rows < _FEWEST:
            raise PipelineError(
                f"{folder} has {moments.rows if moments else 0} rows: drift needs {_FEWEST} on each side"
            )
        options = manifest.get("options")
        scored = options.get("score") if isinstance(options, dict) else None
        return cls(manifest.get("model"), scored, names, moments, sample)


def _values(table: Any) -> tuple[list[str], np.ndarray]:
    """Names and float32 ``[N, C]``."""

    def matrix(name: str) -> np.ndarray:
        column = table[name].combine_chunks()
        return column.values.to_numpy().reshape(len(column), -1)

    mean = matrix(contract.EMBEDDING)
    names, columns = [f"{contract.EMBEDDING}[{d}]" for d in range(mean.shape[1])], [mean]
    if contract.EMBEDDING_STDDEV in table.column_names:
        variance = matrix(contract.EMBEDDING_STDDEV).astype(np.float64) ** 2
        kl = 0.5 * (mean.astype(np.float64) ** 2 + variance - 1 - np.log(variance)).sum(axis=1)
        names, columns = [_KL, *names], [kl.astype(np.float32)[:, None], *columns]
    if contract.ROW_SCORE in table.column_names:
        names, columns = [contract.ROW_SCORE, *names], [table[contract.ROW_SCORE].to_numpy()[:, None], *columns]
    return names, np.concatenate(columns, axis=1)


def _column(name: str, reference: _Side, new: _Side) -> Column:
    """A column of both sides; its p-value is not corrected yet."""
    places = reference.names.index(name), new.names.index(name)
    before, after = reference.sample[:, places[0]], new.sample[:, places[1]]
    edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1]))
    counts = [np.bincount(np.searchsorted(edges, side, "left"), minlength=len(edges) + 1) for side in (before, after)]
    p, q = ((count + 0.5) / (count + 0.5).sum() for count in counts)
    test = stats.ks_2samp(before, after)
    (mean, std), (new_mean, new_std) = (
        [float(side.summary[kind][place]) for kind in ("mean", "std")]
        for side, place in zip((reference, new), places, strict=True)
    )
    index = float(np.sum((p - q) * np.log(p / q)))
    shares = tuple((counts[1] / counts[1].sum()).tolist())
    distance, p_value = float(test.statistic), float(test.pvalue)
    return Column(name, mean, std, new_mean, new_std, index, distance, p_value, shares)


def _holm(p_values: list[float]) -> list[float]:
    """P-values that hold for all tests together (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and none is smaller than the one before it.
    """
    order = np.argsort(p_values)
    corrected = np.minimum(1, np.maximum.accumulate(np.sort(p_values) * np.arange(len(p_values), 0, -1)))
    return corrected[np.argsort(order)].tolist()
