"""Options that commands share, and options made from dataclasses, which Python arguments are made from too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast, get_type_hints

import typer

from pmpo_offline.runtime.errors import unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R")
Name = Annotated[str, typer.Argument(metavar="ID", help="Id or path of a dataset.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Home = Annotated[
    Path | None,
    typer.Option(
        help="Where datasets are.", show_default="$PMPO_OFFLINE_DATASETS, else ~/.cache/pmpo_offline/datasets"
    ),
]


def checked_format(name: str) -> Literal["arrow", "hdf5"]:
    """Return the name of a storage format; `UserError` if there is none of this name."""
    if name not in ("arrow", "hdf5"):
        raise unknown("format", name, ("arrow", "hdf5"))
    return cast(Literal["arrow", "hdf5"], name)


def options_of(
    model: type[DataclassInstance], *, panel: str = "", apart: Collection[str] = ()
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorate a command whose parameter `options` is an instance of a dataclass: it gets an option for every field.

    A field's metadata are keyword arguments of `typer.Option`: help, min, metavar, … A tuple of words is one text with
    commas. The fields named in `apart` are shown in a panel of their own.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def filled(**given: Any) -> R:
            values = {each.name: _value(each, given.pop(each.name)) for each in fields(model)}
            return command(**given, options=model(**values))

        hints = get_type_hints(model)

        def parameters() -> Iterator[inspect.Parameter]:
            for parameter in inspect.signature(command, eval_str=True).parameters.values():
                if parameter.name == "options":
                    for each in fields(model):
                        yield _parameter(each, hints[each.name], panel if each.name in apart else None)
                else:
                    yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)

        signature = inspect.Signature(list(parameters()))
        filled.__signature__ = signature  # type: ignore[attr-defined]
        filled.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return filled

    return decorate


def _parameter(field: Field[Any], kind: Any, panel: str | None) -> inspect.Parameter:
    words = field.default == ()
    names = [f"--{field.name.replace('_', '-')}"] if isinstance(field.default, bool) else []
    option = typer.Option(*names, rich_help_panel=panel, **field.metadata)
    annotation = Annotated[str | None if words else kind, option]  # type: ignore[valid-type]
    default = None if words else field.default
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _value(field: Field[Any], given: Any) -> Any:
    """Return the value of a field, given that of its option."""
    if field.default == ():
        return tuple(word for part in (given or "").split(",") if (word := part.strip()))
    return given
