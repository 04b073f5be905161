"""Ctrl-C and SIGTERM end a command with a sentence, wherever they come."""

import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from pipelines import command_line, contract, stops, storage
from tfvae import cli

from .conftest import ROOT

SAYING = "Stopped: out is as it was; give it again.\n"
COMMAND = """
import hashlib, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has jobs in the background ignore it
from tfvae.pipelines import stops
def ready(): print("ready", flush=True)
def within(): threading.Timer(0.5, ready).start(); hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
with stops.answered(), stops.says(lambda: "out is as it was; give it again"):
    {body}
"""
PLACES = {
    "waits": "ready(); threading.Event().wait()",
    "a thread goes on": "threading.Thread(target=threading.Event().wait).start(); ready(); threading.Event().wait()",
    "within a program": "within()",
    "lost in a callback": (
        "Lost = type('Lost', (), {'__del__': lambda self: (ready(), threading.Event().wait())}); Lost(); "
        "threading.Event().wait()"
    ),
    "an error of it": (
        "try: ready(); threading.Event().wait()\n    except BaseException: raise ImportError('half a module') from None"
    ),
    "without standard error": "import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 2); within()",
}


def end(body: str, number: int) -> tuple[int, str]:
    """Exit code and standard error of a command that is sent a signal when it is ready."""
    command = [sys.executable, "-c", COMMAND.format(body=body)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n", process.communicate()
            process.send_signal(number)
            _, told = process.communicate(timeout=20)
        finally:
            process.kill()
    return process.returncode, told


@pytest.mark.parametrize("number", stops.EXIT_CODES, ids=lambda number: number.name)
@pytest.mark.parametrize(
    "body", [pytest.param(body, id=name, marks=[pytest.mark.slow] * (name != "waits")) for name, body in PLACES.items()]
)
def test_a_stop_is_one_sentence_and_the_exit_code_that_shells_expect(body, number):
    assert end(body, number) == (stops.EXIT_CODES[number], "\n" + SAYING)


@pytest.mark.slow
def test_what_a_library_does_at_ctrl_c_is_done_at_sigterm_too():
    """Beam takes Ctrl-C to end the server of a job on Flink."""
    body = (
        "before = signal.getsignal(signal.SIGINT); "
        "signal.signal(signal.SIGINT, lambda *of: (sys.stderr.write('server ended'), before(*of))); "
        "ready(); threading.Event().wait()"
    )
    for number, code in stops.EXIT_CODES.items():
        assert end(body, number) == (code, "server ended\n" + SAYING)


@pytest.mark.slow
def test_the_thread_that_ends_the_process_does_what_must_be_done():
    body = "last = stops.at_last(lambda: sys.stderr.write('workers ended')); last.__enter__(); within()"
    assert end(body, signal.SIGTERM) == (143, "\n" + SAYING + "workers ended")


def commands(group: click.Group) -> list[tuple[list[str], click.Command]]:
    """Every command, with the words that call it."""
    found = []
    for name, command in group.commands.items():
        inner = commands(command) if isinstance(command, click.Group) else [([], command)]
        found += [([name, *words], one) for words, one in inner]
    return found


@pytest.mark.parametrize(("words", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in commands(cli.main)])
def test_every_command_says_what_is_there(words, command, monkeypatch, tmp_path):
    def stopped(**given):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "callback", stopped)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    given = [[one.opts[0], "x"] if one.opts[0].startswith("-") else ["x"] for one in command.params if one.required]
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(cli.main, [*words, *(word for one in given for word in one)])
    assert result.exit_code == 130 and result.output.startswith("\nStopped: "), result.output
    assert result.output.endswith(".\n") and "{" not in result.output and len(result.output.splitlines()) == 2
    assert "again" in result.output or "the same command" in result.output
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_job_has_left(tmp_path):
    out, again = str(tmp_path / "out"), "give the same command again"
    assert command_line.what_is_done(out) == f"nothing of {out} was made yet; {again}"

    def write(name):
        with storage.replacing(f"{out}/{name}", f"{out}/{contract.WORK}/temporary") as file:
            file.write(b"{}")

    write("_work/commits/a.json")
    assert command_line.what_is_done(out) == f"1 unit of {out} is done and stays; the same command does the others"
    write("_work/commits/b.json")
    assert command_line.what_is_done(out) == f"2 units of {out} are done and stay; the same command does the others"
    write(contract.MANIFEST)
    assert command_line.what_is_done(out) == f"{out} is whole, as it was before; {again}"
    write("generations/000001/manifest.json")
    write("generations/000002/_work/commits/a.json")
    told = f"1 unit of {out}, which readers see as it was before, is done and stays; the same command does the others"
    assert command_line.what_is_done(out) == told


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "--source", "digits", "--output"],
        ["train", "--data", "none", "--output"],
        ["export", "none"],
        ["embed", "--model", "none", "--input", "none", "--output"],
        ["plot", "none", "--output"],
        ["init"],
        ["pull", "me/none"],
        ["quickstart", "--output"],
        ["reproduce", "linear-frey", "--output"],
    ],
    ids=lambda given: given[0],
)
@pytest.mark.parametrize("below", ["", "/a/b"])
def test_a_file_in_the_way_of_an_output(words, below, tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    result = CliRunner().invoke(cli.main, [*words, f"{file}{below}"])
    assert result.exit_code == 1 and file.read_text() == "text"
    told = (
        f"the output {file}{below} cannot be made: {file} is a file, expected a folder: choose another place, or move"
    )
    assert result.output == f"error: {told} that file away\n"
