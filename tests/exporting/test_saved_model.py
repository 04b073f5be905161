"""The exported SavedModel: through Python's loader, through the C++ loader as TF Serving runs it, and bad requests."""

import io
import json
import os
import pathlib
import stat
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_serving.apis import prediction_log_pb2

import tfvae
from pipelines.formats.images import pixels
from tfvae import likelihoods, networks, objectives, posteriors, priors
from tfvae.checks import rules
from tfvae.checks.process import run_in_subprocess
from tfvae.checks.wire import CSessionError
from tfvae.exporting import guards, warmup

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, size=[8, 8, 6, 1], dtype=np.uint8)
LATENT = 3


def image_model(kind: str) -> tfvae.VAE:
    shape = [8, 6, 1]
    encoder, decoder = (
        (networks.mlp([16]), networks.mlp([16]))
        if kind == "mlp"
        else (networks.conv_encoder([4, 4]), networks.conv_decoder(shape, [4, 4]))
    )
    vae = tfvae.VAE(encoder, decoder, posteriors.diagonal_normal(LATENT), likelihoods.bernoulli(shape), seed=0)
    vae.compile(optimizer="adam", jit_compile=False)
    vae.fit(IMAGES, epochs=1, verbose=0)  # an optimiser with slots, which must not be exported
    return vae


@pytest.fixture(scope="module", params=["mlp", "conv"])
def exported(request, tmp_path_factory) -> tuple[tfvae.VAE, str]:
    vae = image_model(request.param)
    return vae, tfvae.export(vae, tmp_path_factory.mktemp("models") / request.param)


def png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()


def jpeg(image: np.ndarray, mode: str, **options: Any) -> bytes:
    PIL.Image.fromarray(image).convert(mode).save(file := io.BytesIO(), "JPEG", **options)
    return file.getvalue()


def requests(batch: int) -> list[tuple[str, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(batch)
    images = IMAGES[:batch]
    x = (images / 255).astype(np.float32)
    noise = rng.normal(size=[batch, 5, LATENT]).astype(np.float32)
    encoded = np.array([png(image) for image in images], object)
    return [
        ("serving_default", {"x": x}),
        ("embed", {"x": x}),
        ("embed_uint8", {"x": images}),
        ("embed_image_bytes", {"image_bytes": encoded}),
        ("reconstruct", {"x": x}),
        ("decode", {"z": noise[:, 0]}),
        ("sample", {"noise": noise[:, 0]}),
        ("score", {"x": x, "noise": noise}),
        ("score_uint8", {"x": images, "noise": noise}),
        ("score_image_bytes", {"image_bytes": encoded, "noise": noise}),
    ]


def in_process(vae: tfvae.VAE, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the signature should answer, from the model itself."""
    x = inputs.get("x")
    if "image_bytes" in inputs:
        x = np.stack([tf.io.decode_png(contents).numpy() for contents in inputs["image_bytes"]])
    if signature in ("serving_default", "embed", "embed_uint8", "embed_image_bytes"):
        q = vae.encode(x)
        return {"embedding": q.mean().numpy(), "embedding_stddev": q.stddev().numpy()}
    if signature == "reconstruct":
        return {"reconstruction": vae.reconstruct(inputs["x"])}
    if signature == "decode":
        return {"reconstruction": vae.decode(inputs["z"]).mean().numpy()}
    if signature == "sample":
        return {"sample": vae.decode(inputs["noise"]).mean().numpy()}
    x = x / np.float32(255) if x.dtype == np.uint8 else x
    q = vae.encode(x)
    z = q.mean() + q.stddev() * np.transpose(inputs["noise"], [1, 0, 2])
    log_weight = vae.decode(z).log_prob(x) + vae.prior().log_prob(z) - q.log_prob(z)
    log_likelihood = vae.decode(z).log_prob(x)
    standard_normal = tf.reduce_sum(q.mean() ** 2 + q.stddev() ** 2 - 1 - 2 * tf.math.log(q.stddev()), axis=-1) / 2
    return {
        "elbo": (tf.reduce_mean(log_likelihood, axis=0) - standard_normal).numpy(),
        "importance_weighted_bound": (tf.reduce_logsumexp(log_weight, axis=0) - np.log(5)).numpy(),
    }


def assert_same(answer, expected, signature, tolerance=1e-5):
    assert not isinstance(answer, CSessionError), f"{signature}: {answer}"
    assert set(answer) == set(expected), signature
    for name, value in expected.items():
        np.testing.assert_allclose(answer[name], value, rtol=tolerance, atol=tolerance, err_msg=f"{signature}/{name}")


def test_every_signature_equals_the_model_in_python_and_in_cpp(exported):
    vae, path = exported
    asked = [request for batch in (1, 3, 8) for request in requests(batch)]
    signatures = tf.saved_model.load(path).signatures
    assert {name for name, _ in asked} == set(signatures)
    answers = run_in_subprocess(path, asked, threads=8)
    for (name, inputs), answer in zip(asked, answers, strict=True):
        expected = in_process(vae, name, inputs)
        assert_same(answer, expected, name)
        python = {k: v.numpy() for k, v in signatures[name](**{k: tf.constant(v) for k, v in inputs.items()}).items()}
        assert_same(python, expected, name)
        assert_same(answer, python, name, tolerance=1e-6)


def test_bad_requests_get_a_sentence_and_the_next_good_one_an_answer(exported):
    _, path = exported
    x = (IMAGES / 255).astype(np.float32)
    noise = np.zeros([8, 2, LATENT], np.float32)
    nan = x.copy()
    nan[3, 1, 1] = np.nan
    wide = np.array([png(np.zeros([8, 7, 1], np.uint8))], object)
    colour = np.array([png(np.zeros([8, 6, 3], np.uint8))], object)
    deep = np.array([png(np.zeros([8, 6, 1], np.uint16))], object)
    cmyk = np.array([jpeg(IMAGES[0, ..., 0], "CMYK")], object)
    bad = [
        ("embed", {"x": x[:, :7]}, "[8 7 6 1]", "[B, 8, 6, 1]"),
        ("embed", {"x": x[..., 0]}, "[8 8 6]", "[B, 8, 6, 1]"),
        ("embed", {"x": x[:0]}, "[0 8 6 1]", "B > 0"),
        ("embed", {"x": np.float32(1)}, "x has shape", "[B, 8, 6, 1]"),
        ("embed", {"x": nan}, "NaN", ""),
        ("embed", {"x": x + np.inf}, "infinite", ""),
        ("embed_uint8", {"x": IMAGES[:, :, :, [0, 0]]}, "[8 8 6 2]", "[B, 8, 6, 1]"),
        ("embed_image_bytes", {"image_bytes": np.array([b"not an image"], object)}, "PNG or JPEG", ""),
        ("embed_image_bytes", {"image_bytes": np.array([b""], object)}, "PNG or JPEG", ""),
        ("embed_image_bytes", {"image_bytes": np.array([png(IMAGES[0])[:40]], object)}, "", ""),
        ("embed_image_bytes", {"image_bytes": wide}, "[8 7]", "[8, 6]"),
        ("embed_image_bytes", {"image_bytes": deep}, "16 bits a channel", "at most 8"),
        ("embed_image_bytes", {"image_bytes": colour}, "[8 6 3]", "[8, 6, 1]"),
        (
            "embed_image_bytes",
            {"image_bytes": cmyk},
            "CMYK",
            "grey or RGB",
        ),
        ("score_uint8", {"x": IMAGES[:, :7], "noise": noise}, "[8 7 6 1]", "[B, 8, 6, 1]"),
        ("score_image_bytes", {"image_bytes": colour, "noise": noise}, "[8 6 3]", "[8, 6, 1]"),
        ("reconstruct", {"x": x[:, :7]}, "[8 7 6 1]", "[B, 8, 6, 1]"),
        ("decode", {"z": noise[:, 0, :2]}, "[8 2]", "[B, 3]"),
        ("decode", {"z": noise[:, 0] * np.nan}, "NaN", ""),
        ("sample", {"noise": noise}, "[8 2 3]", "[B, 3]"),
        ("score", {"x": x, "noise": noise[:3]}, "[3 2 3]", "row for each row"),
        ("score", {"x": x, "noise": noise[:, :0]}, "[8 0 3]", "one sample at least"),
        ("score", {"x": x, "noise": noise[..., :1]}, "[8 2 1]", "[B, K, 3]"),
    ]
    good = ("embed", {"x": x})
    answers = run_in_subprocess(path, [request for b in bad for request in (b[:2], good)])
    for (name, _, came, expected), answer in zip(bad, answers[::2], strict=True):
        assert isinstance(answer, CSessionError), f"{name} answered a bad request ({came})"
        assert answer.code == "INVALID_ARGUMENT", (name, str(answer))
        assert came in answer.message and expected in answer.message, (name, answer.message)
    assert not any(isinstance(answer, CSessionError) for answer in answers[1::2])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_has_the_pixels_that_it_has_in_a_prepared_dataset(mode):
    height, width = np.mgrid[0:40, 0:56]
    image = np.stack([128 + 100 * np.sin(width / 9), 128 + 100 * np.cos(height / 7), height + width], -1)
    decoded = tf.function(lambda contents: guards.decoded(contents, [40, 56, len(mode)]))
    for quality in (30, 75, 95):
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                more = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
                contents = jpeg(image.clip(0, 255).astype(np.uint8), mode, **more)
                expected = pixels(contents, max_pixels=1 << 20)
                np.testing.assert_array_equal(decoded(tf.constant([contents]))[0], expected)


def test_no_row_depends_on_its_batch(exported):
    _, path = exported
    x = (IMAGES / 255).astype(np.float32)
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    padded = np.concatenate([x[:3], x[:1], x[:1]])
    whole, shuffled, part, padding = run_in_subprocess(
        path, [("embed", {"x": batch}) for batch in (x, x[order], x[2:5], padded)]
    )
    np.testing.assert_allclose(shuffled["embedding"], whole["embedding"][order], atol=1e-6)
    np.testing.assert_allclose(part["embedding"], whole["embedding"][2:5], atol=1e-6)
    np.testing.assert_allclose(padding["embedding"][:3], whole["embedding"][:3], atol=1e-6)


def test_weights_are_stored_once_and_the_optimiser_not_at_all(exported):
    vae, path = exported
    weights = sum(v.numpy().nbytes for v in vae.trainable_variables)
    stored = sum(f.stat().st_size for f in pathlib.Path(path, "variables").iterdir())
    assert weights <= stored < weights + 20_000
    names = [name for name, _ in tf.train.list_variables(os.path.join(path, "variables", "variables"))]
    assert not [name for name in names if "adam" in name or "optimizer" in name or "seed" in name]


def test_the_warm_up_file_covers_every_signature_and_batch_size(exported):
    _, path = exported
    signatures = tf.saved_model.load(path).signatures
    seen = set()
    for record in tf.data.TFRecordDataset(os.path.join(path, "assets.extra", "tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == pathlib.Path(path).parent.name
        assert not request.model_spec.HasField("version")
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        signatures[request.model_spec.signature_name](**inputs)
        seen.add((request.model_spec.signature_name, next(iter(inputs.values())).shape[0]))
    assert seen == {(name, batch) for name in signatures for batch in (1, 8, 64)}


@pytest.mark.slow
def test_versions_count_up_and_are_never_touched(tmp_path):
    vae = image_model("mlp")
    base = tmp_path / "model"
    first = pathlib.Path(tfvae.export(vae, base, warmup_batch_sizes=[1]))
    before = {f: f.stat().st_mtime_ns for f in first.rglob("*")}
    (base / "notes").mkdir()
    assert tfvae.export(vae, base, version=7, warmup_batch_sizes=[1]) == str(base / "7")
    assert tfvae.export(vae, base, warmup_batch_sizes=[1]) == str(base / "8")
    assert {f: f.stat().st_mtime_ns for f in first.rglob("*")} == before
    assert sorted(f.name for f in base.iterdir()) == ["1", "7", "8", "notes"]
    assert stat.S_IMODE(first.stat().st_mode) == 0o755
    with pytest.raises(ValueError, match=r"Version 7 of .* exists already"):
        tfvae.export(vae, base, version=7)


@pytest.mark.slow
def test_a_failed_export_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(warmup, "write", lambda *_: (_ for _ in ()).throw(OSError("No space left")))
    with pytest.raises(OSError, match="No space left"):
        tfvae.export(image_model("mlp"), tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_signatures_are_those_that_apply(tmp_path):
    """Real vectors take no bytes, counts do, no picture files; a Dirichlet has no inverse CDF to score by."""
    vector = tfvae.VAE(
        networks.mlp([4]), networks.mlp([4]), tfvae.DistributionLayer("Laplace", [2]), likelihoods.normal([5])
    )
    topics = tfvae.VAE(
        networks.mlp([4]),
        networks.mlp([4]),
        tfvae.DistributionLayer("Dirichlet", [2]),
        tfvae.DistributionLayer("Poisson", [5]),
        prior=tfvae.priors.Family("Dirichlet", [2], concentration=1.0),
    )
    common = {"serving_default", "embed", "reconstruct", "decode"}
    paths = [tfvae.export(vae, tmp_path / str(i), warmup_batch_sizes=[2]) for i, vae in enumerate((vector, topics))]
    assert set(tf.saved_model.load(paths[0]).signatures) == common | {"sample", "score"}
    counting = tf.saved_model.load(paths[1]).signatures
    assert set(counting) == common | {"embed_uint8"}
    counts = np.array([[0, 3, 7, 255, 1]], np.uint8)
    embedded = counting["embed_uint8"](x=tf.constant(counts))["embedding"]
    np.testing.assert_array_equal(embedded, topics.embed(counts))
    np.testing.assert_array_equal(embedded, counting["embed"](x=tf.constant(counts, tf.float32))["embedding"])
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    noise = np.random.default_rng(0).normal(size=[2, 20_000, 2]).astype(np.float32)
    (answer,) = run_in_subprocess(paths[0], [("score", {"x": x, "noise": noise})])
    expected = objectives.elbo(vector.terms(x, 20_000)).bound  # another stream of noise, the same expectation
    np.testing.assert_allclose(answer["elbo"], expected, rtol=0.02)


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_it(tmp_path):
    path = tfvae.export(image_model("mlp"), tmp_path / "model", warmup_batch_sizes=[1])
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    shown = subprocess.run(
        [*command, "show", "--dir", path, "--tag_set", "serve", "--signature_def", "embed"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "embedding_stddev" in shown.stdout and "(-1, 8, 6, 1)" in shown.stdout
    x = (IMAGES / 255).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    subprocess.run(
        [*command, "run", "--dir", path, "--tag_set", "serve", "--signature_def", "embed",
         "--inputs", f"x={tmp_path}/x.npy", "--outdir", str(tmp_path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    expected = tf.saved_model.load(path).signatures["embed"](x=tf.constant(x))
    for name, value in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), value, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_what_only_training_reads_is_not_stored(tmp_path):
    """Seeds of layers that draw in training, an adapted layer's counts: a server would load them and read none."""
    normalization = keras.layers.Normalization()
    normalization.adapt(RNG.random([50, 8, 6, 1]))
    encoder = keras.Sequential(
        [
            normalization,
            keras.layers.RandomFlip(),
            keras.layers.Reshape([8, 6]),
            keras.layers.LSTM(8, dropout=0.1, return_sequences=True),
            keras.layers.GaussianNoise(0.1),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.SpectralNormalization(keras.layers.Dense(8)),
            keras.layers.Dropout(0.2),
        ]
    )
    decoder, parts = networks.mlp([8]), (posteriors.diagonal_normal(2), likelihoods.bernoulli([8, 6, 1]))
    vae = tfvae.VAE(encoder, decoder, *parts, seed=0)
    vae.compile(jit_compile=False)
    vae.fit(IMAGES, verbose=0)
    path = tfvae.export(vae, tmp_path / "m", warmup_batch_sizes=[1])
    assert [check for check in rules.check_export(path) if not check.passed] == []
    assert any("seed" in one.path for one in vae.encoder.variables)
    embedded = tf.saved_model.load(path).signatures["embed_uint8"](x=tf.constant(IMAGES))["embedding"]
    np.testing.assert_allclose(embedded, vae.embed(IMAGES), rtol=1e-5, atol=1e-6)


class Ring(priors.Prior):
    """A prior of the user's own: four normals on a circle, which no table of ours knows."""

    def distribution(self, condition=None) -> tfd.Distribution:
        places = tf.constant([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        return tfd.MixtureSameFamily(
            tfd.Categorical(tf.zeros([4])), tfd.Independent(tfd.Normal(places, tf.fill([4, 2], 0.5)), 1)
        )


def test_a_model_with_a_prior_of_the_users_own_is_exported(tmp_path):
    parts = (posteriors.diagonal_normal(2), likelihoods.bernoulli([4]))
    vae = tfvae.VAE(networks.mlp([8]), networks.mlp([8]), *parts, prior=Ring(2), seed=0)
    path = tfvae.export(vae, tmp_path / "m", warmup_batch_sizes=[1])
    signatures = tf.saved_model.load(path).signatures
    assert set(signatures) == {
        "serving_default",
        "embed",
        "embed_uint8",
        "reconstruct",
        "decode",
        "score",
        "score_uint8",
    }
    x, noise = RNG.random([3, 4]).astype(np.float32), RNG.normal(size=[3, 5, 2]).astype(np.float32)
    q = vae.encode(x)
    z = q.mean() + q.stddev() * np.transpose(noise, [1, 0, 2])
    log_weight = vae.decode(z).log_prob(x) + Ring(2)().log_prob(z) - q.log_prob(z)
    answer = signatures["score"](x=tf.constant(x), noise=tf.constant(noise))
    np.testing.assert_allclose(answer["elbo"], tf.reduce_mean(log_weight, axis=0), rtol=1e-5)
    described = json.loads(pathlib.Path(path, "assets.extra/model.json").read_text())
    assert described["prior"] == {"family": "Ring", "constraints": {}, "fixed": {}, "shared": []}
