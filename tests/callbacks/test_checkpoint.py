"""A training that is stopped anywhere and goes on is, bit for bit, one that never stopped."""

import errno
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

from tests.callbacks import interruptions
from tests.callbacks.interruptions import CASES, Case, Signal, Stop, X, build, differences, outcome, train
from tfvae import VAE, DistributionLayer, likelihoods, networks, objectives, posteriors, priors
from tfvae.callbacks import Checkpoint, kept
from tfvae.engine import course, settings
from tfvae.engine.course import State
from tfvae.pipelines import storage


@functools.cache
def undisturbed(name: str) -> dict[str, np.ndarray]:
    return outcome(train(CASES[name]))


class AtOnce(threading.Thread):
    """Written before the next program, so that the checkpoints there are do not hang on the disk's speed."""

    def start(self) -> None:
        super().start()
        self.join()


def stopped_after(programs: int, name: str, folder: pathlib.Path, *more: keras.callbacks.Callback) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(threading, "Thread", AtOnce)
        train(CASES[name], Checkpoint(folder, steps=1), *more, Stop(programs))


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_it_says_so(tmp_path, caplog):
    stopped_after(5, "paced", tmp_path)  # of six at least, by how fast the machine is
    last = kept.points(str(tmp_path))[-1]
    flip(tmp_path / last / kept.ARRAYS)
    assert not differences(outcome(train(CASES["paced"], Checkpoint(tmp_path))), undisturbed("paced"))
    assert f"{last}/{kept.ARRAYS} is damaged: it is not as it was written: the one before is taken." in caplog.text
    assert "The training goes on after " in caplog.text


@pytest.mark.slow
def test_a_shuffled_stream_goes_on_where_it_was(tmp_path):
    stopped_after(5, "stream", tmp_path)
    assert not differences(outcome(train(CASES["stream"], Checkpoint(tmp_path))), undisturbed("stream"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"stream", "arrays"}))
def test_stopped_again_and_again_it_is_as_if_it_had_never_been(name, tmp_path):
    for programs in (4, 5) if name in ("endless arrays", "rows", "PyDataset") else (5,):
        stopped_after(programs, name, tmp_path)
    assert len(kept.points(str(tmp_path))) == 2
    assert not differences(outcome(train(CASES[name], Checkpoint(tmp_path, steps=1))), undisturbed(name))


@pytest.mark.slow
def test_what_callbacks_write_down_goes_on(tmp_path):
    class Numbers(keras.callbacks.TensorBoard):
        def on_train_end(self, logs=None):
            counts.append((self._global_train_batch, self._global_test_batch))

    counts = []
    for name in ("straight", "stopped"):
        more = keras.callbacks.CSVLogger(str(tmp_path / f"{name}.csv")), Numbers(str(tmp_path / name))
        if name == "stopped":
            for programs in (4, 5):
                stopped_after(programs, "callbacks", tmp_path / "kept", *more)
        train(CASES["callbacks"], Checkpoint(tmp_path / "kept", steps=1) if name == "stopped" else Stop(0), *more)
    assert (tmp_path / "straight.csv").read_bytes() == (tmp_path / "stopped.csv").read_bytes()
    assert counts[0] == counts[1]


def test_a_full_disk_is_told_and_the_training_goes_on(tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "replacing", full)
        trained = train(CASES["paced"], Checkpoint(tmp_path, steps=10))
    assert not differences(outcome(trained), undisturbed("paced"))
    assert f"No checkpoint could be written to {tmp_path} ([Errno 28] No space left on device)" in caplog.text
    assert storage.names(str(tmp_path)) == ["lock"]


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGTERM, SystemExit), pytest.param(signal.SIGINT, KeyboardInterrupt, marks=pytest.mark.slow)],
)
def test_a_signal_is_answered_by_a_last_checkpoint(number, raised, tmp_path, caplog):
    before = signal.getsignal(number)
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        with pytest.raises(raised) as stopped:
            train(CASES["paced"], Checkpoint(tmp_path), Signal(number, 3))
        assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    finally:
        signal.signal(number, before)
    assert getattr(stopped.value, "code", 143) == 143
    (last,) = kept.points(str(tmp_path))
    assert (
        last.startswith("epoch-000000-step-") and f"Stopped; the same training goes on from {tmp_path}/" in caplog.text
    )


def test_the_best_weights_and_the_last_checkpoints_are_kept(tmp_path):
    class Weights(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((logs["val_elbo"], self.model.get_weights()))
            if epoch in (2, 3):  # so that the last epochs are not the best
                self.model.set_weights([0 * one for one in self.model.get_weights()])

    seen: list = []
    model = train(Case(fit={"validation_data": X[:20]}), Weights(), checkpoint := Checkpoint(tmp_path, steps=1, keep=3))
    assert kept.points(str(tmp_path))[-1] == kept.point(4, 0) and len(kept.points(str(tmp_path))) == 3
    best, weights = max(seen, key=lambda one: one[0])
    assert best != seen[-1][0] and checkpoint.restore_best(model) == best
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), weights, strict=True))
    assert checkpoint.seconds > 0


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"batch_size": 5}, "training data's batch size is 8, not 5"),
        ({"x": X[:30]}, "training data's rows is 50, not 30"),
        ({"x": 255 - X}, r"\(training data's checksum is \d+, not \d+\): choose another folder"),
        ({"validation_data": X[:9]}, "validation_data is none, not given"),
    ],
)
def test_checkpoints_of_another_training_are_refused(changed, sentence, one_epoch):
    given = {"x": X, "batch_size": 8, "epochs": 2, "verbose": 0, "callbacks": [Checkpoint(one_epoch)]}
    with pytest.raises(ValueError, match=sentence):
        build(CASES["arrays"]).fit(**given | changed)


def test_a_folder_that_is_none_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "checkpoints"):
        with pytest.raises(OSError, match=r"^folder is .*, which is no folder and cannot be made one: ") as told:
            build(CASES["arrays"]).fit(X, verbose=0, callbacks=[Checkpoint(folder)])
        assert str(folder) in str(told.value)


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory) -> pathlib.Path:
    """Checkpoints of a training of one epoch."""
    folder = tmp_path_factory.mktemp("checkpoints")
    train(CASES["arrays"], Checkpoint(folder), epochs=1)
    return folder


def test_another_optimiser_or_model_is_refused(one_epoch):
    model = build(CASES["arrays"])
    model.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match=r"Adam's learning_rate is 0\.0[01]\d*, not 0\.5"):
        model.fit(X, batch_size=8, epochs=2, verbose=0, callbacks=[Checkpoint(one_epoch)])
    with pytest.raises(ValueError, match="expected one"):
        model.fit(X, callbacks=[Checkpoint(one_epoch), Checkpoint(one_epoch)])


def fit_with_settings(folder: pathlib.Path, **changed) -> keras.callbacks.History:
    likelihood = DistributionLayer("Normal", [3], scale=1.0)
    parts = {"encoder": networks.mlp([4], "tanh"), "decoder": networks.mlp([4]), "likelihood": likelihood}
    given = {**parts, "objective": objectives.Weighted(1.0), "posterior": posteriors.diagonal_normal(2), "seed": 0}
    vae = VAE(**{**given, **changed})
    vae.compile(jit_compile=False)
    return vae.fit(np.eye(3), epochs=2, verbose=0, callbacks=[Checkpoint(folder)])


@pytest.fixture(scope="module")
def of_settings(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("settings")
    for _ in range(2):  # the same model made again goes on
        assert fit_with_settings(folder).epoch == [0, 1]
    return folder


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"objective": objectives.Weighted(4.0)}, r"objective's beta is 1\.0, not 4\.0"),
        ({"objective": objectives.FreeBits(0.1)}, r'objective\'s class_name is "Weighted", not "FreeBits"'),
        ({"num_samples": 5}, "num_samples is 1, not 5"),
        ({"likelihood": DistributionLayer("Normal", [3], scale=2.0)}, r"likelihood's scale is 1\.0, not 2\.0"),
        ({"encoder": networks.mlp([4], "relu")}, r'encoder\'s layer \d\'s activation is "tanh", not "relu"'),
    ],
    ids=["beta", "objective", "samples", "scale", "activation"],
)
def test_another_setting_of_a_part_is_another_training(changed, sentence, of_settings):
    with pytest.raises(ValueError, match=sentence):
        fit_with_settings(of_settings, **changed)


def test_a_model_that_is_made_again_is_told_in_the_same_words():
    """Layers are counted, and Keras draws seeds for those that have none."""

    def words() -> dict:
        x = keras.Input([8, 8, 1])
        y = keras.layers.RandomTranslation(0.1, 0.1)(keras.layers.GaussianNoise(0.1)(x))
        y = keras.layers.Dense(3)(keras.layers.Dropout(0.2)(keras.layers.Flatten()(y)))
        parts = keras.Model(x, y), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8, 8, 1])
        return settings.in_words(VAE(*parts, prior=priors.VampPrior(2, [8, 8, 1], 3)))

    first, second = words(), words()
    assert first == second and len(first) > 60
    assert "0.2" in first.values()


def test_the_names_that_keras_counts_make_no_other_training():
    def known() -> dict:
        model = build(CASES["arrays"])
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
        return course._training(model, {})

    assert known() == known()
    earlier = {
        "Adam's learning_rate": {"class_name": "CosineDecay", "config": {"decay_steps": 9, "name": "CosineDecay"}}
    }
    Checkpoint("unused")._refuse_another(earlier, course.nameless(earlier))


@pytest.mark.slow
def test_a_training_that_has_ended_has_nothing_left_to_do(one_epoch, caplog):
    model = train(CASES["arrays"], Checkpoint(one_epoch), epochs=1)
    assert "ended after epoch 1: nothing is left to do" in caplog.text and model.history.epoch == [0]


def test_what_is_kept_is_whole_or_not_there(tmp_path):
    folder = str(tmp_path)
    for epoch in (1, 2, 3):
        kept.write(folder, kept.best(epoch), State({}, {"value": epoch}))
        kept.write(folder, kept.point(epoch, 0), State({"a": np.arange(epoch)}, {"epoch": epoch}))
    (tmp_path / kept.point(4, 0)).mkdir()  # killed before its record was written
    kept.prune(folder, 2)
    assert kept.points(folder) == [kept.point(2, 0), kept.point(3, 0)] and kept.bests(folder) == [
        kept.best(2),
        kept.best(3),
    ]
    assert kept.read(folder, kept.point(3, 0)).arrays["a"].tolist() == [0, 1, 2]
    kept.remove_after(folder, kept.point(2, 0))
    assert kept.points(folder) == [kept.point(2, 0)] and kept.bests(folder) == [kept.best(2)]


@pytest.mark.slow
def test_killed_in_any_way_it_ends_as_if_it_had_not_been(tmp_path):
    """SIGKILL and SIGTERM at moments that nobody has chosen; another process goes on."""
    result = tmp_path / "result.npz"
    command = [sys.executable, interruptions.__file__, "stream", tmp_path / "kept", result]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        before = kept.points(str(tmp_path / "kept"))
        process = subprocess.Popen([*command, "0.3"], env=environment, stderr=subprocess.PIPE, text=True)
        while kept.points(str(tmp_path / "kept")) == before:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        _, told = process.communicate()
        assert process.returncode == code, told
        assert ("Stopped; the same training goes on from" in told) == (number != signal.SIGKILL)
    subprocess.run(command, env=environment, check=True)
    with np.load(result) as found:
        assert not differences(dict(found), undisturbed("stream"))
