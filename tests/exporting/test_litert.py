"""The export for LiteRT: what the file answers beside the model itself, what is refused, and its check."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import tfvae
from tests.exporting.test_conditional import CLASSES, Shifted, two_inputs
from tests.exporting.test_saved_model import assert_same, image_model, in_process, requests
from tfvae import cli, likelihoods, networks, objectives, posteriors
from tfvae.checks import rules
from tfvae.exporting import card, interpreter, warmup
from tfvae.pipelines import contract

SCORES = ["elbo", "importance_weighted_bound"]


def small(family: str = "Bernoulli", **settings) -> tfvae.VAE:
    parts = [networks.mlp([4], activation="relu") for _ in range(2)]
    return tfvae.VAE(*parts, posteriors.diagonal_normal(2), tfvae.DistributionLayer(family, [3]), seed=0, **settings)


def runners(path: str) -> dict:
    opened = interpreter.opened(pathlib.Path(path, "model.tflite").read_bytes())
    return {name: opened.get_signature_runner(name) for name in opened.get_signature_list()}


def results(path: str) -> dict[str, str]:
    return {check.name: check.result for check in rules.check_export(path)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> str:
    return tfvae.export(small(), tmp_path_factory.mktemp("models") / "small", format="litert", signatures=["embed"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", pytest.param("conv", marks=pytest.mark.slow)])
def test_every_signature_equals_the_model_in_python(tmp_path, kind):
    vae = image_model(kind)
    run = runners(tfvae.export(vae, tmp_path / kind, format="litert"))
    left_out = {"embed_image_bytes", "score_image_bytes", "serving_default"}
    asked = [one for batch in (1, 2, 8) for one in requests(batch) if one[0] not in left_out]
    assert {name for name, _ in asked} == set(run)
    for name, inputs in asked:
        assert_same(run[name](**inputs), in_process(vae, name, inputs), name, tolerance=4e-6)


@pytest.mark.slow
def test_a_conditional_model_takes_its_condition_by_name(tmp_path):
    shape, rng = [4, 3, 1], np.random.default_rng(1)
    vae = tfvae.VAE(
        two_inputs(shape), two_inputs([2]), posteriors.diagonal_normal(2), likelihoods.bernoulli(shape),
        prior=Shifted(2), condition_shape=[CLASSES], seed=0,
    )  # fmt: skip
    names = ["embed", "decode", "score"]
    run = runners(tfvae.export(vae, tmp_path / "m", format="litert", signatures=names))
    x, noise = rng.random([7, *shape], np.float32), rng.normal(size=[7, 4, 2]).astype(np.float32)
    c = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, 7)]
    q = vae.encode(x, condition=c)
    embedded = {"embedding": q.mean(), "embedding_stddev": q.stddev()}
    assert_same(run["embed"](x=x, condition=c), embedded, "embed", 4e-6)
    z = noise[:, 0]
    assert_same(run["decode"](z=z, condition=c), {"reconstruction": vae.decode(z, condition=c).mean()}, "decode", 4e-6)
    drawn = q.mean() + q.stddev() * np.transpose(noise, [1, 0, 2])
    terms = vae.terms_at({"x": x, "condition": c}, q, drawn)
    bounds = (objectives.elbo(terms).bound, objectives.importance_weighted(terms).bound)
    assert_same(run["score"](x=x, noise=noise, condition=c), dict(zip(SCORES, bounds, strict=True)), "score", 4e-6)


@pytest.mark.parametrize(
    ("family", "operation"),
    [("Gamma", "Lgamma"), pytest.param("VonMises", "BesselI0e", marks=pytest.mark.slow)],
)
def test_what_litert_lacks_is_named_and_the_rest_can_be_had(tmp_path, family, operation):
    vae = small(family)
    with pytest.raises(ValueError, match=rf"score needs {operation}\. signatures=.*'embed'.*'decode'"):
        tfvae.export(vae, tmp_path / "m", format="litert", signatures=["embed", "decode", "score"])
    assert not list((tmp_path / "m").iterdir())
    run = runners(tfvae.export(vae, tmp_path / "m", format="litert", signatures=["decode"]))
    z = np.float32([[0.5, -2.0]])
    np.testing.assert_allclose(run["decode"](z=z)["reconstruction"], vae.decode(z).mean(), rtol=4e-6)


def test_wrong_input_gets_an_error_or_nan_in_its_own_row(exported):
    embed = runners(exported)["embed"]
    x = np.random.default_rng(0).random([4, 3], np.float32)
    good = embed(x=x)["embedding"]
    for bad in (np.nan, np.inf, -np.inf):
        spoiled = x.copy()
        spoiled[2, 1] = bad
        answer = embed(x=spoiled)
        assert all(np.isnan(value[2]).all() for value in answer.values())
        np.testing.assert_array_equal(np.delete(answer["embedding"], 2, 0), np.delete(good, 2, 0))
    for wrong in (x[:, :2], x.astype(np.float64), x.astype(np.uint8)):
        with pytest.raises((RuntimeError, ValueError)):
            embed(x=wrong)


def test_a_wrong_conversion_leaves_no_version(tmp_path, monkeypatch):
    class Wrong:
        def get_signature_runner(self, name):
            return lambda x: {"embedding": x[:, :2] * 0, "embedding_stddev": x[:, :2] * 0}

    monkeypatch.setattr(interpreter, "opened", lambda content: Wrong())
    with pytest.raises(ValueError, match="of embed differs between LiteRT and TensorFlow"):
        tfvae.export(small(), tmp_path / "m", format="litert", signatures=["embed"])
    assert not list((tmp_path / "m").iterdir())


def test_a_stop_leaves_no_version(tmp_path, monkeypatch):
    def stopped(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(card, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        tfvae.export(small(), tmp_path / "m", format="litert", signatures=["embed"])
    assert not list((tmp_path / "m").iterdir())


def test_one_folder_is_of_one_format(tmp_path, exported):
    with pytest.raises(ValueError, match="holds versions in the format litert"):
        tfvae.export(small(), pathlib.Path(exported).parent)
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/1/saved_model.pb").touch()
    with pytest.raises(ValueError, match="holds versions in the format saved_model"):
        tfvae.export(small(), tmp_path / "m", format="litert")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"format": "onnx"}, "format is 'onnx', expected one of saved_model, litert"),
        ({"signatures": ["embed"]}, "chosen for LiteRT alone"),
        ({"format": "litert", "signatures": ["embed_image_bytes"]}, r"embed, .*received \['embed_image_bytes'\]"),
        ({"format": "litert", "signatures": []}, r"received \[\]"),
    ],
)
def test_wrong_arguments_are_told(tmp_path, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        tfvae.export(small(), tmp_path / "m", **arguments)


@pytest.mark.slow
def test_the_command_writes_and_checks_it(tmp_path):
    small().save(tmp_path / "model.keras")
    command = ["export", str(tmp_path), str(tmp_path / "m"), "--format", "litert", "--signature", "score"]
    path = CliRunner().invoke(cli.main, command, catch_exceptions=False).output.strip()
    assert path == str(tmp_path / "m/1")
    card_text = pathlib.Path(path, "assets.extra/model_card.md").read_text()
    assert "exported by tfvae for LiteRT" in card_text and "LiteRT checks no input" in card_text
    checked = CliRunner().invoke(cli.main, ["check-export", str(tmp_path / "m")], catch_exceptions=False)
    assert checked.exit_code == 0 and checked.output.count(" ok ") == 5, checked.output
    assert "3 requests, within 4e-06" in checked.output


def copied(exported: str, to: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(exported, to / "m/1"))


@pytest.mark.slow
def test_the_check_sees_another_answer(exported, tmp_path):
    path = copied(exported, tmp_path)
    answers = path / "assets.extra" / contract.ANSWERS
    records = [bytearray(one.numpy()) for one in tf.data.TFRecordDataset(str(answers))]
    with tf.io.TFRecordWriter(str(answers)) as writer:
        for record in records:
            record[-3] ^= 0x10  # a mantissa of the last answer
            writer.write(bytes(record))
    assert results(str(path))["LiteRT equals Python"] == "FAILED"


def test_the_check_runs_no_operation_of_tensorflow_itself(exported, tmp_path):
    path = copied(exported, tmp_path)
    read = tf.function(lambda x: {"y": tf.io.read_file(x)}, input_signature=[tf.TensorSpec([], tf.string, "x")])
    tf.saved_model.save(tf.Module(), str(tmp_path / "read"), signatures={"embed": read.get_concrete_function()})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "read"), signature_keys=["embed"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    (path / "model.tflite").write_bytes(converter.convert())
    checks = {check.name: check for check in rules.check_export(path)}
    assert "FlexReadFile is no operation of LiteRT's own" in checks["self-contained"].detail
    assert checks["LiteRT equals Python"].passed is None


@pytest.mark.parametrize("cut", [8, 400])
def test_a_damaged_file_is_told(exported, tmp_path, cut):
    path = copied(exported, tmp_path)
    content = (path / "model.tflite").read_bytes()
    (path / "model.tflite").write_bytes(content[:cut] if cut == 8 else b"text" * cut)
    with pytest.raises(ValueError, match="is damaged" if cut == 8 else "is no LiteRT file"):
        rules.check_export(path)


def test_a_check_without_answers_fails(exported, tmp_path):
    path = copied(exported, tmp_path)
    (path / "assets.extra" / contract.ANSWERS).unlink()
    found = results(str(path))
    assert found["layout"] == found["LiteRT equals Python"] == "FAILED"


@pytest.mark.slow
def test_a_file_that_ends_the_process_fails_its_check_and_not_the_checker(exported, tmp_path):
    path = copied(exported, tmp_path)
    with tf.io.TFRecordWriter(str(path / "assets.extra" / contract.ANSWERS)) as writer:
        none = {"x": tf.zeros([0, 3])}  # LiteRT of TensorFlow 2.21 ends in a segmentation fault
        writer.write(warmup.prediction_log("m", "embed", none, {"embedding": tf.zeros([0, 2])}))
    found = {check.name: check for check in rules.check_export(path)}["LiteRT equals Python"]
    assert found.passed is False and "LiteRT does not load it: the session's process ended with" in found.detail


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Poisson", "ZeroInflatedPoisson", "NegativeBinomial"])
def test_counts_of_a_library_take_it_by_name(tmp_path, family):
    parts = [networks.mlp([4], activation="relu") for _ in range(2)]
    vae = tfvae.VAE(*parts, posteriors.diagonal_normal(2), likelihoods.library_counts([3], family), seed=0)
    names = ["embed", "reconstruct", "decode", "sample"] + ["score"] * family.endswith("Poisson")
    run = runners(tfvae.export(vae, tmp_path / "m", format="litert", signatures=names))
    x = np.random.default_rng(1).poisson(40.0, [5, 3]).astype(np.float32)
    x[0] = 0  # a row of no counts
    z, library = vae.embed(x), x.sum(1)
    np.testing.assert_allclose(run["embed"](x=x)["embedding"], z, rtol=4e-6, atol=4e-6)
    expected = vae.decode(z, library=library).mean()
    np.testing.assert_allclose(run["reconstruct"](x=x)["reconstruction"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run["decode"](z=z, library=library)["reconstruction"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run["sample"](noise=z, library=library)["sample"], expected, rtol=1e-5, atol=1e-5)
    if "score" in names:
        noise = np.zeros([5, 4, 2], np.float32)
        q = vae.encode(x)
        terms = vae.terms_at(x, q, q.mean() + 0.0 * np.transpose(noise, [1, 0, 2]))
        bounds = (objectives.elbo(terms).bound, objectives.importance_weighted(terms).bound)
        assert_same(run["score"](x=x, noise=noise), dict(zip(SCORES, bounds, strict=True)), "score", 1e-5)
