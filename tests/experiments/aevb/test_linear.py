"""Probabilistic PCA in closed form against exact normal densities, and a linear VAE that reaches it."""

import csv

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from tfvae.experiments.aevb import linear, settings


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(0)
    z = rng.normal(size=[400, 3]) * [2.0, 1.0, 0.5]
    return (z @ rng.normal(size=[3, 8]) + 0.4 * rng.normal(size=[400, 8]) + rng.normal(size=8)).astype(np.float32)


@pytest.mark.parametrize("latent_dim", [1, 2, 5, 7])
def test_the_closed_form_is_the_density_of_its_covariance(x, latent_dim):
    """C = W Wᵀ + σ² I built from the eigenvectors, and scored by SciPy."""
    values, vectors = np.linalg.eigh(np.cov(x.astype(np.float64), rowvar=False, bias=True))
    noise = values[: 8 - latent_dim].mean()
    kept = vectors[:, 8 - latent_dim :]
    covariance = kept * (values[8 - latent_dim :] - noise) @ kept.T + noise * np.eye(8)
    exact = stats.multivariate_normal(x.mean(axis=0, dtype=np.float64), covariance).logpdf(x).mean()
    assert linear.probabilistic_pca(x, latent_dim) == pytest.approx(exact, abs=1e-6)


def test_the_closed_form_is_scikit_learns(x):
    # scikit-learn divides the covariance by N - 1, which costs a little likelihood
    score = PCA(2, svd_solver="full").fit(x.astype(np.float64)).score(x.astype(np.float64))
    assert 0 < linear.probabilistic_pca(x, 2) - score < 1e-4


@pytest.mark.parametrize("latent_dim", [0, 8])
def test_a_size_of_z_out_of_range_is_an_error(x, latent_dim):
    with pytest.raises(ValueError, match=f"between 1 and 7, .*received {latent_dim}"):
        linear.probabilistic_pca(x, latent_dim)


def test_a_likelihood_without_bound_is_an_error():
    with pytest.raises(ValueError, match="x lies in 2 dimensions"):
        linear.probabilistic_pca(np.eye(8)[:3], 2)


def test_the_closed_form_on_frey_face(frey_faces):
    faces = np.load(frey_faces).reshape(-1, 560) / 256
    values = [linear.probabilistic_pca(faces, latent_dim) for latent_dim in (2, 5, 10, 20)]
    np.testing.assert_allclose(values, [558.0, 669.9, 756.7, 863.8], atol=0.05)


def random_vae(seed: int):
    vae = linear.linear_vae(8, 2, seed=1)
    rng = np.random.default_rng(seed)
    vae.set_weights([w.numpy() + 0.5 * rng.normal(size=w.shape) for w in vae.weights])
    return vae


def test_the_exact_bound_is_the_mean_of_the_sampled_one(x):
    vae = random_vae(0)
    sampled = vae.elbo(x[:50], num_samples=20_000).numpy()
    terms = vae.terms(x[:50], num_samples=20_000)
    error = np.sqrt(np.sum(np.var(terms.log_likelihood, axis=0) / 20_000)) / 50
    assert abs(linear.exact_elbo(vae, x[:50]) - sampled.mean()) < 4 * error


@pytest.mark.parametrize("seed", range(3))
def test_no_bound_exceeds_the_closed_form(x, seed):
    assert linear.exact_elbo(random_vae(seed), x) < linear.probabilistic_pca(x, 2)


def test_the_bound_touches_at_the_maximum_of_the_likelihood(x):
    """With W's columns orthogonal the exact posterior is in reach: N(V x + c, diag(s²)), the same s for every x."""
    values, vectors = np.linalg.eigh(np.cov(x.astype(np.float64), rowvar=False, bias=True))
    noise, kept, mean = values[:6].mean(), vectors[:, 6:], x.mean(axis=0, dtype=np.float64)
    w = kept * np.sqrt(values[6:] - noise)  # [8, 2]
    variance = noise / values[6:]
    gain = w * variance / noise
    vae = linear.linear_vae(8, 2)
    vae.posterior.projection.set_weights([gain, -mean @ gain])
    vae.posterior.shared_weights["scale"].assign(0.5 * np.log(variance))
    vae.likelihood.projection.set_weights([w.T, mean])
    vae.likelihood.shared_weights["scale"].assign(0.5 * np.log(noise))
    assert linear.exact_elbo(vae, x) == pytest.approx(linear.probabilistic_pca(x, 2), abs=1e-4)


@pytest.mark.slow
def test_training_reaches_it(x):
    exact = linear.probabilistic_pca(x, 2)
    vae = linear.fit(x, 2, epochs=2000)
    assert exact - 0.05 < linear.exact_elbo(vae, x) < exact + 1e-4
    # The one rotation under which a diagonal posterior is exact makes W's columns orthogonal.
    w = vae.likelihood.projection.kernel.numpy()
    assert abs(w[0] @ w[1]) < 0.1 * np.linalg.norm(w[0]) * np.linalg.norm(w[1])


def test_a_saved_linear_vae_is_the_same(x, tmp_path):
    vae = random_vae(0)
    vae.save(tmp_path / "model.keras")
    assert linear.exact_elbo(keras.saving.load_model(tmp_path / "model.keras"), x) == linear.exact_elbo(vae, x)


def test_the_table_and_the_file_say_the_same(x, tmp_path, monkeypatch):
    data = settings.Data(x[:300], x[300:], 1, (1,), 0.1, lambda init: None, (4, 2))
    monkeypatch.setattr(settings, "DATASETS", {"frey": ("frey", lambda path: data)})
    monkeypatch.setattr(linear, "EPOCHS", 2)
    rows = linear.linear_frey(str(tmp_path / "new"), "unused", latent_dims=[1, 2])
    assert list(rows[0]) == ["latent_dim", "probabilistic_pca", "elbo", "difference", "seconds"]
    assert rows[1]["probabilistic_pca"] == linear.probabilistic_pca(x, 2)
    assert all(row["elbo"] - row["probabilistic_pca"] == row["difference"] < 0 for row in rows)
    with open(tmp_path / "new" / "linear_frey.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in written] == rows
