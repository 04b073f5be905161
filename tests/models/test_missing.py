"""Rows with holes: the linear-Gaussian model, whose log p(x there) and p(x missing | x there) are normal and known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tests import linear_gaussian as exact
from tests.conformance.models import TABLE, _small, _table
from tfvae import VAE, DistributionLayer, evaluation, export, likelihoods, observations, priors
from tfvae.checks import rules
from tfvae.exporting import signatures

NAN = np.float32(np.nan)
X = exact.rows(7, seed=3)[0]
X[[0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 5], [2, 0, 1, 0, 2, 3, 0, 1, 2, 3, 3]] = NAN


@keras.saving.register_keras_serializable("tests")
class Posterior(keras.layers.Layer):
    """p(z|x there) of the model, from zeros and mask: its mean and the raw number of its scale."""

    def call(self, seen):
        x, there = seen[:, :4], seen[:, 4:]
        variance = 1 / (1 + there @ (exact.W.T**2 / exact.SCALE**2).astype(np.float32))
        mean = variance * (((x - exact.LOC) * there) @ (exact.W.T / exact.SCALE**2).astype(np.float32))
        return tf.concat([mean, tf.math.log(tf.math.expm1(tf.sqrt(variance)))], axis=-1)


def model(wider: float = 1.0) -> VAE:
    """q(z|x) is p(z|x there), or wider by about that."""
    likelihood = likelihoods.missing(DistributionLayer("Normal", [4], scale=exact.SCALE))
    vae = VAE(Posterior(), keras.layers.Identity(), DistributionLayer("Normal", [2]), likelihood, seed=0)
    vae.likelihood.projection.set_weights([exact.W, exact.LOC])
    vae.posterior.projection.set_weights([np.diag([1, 1, wider, wider]), np.zeros(4)])
    return vae


def truth(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """log p(x there), and mean and covariance of x missing, of one row."""
    there, covariance = ~np.isnan(x), exact.W.T @ exact.W + exact.SCALE**2 * np.eye(4)
    within, across = covariance[np.ix_(there, there)], covariance[np.ix_(~there, there)]
    gain = across @ np.linalg.inv(within) if there.any() else np.zeros([4, 0])
    log_p = stats.multivariate_normal(exact.LOC[there], within).logpdf(x[there]) if there.any() else 0.0
    mean = exact.LOC[~there] + gain @ (x - exact.LOC)[there]
    return float(log_p), mean, covariance[np.ix_(~there, ~there)] - gain @ across.T


LOG_P = [truth(row)[0] for row in X.astype(np.float64)]


def test_the_bound_is_tight_with_the_exact_posterior_and_below_with_another():
    np.testing.assert_allclose(model().log_weights(X, 3, 1), np.tile(LOG_P, [3, 1]), atol=2e-5)
    wide = model(1.6)
    assert np.all(wide.elbo(X, num_samples=20_000, seed=1) < np.array(LOG_P) - 0.005)
    marginal = evaluation.log_marginal(wide, X, num_samples=4000)
    assert np.all(np.abs(marginal.log_marginal - LOG_P) < 4 * marginal.standard_error + 1e-5)


@pytest.mark.parametrize("wider", [1.0, 1.6])
def test_what_is_imputed_is_what_is_to_be_expected_and_its_draws_have_its_distribution(wider):
    found = model(wider).impute(X, num_samples=4000, num_draws=2000, seed=5)
    if wider == 1.0:
        np.testing.assert_allclose(found.effective_sample_size, 4000, rtol=1e-3)
    else:
        assert np.all((found.effective_sample_size > 1000) & (found.effective_sample_size < 3999))
    for i, row in enumerate(X.astype(np.float64)):
        gone, (_, mean, covariance) = np.isnan(row), truth(row)
        np.testing.assert_array_equal(found.x[i][~gone], X[i][~gone])
        np.testing.assert_array_equal(found.draws[:, i, ~gone], np.tile(X[i][~gone], [2000, 1]))
        if not gone.any():
            continue
        spread = np.sqrt(np.diag(covariance))
        assert np.all(np.abs(found.x[i][gone] - mean) < 4.5 * spread / np.sqrt(found.effective_sample_size[i]))
        draws = found.draws[:, i, gone]
        assert np.all(np.abs(draws.mean(axis=0) - mean) < 4.5 * spread / np.sqrt(1000))
        np.testing.assert_allclose(np.cov(draws.T), covariance.squeeze(), atol=0.16)
        for column, *of in zip(draws.T, mean, spread, strict=True):
            assert stats.kstest(column, "norm", of).pvalue > 1e-4


def test_a_seed_fixes_what_is_imputed_and_none_is_asked_for_in_vain():
    vae = model()
    one, same, other = (vae.impute(X[:3], num_samples=5, num_draws=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.draws, same.draws)
    assert np.any(one.draws != other.draws) and vae.impute(X[:3], num_samples=5).draws is None
    assert vae.impute(X[:0], num_draws=2).draws.shape == (2, 0, 4)
    with pytest.raises(ValueError, match=r"leaves nothing out: make the model with likelihoods\.missing\(layer\)"):
        exact.vae().impute(np.nan_to_num(X))


def test_where_all_is_there_it_is_the_plain_likelihood_and_a_column_never_seen_changes_nothing():
    x, more = np.nan_to_num(X), np.concatenate([np.nan_to_num(X), np.full([7, 1], NAN)], axis=1)
    plain = DistributionLayer("Normal", [4], scale=exact.SCALE)
    features = np.random.default_rng(0).normal(size=[7, 3]).astype(np.float32)
    expected = plain(features).log_prob(x)
    wider = DistributionLayer("Normal", [5], scale=exact.SCALE, missing=True)
    wider(features)
    kernel, bias = plain.projection.get_weights()
    wider.projection.set_weights([np.pad(kernel, [[0, 0], [0, 1]], constant_values=3.0), np.append(bias, 1.0)])
    for layer, given in ((likelihoods.missing(DistributionLayer.from_config(plain.get_config())), x), (wider, more)):
        if layer is not wider:
            layer(features)
            layer.projection.set_weights(plain.projection.get_weights())
        np.testing.assert_allclose(layer(features).log_prob(given), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "fixed", "x"),
    [
        ("Normal", {}, 0.3),
        ("StudentT", {}, 0.3),
        ("LogNormal", {}, 0.3),
        ("Gamma", {}, 0.3),
        ("Beta", {}, 0.3),
        ("Bernoulli", {}, 1.0),
        ("DiscretizedLogistic", {}, 0.2),
        ("Poisson", {}, 3.0),
        ("NegativeBinomial", {}, 3.0),
        ("ZeroInflatedNegativeBinomial", {}, 3.0),
        ("Categorical", {"num_classes": 3}, 2.0),
        ("OrderedLogistic", {"num_classes": 3}, 2.0),
        ("Uniform", {"low": -1.0, "high": 4.0}, 0.3),
    ],
)
def test_no_gradient_comes_of_what_is_missing(family, fixed, x):
    """0 times the infinite slope of a density where NaN, or a number outside, stood would be NaN."""
    layer = DistributionLayer(family, [2], missing=True, **fixed)
    features = tf.constant(5 * np.random.default_rng(1).normal(size=[6, 3]), tf.float32)
    layer(features)
    alone, both = np.float32([[x, np.nan]]), np.float32([[x, x]])
    if layer.projection is None:
        np.testing.assert_allclose(layer(features).log_prob(both), 2 * layer(features).log_prob(alone), rtol=1e-6)
        return
    with tf.GradientTape() as tape:
        log_prob = layer(features).log_prob(alone)
    gradient = tape.gradient(log_prob, layer.projection.kernel)
    mirrored = layer(features).log_prob(both) - layer(features).log_prob(np.float32([[np.nan, x]]))
    np.testing.assert_allclose(log_prob, mirrored, rtol=1e-4, atol=1e-5)
    assert np.isfinite(gradient).all() and np.any(gradient != 0)
    np.testing.assert_array_equal(layer(features).log_prob([[NAN, NAN]]), 0.0)


def test_columns_of_several_families_are_the_sum_of_scipys():
    layer = likelihoods.mixed(
        [
            DistributionLayer("Normal", [2], scale=0.5),
            DistributionLayer("Poisson", [1]),
            DistributionLayer("Categorical", [1], num_classes=3),
            DistributionLayer("LogNormal", [1], scale=2.0),
        ]
    )
    features = np.random.default_rng(0).normal(size=[2, 3, 4]).astype(np.float32)
    p = layer(features)
    loc, rate, logits, log_loc = (
        part.parameters(features)[name].numpy().astype(np.float64)
        for part, name in zip(layer.parts, ("loc", "log_rate", "logits", "loc"), strict=True)
    )
    x = np.float32([[0.3, -1.0, 4.0, 2.0, 0.7], [1.0, 0.0, 0.0, 0.0, 3.0], [0.5, 9.0, 1.0, 1.0, 1.0]])
    expected = stats.norm(loc, 0.5).logpdf(x[:, :2]).sum(axis=-1) + stats.poisson(np.exp(rate[..., 0])).logpmf(x[:, 2])
    expected += np.take_along_axis(
        np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))[..., 0, :],
        np.broadcast_to(x[:, 3, None].astype(int), [2, 3, 1]),
        axis=-1,
    )[..., 0]
    expected += stats.lognorm(2.0, scale=np.exp(log_loc[..., 0])).logpdf(x[:, 4])
    np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(p.mean()[..., 2], np.exp(rate[..., 0]), rtol=1e-5)
    draws = p.sample(4000, seed=[1, 2]).numpy()
    assert draws.shape == (4000, 2, 3, 5)
    error = draws[..., :3].std(axis=0) / np.sqrt(4000)
    assert np.all(np.abs(draws[..., :3].mean(axis=0) - p.mean()[..., :3]) < 4.5 * error)


def test_a_table_trains_and_is_filled_with_numbers_of_its_kinds():
    keras.utils.set_random_seed(0)
    vae = _small(_table(), seed=0)
    vae.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    history = vae.fit(TABLE, epochs=15, batch_size=6, verbose=0).history["elbo"]
    assert history[-1] > history[0] + 1
    found = vae.impute(TABLE, num_samples=50, num_draws=3)
    there = ~np.isnan(TABLE)
    np.testing.assert_array_equal(found.x[there], TABLE[there])
    assert np.isfinite(found.x).all() and np.isin(found.x[:, 3], [0, 1, 2]).all()
    assert np.isin(found.draws[..., 3], [0, 1, 2]).all() and np.isfinite(found.draws).all()
    by_name = {operation.name: operation.answer for operation in signatures.operations(vae)}
    noise = tf.random.stateless_normal([50, vae.latent_dim], [1, 2])
    told = [vae.reconstruct(TABLE), vae.predict(TABLE, verbose=0), vae.sample(50, seed=1)]
    told += [by_name[name](noise)[key] for name, key in (("decode", "reconstruction"), ("sample", "sample"))]
    probs = vae.decode(noise).parts[-1].distribution.log_probs().numpy()[:, 0]
    assert all(np.isin(np.asarray(one)[:, 3], [0, 1, 2]).all() for one in told)
    np.testing.assert_array_equal(told[3][:, 3], probs.argmax(axis=-1))
    seen = vae.likelihood.seen(tf.constant(TABLE)).numpy()
    np.testing.assert_array_equal(seen[:, 2:4], there[:, :2])
    np.testing.assert_allclose(seen[:, 4], np.log1p(TABLE[:, 2]), rtol=1e-6)
    np.testing.assert_array_equal(seen[[0, 7], 5:], [[1, 0, 0, 1], [0, 0, 0, 0]])


def test_nan_is_missing_where_it_was_said_and_an_error_elsewhere():
    vae = _small(_table(), seed=0)
    vae.compile()
    bad, infinite, no_class = TABLE.copy(), TABLE.copy(), TABLE.copy()
    bad[3, 2], infinite[0, 0], no_class[0, 3] = NAN, np.inf, 3.0
    said = {
        r"In column 2, x holds NaN .*make the likelihood leave it out: likelihoods\.missing\(layer\)": bad,
        "In columns 0 to 1, x holds infinite values": infinite,
        "In column 3, x ranges from .* a Categorical likelihood scores classes": no_class,
    }
    for words, x in said.items():
        for door in (vae.elbo, vae.fit, lambda x: vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(4), verbose=0)):
            with pytest.raises(ValueError, match=words):
                door(x)
    with pytest.raises(ValueError, match=r"likelihoods\.missing\(layer\)"):
        exact.vae().elbo(X)
    with pytest.raises(ValueError, match="x is uint8, but columns of several families"):
        vae.elbo(np.zeros([2, 4], np.uint8))


def test_noise_leaves_holes_as_they_are():
    layer = likelihoods.missing(likelihoods.bernoulli([4]))
    vae = _small(layer, noise=observations.Binarized(), seed=0)
    x = np.float32([[0.5, NAN, 0.2, NAN]])
    drawn = vae.with_noise(vae.prepare(x), lambda: tf.constant([1, 2]))["x"].numpy()
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(x))
    assert np.isin(drawn[0, [0, 2]], [0, 1]).all()
    with pytest.raises(ValueError, match="not all the same number of dimensions"):
        evaluation.level_width(vae)


def test_a_missing_number_has_no_rank():
    with pytest.raises(ValueError, match="missing, which have no rank among draws: judge rows without holes"):
        evaluation.predictive_calibration(model(), np.tile(X, [20, 1]))


def test_what_cannot_leave_anything_out_says_so():
    with pytest.raises(ValueError, match=r"MultivariateNormalTriL cannot leave out .* not independent"):
        _small(likelihoods.missing(DistributionLayer("MultivariateNormalTriL", [3])))
    with pytest.raises(ValueError, match="Uniform cannot leave out what is missing: low and high may lie anywhere"):
        likelihoods.missing(DistributionLayer("Uniform", [3]))
    with pytest.raises(ValueError, match="has weights already"):
        likelihoods.missing(model().likelihood)
    with pytest.raises(ValueError, match="layer is 'Normal', expected a likelihood"):
        likelihoods.missing("Normal")
    with pytest.raises(ValueError, match=r"A part is a DistributionLayer of shape \[2, 2\], expected"):
        likelihoods.mixed([DistributionLayer("Normal", [2, 2])])
    with pytest.raises(ValueError, match="parts is empty"):
        likelihoods.mixed([])
    with pytest.raises(ValueError, match="learns rows of its own, but columns of several families"):
        _small(_table(), prior=priors.VampPrior(2, [4], num_components=3))


@pytest.mark.slow
def test_an_export_takes_holes_where_they_were_declared_in_cpp_and_litert_too(tmp_path):
    vae = _small(_table(), seed=0)
    path = export(vae, tmp_path / "table")
    found = list(rules.check_export(path))
    assert all(check.passed for check in found), found
    served = tf.saved_model.load(path).signatures
    np.testing.assert_allclose(served["embed"](x=TABLE)["embedding"], vae.embed(TABLE), rtol=1e-4, atol=1e-5)
    bad = TABLE.copy()
    bad[0, 2] = NAN
    with pytest.raises(tf.errors.InvalidArgumentError, match="x holds NaN or infinite values"):
        served["embed"](x=bad)
    assert export(vae, tmp_path / "lite", format="litert", signatures=["embed", "reconstruct"])
