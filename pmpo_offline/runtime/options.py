"""Options: fields of dataclasses that are arguments in Python and options of a command at once."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(explanation: str, default: Any = None, *, names: tuple[str, ...] = (), **shown: Any) -> Any:
    """Return a dataclass field with what a command line shows of it.

    Args:
        explanation: its help.
        default: None shows no default, unless `show_default` says what None means; () is a list of words, which are
            one text with commas on the command line.
        names: on the command line, in place of the field's own.
        shown: more of `typer.Option`: min, max, metavar, show_default, ….
    """
    return field(default=default, metadata={"help": explanation, "names": names, **shown})
