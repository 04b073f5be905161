"""``--config FILE.toml``: the flags of a command from a file. Its keys are their names; the command line wins.

A path in the file is relative to the file's own folder, so that a folder with its configuration can be moved, and the
command started anywhere.
"""

import difflib
import json
import os
import pathlib
import tomllib
from collections.abc import Callable
from typing import Any

import click

from tfvae import model_file
from tfvae.pipelines import storage

NAME = "config.toml"
_LARGEST = 1 << 20  # bytes


def option(help: str) -> Callable[[Any], Any]:
    """A decorator that gives a command the option ``--config``."""
    return click.option("--config", metavar="FILE.toml", is_eager=True, expose_value=False, callback=_use, help=help)


def text(flags: dict[str, Any], comment: str) -> str:
    """Flags as TOML; those that are None are left out.

    Example:
        >>> print(text({"data": "a b", "epochs": 3, "latent-dim": None, "overwrite": True}, "Once more:"), end="")
        # Once more:
        data = "a b"
        epochs = 3
        overwrite = true
    """
    lines = [f"{name} = {_value(value)}\n" for name, value in flags.items() if value is not None]
    return f"# {comment}\n{''.join(lines)}"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _use(context: click.Context, config: click.Parameter, path: str | None) -> None:
    """Lets the flags that the file names take the places of the command's defaults."""
    if path is None:
        return
    try:
        if storage.is_address(path):
            raise ValueError(f"{path} is no file on this machine: copy it here.")
        given = _flags(pathlib.Path(path), context.command)
    except ValueError as error:
        raise click.BadParameter(str(error), context, config) from error
    context.default_map = {**(context.default_map or {}), **given}


def _flags(path: pathlib.Path, command: click.Command) -> dict[str, Any]:
    """The values in a file by the names of the parameters."""
    known = {
        name.removeprefix("--"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name != "config"
        for name in parameter.opts
    }
    found: dict[str, Any] = {}
    for key, value in _read(path).items():
        if key not in known:
            near = difflib.get_close_matches(key.replace("_", "-"), known, n=2, cutoff=0.5)
            asked = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
            raise ValueError(f"{path} has the key {key!r}, which is no flag of {command.name}: {asked}")
        name = str(known[key].name)
        if name in found:
            raise ValueError(f"{path} has {' and '.join(known[key].opts)}, which are one flag: say one of them.")
        found[name] = _checked(path, key, value, known[key])
    return found


def _read(path: pathlib.Path) -> dict[str, Any]:
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a TOML file, such as {path / NAME}.")
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        return tomllib.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error


def _checked(path: pathlib.Path, key: str, value: Any, flag: click.Option) -> Any:
    """A value of the flag's own kind; click would take "20", 1.5 and true for whole numbers."""
    kinds: tuple[type, ...] = (str,)
    expected = 'text, in quotes, such as "mnist"'
    if flag.is_flag:
        kinds, expected = (bool,), "true or false"
    elif isinstance(flag.type, click.types.IntParamType):
        whole = int(value) if isinstance(value, float) and value.is_integer() else 20
        kinds, expected = (int,), f"a whole number, such as {whole}"
    elif isinstance(flag.type, click.types.FloatParamType):
        kinds, expected = (int, float), "a number, such as 0.001"
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{path}: {key} is {_shown(value)}, expected {expected}.")
    if isinstance(value, str) and (flag.metavar == "DIR" or model_file.names_a_file(value)):
        return value if storage.is_address(value) else os.path.normpath(path.parent / os.path.expanduser(value))
    return value


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, dict) else repr(value)[:80]
