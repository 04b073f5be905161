"""Click commands from functions: a function's arguments are the options, its docstring's ``Args`` their help.

So an option is written once, where it is used. The function's source is read and nothing of it imported: ``--help``
answers before Beam or TensorFlow have been loaded. What a pipeline's command does not know goes to Beam.
"""

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import re
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import click

from . import contract, stops, storage
from .errors import HandedOver, PipelineError, in_a_line

_NO_PATH = re.compile("digits$|tfds:")  # what embed reads without a file
_TOGETHER = re.compile("[0-9]+([^0-9.][0-9]+)+")  # numbers that are written as one: 28,28 or 28x28
_EXIT_COMPLETE, _EXIT_ERROR, _EXIT_USAGE = 0, 1, 2
_BEAM = (
    "Every other option is one of Beam's own, for example --runner FlinkRunner, --job_name NAME, "
    "--setup_file ./setup.py. The default runner is Beam's in-process one with one worker."
)


class _Pipeline(NamedTuple):
    module: str
    about: str
    example: str
    reads: Mapping[str, str] = types.MappingProxyType({})


PIPELINES = {
    "prepare": _Pipeline(
        "preprocess",
        "Raw files to a prepared dataset, a TFDS folder, by Beam.",
        "--source idx --input data/mnist --output prepared/mnist",
    ),
    "embed": _Pipeline(
        "embed",
        "Rows to Parquet embeddings by an exported model, by Beam. They are of a prepared dataset, or of Parquet, "
        "TFRecord or image files.",
        "--model saved_models/mnist --input prepared/mnist --output embeddings/mnist --split test",
        {
            "model": "a SavedModel, as tfvae export writes it",
            "input": "a prepared dataset, or files of rows, a folder or a pattern of them",
            "prepared_with": "a prepared dataset, as tfvae prepare makes it",
        },
    ),
}


class Mistake(click.ClickException):
    """What a command ends with that cannot be done: one line on standard error, and an exit code."""

    def __init__(self, message: str, exit_code: int = _EXIT_ERROR):
        super().__init__(message)
        vars(self)["exit_code"] = exit_code  # which click declares as the class's

    @classmethod
    def of_usage(cls, error: click.UsageError, exit_code: int = _EXIT_USAGE) -> "Mistake":
        """An option that is wrong."""
        path = error.ctx.command_path if error.ctx else "tfvae"
        return cls(f"{' '.join(error.format_message().split()).rstrip('.')} (see {path} --help)", exit_code)

    def show(self, file: Any = None) -> None:
        """See ``click.ClickException``."""
        click.echo(f"error: {self.message}", err=True)


class Strict(click.Command):
    """A command that takes no empty text: as a path it would be the folder that the command is started in.

    Args:
        stopped: What is there when it was stopped, and how to go on, without a full stop: of what it was given, or a
            text with the names of that in braces.
        makes: Which of its parameters is a folder that it makes; no file may lie there, or above.
        reads: Which of them are files or folders that must be there, and what each should be: told before anything
            heavy is imported. Patterns and addresses of stores are left to the command.
        here: Which of them are paths on this machine alone: an address of a store is told at once, as it was written.
    """

    def __init__(
        self,
        *args: Any,
        stopped: str | Callable[[dict[str, Any]], str] = "",
        makes: str = "output",
        reads: Mapping[str, str] = types.MappingProxyType({}),
        here: Collection[str] = (),
        **more: Any,
    ):
        super().__init__(*args, **more)
        self._stopped, self._makes, self._reads, self._here = stopped, makes, reads, here

    def invoke(self, context: click.Context) -> Any:
        """See ``click.Command``, and ``pipelines.stops``."""
        told = self._stopped
        sentence = (lambda: told.format(**context.params)) if isinstance(told, str) else lambda: told(context.params)
        with stops.answered(), stops.says(sentence if told else None):
            for path in filter(storage.is_address, map(context.params.get, self._here)):
                raise Mistake(
                    f"{path} is no path on this machine, where {self.name} reads and writes: copy what lies in a store "
                    "here before, or there afterwards"
                )
            if output := context.params.get(self._makes):
                self._refuse_file_in_the_way(output)
            for name, expected in self._reads.items():
                if _is_absent(path := context.params.get(name)):
                    raise Mistake(f"{path} is not there: expected {expected}")
            return super().invoke(context)

    def _refuse_file_in_the_way(self, output: str) -> None:
        try:
            storage.refuse_file_in_the_way(output)
        except PipelineError as error:
            raise Mistake(in_a_line(error)) from error

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """See ``click.Command``."""
        rest = super().parse_args(context, args)
        for param in self.params:
            given = context.params.get(param.name or "")
            if any(one == "" for one in (given if isinstance(given, tuple) else [given])):
                raise click.BadParameter("it is empty, expected a name or a path.", context, param)
        return rest


def _is_absent(path: str | None) -> bool:
    """Whether a path, if there is one, is surely that of nothing."""
    if not path or storage.is_address(path) or _NO_PATH.match(path) or any(c in path for c in "*?["):
        return False
    return not storage.exists(path)


class Command(Strict):
    """A command whose options of several values take them one after the other: ``--shape 28 28``.

    Attributes:
        example: Arguments that make sense together, for the end of the help.
    """

    example = ""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """See ``click.Command``; the example stands before the rest."""
        formatter.write(f"\nExample:\n  {context.command_path} {self.example}\n")
        super().format_epilog(context, formatter)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """See ``click.Command``; each further value of such an option gets the option's name in front."""
        several = {flag for option in self.params if getattr(option, "multiple", False) for flag in option.opts}
        spread: list[str] = []
        flag, values = "", 0
        for arg in args:
            if arg.startswith("-"):
                flag, values = arg.split("=")[0], int("=" in arg)
            else:
                spread += [flag] if flag in several and values else []
                values += 1
            spread.append(arg)
        return super().parse_args(context, spread)


class _WholeNumber(click.ParamType):
    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        """An integer, which may be written as 1e7."""
        try:
            number = float(value)
            if number != int(number):
                raise ValueError
            return int(value) if isinstance(value, int) or value.lstrip("+-").isdigit() else int(number)
        except (ValueError, OverflowError):
            hint = ""
            if param and getattr(param, "multiple", False) and _TOGETHER.fullmatch(value):
                hint = f": write several apart, {param.opts[0]} {' '.join(re.findall(r'[0-9]+', value))}"
            self.fail(f"expected a whole number such as 1000 or 1e7, received {value}{hint}", param, context)


def command(
    name: str,
    function: str,
    about: str,
    example: str,
    call: Callable[[dict[str, Any]], Any],
    cls: type[Command] = Command,
    **settings: Any,
) -> Command:
    """A command named ``name`` with an option for each argument of ``function``, which is not imported.

    Args:
        name: The command's name.
        function: Its full name, such as ``"tfvae.pipelines.embed.run"``.
        about: What the command does, in a sentence.
        example: Arguments that make sense together.
        call: Called with those arguments that were given.
        cls: The class of the command.
        settings: Further arguments of the class.

    Example:
        >>> shown = command("embed", "tfvae.pipelines.embed.run", "Embeds rows.", "-m", call=print)
        >>> next(option for option in shown.params if option.name == "batch_size").opts
        ['--batch-size']
    """
    options, needed = _options(*function.rsplit(".", 1))

    def callback(**values: Any) -> Any:
        context = click.get_current_context()
        given = click.core.ParameterSource.COMMANDLINE
        return call(
            {key: value for key, value in values.items() if key in needed or context.get_parameter_source(key) == given}
        )

    made = cls(name, callback=callback, params=options, help=about, **settings)
    made.example = example
    return made


def _options(module: str, function: str) -> tuple[list[click.Parameter], set[str]]:
    """An option for each argument, and the names of the arguments that have no default."""
    spec = importlib.util.find_spec(module)
    tree = ast.parse(spec.loader.get_source(module))  # type: ignore[union-attr]
    constants = {f"contract.{name}": value for name, value in vars(contract).items()}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            with contextlib.suppress(ValueError):
                constants[ast.unparse(target)] = ast.literal_eval(node.value)
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    helps = _helps(ast.get_docstring(found) or "")
    positional = found.args.args
    without = len(positional) - len(found.args.defaults)
    defaults = [None] * without + found.args.defaults + found.args.kw_defaults
    shown = [
        _option(arg.arg, ast.unparse(arg.annotation), default, constants, helps[arg.arg])  # type: ignore[arg-type]
        for arg, default in zip(positional + found.args.kwonlyargs, defaults, strict=True)
        if arg.arg not in ("beam_args", "progress", "mend")
    ]
    return shown, {arg.arg for arg in positional[:without]}


def _option(
    name: str, annotation: str, default: ast.expr | None, constants: dict[str, Any], text: str
) -> click.Parameter:
    inner, optional = annotation.removesuffix(" | None"), annotation.endswith(" | None")
    settings: dict[str, Any] = {"help": text, "required": default is None and not optional, "show_default": True}
    if default is not None:
        try:
            settings["default"] = ast.literal_eval(default)
        except ValueError:
            settings["default"] = constants.get(ast.unparse(default))
    if several := re.fullmatch(r"Sequence\[(.*)\]", inner):
        inner, settings["multiple"] = several[1], True
    if inner == "bool":
        return click.Option([f"--{name.replace('_', '-')}"], is_flag=True, default=False, help=text)
    choices = re.fullmatch(r"Literal\[(.*)\]", inner)
    values = ast.literal_eval(f"[{choices[1]}]") if choices else []
    kind = click.Choice(values) if choices else _TYPES[inner]
    if settings.get("multiple"):
        settings["metavar"] = f"[{'|'.join(values)}]..." if choices else f"{kind.name.upper()}..."
        settings["show_default"] = settings.get("default") != ()
    return click.Option([f"--{name.replace('_', '-')}"], type=kind, **settings)


_TYPES: dict[str, click.ParamType] = {"str": click.STRING, "int": _WholeNumber(), "float": click.FLOAT}


def _helps(docstring: str) -> dict[str, str]:
    """What ``Args`` says of each argument; several that share an entry share its text."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE)
    texts = {names: " ".join(text.split()).replace("``", "") for names, text in entries}
    return {name: text for names, text in texts.items() for name in names.split(", ")}


class _PipelineCommand(Command):
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """See ``Command``; what is left over is Beam's, a lone ``--`` between the two is allowed."""
        try:
            return super().parse_args(context, [arg for arg in args if arg != "--"])
        except click.UsageError as error:
            raise Mistake.of_usage(error, _EXIT_ERROR) from error


def pipeline(name: str, first: Callable[[], None] | None = None) -> Command:
    """The command of a pipeline, ``prepare`` or ``embed``; ``first`` is called before anything heavy is imported."""
    told = PIPELINES[name]
    module = f"{__package__}.{told.module}"

    def call(given: dict[str, Any]) -> int:
        if first:
            first()
        context = click.get_current_context()
        ours = [flag for option in context.command.params for flag in option.opts]
        code = _run(module, name, given, context.args, ours)
        if code:
            context.exit(code)
        return code

    return command(
        name,
        f"{module}.run",
        told.about,
        told.example,
        call,
        _PipelineCommand,
        stopped=lambda given: what_is_done(given["output"]),
        reads=told.reads,
        epilog=_BEAM,
        context_settings={
            "ignore_unknown_options": True,
            "allow_extra_args": True,
            "help_option_names": ["-h", "--help"],
        },
    )


def _run(module: str, title: str, given: dict[str, Any], beam_args: Sequence[str], ours: Sequence[str]) -> int:
    """Runs a pipeline and returns the exit code. An error is one line on the terminal and no traceback."""
    try:
        job = importlib.import_module(module)
        from .jobs import options, progress

        options.beam_options(beam_args, ours)  # a misspelt flag should not wait for a model to load
        with progress.progress_bar(title) as report:
            summary = job.run(**given, beam_args=beam_args, progress=report)
    except HandedOver as told:
        click.echo(told)
        return _EXIT_COMPLETE
    except Exception as error:
        logging.getLogger(__name__).debug("the job failed", exc_info=True)
        raise Mistake(in_a_line(error)) from error
    click.echo(summary.table())
    return summary.exit_code


def what_is_done(output: str) -> str:
    """What a job that was stopped has left, and how to go on.

    Example:
        >>> what_is_done("prepared/none")
        'nothing of prepared/none was made yet; give the same command again'
    """
    folder = storage.absolute(output)
    numbers = [name for name in storage.names(f"{folder}/{contract.GENERATIONS}") if contract.version_number(name)]
    newest = f"{folder}/{contract.GENERATIONS}/{numbers[-1]}" if numbers else folder
    if storage.exists(f"{newest}/{contract.MANIFEST}"):
        return f"{output} is whole, as it was before; give the same command again"
    done = len(storage.names(f"{newest}/{contract.WORK}/commits"))
    if not done:
        return f"nothing of {output} was made yet; give the same command again"
    as_before = ", which readers see as it was before," if len(numbers) > 1 else ""
    counted = f"{done:,} units of {output}{as_before} are done and stay"
    if done == 1:
        counted = f"1 unit of {output}{as_before} is done and stays"
    return f"{counted}; the same command does the others"


def replace_unencodable() -> None:
    """Print a letter that the terminal's encoding lacks as a question mark, and do not fail for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main(name: str, arguments: Sequence[str] | None = None, package: str | None = __package__) -> int:
    """``python -m`` a pipeline's module; returns the exit code: 0 complete, 3 with rejected rows, 1 an error."""
    replace_unencodable()
    program = f"python -m {package}.{PIPELINES[name].module}"
    try:
        return pipeline(name).main(arguments, prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
