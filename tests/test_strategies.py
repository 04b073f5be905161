"""A training over several devices by the command line: which workers there are, and one of them killed."""

import contextlib
import json
import os
import signal
import socket
import time

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import torture
from benchmarks.forks import Forks
from tfvae import cli, runs, strategies
from tfvae.pipelines.verify import verify

HERE = {"cluster": {"worker": ["one:1", "two:2"]}, "task": {"type": "worker", "index": 1}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "needs the environment variable TF_CONFIG, such as"),
        ("", "needs the environment variable TF_CONFIG"),
        ("{", "TF_CONFIG is no JSON"),
        ("[" * 100_000, "TF_CONFIG is no JSON"),
        ("[]", "has cluster None, expected workers"),
        (json.dumps(HERE | {"cluster": {}}), "has cluster {}, expected workers"),
        (json.dumps(HERE | {"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}), "expected workers, and a chief at most"),
        (json.dumps(HERE | {"cluster": {"worker": "a:1"}}), "has worker 'a:1', expected a list of HOST:PORT"),
        (json.dumps(HERE | {"cluster": {"worker": ["a"]}}), r"has worker \['a'\], expected a list of HOST:PORT"),
        (json.dumps(HERE | {"cluster": {"worker": ["a:70000"]}}), "expected a list of HOST:PORT"),
        (json.dumps({"cluster": HERE["cluster"]}), "has task None, expected one of its cluster: worker 0, worker 1"),
        (json.dumps(HERE | {"task": {"type": "worker", "index": 2}}), "expected one of its cluster: worker 0"),
        (json.dumps(HERE | {"task": {"type": "chief", "index": 0}}), "expected one of its cluster: worker 0"),
    ],
)
def test_what_is_wrong_with_tf_config_is_told(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        strategies.check_workers(text)


def test_workers_that_are_named_are_taken():
    strategies.check_workers(json.dumps(HERE))
    led = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}
    strategies.check_workers(json.dumps(led))


def test_the_command_takes_the_names_that_there_are(monkeypatch, tmp_path):
    (option,) = [option for option in cli.train.params if option.name == "strategy"]
    assert tuple(option.type.choices) == strategies.NAMES
    with pytest.raises(ValueError, match="strategy is 'tpu', expected one of mirrored, workers"):
        strategies.strategy("tpu")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    asked = ["train", "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--strategy", "workers"]
    told = CliRunner().invoke(cli.main, asked)
    assert told.exit_code == 1 and "error: The strategy workers needs the environment variable" in told.output
    assert not (tmp_path / "run").exists()


def test_mirrored_over_one_device_is_a_run_as_any_other(tmp_path, digits):
    model = tmp_path / "model.py"
    model.write_text(torture.MODEL, encoding="utf-8")
    record = runs.train(digits, tmp_path / "run", f"{model}:build", epochs=1, batch_size=500, strategy="mirrored")
    assert record["rows"] == 1607 and not verify(str(tmp_path / "run")).damaged
    assert runs.load(tmp_path / "run").embed(np.zeros([2, 8, 8, 1], np.uint8)).shape == (2, 2)


@pytest.mark.slow
def test_one_of_two_workers_killed(tmp_path):
    """The other ends with a sentence; both started again end with the weights of two that nobody has killed."""
    with contextlib.ExitStack() as stack:
        with socket.socket() as one, socket.socket() as other:
            for opened in (one, other):
                opened.bind(("127.0.0.1", 0))
            workers = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in (one, other)]
        both = [
            stack.enter_context(contextlib.closing(Forks(tmp_path / f"log {index}", TF_CONFIG=json.dumps(role))))
            for index in range(2)
            for role in [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}]
        ]
        prepared, model = tmp_path / "prepared", tmp_path / "model.py"
        model.write_text(torture.MODEL, encoding="utf-8")
        both[0].start(["prepare", "--source", "digits", "--output", prepared])
        assert both[0].end() == 0

        def start(output) -> list[int]:
            asked = ["train", "--data", prepared, "--output", output, "--model", f"{model}:build", "--epochs", "6"]
            return [worker.start([*asked, "--batch-size", "500", "--strategy", "workers"]) for worker in both]

        start(tmp_path / "whole")
        assert [worker.end() for worker in both] == [0, 0], both[0].log.read_text(encoding="utf-8")[-2000:]
        processes, began = start(tmp_path / "killed"), time.monotonic()
        while not list((tmp_path / "killed").glob("incomplete/checkpoints/epoch-*/checkpoint.json")):
            os.kill(processes[1], 0)
            assert time.monotonic() < began + 120
            time.sleep(0.01)
        os.kill(processes[1], signal.SIGKILL)
        assert [worker.end() for worker in both] == [1, -signal.SIGKILL]
        assert "error: Another worker is gone: start all of them again" in both[0].log.read_text(encoding="utf-8")
        assert not (tmp_path / "killed" / "model.keras").exists()
        start(tmp_path / "killed")
        assert [worker.end() for worker in both] == [0, 0], both[0].log.read_text(encoding="utf-8")[-2000:]
        assert "The training goes on after epoch" in both[0].log.read_text(encoding="utf-8")
    assert torture.weights(tmp_path / "killed") == torture.weights(tmp_path / "whole")
