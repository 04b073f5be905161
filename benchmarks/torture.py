"""Each command killed at random moments (SIGKILL), then given again: is anything lost, doubled, changed or half there?

    python -m benchmarks.torture --kills 100 --minutes 60 --seed 0

A command in a new folder is killed once to five times in a row. Half of the moments lie between its start and the time
that an undisturbed one takes, the others within a quarter of that after it has begun to leave something; all are drawn
from the seed. What is there then is looked at as a reader would; at last the same command is given again, and all that
it leaves is held against the undisturbed run, byte for byte. Checkpoints of trainings are written at the end of every
program instead of every minute, so that a training of seconds has as many as one of hours.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import random
import shutil
import signal
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import click
import h5py
import pyarrow.parquet as pq

from benchmarks import report
from benchmarks.forks import Forks
from tfvae import run_folder
from tfvae.pipelines import contract
from tfvae.pipelines.verify import verify

MODEL = """\
import keras

import tfvae


def build(event_shape, seed):
    networks = tfvae.networks.mlp([8]), tfvae.networks.mlp([8])
    vae = tfvae.VAE(*networks, tfvae.posteriors.diagonal_normal(2), tfvae.likelihoods.bernoulli(event_shape), seed=seed)
    vae.compile(keras.optimizers.Adam(0.01), steps_per_execution=3, jit_compile=False)
    return vae
"""
_BLOCKS = {"tfvae.pipelines.inputs.base.BLOCK_BYTES": 64 * 100}  # 100 digits a unit of work
_OFTEN = {"tfvae.callbacks.checkpoint._SECONDS": 0.0}
_STREAMED = {"tfvae.runs._IN_MEMORY_BYTES": 0}


@dataclasses.dataclass(frozen=True)
class Command:
    """What is killed.

    Attributes:
        arguments: The command line that makes an output.
        outcome: All of an output that must be as in the undisturbed one, by name.
        half: What of an output a reader would take for whole and is not, in words; asked after a kill too.
        begun: Whether a killed command has left something to go on with.
        settings: See ``Forks.start``.
        remove: Takes an output away.
    """

    arguments: Callable[[Any], Sequence[Any]]
    outcome: Callable[[Any], dict[str, bytes]]
    half: Callable[[Any], list[str]]
    begun: Callable[[Any], bool]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    remove: Callable[[Any], None] = shutil.rmtree


def commands(folder: pathlib.Path) -> dict[str, Command]:
    """Those that are killed, each of which takes what the ones before have made in ``folder``."""
    prepared, model, run, exported = (folder / name for name in ("prepared", "model.py", "run", "exported"))
    model.write_text(MODEL, encoding="utf-8")

    def train(output: pathlib.Path) -> list[Any]:
        return ["train", "--data", prepared, "--output", output, "--model", f"{model}:build", "--epochs", "4"]

    trained: dict[str, Any] = {"outcome": weights, "half": half_run, "begun": run_folder.goes_on}
    job: dict[str, Any] = {"outcome": files, "half": half_output, "begun": has_commits}
    return {
        "prepare": Command(
            lambda output: ["prepare", "--source", "digits", "--rows-per-shard", "200", "--output", output], **job
        ),
        "train on arrays": Command(train, **trained, settings=_OFTEN),
        "train on streams": Command(train, **trained, settings=_OFTEN | _STREAMED),
        "export": Command(lambda output: ["export", run, output], variables, half_export, is_written),
        "embed": Command(
            lambda output: ["embed", "--model", exported, "--input", prepared, "--split", "all", "--output", output],
            **job, settings=_BLOCKS,
        ),
    }  # fmt: skip


MADE = {"prepare": "prepared", "train on arrays": "run", "export": "exported"}  # where its whole output is wanted


def files(output: pathlib.Path) -> dict[str, bytes]:
    """Every file but the lock."""
    found = [path for path in output.rglob("*") if path.is_file() and not path.is_symlink() and path.name != "lock"]
    return {str(path.relative_to(output)): path.read_bytes() for path in found}


def weights(output: pathlib.Path) -> dict[str, bytes]:
    """Every array of a run's model, its optimiser's too, and the history; the archive itself holds the time."""
    with zipfile.ZipFile(output / "model.keras") as archive:
        arrays: dict[str, bytes] = {}
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(
                lambda name, one: arrays.update({name: one[()].tobytes()}) if isinstance(one, h5py.Dataset) else None
            )
    return arrays | {"history.csv": (output / "history.csv").read_bytes()}


def variables(output: pathlib.Path) -> dict[str, bytes]:
    """The weights of the newest version; its graph's order is another one in each process."""
    newest = max((path for path in output.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    return {path.name: path.read_bytes() for path in (newest / "variables").iterdir() if "data" in path.name}


def damaged(folder: pathlib.Path) -> list[str]:
    """What ``tfvae verify`` finds."""
    return [f"{folder.name}/{name} is damaged" for name in verify(str(folder)).damaged]


def half_output(output: pathlib.Path) -> list[str]:
    """Of a manifest, every file that it lists; of readable parts, those that a reader of the folder cannot read."""
    parts = sorted((output / contract.PARTS).rglob("*.parquet"))
    broken = []
    for part in parts:
        try:
            pq.read_metadata(part)
        except Exception as error:
            broken.append(f"{part.name}: {error}")
    return broken + (damaged(output) if (output / contract.MANIFEST).exists() else [])


def has_commits(output: pathlib.Path) -> bool:
    """Whether a unit of work is done and the manifest not there."""
    commits = [path for path in output.rglob("commits/*.json") if not path.is_symlink()]
    return bool(commits) and not (output / contract.MANIFEST).exists()


def half_run(output: pathlib.Path) -> list[str]:
    """A model that is there is one of a whole run; the command that opens it completes what a kill has interrupted."""
    run_folder.settle(output)
    return damaged(output) if (output / run_folder.MODEL).exists() else []


def half_export(output: pathlib.Path) -> list[str]:
    """Of every version that TF Serving would load."""
    versions = [path for path in output.glob("*") if path.name.isdecimal()]
    return [name for version in versions for name in damaged(version)]


def is_written(output: pathlib.Path) -> bool:
    """Whether a version is on its way."""
    return any(output.glob("incomplete-*"))


@dataclasses.dataclass
class Torn:
    """What came of the kills of a command.

    Attributes:
        seconds: How long the undisturbed one took.
        span: The time after its start within which it is killed.
        kills: How often it was killed.
        begun: How many of the kills left something to go on with.
        half: What was half there after a kill, or after the command that followed.
        lost, more, changed: Names in the outcome that the command after a kill lacked, had more, or had otherwise.
        exits: Exit codes of the commands after a kill that were not 0, with what they said.
    """

    seconds: float
    span: float
    kills: int = 0
    begun: int = 0
    half: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    more: list[str] = dataclasses.field(default_factory=list)
    changed: list[str] = dataclasses.field(default_factory=list)
    exits: list[str] = dataclasses.field(default_factory=list)

    @property
    def faults(self) -> tuple[list[str], ...]:
        """All that should be empty."""
        return self.half, self.lost, self.more, self.changed, self.exits


def whole(forks: Forks, command: Command, output: Any) -> Torn:
    """Give a command undisturbed."""
    started = time.monotonic()
    forks.start(command.arguments(output), command.settings)
    if status := forks.end():
        raise RuntimeError(f"a command that nobody killed ended with {status}: {forks.log.read_text(encoding='utf-8')}")
    seconds = time.monotonic() - started
    return Torn(seconds, seconds)


def tear(forks: Forks, command: Command, output: Any, expected: dict[str, bytes], torn: Torn, moments: Any):
    """Kill a command once to five times in a row, over one output, and give it again."""
    for _ in range(moments.randint(1, 5)):
        process = forks.start(command.arguments(output), command.settings)
        if moments.random() < 0.5:  # most of a short command is its start
            kill(process, moments.uniform(0.0, torn.span))
        else:
            wait(process, lambda: command.begun(output))
            kill(process, moments.uniform(0.0, torn.span / 4))
        if forks.end() != -signal.SIGKILL:
            torn.span *= 0.8  # it is quicker than the undisturbed one was
            break
        torn.kills += 1
        torn.half += command.half(output)
        torn.begun += command.begun(output)
    again(forks, command, output, expected, torn)
    command.remove(output)


def wait(process: int, begun: Callable[[], bool]) -> None:
    """Until a command has begun, or ends."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # a folder that was there a moment ago
        while not begun():
            os.kill(process, 0)
            time.sleep(0.01)


def kill(process: int, after: float) -> None:
    """So many seconds after now, unless it ends before."""
    until = time.monotonic() + after
    with contextlib.suppress(ProcessLookupError):
        while (left := until - time.monotonic()) > 0:
            os.kill(process, 0)
            time.sleep(min(left, 0.05))
        os.kill(process, signal.SIGKILL)


def again(forks: Forks, command: Command, output: Any, expected: dict[str, bytes], torn: Torn) -> None:
    """Give a killed command again, and hold what it leaves against what is expected."""
    done = (output / run_folder.MODEL).exists()  # killed after its last step: tfvae train would refuse a second run
    forks.start(command.arguments(output) + (["--resume"] if done else []), command.settings)
    if status := forks.end():
        torn.exits.append(f"{status}: {forks.log.read_text(encoding='utf-8')[-500:]}")
        return
    found = command.outcome(output)
    torn.half += command.half(output)
    torn.lost += sorted(expected.keys() - found.keys())
    torn.more += sorted(found.keys() - expected.keys())
    torn.changed += [name for name in sorted(found.keys() & expected.keys()) if found[name] != expected[name]]


def run(folder: pathlib.Path, kills: int, minutes: float, seed: int, only: Sequence[str] = ()) -> dict[str, Torn]:
    """All commands, or some, in turn, until each is killed so often or the time is up; ``folder`` is empty."""
    moments, until = random.Random(seed), time.monotonic() + 60 * minutes
    with contextlib.closing(Forks(folder / "log")) as forks:
        found, expected, killed = {}, {}, commands(folder)
        for name, command in killed.items():
            output = folder / MADE.get(name, f"whole {name}")
            found[name] = whole(forks, command, output)
            expected[name] = command.outcome(output)
        while time.monotonic() < until and (left := [name for name in only or killed if found[name].kills < kills]):
            for name in left:
                tear(forks, killed[name], folder / "killed", expected[name], found[name], moments)
            click.echo(f"{', '.join(f'{name} {torn.kills}' for name, torn in found.items())} kills", err=True)
    return {name: found[name] for name in only or found}


HEADER = (
    "command",
    "undisturbed, s",
    "kills",
    "of them in the midst",
    "half there",
    "lost",
    "more",
    "changed",
    "refused",
)


@click.command()
@click.option("--kills", default=100, show_default=True, help="Of each command, at least.")
@click.option("--minutes", default=60.0, show_default=True, help="No further kills after that.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--only", multiple=True, show_default="all", help="A command to kill, such as export.")
def main(kills: int, minutes: float, seed: int, only: Sequence[str]) -> None:
    """Kill every command and keep what came of it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run(pathlib.Path(folder), kills, minutes, seed, only)
    keep("_".join(["torture", *only]).replace(" ", "_"), "Commands that were killed", found, seed, started)


def keep(name: str, title: str, found: dict[str, Torn], seed: int, started: float) -> None:
    """Write what came of the kills; exit with 1 where there is a fault."""
    rows = [
        [
            name,
            f"{torn.seconds:.1f}",
            *map(str, (torn.kills, torn.begun)),
            *(str(len(faults)) for faults in torn.faults),
        ]
        for name, torn in found.items()
    ]
    details = {"seed": seed, "seconds": round(time.monotonic() - started)}
    details |= {"commands": {name: dataclasses.asdict(torn) for name, torn in found.items()}}
    report.keep(name, title, [*HEADER], rows, details)
    if any(any(torn.faults) for torn in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
