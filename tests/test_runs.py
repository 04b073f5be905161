"""Runs as folders: what lies there is whole, is read with care, and goes on to an export."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.callbacks.interruptions import Signal
from tfvae import VAE, likelihoods, networks, observations, posteriors, presets, run_folder, runs

MADE_BEFORE = pathlib.Path(__file__).with_name("made_by_0_1")


def model(likelihood=None) -> VAE:
    likelihood = likelihood or likelihoods.bernoulli([3])
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    vae.compile(jit_compile=False)
    return vae


@pytest.mark.slow
def test_what_the_package_registers_is_known_to_the_command(tmp_path):
    """Wake-sleep with the paper's optimiser, as ``tfvae export`` loads it: in a process that imports ``runs`` alone."""
    shutil.copy(MADE_BEFORE / "wake_sleep.keras", tmp_path / "model.keras")
    code = "import sys; from tfvae import runs; print(type(runs.load(sys.argv[1])).__name__)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout.strip() == "VAE", done.stderr


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old_run(tmp_path) -> pathlib.Path:
    """A run with its evaluation, and a file of the user's."""
    (tmp_path / "logs/train").mkdir(parents=True)
    for name in ("logs/train/events", "history.csv", "model.keras", "run.json", "evaluation.json", "notes.txt"):
        (tmp_path / name).write_bytes(b"old")
    return tmp_path


NEW = ("logs/events", "history.csv", "model.keras", "run.json")


def write_new(folder: pathlib.Path) -> None:
    (folder / "logs").mkdir()
    for name in NEW:
        (folder / name).write_bytes(b"new")


def test_a_run_that_is_being_replaced_is_whole_until_the_new_one_is(old_run):
    before = files(old_run)
    with run_folder.replacing(old_run, {}) as folder:
        write_new(folder)
        assert {name: found for name, found in files(old_run).items() if "incomplete" not in name} == before
    found = files(old_run)
    assert [e["path"] for e in json.loads(found.pop("checksums.json"))["files"]] == sorted(NEW)
    assert found == dict.fromkeys(NEW, b"new") | {"notes.txt": b"old"}


@pytest.mark.parametrize(
    "stopped", [KeyboardInterrupt, FloatingPointError("NaN"), OSError(28, "No space left on device")]
)
def test_a_training_that_stops_leaves_the_old_run_and_nothing_else(old_run, stopped):
    before = files(old_run)
    with pytest.raises((KeyboardInterrupt, FloatingPointError, OSError)), run_folder.replacing(old_run, {}) as folder:
        (folder / "history.csv").write_bytes(b"half")
        raise stopped
    assert files(old_run) == before


def test_what_a_killed_training_left_is_removed_and_two_do_not_mix(old_run):
    (old_run / "incomplete/logs").mkdir(parents=True)
    (old_run / "incomplete/history.csv").write_bytes(b"half")
    with run_folder.replacing(old_run, {}) as folder:
        assert sorted(files(folder)) == ["asked.json", "lock"]
        with pytest.raises(ValueError, match="Another training writes to"), run_folder.replacing(old_run, {}):
            pass
        (folder / "model.keras").write_bytes(b"new")
    assert (old_run / "model.keras").read_bytes() == b"new" and not (old_run / "incomplete").exists()


@pytest.mark.parametrize("moves", range(5))
def test_killed_between_the_old_run_and_the_new_one_it_is_the_new_one(old_run, moves, monkeypatch):
    replace, done = run_folder.os.replace, []

    def kills(source, target):
        if pathlib.Path(target).parent == old_run and len(done) == moves:
            raise Killed
        done.extend([target] if pathlib.Path(target).parent == old_run else [])
        replace(source, target)

    monkeypatch.setattr(run_folder.os, "replace", kills)
    with pytest.raises(Killed), run_folder.replacing(old_run, {}) as folder:
        write_new(folder)
    monkeypatch.undo()
    run_folder.settle(old_run)
    found = files(old_run)
    found.pop("checksums.json")
    assert found == dict.fromkeys(NEW, b"new") | {"notes.txt": b"old"}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ends", [False, True])
def test_killed_at_any_step_the_same_command_goes_on(ends, tmp_path, monkeypatch):
    """What lies there after each change of the disk: the end of a training, or checkpoints that its command takes."""
    asked, changes = {"seed": 0}, ("unlink", "rmdir", "replace")
    for moment in range(50):
        output, left = tmp_path / str(moment), moment
        with pytest.raises(KeyboardInterrupt), run_folder.replacing(output, asked) as folder:
            write_new(folder)
            for epoch in (1, 2):
                point = folder / f"checkpoints/epoch-{epoch}"
                point.mkdir(parents=True)
                (point / "checkpoint.json").write_bytes(b"{}")
            raise KeyboardInterrupt

        def or_killed(change):
            def changed(*given, **more):
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return change(*given, **more)

            return changed

        with monkeypatch.context() as patch:
            for name in changes:
                patch.setattr(run_folder.os, name, or_killed(getattr(run_folder.os, name)))
            try:
                with run_folder.replacing(output, asked) as folder:
                    (folder / "model.keras").write_bytes(b"new")
                    if not ends:
                        raise Killed
            except Killed:
                pass
        run_folder.settle(output)
        if not (output / "model.keras").exists():
            with run_folder.replacing(output, asked) as folder:
                (folder / "model.keras").write_bytes(b"new")
        assert (output / "model.keras").read_bytes() == b"new"
        assert not run_folder.goes_on(output), "a training that has ended does not go on"
        if left:
            return
    raise AssertionError("it changes the disk without end")


MODEL = """
import tfvae
from tfvae import likelihoods, networks, posteriors

def build(event_shape, seed):
    likelihood = likelihoods.bernoulli(event_shape)
    vae = tfvae.VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=seed)
    vae.compile(jit_compile=False)
    return vae
"""


def test_the_same_training_again_goes_on_and_another_one_is_refused(tmp_path, digits, monkeypatch, caplog):
    (tmp_path / "model.py").write_text(MODEL)
    given = {"model": f"{tmp_path}/model.py:build", "epochs": 3, "patience": 5}
    runs.train(digits, tmp_path / "straight", **given)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(runs, "_tensorboard", lambda logs: [Signal(signal.SIGTERM, 8)])
        runs.train(digits, tmp_path / "stopped", **given)
    assert stopped.value.code == 143 and not (tmp_path / "stopped/model.keras").exists()
    with pytest.raises(ValueError, match=r"was interrupted, of another command \(seed is 0 there, 1 here\)"):
        runs.train(digits, tmp_path / "stopped", **given, seed=1)
    runs.train(digits, tmp_path / "stopped", **given)
    assert "The training goes on after " in caplog.text
    one, other = (runs.load(tmp_path / name) for name in ("straight", "stopped"))
    assert all(np.array_equal(*pair) for pair in zip(one.get_weights(), other.get_weights(), strict=True))
    assert (tmp_path / "straight/history.csv").read_bytes() == (tmp_path / "stopped/history.csv").read_bytes()
    assert not (tmp_path / "stopped/incomplete").exists()
    record = json.loads((tmp_path / "stopped/run.json").read_bytes())
    assert runs.train(digits, tmp_path / "stopped", **given, resume=True) == record
    with pytest.raises(ValueError, match=r"holds a run of another command \(epochs is 3 there, 4 here\)"):
        runs.train(digits, tmp_path / "stopped", **given | {"epochs": 4}, resume=True)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (b"[1]", "holds a JSON list, expected an object"),
        (b"{", "cannot be read"),
        (b" " * (1 << 20) + b"{}", "no plain file of at most"),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error(tmp_path, record, sentence):
    (tmp_path / "model.keras").write_bytes(b"a model")
    (tmp_path / "run.json").write_bytes(record)
    with pytest.raises(ValueError, match=sentence):
        runs.provenance(tmp_path)


def test_a_record_of_another_model_says_nothing(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"a model")
    record = {"model_sha256": "0" * 64, "dataset": {"name": "digits"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert runs.provenance(tmp_path).trained_on.name is None
    record["model_sha256"] = runs.storage.sha256(str(tmp_path / "model.keras"))
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert runs.provenance(tmp_path).trained_on.name == "digits"


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (np.array([[0, 255, 255]], np.uint8), "Bernoulli, binarised"),
        (np.array([[0, 1, 1]], np.float32), "Bernoulli, binarised"),
        (np.array([[0, 254, 255]], np.uint8), "Bernoulli, greyscale (not binarised)"),
        (np.array([[0, 0.5, 1]], np.float32), "Bernoulli, greyscale (not binarised)"),
    ],
)
def test_a_bound_says_how_x_was_scored(x, kind):
    assert runs._observation_kind(model(), x) == kind


def test_other_families_say_their_name():
    assert runs._observation_kind(model(likelihoods.normal([3])), np.zeros([1, 3])) == "Normal, real values"


def test_bits_per_dimension_are_measured_where_there_are_such():
    levels = VAE(
        networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.sigmoid_normal([3]),
        noise=observations.Dequantized(),
    )  # fmt: skip
    assert [type(one).__name__ for one in runs._bits(levels)] == ["BitsPerDimension"]
    assert not runs._bits(model()) and not runs._bits(model(likelihoods.normal([3])))


@pytest.mark.parametrize(("name", "told"), [("mlp", True), ("conv", True), ("gaussian-mlp", False)])
def test_real_values_under_a_model_of_pixels_are_told_which_model_takes_them(name, told):
    with pytest.raises(ValueError) as error, runs._naming_models(presets.EXPERIMENTS[name]):
        model().fit(np.full([4, 3], -1.0), verbose=0)
    assert ("gaussian-mlp takes real values (--model)" in str(error.value)) == told
    with (
        pytest.raises(ValueError, match=r"^x has shape \(4, 2\), expected \(N, 3\)[^G]*$"),
        runs._naming_models(presets.EXPERIMENTS[name]),
    ):
        model().fit(np.zeros([4, 2]), verbose=0)
