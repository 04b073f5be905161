"""Every likelihood, every kind of data, every door: a clear error or a right number, never a wrong one.

Which kind a family takes is said here without the package's table: by a predicate on the numbers, and by the log p of
SciPy or TFP of the same numbers.
"""

import contextlib
import json
import re
import types

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from click.testing import CliRunner
from scipy import special, stats

import tfvae
from pipelines import embed, preprocess
from tests.families.test_every_name import BUILT, NEEDED
from tfvae import DistributionLayer, cli, evaluation, families, likelihoods, networks, observations, posteriors

pytestmark = pytest.mark.slow  # a large table, each row quick

RNG = np.random.default_rng(0)
D = 4
SHARES = RNG.dirichlet(np.ones(D), size=6)
KINDS = {
    "levels": RNG.integers(0, 256, [6, D]).astype(np.uint8),
    "0/1 bytes": np.eye(6, D, dtype=np.uint8),
    "floats to 255": RNG.integers(1, 256, [6, D]).astype(np.float32),
    "floats in [0, 1]": RNG.uniform(0.05, 0.95, [6, D]),
    "counts": RNG.poisson(3, [6, D]).astype(np.float32),
    "counts of 5": RNG.multinomial(5, np.full(D, 1 / D), size=6).astype(np.int64),
    "negative": -RNG.uniform(0.5, 2, [6, D]),
    "not whole": RNG.poisson(3, [6, D]) + 0.25,
    "bool": np.eye(6, D) > 0,
    "one-hot": np.eye(D, dtype=np.float32)[[0, 1, 2, 3, 0, 1]],
    "halves": RNG.uniform(0.1, 0.9, [6, D]).astype(np.float16),
    "NaN": np.full([6, D], np.nan),
    "infinite": np.full([6, D], np.inf),
    "beyond float32": np.full([6, D], 1e300),
    "beyond whole float32": np.full([6, D], 2**24 + 1),
    "shares": SHARES,
    "logarithms of shares": np.log(SHARES),
    "unit vectors": RNG.normal(size=[6, D]) / 1.0,
    "orders": np.stack([RNG.permutation(D) for _ in range(6)]),
    "angles": RNG.uniform(-3.1, 3.1, [6, D]),
    "degrees": RNG.uniform(0, 360, [6, D]),
}
KINDS["unit vectors"] /= np.linalg.norm(KINDS["unit vectors"], axis=-1, keepdims=True)


def whole(x):
    return np.all(x == np.round(x)) and np.abs(x).max() < 2**24


def sums(x, total):
    return np.allclose(x.sum(-1), total, atol=1e-3)


# What is inside, by family; of all others, any finite number is.
PIXELS = {"Bernoulli", "ProbitBernoulli", "ContinuousBernoulli"}
LEVELS = {"DiscretizedLogistic", "DiscretizedNormal", "DiscretizedLogisticMixture"}
OPEN = {"Beta", "Kumaraswamy", "LogitNormal", "RelaxedBernoulli"}
POSITIVE = {
    *("Gamma", "Weibull", "Pareto", "F", "Reciprocal", "LogNormal", "LogLogistic", "Chi", "Chi2", "NoncentralChi2"),
    *("InverseGamma", "InverseGaussian", "GammaGamma", "BetaQuotient", "Rayleigh", "Gompertz", "Erlang"),
}
COUNTS = {
    *("Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson", "Geometric"),
    *("BagOfWords", "DirichletBagOfWords"),  # of any number of words
    *("LibraryPoisson", "LibraryNegativeBinomial"),
    *("LibraryZeroInflatedPoisson", "LibraryZeroInflatedNegativeBinomial"),
}
INSIDE = {
    **dict.fromkeys(PIXELS, lambda x: x.min() >= 0 and x.max() <= 1),
    **dict.fromkeys(OPEN, lambda x: x.min() > 0 and x.max() < 1),
    **dict.fromkeys(POSITIVE, lambda x: x.min() > 0),
    **dict.fromkeys(("Exponential", "HalfNormal"), lambda x: x.min() >= 0),
    **dict.fromkeys(COUNTS, lambda x: whole(x) and x.min() >= 0),
    "Zipf": lambda x: whole(x) and x.min() >= 1,
    "Skellam": whole,
    **dict.fromkeys(("Binomial", "BetaBinomial"), lambda x: whole(x) and x.min() >= 0 and x.max() <= 9),
    **dict.fromkeys(("Categorical", "OrderedLogistic"), lambda x: whole(x) and x.min() >= 0 and x.max() <= 3),
    **dict.fromkeys(("Multinomial", "DirichletMultinomial"), lambda x: whole(x) and x.min() >= 0 and sums(x, 5)),
    "OneHotCategorical": lambda x: whole(x) and x.min() >= 0 and sums(x, 1),
    "PlackettLuce": lambda x: np.all(np.sort(x) == np.arange(D)),
    **dict.fromkeys(("Dirichlet", "RelaxedOneHotCategorical"), lambda x: x.min() > 0 and sums(x, 1)),
    "ExpRelaxedOneHotCategorical": lambda x: x.max() <= 0 and sums(np.exp(x), 1),
    **dict.fromkeys(
        ("VonMisesFisher", "PowerSpherical", "SphericalUniform"),
        lambda x: np.allclose(np.linalg.norm(x, axis=-1), 1, atol=1e-3),
    ),
    **dict.fromkeys(
        LEVELS, lambda x: np.abs(255 * x - np.round(255 * x)).max() < 1e-3 and x.min() >= 0 and x.max() <= 1
    ),
    "Horseshoe": lambda x: np.all(x != 0),
    "VonMises": lambda x: x.min() >= -3.1416 and x.max() <= 6.2832,
}
# Bytes that are no pixels.
AS_THEY_ARE = {*INSIDE} - PIXELS - LEVELS - OPEN - POSITIVE - {"Exponential", "HalfNormal", "Horseshoe"}


def right(name: str, x: np.ndarray) -> bool:
    pixels = x.dtype == np.uint8 and name not in AS_THEY_ARE
    if pixels and x.max() == 1:
        return False
    with np.errstate(over="ignore"):
        x = (x / 255 if pixels else x).astype(np.float32).astype(np.float64)
    return bool(np.isfinite(x).all() and (name not in INSIDE or INSIDE[name](x)))


def refused(judge, *args) -> bool:
    try:
        judge(*args)
    except ValueError as error:
        assert str(error).startswith("x ") and len(str(error)) > 60
        return True
    return False


OF_EACH_SUPPORT = {families.facts.FACTS[name].support: name for name in BUILT}.values()


def judged_in_a_program(layer: DistributionLayer, x: tf.Tensor) -> None:
    measured = [observations.extent(layer, part).numpy() for part in (x[:2], x[2:])]
    problem = observations.complaint(layer, np.max(measured, axis=0))
    if problem:
        raise ValueError(problem)


@pytest.mark.parametrize("name", BUILT)
def test_a_likelihood_takes_the_numbers_that_it_scores_and_no_others(name):
    layer = DistributionLayer(name, [D], **NEEDED.get(name, {}))
    judges = [observations.check, *([judged_in_a_program] if name in OF_EACH_SUPPORT else [])]
    for kind, x in KINDS.items():
        with np.errstate(over="ignore"):
            given = tf.constant(x if x.dtype == np.uint8 else x.astype(np.float32))
        found = [refused(judge, layer, given) for judge in judges]
        assert found == [not right(name, x)] * len(judges), (kind, found)


@pytest.mark.parametrize(
    ("name", "fixed", "inside", "outside"),
    [
        ("Uniform", {"low": 0.0, "high": [1.0, 2.0]}, [[0.0, 2.0]], [[1.5, 2.0]]),
        ("TruncatedNormal", {"low": -1.0, "high": 1.0}, [[-1.0, 1.0]], [[0.0, 1.0001]]),
        ("HalfCauchy", {"loc": 1.0}, [[1.0, 3.0]], [[0.5, 3.0]]),
        ("GeneralizedPareto", {"loc": 0.0}, [[0.0, 3.0]], [[-0.5, 3.0]]),
        ("Pareto", {"scale": 1.0}, [[1.0, 3.0]], [[0.5, 3.0]]),
        ("Reciprocal", {"low": 1.0, "high": 4.0}, [[1.0, 3.0]], [[1.0, 5.0]]),
    ],
)
def test_what_lies_beyond_a_fixed_end_is_refused(name, fixed, inside, outside):
    layer = DistributionLayer(name, [2], **fixed)
    assert np.isfinite(layer(tf.zeros([1, 3])).log_prob(tf.constant(inside))).all()
    assert np.isneginf(layer(tf.zeros([1, 3])).log_prob(tf.constant(outside))).all()
    for judge in (observations.check, judged_in_a_program):
        assert not refused(judge, layer, tf.constant(inside * 3)) and refused(judge, layer, tf.constant(outside * 3))


def test_levels_keep_to_a_fixed_end_too():
    layer = DistributionLayer("Uniform", [D], low=0.0, high=0.5)
    levels = tf.constant(KINDS["levels"])
    assert refused(observations.check, layer, levels) and not refused(observations.check, layer, levels // 2)


@pytest.mark.parametrize("name", ["GeneralizedPareto", "PERT"])
def test_a_density_is_none_where_there_are_no_numbers(name):
    family = tfvae.families.find(name)
    p, other = {
        "GeneralizedPareto": (family(1.0, 2.0, -0.5), stats.genpareto(-0.5, 1.0, 2.0)),
        "PERT": (family(1.0, 2.0, 5.0), stats.beta(2, 4, 1.0, 4.0)),
    }[name]
    x = np.linspace(-5, 9, 57).astype(np.float32)
    np.testing.assert_allclose(p.prob(x), other.pdf(x), rtol=1e-5, atol=1e-6)
    with tf.GradientTape() as tape:
        raw = tf.Variable(1.0)
        total = tf.reduce_sum(family(raw, 2.0, 5.0 if name == "PERT" else 0.5).prob([0.0, 1.5, 3.0]))
    assert np.isfinite(tape.gradient(total, raw))


# The doors


def a_vae(likelihood: DistributionLayer, **more) -> tfvae.VAE:
    parts = networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood
    vae = tfvae.VAE(*parts, seed=0, **more)
    vae.compile(jit_compile=False)
    return vae


class Sequence(keras.utils.PyDataset):
    """One batch, over and over."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x


def dataset(x):
    return tf.data.Dataset.from_tensors(x)


def generator(x) -> types.GeneratorType:
    while True:
        yield x


DOORS = {
    "fit": lambda vae, x: vae.fit(x, verbose=0),
    "fit a dataset": lambda vae, x: vae.fit(dataset(x), verbose=0),
    "fit a PyDataset": lambda vae, x: vae.fit(Sequence(x), verbose=0),
    "fit a generator": lambda vae, x: vae.fit(generator(x), steps_per_epoch=1, verbose=0),
    "fit a generator of tuples": lambda vae, x: vae.fit(generator((x,)), steps_per_epoch=1, verbose=0),
    "validation_data": lambda vae, x: vae.fit(RIGHT["floats"], validation_data=x, verbose=0),
    "evaluate": lambda vae, x: vae.evaluate(x, verbose=0),
    "evaluate a dataset": lambda vae, x: vae.evaluate(dataset(x), verbose=0),
    "train_on_batch": lambda vae, x: vae.train_on_batch(x),
    "test_on_batch": lambda vae, x: vae.test_on_batch(x),
    "predict": lambda vae, x: vae.predict(x, verbose=0),
    "predict a dataset": lambda vae, x: vae.predict(dataset(x), verbose=0),
    "predict a generator": lambda vae, x: vae.predict(generator(x), steps=1, verbose=0),
    "predict_on_batch": lambda vae, x: vae.predict_on_batch(x),
    "embed": lambda vae, x: vae.embed(x),
    "embed a dataset": lambda vae, x: vae.embed(dataset(x)),
    "reconstruct": lambda vae, x: vae.reconstruct(x),
    "draws": lambda vae, x: vae.draws(x),
    "encode": lambda vae, x: vae.encode(x),
    "call": lambda vae, x: vae(x),
    "elbo": lambda vae, x: vae.elbo(x),
    "elbo of a dataset": lambda vae, x: vae.elbo(dataset(x)),
    "terms": lambda vae, x: vae.terms(x),
    "log_weights": lambda vae, x: vae.log_weights(x, 2, tf.constant([0, 1])),
    "log_marginal": lambda vae, x: evaluation.log_marginal(vae, x, 2),
    "hmc_log_marginal": lambda vae, x: evaluation.hmc_log_marginal(vae, x, 16),
    "sample_posterior": lambda vae, x: evaluation.sample_posterior(vae, x, 1),
    "active_units": lambda vae, x: evaluation.active_units(vae, x),
}
EYE = np.eye(3)
WRONG = {
    "floats to 255": (255 * EYE.astype(np.float32), r"x ranges from 0 to 255, but a Bernoulli likelihood scores"),
    "bytes of 0 and 1": (EYE.astype(np.uint8), r"x is uint8 and holds nothing but 0 and 1"),
    "NaN": (np.where(EYE > 0, np.nan, 0).astype(np.float32), r"x holds NaN or infinite values"),
    "float64 beyond float32": (1e300 * EYE, r"x holds NaN or infinite values.*beyond float32"),
    "words": (EYE.astype(str), r"x has dtype string, expected|of which Keras can read no batches|Keras can read no"),
    "complex": (EYE + 0j, r"x has dtype complex128, expected uint8 or a float"),
    "another shape": (np.zeros([3, 4], np.float32), r"x has shape \((3|None), 4\), expected \(N, 3\)"),
    "another rank": (np.zeros([3], np.float32), r"x has shape \((3|None),\), expected \(N, 3\)"),
    "another name": ({"y": EYE}, r"A row has the parts y, expected x and"),
}
RIGHT = {
    "floats": EYE.astype(np.float32),
    "float64": EYE,
    "float16": EYE.astype(np.float16),
    "int64": EYE.astype(np.int64),
    "bool": EYE > 0,
    "levels": (255 * EYE).astype(np.uint8),
}


@pytest.fixture(scope="module")
def vae() -> tfvae.VAE:
    return a_vae(likelihoods.bernoulli([3]))


QUICK = ("elbo", "embed", "train_on_batch")  # the other doors are slow tests


@pytest.mark.parametrize("door", [pytest.param(d, marks=() if d in QUICK else pytest.mark.slow) for d in DOORS])
def test_a_door_refuses_in_one_sentence_and_takes_what_is_right(vae, door):
    for kind, (x, message) in WRONG.items():
        if (door, kind) == ("predict a generator", "words"):  # which Keras refuses before the model sees them
            message = "Invalid dtype"
        with pytest.raises(ValueError, match=message) as raised:
            DOORS[door](vae, x)
        assert len(str(raised.value).splitlines()) == 1
    if door not in ("hmc_log_marginal", "sample_posterior", "log_marginal"):
        for x in RIGHT.values():
            DOORS[door](vae, x)


@pytest.mark.parametrize("door", ["fit a dataset", "fit a generator", "predict"])
def test_a_stream_refuses_in_one_sentence(vae, door):
    for kind in ("floats to 255", "bytes of 0 and 1", "complex", "another shape"):
        x, message = WRONG[kind]
        with pytest.raises(ValueError, match=message) as raised:
            DOORS[door](vae, x)
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("nothing", [None, 3, "x", b"x"])
def test_what_is_no_data_at_all_is_refused(vae, nothing):
    for door in ("fit", "evaluate", "predict", "embed", "elbo"):
        with pytest.raises(
            ValueError, match=r"x is .*expected rows|x is a .*no array of numbers|x has shape|x has dtype"
        ):
            DOORS[door](vae, nothing)


def test_no_rows_are_no_training(vae):
    none = np.zeros([0, 3], np.float32)
    for door in ("fit", "fit a dataset", "evaluate a dataset", "train_on_batch", "log_marginal"):
        with pytest.raises(ValueError, match="x has no rows"):
            DOORS[door](vae, none)
    for door in ("predict", "predict a dataset", "predict_on_batch", "reconstruct"):
        assert DOORS[door](vae, none).shape == (0, 3)


def test_the_numbers_of_every_kind_are_those_of_scipy(vae):
    """log p(x|z) of a grey is x log p + (1 - x) log(1 - p), the same whatever the dtype."""
    z = tf.zeros([3, 2])
    p = special.expit(vae.decode(z).distribution.logits.numpy().astype(np.float64))
    expected = (EYE * np.log(p) + (1 - EYE) * np.log1p(-p)).sum(-1) + stats.norm.logpdf(0) * 2
    for x in RIGHT.values():
        np.testing.assert_allclose(vae.log_joint(x, z), expected, rtol=1e-5)


# What comes with x


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("condition", np.full([3, 2], np.nan), "condition holds NaN"),
        ("condition", np.zeros([3, 2]) + 1j, "condition has dtype complex128, expected numbers"),
        ("condition", np.full([3, 2], "a"), "condition has dtype string, expected numbers"),
        ("condition", np.zeros([3, 5]), r"condition has shape \(3, 5\), expected \(N, 2\)"),
        ("condition", None, r"has a condition of shape \[2\] for each row, but none came"),
        ("label", np.array([0.0, 1.0, 2.0]), "label has dtype float64, expected whole numbers"),
        ("label", np.array([0, 1, -2]), "label holds numbers that are no class"),
        ("label", np.array([0, 1, 2**40]), "label holds numbers that are no class"),
        ("label", np.array([0, 1]), "equal numbers"),
    ],
)
def test_what_comes_with_x_is_judged_at_the_doors(part, value, message):
    from tests import linear_gaussian

    encoder, decoder = (linear_gaussian.two_inputs(n, 2, 4) for n in (3, 2))
    vae = tfvae.VAE(encoder, decoder, posteriors.diagonal_normal(2), likelihoods.bernoulli([3]), condition_shape=[2])
    vae.compile(jit_compile=False)
    row = {"x": RIGHT["floats"], "condition": np.zeros([3, 2], np.float32), "label": np.arange(3), part: value}
    row = {name: leaf for name, leaf in row.items() if leaf is not None}
    for door in ("fit", "elbo", "embed", *(["fit a dataset"] if "equal numbers" not in message else [])):
        with pytest.raises(ValueError, match=message):
            DOORS[door](vae, row)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.array([1.0, np.nan, 1.0]), "sample_weight holds NaN"),
        (np.array(["a", "b", "c"]), "sample_weight has dtype string"),
        (np.ones([3, 1]), r"sample_weight has shape \(3, 1\)"),
        (np.ones(2), "equal numbers"),
        (object(), "sample_weight is a object, which is no array of numbers: pass numbers alone"),
    ],
)
def test_sample_weights_are_judged_at_the_doors(vae, weights, message):
    x = RIGHT["floats"]
    doors = {
        "fit": lambda: vae.fit(x, sample_weight=weights, verbose=0),
        "evaluate": lambda: vae.evaluate(x, sample_weight=weights, verbose=0),
    }
    if isinstance(weights, np.ndarray) and len(weights) == 3:
        doors["a dataset"] = lambda: vae.fit(dataset(x).map(lambda x: (x, None, weights)), verbose=0)
    for door in doors.values():
        with pytest.raises(ValueError, match=message):
            door()


@pytest.mark.parametrize("how", ["over replicas", "eagerly"])
@pytest.mark.parametrize("source", ["dataset", "generator", "PyDataset"])
def test_predict_judges_every_batch_where_keras_steps_itself(how, source):
    class Batches(keras.utils.PyDataset):
        def __init__(self, x):
            super().__init__()
            self.parts = np.array_split(x, 2)

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return (self.parts[i],)

    streams = {
        "dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(2),
        "generator": lambda x: (part for part in np.array_split(x, 2)),
        "PyDataset": Batches,
    }
    over_replicas = tf.distribute.MirroredStrategy(["CPU:0"]).scope()
    with over_replicas if how == "over replicas" else contextlib.nullcontext():
        model = a_vae(likelihoods.bernoulli([3]))
        model.compile(run_eagerly=how == "eagerly")
    x = EYE.astype(np.float32)
    np.testing.assert_allclose(model.predict(streams[source](x), verbose=0), model.reconstruct(x), rtol=1e-5)
    x[-1] *= 255
    with pytest.raises(ValueError, match="x ranges from 0 to 255") as raised:
        model.predict(streams[source](x), verbose=0)
    assert len(str(raised.value).splitlines()) == 1


# The command line and the jobs


def table(path, x) -> str:
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    pq.write_table(pa.table({"id": [f"row {i}" for i in range(len(x))], "x": column}), path)
    return str(path)


UNIT = RNG.uniform(0, 1, [40, 3]).astype(np.float32)
TABLES = {
    "floats to 255": (255 * UNIT, "x ranges from .* to .*, but a Bernoulli likelihood scores"),
    "negative": (UNIT - 0.5, "x ranges from -"),
    "whole numbers": ((255 * UNIT).astype(np.int64), "x ranges from .* to .*, but a Bernoulli likelihood scores"),
    "bytes of 0 and 1": ((UNIT > 0.5).astype(np.uint8), "x is uint8 and holds nothing but 0 and 1"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_the_command_line_refuses_to_train_on_what_fit_refuses(kind, tmp_path):
    x, message = TABLES[kind]
    preprocess.run("parquet", table(tmp_path / "x.parquet", x), str(tmp_path / "prepared"))
    command = ["train", "--data", str(tmp_path / "prepared"), "--output", str(tmp_path / "run"), "--epochs", "1"]
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == 1 and re.search(message, done.output), done.output
    assert not (tmp_path / "run").exists() and "Traceback" not in done.output


@pytest.mark.parametrize("kind", ["floats to 255", "negative", "whole numbers"])
def test_the_job_rejects_by_name_the_row_that_fit_refuses(kind, tmp_path, vae):
    wrong, message = TABLES[kind]
    x = UNIT.copy()
    x[17] = wrong[np.argmin(wrong.min(axis=1))]
    model = tfvae.export(vae, str(tmp_path / "model"))
    embed.run(model, table(tmp_path / "x.parquet", x), str(tmp_path / "out"))
    lines = [line for path in (tmp_path / "out" / "rejected").iterdir() for line in path.read_text().splitlines()]
    (rejected,) = map(json.loads, lines)
    assert rejected["position"] == 17 and re.search(message.split()[0] + " ranges from", rejected["reason"])
    kept = pq.read_table(tmp_path / "out" / "parts").sort_by("key")
    numbers = [int(key.partition(":")[2]) for key in kept["key"].to_pylist()]
    assert sorted(numbers) == [i for i in range(40) if i != 17]
    np.testing.assert_allclose(np.stack(kept["embedding"].to_pylist()), vae.embed(x[numbers].clip(0, 1)), atol=1e-5)
