"""A conditional VAE on its way: exported with named inputs, checked, served to the client, embedded by the job."""

import contextlib
import pathlib

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfvae
from pipelines import embed
from tests.serving.fronts import Rest, serve_grpc, serve_http
from tests.serving.rules import Faults, ServedModel
from tfvae import likelihoods, posteriors, priors
from tfvae.checks import rules
from tfvae.checks.process import run_in_subprocess
from tfvae.checks.wire import CSessionError
from tfvae.serving import Client

RNG = np.random.default_rng(0)
SHAPE, CLASSES, LATENT = [4, 3, 1], 5, 2
IMAGES = RNG.integers(0, 256, [6, *SHAPE], dtype=np.uint8)
X = (IMAGES / 255).astype(np.float32)
CONDITION = np.eye(CLASSES, dtype=np.float32)[RNG.integers(0, CLASSES, 6)]
NOISE = RNG.normal(size=[6, 4, LATENT]).astype(np.float32)


class Shifted(priors.Prior):
    """p(z|condition): its mean moves with the condition."""

    def distribution(self, condition=None) -> tfd.Distribution:
        assert condition is not None
        return tfd.Independent(tfd.Normal(condition[:, :LATENT], 1.0), 1)


def two_inputs(shape: list[int]) -> keras.Model:
    first, condition = keras.Input(shape), keras.Input([CLASSES])
    both = keras.layers.Concatenate()([keras.layers.Flatten()(first), condition])
    return keras.Model([first, condition], keras.layers.Dense(8, activation="tanh")(both))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[tfvae.VAE, str]:
    vae = tfvae.VAE(
        two_inputs(SHAPE), two_inputs([LATENT]), posteriors.diagonal_normal(LATENT), likelihoods.bernoulli(SHAPE),
        prior=Shifted(LATENT), condition_shape=[CLASSES], seed=0,
    )  # fmt: skip
    vae.compile(jit_compile=False)
    vae.fit({"x": IMAGES, "condition": CONDITION}, verbose=0)
    return vae, tfvae.export(vae, tmp_path_factory.mktemp("models") / "conditional")


def expected(vae: tfvae.VAE) -> dict[str, np.ndarray]:
    q, p = vae.encode(X, CONDITION), vae.prior(CONDITION)
    z = q.mean() + q.stddev() * np.transpose(NOISE, [1, 0, 2])
    log_likelihood = vae.decode(z, CONDITION).log_prob(X)
    log_weight = log_likelihood + p.log_prob(z) - q.log_prob(z)
    return {
        "embedding": q.mean(),
        "elbo": tf.reduce_mean(log_likelihood, axis=0) - tfd.kl_divergence(q, p),
        "importance_weighted_bound": tf.reduce_logsumexp(log_weight, axis=0) - np.log(4),
        "reconstruct": vae.decode(q.mean(), CONDITION).mean(),
        "decode": vae.decode(NOISE[:, 0], CONDITION).mean(),
        "sample": vae.decode(CONDITION[:, :LATENT] + NOISE[:, 0], CONDITION).mean(),
    }


def close(value, wanted) -> None:
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def test_every_signature_names_the_condition_and_equals_the_model(exported):
    vae, path = exported
    served, right = tf.saved_model.load(path).signatures, expected(vae)
    for signature in served.values():
        assert signature.structured_input_signature[1]["condition"].shape == [None, CLASSES]
    c, noise = tf.constant(CONDITION), tf.constant(NOISE)
    for name, x in (("embed", X), ("embed_uint8", IMAGES)):
        close(served[name](x=tf.constant(x), condition=c)["embedding"], right["embedding"])
    files = tf.stack([tf.io.encode_png(image) for image in IMAGES])
    for name, x in (("score", {"x": tf.constant(X)}), ("score_image_bytes", {"image_bytes": files})):
        answer = served[name](**x, condition=c, noise=noise)
        for bound in ("elbo", "importance_weighted_bound"):
            close(answer[bound], right[bound])
    close(served["reconstruct"](x=tf.constant(X), condition=c)["reconstruction"], right["reconstruct"])
    close(served["decode"](z=noise[:, 0], condition=c)["reconstruction"], right["decode"])
    close(served["sample"](noise=noise[:, 0], condition=c)["sample"], right["sample"])
    other = served["embed"](x=tf.constant(X), condition=tf.constant(CONDITION[::-1]))["embedding"]
    assert np.abs(other - right["embedding"]).max() > 1e-3, "the condition counts"


def test_the_checks_the_warm_up_and_cpp_carry_it(exported):
    _, path = exported
    assert [check for check in rules.check_export(path) if not check.passed] == []
    bad = [
        ("embed", {"x": X, "condition": CONDITION[:1]}, "condition needs a row for each row of x"),
        ("decode", {"z": NOISE[:, 0], "condition": CONDITION[:1]}, "condition needs a row for each row of z"),
        ("embed", {"x": X, "condition": CONDITION[:, :2]}, "condition has shape"),
        ("embed", {"x": X, "condition": CONDITION * np.nan}, "condition holds NaN"),
        ("embed", {"x": X}, "inputs"),
    ]
    answers = run_in_subprocess(path, [(name, inputs) for name, inputs, _ in bad])
    for answer, (_, _, words) in zip(answers, bad, strict=True):
        assert isinstance(answer, CSessionError) and words in answer.message, answer


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_client_sends_it(exported, scheme):
    vae, path = exported
    right = expected(vae)
    model, faults = ServedModel(pathlib.Path(path).parent, (8,)), Faults()
    with contextlib.ExitStack() as stack:
        stack.callback(model.close)
        front = serve_http(Rest, model=model, faults=faults) if scheme == "http" else serve_grpc(model, faults)
        client = stack.enter_context(Client(f"{scheme}://127.0.0.1:{stack.enter_context(front)}", "conditional"))
        close(client.embed(X, condition=CONDITION), right["embedding"])
        close(client.embed(IMAGES, condition=CONDITION.astype(np.int64)), right["embedding"])
        close(client.score(X, NOISE, condition=CONDITION).elbo, right["elbo"])
        close(client.reconstruct(X, CONDITION), right["reconstruct"])
        close(client.decode(NOISE[:, 0], CONDITION), right["decode"])
        close(client.sample(NOISE[:, 0], CONDITION), right["sample"])
        with pytest.raises(ValueError, match="same number of rows"):
            client.embed(X, condition=CONDITION[:2])


def test_the_job_reads_it_from_a_column(exported, tmp_path):
    vae, path = exported
    rows = {"key": [str(i) for i in range(6)], "x": [x.ravel().tolist() for x in X], "class": CONDITION.tolist()}
    kinds = {"key": pa.string(), "x": pa.list_(pa.float32(), 12), "class": pa.list_(pa.float32(), CLASSES)}
    pq.write_table(pa.table({name: pa.array(rows[name], kinds[name]) for name in rows}), tmp_path / "rows.parquet")
    embed.run(path, str(tmp_path / "rows.parquet"), str(tmp_path / "out"), condition="class", score=3)
    table = embed.read_embeddings(str(tmp_path / "out"))
    close(np.stack(table["embedding"].to_numpy()), expected(vae)["embedding"])
