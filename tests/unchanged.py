"""What a fixed seed gave before the seams were cut anew: losses, bounds, embeddings, bytes.

``python -m tests.unchanged`` writes the record; ``test_unchanged`` holds the code against it. A move that changes
a number here changed more than a place.
"""

import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import tfvae
from pipelines import preprocess
from tfvae import baselines, evaluation, likelihoods, networks, objectives, observations, posteriors, priors

RECORD = pathlib.Path(__file__).with_name("unchanged.json")


def digits() -> np.ndarray:
    return (load_digits().images[:300, :, :, None] * 15.9375).astype(np.uint8)


def transposed() -> keras.Sequential:
    """The decoder that ``networks.conv_decoder([8, 8, 1], [8, 4])`` built when the record was made."""
    layers = keras.layers
    doubling = {"strides": 2, "padding": "same", "activation": "relu"}
    first = [layers.Dense(2 * 2 * 8, "relu"), layers.Reshape([2, 2, 8])]
    return keras.Sequential([*first, *(layers.Conv2DTranspose(f, 3, **doubling) for f in (8, 4))], name="decoder")


def vae(conv: bool = False, **more) -> tfvae.VAE:
    encoder, decoder = networks.mlp([16]), networks.mlp([16])
    if conv:
        encoder, decoder = networks.conv_encoder([4, 8]), transposed()
    posterior = more.pop("posterior", None) or posteriors.diagonal_normal(3)
    likelihood = more.pop("likelihood", None) or likelihoods.bernoulli([8, 8, 1])
    return tfvae.VAE(encoder, decoder, posterior, likelihood, seed=0, **more)


def history(model, x, **more) -> dict[str, list[float]]:
    model.compile(keras.optimizers.Adam(3e-3))
    return model.fit(x, epochs=3, verbose=0, **more).history


def run(name: str) -> dict[str, list[float]]:
    """The history of one of ``fits``."""
    keras.utils.set_random_seed(0)
    return fits()[name]()


def fits() -> dict[str, Callable[[], dict[str, list[float]]]]:
    """Each training run that must not change, by name."""
    return {
        "mlp": lambda: history(vae(), digits(), validation_split=0.2),
        "conv": lambda: history(vae(conv=True), digits()),
        "floats": lambda: history(vae(), digits().astype("float32") / 255),
        "stream": lambda: history(vae(), tf.data.Dataset.from_tensor_slices(digits()).batch(64)),
        "steps": lambda: history(vae(), digits(), steps_per_epoch=4, batch_size=64),
        "binarized": lambda: history(vae(noise=observations.Binarized()), digits()),
        "importance_weighted": lambda: history(vae(objective=objectives.importance_weighted, num_samples=5), digits()),
        "score_function": lambda: history(vae(objective=objectives.score_function, num_samples=2), digits()),
        "estimator_a": lambda: history(vae(objective=objectives.elbo_a), digits()),
        "full_normal": lambda: history(vae(posterior=posteriors.full_normal(3)), digits()),
        "gamma": lambda: history(
            vae(
                posterior=tfvae.DistributionLayer("Gamma", [3]),
                prior=priors.Family("Gamma", [3], concentration=1.0, rate=1.0),
            ),
            digits(),
        ),
        "normal_likelihood": lambda: history(vae(likelihood=likelihoods.sigmoid_normal([8, 8, 1])), digits()),
        "poisson": lambda: history(vae(likelihood=tfvae.DistributionLayer("Poisson", [8, 8, 1])), digits() // 16),
        "weight_prior": lambda: history(vae(weight_prior=priors.WeightPrior(300)), digits()),
        "wake_sleep": lambda: history(baselines.WakeSleep(vae()), digits()),
        "full_vb": lambda: history(baselines.FullVB(vae(), 300), digits()),
        "monte_carlo_em": lambda: history(baselines.MonteCarloEM(vae(), 300), digits()),
    }


def after_training() -> dict[str, list[float]]:
    """What a trained model says of eight rows, in this process and through its SavedModel."""
    keras.utils.set_random_seed(0)
    model, x = vae(), digits()
    history(model, x)
    marginal = evaluation.log_marginal(model, x[:8], num_samples=50)
    hmc = evaluation.hmc_log_marginal(model, x[:8], num_samples=40, num_burnin_steps=50)
    with tempfile.TemporaryDirectory() as folder:
        path = tfvae.export(model, os.path.join(folder, "m"), warmup_batch_sizes=[1])
        served = tf.saved_model.load(path).signatures
        noise = tf.random.stateless_normal([8, 4, 3], [0, 1])
        score = served["score_uint8"](x=tf.constant(x[:8]), noise=noise)
        values = {
            "embed": model.embed(x[:8]),
            "reconstruct": model.reconstruct(x[:1]),
            "sample": model.sample(2, seed=0),
            "elbo": model.elbo(x[:8], 3, seed=tf.constant([0, 1])),
            "log_marginal": marginal.log_marginal,
            "effective_sample_size": marginal.effective_sample_size,
            "hmc": hmc.log_marginal,
            "evaluate": model.evaluate(x, verbose=0),
            "served_embedding": served["embed_uint8"](x=tf.constant(x[:8]))["embedding"],
            "served_bound": score["importance_weighted_bound"],
            "served_sample": served["sample"](noise=tf.random.stateless_normal([2, 3], [0, 2]))["sample"],
        }
    return {name: np.ravel(value).astype(float).tolist() for name, value in values.items()}


def prepared() -> dict[str, str]:
    """SHA-256 of every shard of a prepared dataset."""
    with tempfile.TemporaryDirectory() as folder:
        preprocess.run("digits", None, os.path.join(folder, "digits"))
        shards = sorted(pathlib.Path(folder, "digits").glob("*.tfrecord*"))
        return {shard.name: hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards}


if __name__ == "__main__":
    record = {"fit": {name: run(name) for name in fits()}, "after": after_training(), "prepared": prepared()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
