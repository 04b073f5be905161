"""Priors with weights: a mixture, the encoder's own, one that is fitted after training, and a user's."""

import keras
import numpy as np
import pytest
import sklearn.mixture
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests import linear_gaussian
from tfvae import VAE, DistributionLayer, likelihoods, networks, posteriors, priors
from tfvae.engine import xla

X, _ = linear_gaussian.rows(40)
Z = np.random.default_rng(5).normal(scale=2.0, size=[50, 2]).astype(np.float32)


def mixture(weights, means, scales) -> priors.Mixture:
    """A Mixture of these components."""
    made = priors.Mixture(means.shape[1], num_components=len(weights))
    made.logits.assign(np.log(weights) + 3.0)  # logits need not sum to one
    made.locs.assign(means)
    made.raw_scales.assign(np.log(np.expm1(scales - 1e-5)))
    return made


def test_a_mixture_has_scikit_learn_s_density():
    rng = np.random.default_rng(0)
    reference = sklearn.mixture.GaussianMixture(3, covariance_type="diag", random_state=0)
    reference.fit(np.concatenate([rng.normal(m, s, size=[200, 2]) for m, s in ((-3, 0.3), (0, 1), (4, 2))]))
    prior = mixture(reference.weights_, reference.means_, np.sqrt(reference.covariances_))
    np.testing.assert_allclose(prior().log_prob(Z), reference.score_samples(Z), rtol=1e-4, atol=1e-4)
    draws = prior().sample(20_000, seed=(0, 1)).numpy()
    assert (
        abs(np.mean(reference.score_samples(draws)) - np.mean(reference.score_samples(reference.sample(20_000)[0])))
        < 0.05
    )


def test_a_mixture_of_full_covariances_is_fitted_as_scikit_learn_fits_it():
    x = two_clusters() @ np.array([[1.0, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.3], [0, 0, 0, 1]], np.float32)
    vae, prior = linear_gaussian.vae(), priors.Mixture(2, num_components=2, full_covariance=True)
    np.testing.assert_allclose(prior().components_distribution.covariance(), np.tile(np.eye(2), [2, 1, 1]), rtol=1e-4)
    priors.fit(prior, vae, x, epochs=5, batch_size=100, learning_rate=1e-4)
    best = sklearn.mixture.GaussianMixture(2, covariance_type="full", random_state=0).fit(aggregate(vae, x, seed=0))
    score = np.mean(prior().log_prob(aggregate(vae, x, seed=1)))
    assert score == pytest.approx(best.score(aggregate(vae, x, seed=1)), abs=0.03)
    assert np.abs(prior().components_distribution.covariance()[:, 0, 1]).max() > 0.01


def test_one_standard_component_is_the_standard_normal():
    one = mixture(np.ones(1), np.zeros([1, 2]), np.ones([1, 2]))
    np.testing.assert_allclose(one().log_prob(Z), priors.StandardNormal(2)().log_prob(Z), rtol=1e-4, atol=1e-5)


def test_it_starts_from_equal_weights_and_unit_scales():
    components = priors.Mixture(3, num_components=4)()
    np.testing.assert_allclose(components.mixture_distribution.probs_parameter(), np.full(4, 0.25))
    np.testing.assert_allclose(components.components_distribution.stddev(), np.ones([4, 3]), rtol=1e-5)
    assert np.std(components.components_distribution.mean()) > 0.1  # else all components would learn the same


@pytest.mark.slow
def test_a_mixture_learns_with_its_model():
    """Two far clusters: the posterior cannot be N(0, I) on the whole, and the prior comes to say so."""
    rng = np.random.default_rng(0)
    x = (rng.choice([-4.0, 4.0], size=[200, 1]) + 0.3 * rng.normal(size=[200, 4])).astype(np.float32)
    found = {}
    for prior in (None, priors.Mixture(2, num_components=2)):
        keras.utils.set_random_seed(0)
        vae = linear_gaussian.vae(prior=prior, seed=0)
        before = [weight.numpy() for weight in vae.prior.trainable_variables]
        vae.decoder.trainable = vae.likelihood.trainable = False
        vae.compile(keras.optimizers.Adam(0.03), jit_compile=True)
        vae.fit(x, batch_size=50, epochs=60, verbose=0)
        found[prior is None] = vae.evaluate(x, verbose=0, return_dict=True)["elbo"]
    assert found[False] > found[True] + 1.0
    assert len(before) == 3
    for weight, start in zip(vae.prior.trainable_variables, before, strict=True):
        assert np.abs(weight.numpy() - start).max() > 0.01, weight.path
    assert {id(w) for w in vae.prior.trainable_variables} <= {id(w) for w in vae.generative_weights}


# VampPrior


def exact_aggregate(z: np.ndarray, u: np.ndarray) -> np.ndarray:
    """log (1/C) Σ_c N(z; m(u_c), S), of the linear-Gaussian model's exact posterior, in float64."""
    means = (u.astype(np.float64) - linear_gaussian.LOC) @ linear_gaussian.KERNEL
    scale = np.sqrt(linear_gaussian.VARIANCE)
    off = (z[:, None] - means) / scale
    log_q = np.sum(-0.5 * off**2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=-1)
    return np.logaddexp.reduce(log_q, axis=1) - np.log(len(u))


@pytest.mark.parametrize("count", [1, 40])
def test_a_vamp_prior_of_the_data_is_the_exact_aggregate_posterior(count):
    prior = priors.VampPrior(2, [4], num_components=count, constraint="identity", initial=X[:count])
    vae = linear_gaussian.vae(prior=prior)
    np.testing.assert_allclose(prior.pseudo_inputs, X[:count], rtol=1e-5)
    np.testing.assert_allclose(prior().log_prob(Z), exact_aggregate(Z, X[:count]), rtol=1e-4, atol=1e-3)
    if count == 1:
        np.testing.assert_allclose(prior().log_prob(Z), vae.encode(X[:1]).log_prob(Z), rtol=1e-5)
    log_joint = vae.log_joint(X, np.tile(Z[:1], [40, 1]))
    likelihood = vae.decode(np.tile(Z[:1], [40, 1])).log_prob(X)
    np.testing.assert_allclose(log_joint - likelihood, np.full(40, exact_aggregate(Z[:1], X[:count])), atol=1e-3)


@pytest.mark.parametrize(
    ("constraint", "initial"),
    [
        ("sigmoid", np.linspace(0.01, 0.99, 8)),
        ("identity", np.linspace(-3, 3, 8)),
        ("softplus", np.linspace(0.1, 9, 8)),
    ],
)
def test_pseudo_inputs_start_where_they_are_told_and_stay_among_the_observations(constraint, initial):
    prior = priors.VampPrior(2, [4], num_components=2, constraint=constraint, initial=initial.reshape(2, 4))
    np.testing.assert_allclose(prior.pseudo_inputs, initial.reshape(2, 4), rtol=1e-4)
    prior.raw_inputs.assign(np.full([2, 4], -50.0))
    assert np.all(prior.pseudo_inputs >= (-50.0 if constraint == "identity" else 0.0))
    for wrong in (np.zeros([3, 4]), np.zeros([2, 5])):
        with pytest.raises(ValueError, match=r"pseudo-inputs have shape .*, expected \(2, 4\)"):
            priors.VampPrior(2, [4], num_components=2, initial=wrong)


@pytest.mark.parametrize(
    ("constraint", "initial", "told"),
    [
        ("sigmoid", [[-0.1, 0.5]], "from -0.1 to 0.5, which the constraint 'sigmoid' cannot give"),
        ("sigmoid", [[0.0, 1.1]], "expected finite numbers from 0 to 1"),
        ("softplus", [[-0.1, 0.5]], "expected finite numbers from 0 to inf"),
        ("identity", [[np.nan, 0.5]], "expected finite numbers"),
        ("identity", np.uint8([[3, 250]]), "as the encoder sees them: bytes divided by 255"),
        ("identity", np.ma.masked_equal([[0.0, 0.5]], 0.0), "masked array with 1 cell masked"),
    ],
)
def test_pseudo_inputs_that_cannot_be_are_told(constraint, initial, told):
    with pytest.raises(ValueError, match=told):
        priors.VampPrior(2, [2], num_components=1, constraint=constraint, initial=initial)


def test_black_and_white_pixels_are_pseudo_inputs():
    prior = priors.VampPrior(2, [2], num_components=1, initial=[[0, 1]])
    np.testing.assert_allclose(prior.pseudo_inputs, [[0.001, 0.999]], rtol=1e-4)


def pictures(prior: priors.Prior) -> VAE:
    keras.utils.set_random_seed(1)
    parts = networks.mlp([6]), networks.mlp([6]), posteriors.diagonal_normal(2), likelihoods.bernoulli([5])
    return VAE(*parts, prior=prior, seed=1)


@pytest.mark.slow
def test_a_vamp_prior_trains_under_xla_and_comes_back(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, [30, 5], np.uint8)
    vae = pictures(priors.VampPrior(2, [5], num_components=3))
    start = vae.prior.raw_inputs.numpy()
    vae.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    history = vae.fit(x, batch_size=10, epochs=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert np.abs(vae.prior.raw_inputs.numpy() - start).min() > 1e-3
    # The prior is made of the encoder as it is now.
    (expected,) = [vae.encode(vae.prior.pseudo_inputs).mean().numpy()]
    np.testing.assert_allclose(vae.prior().components_distribution.mean(), expected, rtol=1e-5)
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.prior().log_prob(Z), vae.prior().log_prob(Z))
    more = [model.fit(x, batch_size=10, epochs=2, verbose=0).history["loss"] for model in (vae, loaded)]
    assert more[0] == more[1]


def test_a_vamp_prior_sees_the_encoder_as_in_inference():
    encoder = keras.Sequential([keras.layers.Dense(6), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
    parts = encoder, networks.mlp([6]), posteriors.diagonal_normal(2), likelihoods.bernoulli([5])
    vae = VAE(*parts, prior=priors.VampPrior(2, [5], num_components=3), seed=0)
    x = np.random.default_rng(0).random([20, 5], np.float32)
    first, second = (vae.terms(x, 2, tf.constant([1, 2]), training=True).log_prior for _ in range(2))
    z = vae.terms(x, 2, tf.constant([1, 2]), training=True).z
    assert np.any(first != second)  # z comes through dropout, and is another each time
    np.testing.assert_array_equal(vae.prior().log_prob(z), vae.prior().log_prob(z))
    with pytest.raises(ValueError, match="is made of a model's encoder: pass it to VAE"):
        priors.VampPrior(2, [5], num_components=3)()


def test_a_vamp_prior_of_a_conditional_model_is_refused():
    with pytest.raises(ValueError, match="VampPrior encodes inputs of its own, but this encoder needs a condition"):
        linear_gaussian.vae(conditional=True, prior=priors.VampPrior(2, [4], num_components=2))


# Fitted afterwards


def aggregate_score(vae: VAE, prior: priors.Prior, x: np.ndarray) -> float:
    """E_q(z|x) log p(z), of draws that no fit has seen."""
    return float(np.mean(prior().log_prob(aggregate(vae, x, seed=1))))


def aggregate(vae: VAE, x: np.ndarray, seed: int) -> np.ndarray:
    """Draws of the aggregate posterior, ``[20 N, D]``, by TFP."""
    return vae.encode(x).sample(20, seed=(seed, 7)).numpy().reshape(-1, 2)


def two_clusters() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.choice([-4.0, 4.0], size=[300, 1]) + 0.3 * rng.normal(size=[300, 4])).astype(np.float32)


@pytest.mark.parametrize("kind", ["mixture", "normal", "vamp"])
def test_fit_raises_the_expected_log_prior_and_nothing_else_moves(kind):
    x, vae = two_clusters(), linear_gaussian.vae()
    keras.utils.set_random_seed(0)
    prior = {
        "mixture": lambda: priors.Mixture(2, num_components=2),
        "normal": lambda: priors.Family("Normal", [2], shared=["loc", "scale"]),
        "vamp": lambda: priors.VampPrior(2, [4], num_components=4, constraint="identity"),
    }[kind]()
    vae.bind(prior)
    weights, start = vae.get_weights(), aggregate_score(vae, prior, x)
    rate = {"mixture": 1e-3, "normal": 0.5, "vamp": 0.1}[kind]
    given = priors.fit(
        prior, vae, x, epochs={"mixture": 10, "normal": 100, "vamp": 40}[kind], batch_size=100, learning_rate=rate
    )
    assert given is prior
    end = aggregate_score(vae, prior, x)
    assert end > start + 0.3 and end > aggregate_score(vae, vae.prior, x) + 0.3
    for now, then in zip(vae.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    if kind == "normal":  # whose maximum is known: the moments of the aggregate posterior
        z = aggregate(vae, x, seed=0)
        np.testing.assert_allclose(prior().mean(), z.mean(axis=0), atol=0.1)
        np.testing.assert_allclose(prior().stddev(), z.std(axis=0), rtol=0.02)
    if kind == "mixture":
        best = sklearn.mixture.GaussianMixture(2, covariance_type="diag", random_state=0)
        best.fit(aggregate(vae, x, seed=0))
        assert end == pytest.approx(best.score(aggregate(vae, x, seed=1)), abs=0.02)
    with_prior = vae.with_prior(prior)
    assert with_prior.encoder is vae.encoder and with_prior.decoder is vae.decoder and with_prior.prior is prior
    np.testing.assert_array_equal(with_prior.embed(x), vae.embed(x))
    # The ELBO rises by just what the prior gains.
    seed = tf.constant([1, 2])
    old, new = (model.terms(x, 200, seed) for model in (vae, with_prior))
    gain = np.mean(new.log_weight) - np.mean(old.log_weight)
    assert gain == pytest.approx(np.mean(new.log_prior) - np.mean(old.log_prior), abs=1e-3) and gain > 0.3


def test_a_fit_repeats_by_its_seed():
    found = {}
    for run, seed in enumerate((0, 0, 1)):
        keras.utils.set_random_seed(run)
        prior = priors.Mixture(2, num_components=3)
        priors.fit(prior, linear_gaussian.vae(), two_clusters(), epochs=3, batch_size=100, seed=seed)
        found[run] = prior.get_weights()
    for one, other in zip(found[0], found[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(found[0][1] != found[2][1])


def test_what_cannot_be_fitted_says_so():
    with pytest.raises(ValueError, match="StandardNormal has no weights to fit"):
        priors.fit(priors.StandardNormal(2), linear_gaussian.vae(), X)
    with pytest.raises(ValueError, match="mixture of 41 needs as many rows at least, received 40"):
        priors.fit(priors.Mixture(2, num_components=41), linear_gaussian.vae(), X)


# One family, and a user's own


def test_shared_parameters_of_a_family_learn_the_aggregate_posterior():
    prior = priors.Family("Normal", [2], shared=["loc", "scale"])
    vae = linear_gaussian.vae(prior=prior, seed=0)
    for part in (vae.decoder, vae.likelihood, vae.posterior):
        part.trainable = False
    x = two_clusters()
    assert len(vae.trainable_variables) == 2
    vae.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    vae.fit(x, batch_size=100, epochs=200, verbose=0)
    means = vae.embed(x)  # the aggregate posterior: the means' spread and q's own
    np.testing.assert_allclose(prior().mean(), means.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(prior().variance(), means.var(axis=0) + linear_gaussian.VARIANCE, rtol=0.1)


@keras.saving.register_keras_serializable("tests")
class Shifted(priors.Prior):
    """N(m, I) with m learned, or m = c B where there is a condition."""

    def __init__(self, latent_dim: int, condition_dim: int = 0, name: str = "prior"):
        super().__init__(latent_dim, name=name)
        self.condition_dim = condition_dim
        self.means = self.add_weight(shape=[max(1, condition_dim), latent_dim], initializer="zeros", name="means")

    def distribution(self, condition=None):
        means = tf.convert_to_tensor(self.means)
        return tfd.Independent(tfd.Normal(means[0] if condition is None else condition @ means, 1.0), 1)

    def get_config(self):
        return {"latent_dim": self.latent_dim, "condition_dim": self.condition_dim, "name": self.name}


def test_a_user_s_own_prior_trains_saves_and_samples(tmp_path):
    vae = linear_gaussian.vae(prior=Shifted(2), seed=0)
    vae.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    vae.fit(X + 2.0, batch_size=20, epochs=40, verbose=0)
    assert np.abs(vae.prior.means.numpy()).min() > 0.1
    vae.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.sample(5, seed=0), vae.sample(5, seed=0))
    np.testing.assert_allclose(np.mean(vae.prior().sample(4000, seed=1), axis=0), vae.prior.means[0], atol=0.08)


def test_a_prior_that_sees_the_condition_scores_each_row_by_its_own():
    x, c = linear_gaussian.rows(6)
    vae = linear_gaussian.vae(conditional=True, prior=Shifted(2, 3))
    means = np.random.default_rng(0).normal(size=[3, 2]).astype(np.float32)
    vae.prior.means.assign(means)
    row = {"x": x, "condition": c}
    terms = vae.terms(row, 4, tf.constant([1, 2]))
    off = terms.z.numpy().astype(np.float64) - c @ means
    np.testing.assert_allclose(terms.log_prior, np.sum(-0.5 * off**2 - 0.5 * np.log(2 * np.pi), axis=-1), atol=1e-4)
    q = vae.encode(row).distribution
    loc, scale = q.loc.numpy(), q.scale.numpy()
    kl = np.sum(0.5 * (scale**2 + (loc - c @ means) ** 2 - 1) - np.log(scale), axis=-1)
    assert terms.kl_is_exact
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(vae.log_joint(row, terms.z), terms.log_joint, rtol=1e-5, atol=1e-4)
    # z ~ p(z|c): its mean is c B, and the sample's c B W + c A + b.
    many = np.tile(c[:1], [20_000, 1])
    expected = c[0] @ means @ linear_gaussian.W + linear_gaussian.Exact(True).mean(c[0])
    np.testing.assert_allclose(np.mean(vae.sample(20_000, seed=0, condition=many), axis=0), expected, atol=0.06)


def test_priors_compile():
    for prior in (priors.Mixture(2, 3), priors.Family("Normal", [2], shared=["loc", "scale"])):
        program = xla.compiled(lambda z, prior=prior: prior().log_prob(z))
        np.testing.assert_allclose(program(tf.constant(Z)), prior().log_prob(Z), rtol=1e-5, atol=1e-5)


def test_the_abstract_prior_says_what_to_write():
    with pytest.raises(TypeError, match="Prior is what all priors have in common"):
        priors.Prior(2)
    with pytest.raises(ValueError, match=r"needs a value for: loc, scale\. Give it, or name it in shared="):
        priors.Family("Normal", [2])
    with pytest.raises(ValueError, match="prior is a DistributionLayer, expected one of priors"):
        linear_gaussian.vae(prior=DistributionLayer("Normal", [2]))
