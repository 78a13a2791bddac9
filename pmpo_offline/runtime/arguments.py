"""Checks whose errors are one line, not a traceback: of arguments against annotations, of content against a model."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import Field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar, get_args, get_origin

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, unknown

if TYPE_CHECKING:
    from pydantic import BaseModel

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound="BaseModel")
COMMAND_LINE: ContextVar[bool] = ContextVar("COMMAND_LINE", default=False)
"""Whether a command is running, whose messages name its options."""


def checked(hint: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that raises `UserError` for arguments of unknown names, missing ones and wrong types.

    Numbers may be NumPy's, and what has a length and can be iterated is a sequence. A path is not empty. Annotations
    that exist only for type checkers are not compared. Errors name arguments where a command's name its options.

    Args:
        hint: where to pass what has none of the parameters' names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                other = next((name for name in kwargs if name not in signature.parameters), None)
                reason = str(error) if other is None else _no_argument(other, function, hint)
                raise UserError(f"{function.__name__}: {reason}") from None
            for name, value in given.items():
                if not fits(value, annotation := parameter_types(function)[name]):
                    shown = type(value).__name__ if len(repr(value)) > 40 else repr(value)
                    raise UserError(f"{function.__name__}: expected {in_words(annotation)} for {name}, not {shown}")
            try:
                return function(*args, **kwargs)
            except PmpoOfflineError as error:
                if not COMMAND_LINE.get():
                    error.args = (_as_arguments(str(error), function), *error.args[1:])
                raise

        return call

    return decorate


def _as_arguments(message: str, function: Callable[..., Any]) -> str:
    """Return a message on options of a command with the names of a function's arguments: `overwrite=True`, `score`."""
    grouped = {field.name: bool if field.default is False else Any for _, _, field in _grouped(function)}
    kinds = {**grouped, **parameter_types(function)}

    def argument(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        return option[0] if name not in kinds else f"{name}=True" if kinds[name] is bool else name

    return re.sub(r"--([a-z][a-z-]*)", argument, message)


def _grouped(function: Callable[..., Any]) -> Iterator[tuple[str, type, Field[Any]]]:
    """Yield the options that a function takes as one dataclass: argument, class and field."""
    for argument, kind in parameter_types(function).items():
        for model in get_args(kind):
            if isinstance(model, type) and is_dataclass(model):
                yield from ((argument, model, field) for field in fields(model))


def _no_argument(name: str, function: Callable[..., Any], hint: str) -> str:
    for argument, model, field in _grouped(function):
        if field.name == name:
            return f"there is no argument {name!r}: pass {argument}={model.__name__}({name}=…)"
    known = parameter_types(function)
    near = get_close_matches(name, known, n=2, cutoff=0.7)
    help_ = f"did you mean {' or '.join(near)}?" if near else hint or f"known: {', '.join(known)}"
    return f"there is no argument {name!r}: {help_}"


@cache
def parameter_types(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the types of a function's parameters, `Any` for those that exist only for type checkers."""
    function = inspect.unwrap(function)
    found: dict[str, Any] = dict.fromkeys(inspect.signature(function).parameters, Any)  # `self` has no annotation
    for name, annotation in function.__annotations__.items():
        one = SimpleNamespace(__annotations__={name: annotation})
        with suppress(NameError, AttributeError, TypeError):  # of type checkers
            found |= typing.get_type_hints(one, function.__globals__, include_extras=True)
    return found


def _parsed(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the kind of a type and what is in its brackets; tuples of any length are sequences."""
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    return (Sequence, arguments[:1]) if kind is tuple and arguments[1:] == (Ellipsis,) else (kind, arguments)


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value is of a type."""
    kind, arguments = _parsed(annotation)
    if kind is Any:
        return True
    if kind in (typing.Union, UnionType):
        nameless = Path in arguments and isinstance(value, str) and not value
        return not nameless and any(fits(value, option) for option in arguments)
    if kind is Annotated:
        return fits(value, arguments[0])
    if kind is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in (str, Path):
        return isinstance(value, kind) and "\0" not in str(value)
    if kind is bool:
        return type(value).__name__ == "bool"  # NumPy's too, which is not imported for it
    if kind is Sequence:
        is_listed = isinstance(value, Sized) and isinstance(value, Iterable)
        is_listed &= not isinstance(value, str | bytes | Mapping)
        return is_listed and all(fits(item, option) for option in arguments for item in value)
    if kind is Mapping:
        return isinstance(value, Mapping) and (
            not arguments or all(fits(key, arguments[0]) and fits(item, arguments[1]) for key, item in value.items())
        )
    if kind is tuple:
        pairs = isinstance(value, tuple | list) and len(value) == len(arguments)
        return pairs and all(map(fits, value, arguments))
    if kind is Callable:
        return callable(value)
    # Protocols describe behaviour, which is not looked at here.
    return not isinstance(kind, type) or getattr(kind, "_is_protocol", False) or isinstance(value, kind)


_WORDS: dict[Any, str] = {
    **{Any: "a value", int: "an integer", float: "a number", bool: "True or False", str: "a text", NoneType: "None"},
    **{Mapping: "a mapping", Callable: "a function", tuple: "a tuple"},
}


def in_words(annotation: Any) -> str:
    """Return a type as people say it: "a number or None"."""
    kind, arguments = _parsed(annotation)
    if kind in (typing.Union, UnionType):
        words = list(dict.fromkeys(in_words(option) for option in arguments))
        return f"{', '.join(words[:-1])} or {words[-1]}"
    if kind is Annotated:
        return in_words(arguments[0])
    if kind is Literal:
        return " or ".join(map(repr, arguments))
    if kind is Sequence:
        return f"a sequence of {_plural(arguments[0])}" if arguments else "a sequence"
    if kind is Mapping and arguments:
        return f"a mapping of {' to '.join(map(_plural, arguments))}"
    name = getattr(kind, "__name__", str(kind))
    article = "an" if name[0] in "AEIOU" else "a"
    return _WORDS.get(kind) or f"{article} {name.lower() if name == 'Path' else name}"


def _plural(annotation: Any) -> str:
    kind, arguments = get_origin(annotation), get_args(annotation)
    options = arguments if kind in (typing.Union, UnionType) else (annotation,)
    return " or ".join(re.sub(r"^an? (\w+)", r"\1s", in_words(option)) for option in options)


def validated(model: type[M], content: Any, source: str, key: str = "key") -> M:
    """Return `content` as a pydantic model.

    Raises `UserError`, one line that begins with `source`, for the first thing that is malformed; an unknown key, which
    may be a slip of the pen for one that is missing, comes first and is called a `key`.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        first, *others = sorted(error.errors(), key=lambda wrong: wrong["type"] != "extra_forbidden")
        more = f" (and {len(others)} more)" if others else ""
        place = [part for part in first["loc"] if part != ""]  # as the tag of a union may be
        about = [part for part in reversed(place) if isinstance(part, str)]
        if first["type"] == "extra_forbidden":
            wrong = unknown(key, str(place[-1]), model.model_fields)
            raise UserError(f"{source}: {wrong}{more}", about) from None
        where = ".".join(map(str, place))
        value = "" if first["type"] == "missing" else f", not {first['input']!r}"
        raise UserError(f"{source}: {where}: {first['msg'].lower()}{value}{more}", about) from None
