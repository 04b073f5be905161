"""The model card: what a program and a person read of an export, and nothing that nobody knows."""

import dataclasses
import json
import pathlib
import re
import shutil

import pytest
import tensorflow as tf
import yaml
from tensorflow.core.protobuf import saved_model_pb2

import tfvae
from pipelines import storage
from tests.exporting.test_saved_model import image_model
from tfvae import cli, networks, observations, runs
from tfvae.exporting import card as make_card
from tfvae.exporting import provenance

SHA = "0123456789abcdef" * 4
UNKNOWN = {"standardized": None, "columns_sha256": None}


def card(path: str) -> tuple[dict, str]:
    extra = pathlib.Path(path, "assets.extra")
    return json.loads((extra / "model.json").read_text()), (extra / "model_card.md").read_text()


def contract(path: str) -> dict[str, dict]:
    """The signatures as the file on disk has them, read without tfvae and without loading."""
    (graph,) = saved_model_pb2.SavedModel.FromString(pathlib.Path(path, "saved_model.pb").read_bytes()).meta_graphs

    def side(tensors) -> dict[str, tuple]:
        sizes = {key: [d.size for d in info.tensor_shape.dim] for key, info in tensors.items()}
        return {key: (tf.DType(info.dtype).name, sizes[key]) for key, info in tensors.items()}

    signatures = {k: v for k, v in graph.signature_def.items() if not k.startswith("__")}
    return {key: {"inputs": side(v.inputs), "outputs": side(v.outputs)} for key, v in signatures.items()}


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_says_what_the_file_says(tmp_path, kind):
    path = tfvae.export(image_model(kind), tmp_path / "pictures", 3, warmup_batch_sizes=[1])
    described, _ = card(path)
    assert (described["schema_version"], described["name"], described["version"]) == (1, "pictures", 3)
    assert (described["latent_dim"], described["event_shape"]) == (3, [8, 6, 1])
    assert {key: described[key]["family"] for key in ("posterior", "likelihood", "prior")} == {
        "posterior": "Normal", "likelihood": "Bernoulli", "prior": "Normal",
    }  # fmt: skip
    assert described["prior"]["fixed"] == {"loc": 0.0, "scale": 1.0}
    found = {
        name: {
            side: {
                key: (spec["dtype"], [-1 if size is None else size for size in spec["shape"]])
                for key, spec in signature[side].items()
            }
            for side in ("inputs", "outputs")
        }
        for name, signature in described["signatures"].items()
    }
    assert found == contract(path)
    scales = {(k, n): spec["scale"] for k, s in described["signatures"].items() for n, spec in s["inputs"].items()}
    assert scales["embed", "x"] == "values in [0, 1]"
    assert "divided by 255 in the graph" in scales["embed_uint8", "x"]
    assert "PNG or JPEG" in scales["score_image_bytes", "image_bytes"]
    assert {scale for (_, name), scale in scales.items() if name == "noise"} == {"standard normal, drawn by the caller"}


@pytest.mark.slow
def test_what_nobody_said_is_unknown_and_nothing_tells_when_or_where(tmp_path):
    described, text = card(tfvae.export(image_model("mlp"), tmp_path / "m", warmup_batch_sizes=[1]))
    assert set(described["trained_on"].values()) == {None}
    measured = dict(described["measured"])
    assert set(measured.pop("dataset").values()) | set(measured.values()) == {None}
    assert re.search(r"\| ELBO \| unknown, standard error unknown \|", text)
    for written in (json.dumps(described), text):
        assert str(tmp_path) not in written
        assert not re.search(r"\b20\d\d-\d\d|\d\d:\d\d", written)


@pytest.mark.slow
def test_two_exports_of_a_model_differ_by_their_version_alone(tmp_path):
    vae = image_model("mlp")
    first, second = (card(tfvae.export(vae, tmp_path / "m", warmup_batch_sizes=[1])) for _ in range(2))
    assert {**first[0], "version": 2} == second[0]
    assert first[1].replace("version 1", "version 2", 1) == second[1]


def test_carries_what_it_is_told(tmp_path):
    known = provenance.Provenance(
        provenance.Dataset("idx", "mnist", SHA),
        provenance.Measured(
            provenance.Dataset("other | *name*"), "test", "greyscale", 10, 50, -104.46, None, -98.8, 0.24
        ),
    )
    described, text = card(tfvae.export(image_model("mlp"), tmp_path / "m", warmup_batch_sizes=[1], provenance=known))
    assert described["trained_on"] == {"name": "idx", "folder": "mnist", "manifest_sha256": SHA} | UNKNOWN
    assert described["measured"] == dataclasses.asdict(known.measured)
    assert "| ELBO | -104.460 nats, standard error unknown |" in text and "-98.800 nats, standard error 0.240" in text
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| data set")]
    assert cells == [4, 4], "a bar in a name must not open a cell"


def head(text: str) -> dict:
    """The card's head, by a reader of YAML."""
    start, lines, _ = text.split("---\n", 2)
    assert not start
    return yaml.safe_load(lines)


@pytest.mark.slow
def test_the_head_is_hugging_faces(tmp_path):
    told = provenance.Provenance(
        measured=provenance.Measured(
            provenance.Dataset('a: "b" # c', "été"), "test", "Bernoulli, binarised", elbo=-25.5, log_marginal=-24.0
        ),
        license="cc-by-4.0",
    )
    vae = image_model("mlp")
    signatures = tf.saved_model.load(tfvae.export(vae, tmp_path / "m", warmup_batch_sizes=[1])).signatures
    text = make_card.markdown(make_card.describe(vae, signatures, "m", 1, told))
    found = head(text)
    assert (found["license"], found["library_name"]) == ("cc-by-4.0", "tfvae")
    assert found["tags"] == ["tfvae", "variational-autoencoder", "tensorflow"]
    assert found["model-index"][0]["name"] == "m"
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"name": "été", "type": 'a: "b" # c', "split": "test"}
    assert {one["type"]: one["value"] for one in result["metrics"]} == {"elbo": -25.5, "log_marginal": -24.0}
    assert {one["name"] for one in result["metrics"]} >= {"ELBO, nats (Bernoulli, binarised)"}
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="its reader of cards is not installed")
    read = huggingface_hub.ModelCard(text)
    assert [one.metric_value for one in read.data.eval_results] == [-25.5, -24.0]


@pytest.mark.slow
def test_without_numbers_the_head_claims_none(tmp_path):
    found = head(card(tfvae.export(image_model("mlp"), tmp_path / "m", warmup_batch_sizes=[1]))[1])
    assert found["license"] == "unknown" and not {"model-index", "metrics"} & found.keys()


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: provenance.Dataset("a\nb"), "characters that print"),
        (lambda: provenance.Dataset("x" * 201), "characters that print"),
        (lambda: provenance.Dataset(folder="/home/me/mnist"), "last part of a path"),
        (lambda: provenance.Dataset(manifest_sha256="beef"), "64 hexadecimal"),
        (lambda: provenance.Dataset(columns_sha256="beef"), "64 hexadecimal"),
        (lambda: provenance.Measured(elbo=float("nan")), "finite number"),
        (lambda: provenance.Measured(log_marginal="-3"), "finite number"),
        (lambda: provenance.Provenance(license="My own: ask\n"), "characters that print"),
        (lambda: provenance.Provenance(license="Apache 2.0"), "identifier in small letters"),
        (lambda: provenance.Measured(rows=0), "whole number above 0"),
        (lambda: provenance.Measured(num_samples=True), "whole number above 0"),
    ],
)
def test_refuses_what_is_no_fact(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_says_the_families_parameters(tmp_path):
    vae = tfvae.VAE(
        networks.mlp([4]), networks.mlp([4]), tfvae.DistributionLayer("Laplace", [2]),
        tfvae.DistributionLayer("StudentT", [5], df=4.0, shared=["scale"], constraints={"loc": "sigmoid"}),
    )  # fmt: skip
    described, text = card(tfvae.export(vae, tmp_path / "m", warmup_batch_sizes=[1]))
    assert described["posterior"] == {"family": "Laplace", "constraints": {}, "fixed": {}, "shared": []}
    assert described["likelihood"] == {
        "family": "StudentT", "constraints": {"loc": "sigmoid"}, "fixed": {"df": 4.0}, "shared": ["scale"]
    }  # fmt: skip
    assert "StudentT (df fixed at 4, scale learned and the same for every row, loc constrained by sigmoid)" in text
    assert "scale of the training data" in described["signatures"]["embed"]["inputs"]["x"]["scale"]


@pytest.fixture
def run(tmp_path, digits) -> pathlib.Path:
    runs.train(digits, tmp_path / "run", epochs=1, batch_size=500, latent_dim=2)
    return tmp_path / "run"


def exported(run: pathlib.Path, base: pathlib.Path) -> dict:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli.main, ["export", str(run), str(base)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return card(result.output.strip())[0]


@pytest.mark.slow
def test_a_runs_card_holds_its_own_records_and_no_others(run, tmp_path, digits):
    described = exported(run, tmp_path / "m")
    manifest = storage.sha256(str(pathlib.Path(digits, "manifest.json")))
    known = {"name": "digits", "folder": "digits", "manifest_sha256": manifest, "standardized": False}
    assert described["trained_on"] == known | {"columns_sha256": None}
    assert described["measured"]["elbo"] is None
    result = runs.evaluate(run, digits, num_samples=2)
    described = exported(run, tmp_path / "m")
    for name in ("elbo", "log_marginal", "log_marginal_standard_error", "rows", "num_samples", "split"):
        assert described["measured"][name] == result[name]
    assert described["measured"]["elbo_standard_error"] is None  # evaluate does not measure it
    assert described["measured"]["dataset"] == described["trained_on"]

    stale = (run / "evaluation.json").read_bytes()
    runs.train(digits, run, epochs=1, batch_size=500, latent_dim=3, overwrite=True)
    assert not (run / "evaluation.json").exists()
    (run / "evaluation.json").write_bytes(stale)
    described = exported(run, tmp_path / "m")
    assert described["latent_dim"] == 3 and described["measured"]["elbo"] is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "holds a JSON list"),
        (" " * (1 << 20) + "{}", "no plain file of at most"),
        ('{"model_sha256": "SHA", "elbo": "good"}', "finite number"),
        ('{"model_sha256": "SHA", "elbo": NaN}', "finite number"),
        (f'{{"model_sha256": "SHA", "elbo": {"9" * 400}}}', "finite number"),
        ('{"model_sha256": "SHA", "dataset": {"path": "/"}}', "cannot be read"),
        ('{"model_sha256": "SHA", "dataset": 3}', "cannot be read"),
    ],
)
def test_a_broken_record_is_named(tmp_path, text, sentence):
    (tmp_path / "model.keras").write_bytes(b"a model")
    (tmp_path / "evaluation.json").write_text(text.replace("SHA", storage.sha256(str(tmp_path / "model.keras"))))
    with pytest.raises(ValueError, match=sentence):
        runs.provenance(tmp_path)


def test_a_record_behind_a_link_is_not_followed(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"a model")
    shutil.copy(__file__, tmp_path / "elsewhere.json")
    (tmp_path / "run.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match="no plain file"):
        runs.provenance(tmp_path)


def test_every_scale_is_said():
    for family, words in (("Bernoulli", "[0, 1]"), ("Poisson", "counts"), ("OneHotCategorical", "indicators")):
        assert words in observations.scale(tfvae.DistributionLayer(family, [4]))
