"""What all commands share: options, progress on stderr, and results on stdout."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, get_type_hints

import typer

from pmpo_offline.build.options import HOME
from pmpo_offline.cli import names
from pmpo_offline.runtime.arguments import COMMAND_LINE
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import finite, from_toml
from pmpo_offline.runtime.progress import progress_bar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
PROSE = 80
"""Width of texts, also where the terminal is wider or a file has none."""
WIDEST = 28
"""Characters of the widest name that `print_lines` aligns values with."""
NARROWEST = 20
"""Width of the last column where the terminal is narrower."""
Name = Annotated[str, typer.Argument(metavar="ID", help="Id or path of a dataset.", autocompletion=names.datasets)]
Algo = Annotated[str, typer.Option(help="Name of an algorithm, or its .toml.", autocompletion=names.algorithms)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Home = Annotated[Path | None, typer.Option(help=HOME, show_default="in ~/.cache")]
Watch = Annotated[bool, typer.Option("--watch", help="Draw the metrics over updates on the terminal while training.")]


@dataclass(frozen=True)
class Result(Generic[T]):
    """What a command returns, and what prints it for people."""

    content: T
    """A mapping, or a dataclass: what `--json` prints."""
    render: Callable[[T], None]
    failed: bool = False
    """Whether the exit code is 1."""
    errors: Sequence[str] = ()
    """Lines for stderr that follow."""


def command(*options: type[DataclassInstance]) -> Callable[[Callable[..., Result[Any]]], Callable[..., None]]:
    """Decorate a function of a command's parameters: its result is printed, as text or with `--json`.

    It shows progress on stderr while it runs. A parameter that is an instance of one of the dataclasses in `options`
    becomes an option a field. What Typer shows of a field is in its annotation, as for any parameter, or in its
    metadata (`runtime.options.option`).
    """

    def decorate(function: Callable[..., Result[Any]]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True).parameters.values()
        groups = {parameter.name: parameter.annotation for parameter in signature if parameter.annotation in options}
        is_asked = "json" in inspect.signature(function).parameters

        @functools.wraps(function)
        def run(**given: Any) -> None:
            as_json = given["json"] if is_asked else given.pop("json")
            made = {
                name: model(**{field.name: _value(field, given.pop(field.name)) for field in fields(model)})
                for name, model in groups.items()
            }
            with working():
                result = function(**given, **made)
            show(result, as_json)

        parameters: list[inspect.Parameter] = []
        for parameter in signature:
            if model := groups.get(parameter.name):
                hints = get_type_hints(model, include_extras=True)
                parameters += [_parameter(field, hints[field.name]) for field in fields(model)]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        if not is_asked:
            parameters.append(inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(field: Field[Any], hint: Any) -> inspect.Parameter:
    words = field.default == ()
    if field.metadata:
        shown = dict(field.metadata)
        flag = (f"--{field.name.replace('_', '-')}",) if isinstance(field.default, bool) else ()
        hint = Annotated[str | None if words else hint, typer.Option(*(shown.pop("names") or flag), **shown)]
    default = None if words else inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _value(field: Field[Any], given: Any) -> Any:
    """Return the value of a field, given that of its option."""
    if field.default == ():
        return tuple(word for part in (given or "").split(",") if (word := part.strip()))
    return given


def parse_value(text: str) -> Any:
    """Return a number or a truth value as TOML or people write it (.5), else the text itself, spaces and all."""
    with contextlib.suppress(ValueError):
        parsed = from_toml(f"value = {text.strip()}")["value"]
        if isinstance(parsed, bool | int | float):
            return parsed
    try:
        return float(text)
    except ValueError:
        return text


def assignments(options: list[str] | None, example: str) -> dict[str, Any]:
    """Return the settings of repeated options `--set SETTING=VALUE`; `UserError` if one is malformed or given twice."""
    settings: dict[str, Any] = {}
    for option in options or []:
        setting, equals, value = option.partition("=")
        if not (setting and equals and value):
            raise UserError(f"--set {option}: write SETTING=VALUE, as in {example}")
        if setting in settings:
            raise UserError(f"--set {option}: {setting} is given twice")
        settings[setting] = parse_value(value)
    return settings


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Show progress on stderr while something is being done: one line on a terminal, else a line now and then.

    Whatever prints to stdout meanwhile is sent to stderr, because stdout is for the result (`--json`: one object).
    Messages name options.
    """
    token = COMMAND_LINE.set(True)
    try:
        with _stdout_of_libraries(), contextlib.redirect_stdout(sys.stderr), progress_bar():
            yield
    finally:
        COMMAND_LINE.reset(token)


@contextlib.contextmanager
def _stdout_of_libraries() -> Iterator[None]:
    """Send to stderr what code in other languages prints: tokenizers does, of options that it does not know."""
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a stream that is closed
            kept = os.dup(1)
            stack.callback(os.close, kept)
            os.dup2(2, 1)
            stack.callback(os.dup2, kept, 1)
        yield


def show(result: Result[Any], as_json: bool) -> None:
    """Print the result of a command: one JSON object (infinities and NaN are null), or what `render` prints.

    Raises `typer.Exit` if it failed.
    """
    content = result.content
    if as_json:
        plain = asdict(content) if is_dataclass(content) and not isinstance(content, type) else content
        print(json.dumps(finite(plain), allow_nan=False))
    else:
        result.render(content)
    sys.stdout.flush()  # the result comes first, also where both streams go to one file
    for line in result.errors:
        print(line, file=sys.stderr)
    if result.failed:
        raise typer.Exit(1)


def readable(value: Any, digits: int = 4) -> str:
    """Return a value as people read it: `digits` digits of a float, 1,000, yes and no, a dash for None and nothing."""
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{key} {readable(inner, digits)}" for key, inner in value.items())
    if value is None or value == {}:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(readable(inner, digits) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def print_lines(content: Mapping[str, Any]) -> None:
    """Print names and values in two columns; of mappings, their items below."""
    print_columns(_lines(content), widest=WIDEST)


def _lines(content: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        # The items of an inner mapping fit into one line unless their names are sentences (reasons, with their counts).
        if isinstance(value, Mapping) and value and (not indent or any(" " in key for key in value)):
            yield indent + name, ""
            yield from _lines(value, indent + "  ")
        else:
            first, *more = readable(value, digits=6).splitlines() or [""]
            yield indent + name, first
            yield from (("", line) for line in more)


def wrapped(text: str, width: int, indent: str, start: str = "") -> str:
    """Return a text in lines of at most this width, all but the first with the indent; only spaces end a line."""
    wrapper = textwrap.TextWrapper(width, start, indent, break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)


def print_columns(rows: Iterable[Sequence[str]], widest: int = sys.maxsize) -> None:
    """Print rows of texts in columns, the last one wrapped on a terminal; colours are for terminals.

    Texts of more than `widest` characters do not widen their column: they move what follows in their own row.
    """
    rows = list(rows)
    columns = list(zip(*rows, strict=True))[:-1]
    sizes = [max((len(text) for text in column if len(text) <= widest), default=0) for column in columns]
    indent = " " * (sum(sizes) + 2 * len(sizes))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    width = max(width, len(indent) + NARROWEST)
    for row in rows:
        start = "".join(text.ljust(size) + "  " for text, size in zip(row, sizes, strict=False))
        # Given no file, click writes UTF-8 where the terminal says ASCII, and our plain characters were never seen.
        typer.echo(wrapped(row[-1], width, indent, start) or start.rstrip(), file=sys.stdout)
