"""The call that made an output, kept beside it, so that what is damaged later can be made again without being told how.

It is in a file of its own, because it names places, and the other files of an output are the same wherever its input
and model lie.
"""

import contextlib
import dataclasses
import inspect
import json
import os
from collections.abc import Callable
from typing import Any, cast

from .. import contract, storage
from ..checksums import DamagedError
from ..errors import PipelineError
from .commits import Output

_PLACES = ("model", "input", "prepared_with")
# Said anew each time, or not to be believed of a file: what writes elsewhere, trusts a model or starts programs.
_NOT_KEPT = {"output", "overwrite", "metrics_file", "trust_model", "beam_args", "progress", "mend"}


@dataclasses.dataclass(frozen=True)
class Call:
    """What a pipeline was asked for.

    Attributes:
        given: The arguments of its function ``run``, by name, as they were given.

    Example:
        >>> call = Call({"source": "digits", "input": None, "shape": (8, 8), "output": "out", "mend": False})
        >>> call.arguments()
        {'input': None, 'shape': [8, 8], 'source': 'digits'}
    """

    given: dict[str, Any]

    def arguments(self) -> dict[str, Any]:
        """Those that say what is made, as JSON has them; places are absolute."""
        kept = {name: value for name, value in self.given.items() if name not in _NOT_KEPT}
        placed = {name: _place(value) if value and name in _PLACES else value for name, value in kept.items()}
        return cast(dict[str, Any], json.loads(storage.to_json(placed)))

    def remember(self, output: Output, kind: str, has_made: bool) -> None:
        """Keeps how an output was made: of a run that had nothing to make, where input and model lie now."""
        arguments = self.arguments()
        with contextlib.suppress(DamagedError):
            if (record := output.read_record(contract.COMMAND)) is not None and record["kind"] == kind:
                places = {name: arguments[name] for name in _PLACES if name in arguments}
                arguments = arguments if has_made else {**record["arguments"], **places}
                if arguments == record["arguments"]:
                    return
        output.sweep("temporary")  # a draft of one that was killed here, once all else was done
        output.write_record(contract.COMMAND, {"kind": kind, "arguments": arguments})

    def refuse_other(self, is_same: bool, output: str) -> None:
        """Raises PipelineError where an output was made from something else, and is but to be mended."""
        if self.given["mend"] and not is_same:
            made_from = " and ".join(str(self.given[name]) for name in _PLACES if self.given.get(name))
            raise PipelineError(
                f"{output} was not made from what is now at {made_from or 'the source'}, or another release plans it "
                "otherwise: bring that back, or give the command again to make the output of what is there now"
            )


def _place(given: Any) -> str:
    path = os.fspath(given)
    is_one = not path.startswith("tfds:") and (path != "digits" or storage.exists(path))
    return storage.absolute(path) if is_one else path


def checked(arguments: Any, run: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a record says, where ``run`` takes them and they may be believed of a file.

    Raises:
        PipelineError: They are not such.
    """
    known = inspect.signature(run).parameters.keys() - _NOT_KEPT
    if not isinstance(arguments, dict) or not arguments.keys() <= known:
        raise PipelineError("the record of the command that made it is of another release: give that command again")
    return arguments
