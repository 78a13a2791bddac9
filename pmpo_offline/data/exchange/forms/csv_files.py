"""Records of CSV in the dialects that people write: separators, quotes inside quotes, blanks after separators."""

from __future__ import annotations

import csv
import io
import re
import sys
from contextlib import suppress
from typing import Literal

from pmpo_offline.runtime.errors import UserError

Record = tuple[int, list[str | None]]
"""The line on which a record begins, counted from 1, and its fields."""


def records(text: str, name: str) -> list[Record]:
    """Return the header and the records of a CSV called `name` with their lines, an empty field as None.

    Fields are separated by what separates the columns' names, and quotes inside quotes are doubled or, as Spark writes
    them, escaped by backslashes. Raises `UserError` or `ValueError` that names the first bad record.
    """
    if stated := re.match(r"sep=(.)(\r?\n)", text):  # of Excel
        text = stated[2] + text[stated.end() :]
    header = text.lstrip("\r\n").partition("\n")[0]
    separator = stated[1] if stated else max(",;\t|", key=header.count)
    try:
        return _split(text, separator, name)
    except csv.Error as error:
        unescaped = re.sub(r'\\(["\\])', lambda match: {'"': '""'}.get(match[1], match[1]), text)
        if '\\"' in text:
            with suppress(csv.Error):
                return _split(unescaped, separator, name)
        if separator == "\t":  # such tables are mostly written without quotes around fields
            with suppress(UserError):
                return _split(text, separator, name, quoting=csv.QUOTE_NONE)
        raise ValueError(error) from None


def _split(text: str, separator: str, name: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL) -> list[Record]:
    found: list[Record] = []
    limit = csv.field_size_limit(sys.maxsize)
    header = text.lstrip("\r\n").partition("\n")[0]
    spaced = separator in header and header.count(f"{separator} ") == header.count(separator)
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=spaced, quoting=quoting
    )
    begin = 1
    try:
        for record in lines:
            line, begin = begin, lines.line_num + 1
            if not record:
                continue
            if found and len(record) != len(found[0][1]):
                raise UserError(
                    f"{name}, {_lines(line, lines.line_num)}: {len(record)} fields, and the header has "
                    f"{len(found[0][1])}"
                )
            if separator == "\t" and any("\t" in field and "\n" in field for field in record):
                raise UserError(  # tables of tabs are mostly written without quotes
                    f"{name}, {_lines(line, lines.line_num)}: a tab and a line break between two quotes: is a quote "
                    "left open? double quotes that are part of a text"
                )
            found.append((line, [field or None for field in (record if found else map(str.strip, record))]))
    except csv.Error as error:
        what = {"unexpected end of data": "a quote that is never closed"}.get(str(error), str(error))
        what = "text after a closing quote" if "expected after" in what else what
        raise csv.Error(f"{_lines(begin, lines.line_num)}: {what}") from None
    finally:
        csv.field_size_limit(limit)
    if not found:
        raise UserError(f"{name} is empty")
    width = max(place for _, fields in found for place, field in enumerate(fields, 1) if field or place == 1)
    return [(line, fields[:width]) for line, fields in found]  # spreadsheets end lines with empty columns


def _lines(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first} to {last}"
