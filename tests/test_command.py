"""Ctrl-C and SIGTERM before a command has begun, and after it has ended: one sentence, no traceback."""

import pathlib
import signal
import subprocess
import sys

import pytest

WHILE_IMPORTING = """
class Stops:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Stops())
"""
WHILE_IT_IS_LEFT = """
import signal
from tfvae.pipelines import stops

set_to = signal.signal

def stops_before(number, handler):
    if handler is not stops._hear and stops._now and number == {number}:
        os.kill(os.getpid(), {number})
        time.sleep(0)
    return set_to(number, handler)

import tfvae.cli, time
signal.signal = stops_before
"""
AT_THE_END = "import atexit; atexit.register(os.kill, os.getpid(), {number})\n"


def stopped(when: str, *arguments: str, **where) -> subprocess.CompletedProcess:
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # as of a program that is not in the background
    program = f"import os, signal, sys\n{heard}\n{when.format(**where)}\nfrom tfvae.command import main\nmain()\n"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("tfvae.cli", signal.SIGINT),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("click", signal.SIGINT), ("click", signal.SIGTERM))
        ),
    ],
    ids=lambda part: getattr(part, "name", part),
)
def test_a_stop_while_the_command_is_imported_is_one_sentence(module, number):
    done = stopped(WHILE_IMPORTING, "--version", module=module, number=int(number))
    assert done.returncode == 128 + number and done.stdout == ""
    assert done.stderr == "\nStopped: nothing had begun; give the same command again.\n"


def test_a_stop_after_the_command_says_that_all_is_whole():
    done = stopped(AT_THE_END, "--version", number=int(signal.SIGINT))
    assert done.returncode == 130 and "version" in done.stdout
    assert done.stderr == "\nStopped: the command had ended; what it wrote is whole.\n"


def test_a_stop_while_the_answer_is_left_says_so_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = stopped(WHILE_IT_IS_LEFT, "runs", ".", number=int(signal.SIGINT))
    assert done.returncode == 130 and "holds no run" in done.stdout
    assert done.stderr == "\nStopped: the command had ended; what it wrote is whole.\n"


@pytest.mark.slow
def test_an_error_has_its_own_exit_code():
    done = stopped("", "runs", "nowhere")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("asked", [["runs", "."], ["--help"]])
def test_an_output_that_cannot_be_written_is_told(asked):
    with pathlib.Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tfvae", *asked], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: what the command says could not be printed: No space left on device\n"


@pytest.mark.slow
def test_keras_on_another_backend_is_told(tmp_path):
    asked = ["train", "--data", str(tmp_path), "--output", str(tmp_path / "run")]
    done = stopped("os.environ['KERAS_BACKEND'] = 'jax'", *asked)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and "set KERAS_BACKEND=tensorflow before Keras is imported" in done.stderr


@pytest.mark.slow
def test_a_signal_that_the_program_ignores_stays_ignored():
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + AT_THE_END
    assert stopped(ignored, "--version", number=int(signal.SIGINT)).returncode == 0
