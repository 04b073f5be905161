"""The folder of a run, which is whole at any moment: the old run, or the new one.

A training writes to ``incomplete/`` in it. The listing of its files is written there last: from then on the new run
takes the old one's place, and whoever next opens the folder completes what a kill has interrupted. A training that was
stopped before leaves its checkpoints there, and in ``asked.json`` what was asked for, so that the same command goes on.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from tfvae import records
from tfvae.pipelines import checksums, contract, storage

COPY, CONFIGURATION, MODEL = "model.py", "config.toml", "model.keras"
INCOMPLETE, CHECKPOINTS = "incomplete", "checkpoints"
_ASKED, _LOCK = "asked.json", "lock"
_FILES = ("logs", "history.csv", COPY, CONFIGURATION, MODEL, records.RUN, contract.CHECKSUMS)


def check(output: pathlib.Path, overwrite: bool) -> None:
    """Raise ValueError if a run must not be written there: one is there, or files that are of no run.

    PipelineError if a file lies where a folder must be made.
    """
    storage.refuse_file_in_the_way(str(output))
    if (output / MODEL).exists() and not overwrite:
        raise ValueError(f"{output} holds a run already: choose another output or pass --overwrite.")
    record = records.read(output / records.RUN)
    for name, known_by in ((COPY, "model_file"), (CONFIGURATION, "model")):
        if (output / name).exists() and not record.get(known_by):
            raise ValueError(
                f"{output} holds a file {name} that is of no run: choose another output; it would be lost."
            )


def settle(output: pathlib.Path) -> None:
    """Complete the replacement of a run that a kill has interrupted; else nothing is done."""
    folder = output / INCOMPLETE
    if (folder / contract.CHECKSUMS).exists():
        with storage.locked(str(folder / _LOCK)) as mine:
            if mine:
                _move(folder, output)


@contextlib.contextmanager
def replacing(output: pathlib.Path, asked: dict[str, Any], overwrite: bool = False) -> Iterator[pathlib.Path]:
    """A folder for a new run, whose files take the places of the old run's if the block ends well.

    What a training of the same ``asked`` has left there is kept, to go on with; so is what this one leaves if it stops.

    Raises:
        ValueError: Another training writes there, or one of another command was interrupted there.
    """
    folder, is_new = output / INCOMPLETE, not output.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with storage.locked(str(folder / _LOCK)) as mine:
        if not mine:
            raise ValueError(f"Another training writes to {output}: wait for its end, or choose another output.")
        _clear_but_what_goes_on(output, asked, overwrite)
        with storage.replacing(str(folder / _ASKED), str(folder)) as file:
            file.write(storage.to_json(asked, indent=2))
        try:
            yield folder
            own = [_ASKED, _LOCK, *(name for name in storage.files_below(str(folder)) if name.startswith(CHECKPOINTS))]
            checksums.list_files(str(folder), contract.CHECKSUMS, but=own)
            _move(folder, output)
        except FloatingPointError:  # from a checkpoint it would come to the same
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            if not goes_on(output) and not (folder / contract.CHECKSUMS).exists():
                shutil.rmtree(folder, ignore_errors=True)
                if is_new:
                    with contextlib.suppress(OSError):  # it holds a run, or what somebody else has put there
                        output.rmdir()


def goes_on(output: str | os.PathLike[str]) -> bool:
    """Whether an interrupted training lies there, from whose checkpoints the same command goes on."""
    return any((pathlib.Path(output) / INCOMPLETE / CHECKPOINTS).glob("epoch-*/checkpoint.json"))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words what two trainings differ in, of what was asked for; the place of the same data is none.

    Example:
        >>> differences({"epochs": 3, "seed": 0}, {"epochs": 4, "seed": 0})
        ['epochs is 3 there, 4 here']
        >>> before, now = ({"data": "a", "dataset": {"manifest_sha256": sha256}} for sha256 in ("1f", "2e"))
        >>> differences(before, now), differences(before, {**now, "data": "b"})
        (['the data in a have changed since'], ['the data are others, a there, b here'])
    """
    names = [name for name in now if name not in ("data", "dataset") and before.get(name) != now[name]]
    found = [f"{name.replace('_', ' ')} is {before.get(name)} there, {now[name]} here" for name in names]
    was, given = (one.get("dataset", {}).get("manifest_sha256") or one.get("data") for one in (before, now))
    if was == given:
        return found
    if before.get("data") == now["data"]:
        return [f"the data in {now['data']} have changed since", *found]
    return [f"the data are others, {before.get('data')} there, {now['data']} here", *found]


def _clear_but_what_goes_on(output: pathlib.Path, asked: dict[str, Any], overwrite: bool) -> None:
    folder = output / INCOMPLETE
    odd = differences(records.read(folder / _ASKED), asked) if goes_on(output) else []
    if odd and not overwrite:
        raise ValueError(
            f"{output} holds a training that was interrupted, of another command ({'; '.join(odd)}): repeat that one "
            "to go on, pass --overwrite to begin this one in its place, or choose another output."
        )
    stays = {_LOCK, CHECKPOINTS, "logs", _ASKED} if goes_on(output) and not odd else {_LOCK}
    # Checkpoints first: without them nobody asks for asked.json.
    for name in sorted(storage.names(str(folder)), key=CHECKPOINTS.__ne__):
        if name not in stays:
            _remove(folder / name)


def _move(folder: pathlib.Path, output: pathlib.Path) -> None:
    """The new run's files to their places, their listing last; a second time it goes on with the first."""
    listed = {
        entry["path"].split("/")[0]
        for entry in checksums.entries(checksums.read_record(str(folder / contract.CHECKSUMS)))
    }
    _remove(folder / CHECKPOINTS)  # a training that has ended does not go on
    (output / records.EVALUATION).unlink(missing_ok=True)  # of the run that this one replaces
    for name in _FILES:
        if (folder / name).exists():
            _remove(output / name)
            os.replace(folder / name, output / name)
        elif name not in listed:
            _remove(output / name)
    shutil.rmtree(folder, ignore_errors=True)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
