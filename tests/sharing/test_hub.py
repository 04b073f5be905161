"""Runs and exports on the hub and back; and a repository that means harm: no code, nothing outside of the folder."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import tfvae
from tests.exporting.test_litert import small
from tests.serving.fronts import serve_http
from tests.sharing.stand_in import Hub
from tfvae import cli, runs
from tfvae.sharing import files, hub

huggingface_hub = pytest.importorskip(
    "huggingface_hub", reason="the hub's client is not installed: pip install 'tfvae[hub]'"
)

REPO = "me/digits"


@pytest.fixture
def server(monkeypatch):
    """The stand-in, which the client is told of as any other hub."""
    held = {"repositories": {}, "private": {}, "asked": [], "large": [], "store": {}}
    with serve_http(Hub, **held) as port:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("HF_TOKEN", "hf_token")
        yield type("Server", (), held)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run as ``train`` and ``evaluate`` leave it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    small().save(folder / "model.keras")
    own = hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
    dataset = {"name": "digits", "folder": "prepared"}
    record = {"model_sha256": own, "dataset": dataset, "data": "/home/me/secret/prepared"}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "evaluation.json").write_text(json.dumps({"model_sha256": own, "dataset": dataset, "elbo": -2.5}))
    (folder / "history.csv").write_text("epoch,loss\n0,1\n")
    (folder / "model.py").write_text("raise SystemExit")
    return folder


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> pathlib.Path:
    return pathlib.Path(tfvae.export(small(), tmp_path_factory.mktemp("models") / "m", 3, warmup_batch_sizes=[1]))


def command(*words: str) -> str:
    result = CliRunner().invoke(cli.main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def everything(folder: pathlib.Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def test_a_run_goes_and_comes_back(server, run, tmp_path):
    address = command("push", str(run), REPO, "--license", "apache-2.0")
    assert address == f"{os.environ['HF_ENDPOINT']}/{REPO}" and server.private[REPO]
    there = server.repositories[REPO]
    assert set(there) == {
        "README.md", "SHA256SUMS", "evaluation.json", "history.csv", "model.json", "model.keras", "run.json",
    }  # fmt: skip
    assert not any(b"/home/me" in body for body in there.values())
    card = there["README.md"].decode()
    assert card.startswith('---\nlicense: "apache-2.0"\n') and '"value": -2.5' in card and "# digits, version 1" in card
    assert command("pull", REPO, str(tmp_path / "mine")) == str(tmp_path / "mine")
    assert everything(tmp_path / "mine") == there
    assert sorted(os.listdir(tmp_path)) == ["mine"]
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "mine", check=True)
    x = np.float32([[0.1, 0.9, 0.5]])
    np.testing.assert_array_equal(runs.load(tmp_path / "mine").encode(x).mean(), runs.load(run).encode(x).mean())
    assert runs.provenance(tmp_path / "mine").measured.elbo == -2.5


@pytest.mark.parametrize("large", [[], [".pb", "00001"]])
def test_an_export_goes_and_comes_back(server, export, tmp_path, large, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    server.large.extend(large)
    hub.push(export.parent, REPO, public=True)
    assert server.private[REPO] is False
    assert len(server.store) == (3 if large else 0)  # graph, fingerprint and weights
    server.repositories[REPO][".gitattributes"] = b"*.pb filter=lfs"  # which the hub itself puts there
    pulled = hub.pull(REPO, tmp_path / "m")
    assert not pulled.left_out and (tmp_path / "m/3").is_dir()
    assert everything(tmp_path / "m/3") == everything(export)
    assert (tmp_path / "m/README.md").read_bytes() == (export / "assets.extra/model_card.md").read_bytes()
    z = {"z": tf.zeros([2, 2])}
    one, other = (tf.saved_model.load(str(path)).signatures["decode"](**z) for path in (tmp_path / "m/3", export))
    np.testing.assert_array_equal(one["reconstruction"], other["reconstruction"])


HOSTILE = [
    "../out.txt", "../../model.keras", "/tmp/model.keras", "1/../../saved_model.pb", "1/assets.extra/../../../x",
    "model.py", "1/assets/vocabulary.pkl", "model.pkl", "model.keras/x", ".ssh/authorized_keys", "1/saved_model.cpb",
    "model.keras\n", "１/saved_model.pb", "..\\model.keras", "01/saved_model.pb", "setup.py", "1/model.keras",
]  # fmt: skip


def test_names_that_tfvae_writes_no_file_by_are_not_asked_for(server, run, tmp_path):
    good = {name: one if isinstance(one, bytes) else one.read_bytes() for name, one in files.of(run).items()}
    server.repositories[REPO] = good | dict.fromkeys(HOSTILE, b"import os; os.system('touch /tmp/ran')")
    inside = tmp_path / "a/b/c"
    pulled = hub.pull(REPO, inside / "mine")
    assert pulled.left_out == sorted(HOSTILE) and set(pulled.names) == set(good)
    assert everything(tmp_path) == {f"a/b/c/mine/{name}": body for name, body in good.items()}
    asked = [one.rpartition("/resolve/" + "a" * 40 + "/")[2] for one in server.asked if "/resolve/" in one]
    assert set(asked) == set(good)
    result = CliRunner().invoke(cli.main, ["pull", REPO, str(inside / "again")])
    assert r"left out: '../../model.keras', '../out.txt', '..\\model.keras'" in result.stderr


def changed(folder: pathlib.Path, change) -> bytes:
    """A .keras file whose config was changed."""
    with zipfile.ZipFile(folder / "model.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = json.dumps(change(json.loads(parts["config.json"]))).encode()
    with zipfile.ZipFile(folder / "changed.keras", "w") as archive:
        for name, body in parts.items():
            archive.writestr(name, body)
    return (folder / "changed.keras").read_bytes()


@pytest.fixture
def lambda_model(tmp_path) -> bytes:
    ran = tmp_path / "ran"

    def harm(x):
        import pathlib

        pathlib.Path(str(ran)).touch()
        return x

    keras.Sequential([keras.Input([2]), keras.layers.Lambda(harm)]).save(tmp_path / "made.keras")
    ran.unlink(missing_ok=True)
    return (tmp_path / "made.keras").read_bytes()


def refused(server, tmp_path, sentence: str, **held: bytes) -> None:
    server.repositories[REPO] = {name.replace("__", "/").replace("_dot_", "."): body for name, body in held.items()}
    (tmp_path / "here").mkdir()
    with pytest.raises(ValueError, match=sentence):
        hub.pull(REPO, tmp_path / "here/mine")
    assert not list((tmp_path / "here").iterdir())


def test_a_lambda_layer_is_refused_and_not_run(server, lambda_model, tmp_path):
    refused(server, tmp_path, "has a Lambda layer", model_dot_keras=lambda_model)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "model.keras").write_bytes(lambda_model)  # had it come in another way
    with pytest.raises((ValueError, TypeError)):
        runs.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_lambda_deep_in_the_config_is_found(server, run, tmp_path):
    shutil.copy(run / "model.keras", tmp_path)
    body = changed(tmp_path, lambda config: config | {"deep": [{"a": {"class_name": "__lambda__"}}]})
    refused(server, tmp_path, "has a Lambda layer", model_dot_keras=body)


@pytest.mark.parametrize("body", [b"../../../etc/passwd", b"\x80\x04.", b"PK\x03\x04", b""])
def test_what_is_no_model_is_refused(server, tmp_path, body):
    """A link of a repository comes as its target's name; a pickle is read by nobody."""
    refused(server, tmp_path, "no model that Keras has saved", model_dot_keras=body)


def test_a_program_in_a_saved_model_is_refused(server, tmp_path):
    read = tf.function(lambda x: {"y": tf.io.read_file(x)}, input_signature=[tf.TensorSpec([], tf.string, "x")])
    tf.saved_model.save(tf.Module(), str(tmp_path / "read"), signatures={"embed": read.get_concrete_function()})
    body = (tmp_path / "read/saved_model.pb").read_bytes()
    refused(server, tmp_path, "ReadFile .*not taken", **{"1__saved_model_dot_pb": body})


def test_a_damaged_litert_file_is_refused(server, tmp_path):
    refused(server, tmp_path, "is damaged", **{"1__model_dot_tflite": b"\0\0\0\0TFL3" + b"\xff" * 40})


@pytest.mark.parametrize("how", ["changed", "missing", "unlisted"])
def test_checksums_are_held(server, export, tmp_path, how):
    hub.push(export, REPO)
    held = server.repositories[REPO]
    name = "3/variables/variables.data-00000-of-00001"
    if how == "missing":
        del held[name]
    elif how == "changed":
        held[name] = held[name][:-1] + bytes([held[name][-1] ^ 1])
    else:
        held["history.csv"] = b"epoch\n"
    (tmp_path / "here").mkdir()
    with pytest.raises(ValueError, match="is not as SHA256SUMS says"):
        hub.pull(REPO, tmp_path / "here/m")
    assert not list((tmp_path / "here").iterdir())


def test_a_folder_in_use_is_left_alone(server, run, tmp_path):
    server.repositories[REPO] = {"model.keras": (run / "model.keras").read_bytes()}
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for target in ("used", "link", "used/mine.txt"):
        with pytest.raises(ValueError, match="is there already and is no empty folder"):
            hub.pull(REPO, tmp_path / target)
    assert everything(tmp_path) == {"used/mine.txt": b"mine"} and not (tmp_path / "elsewhere").exists()
    (tmp_path / "empty").mkdir()
    assert hub.pull(REPO, tmp_path / "empty").names == ["model.keras"]


def test_a_stop_leaves_nothing(server, run, tmp_path, monkeypatch):
    server.repositories[REPO] = {"model.keras": (run / "model.keras").read_bytes()}

    def stopped(folder) -> None:
        assert (folder / "model.keras").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "judge", stopped)
    with pytest.raises(KeyboardInterrupt):
        hub.pull(REPO, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_wrong_sources_repositories_and_hubs_are_told(server, run, export, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"neither a run, with model\.keras, nor an export"):
        hub.push(tmp_path, REPO)
    with pytest.raises(ValueError, match="export again with --license"):
        hub.push(export, REPO, license="apache-2.0")
    server.repositories[REPO] = {"README.md": b"# a text", "weights.bin": b""}
    with pytest.raises(ValueError, match="holds no model of tfvae's"):
        hub.pull(REPO, tmp_path / "m")
    with pytest.raises(OSError, match="does not serve 'me/nothing'"):
        hub.pull("me/nothing", tmp_path / "m")
    for name in ("a/b/c/d", "a", "me/a b", "https://huggingface.co/me/a", "", 3, None):
        for door in (lambda name: hub.pull(name, tmp_path / "m"), lambda name: hub.push(export, name)):
            with pytest.raises(
                ValueError, match=re.escape(f"repo is {name!a}, expected OWNER/NAME, such as me/mnist-vae")
            ):
                door(name)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(OSError, match="401"):
        hub.push(export, REPO)
    assert not list(tmp_path.iterdir())


def test_without_the_client_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = CliRunner().invoke(cli.main, ["pull", REPO, str(tmp_path / "m")])
    assert result.exit_code == 1 and "pip install 'tfvae[hub]'" in result.output
