"""Records of CSV in the dialects that people write: separators, quotes inside quotes, blanks after separators."""

from __future__ import annotations

import csv
import io
import re
import sys
from contextlib import suppress

from pmpo_offline.runtime.errors import UserError


def records(text: str, name: str) -> list[list[str | None]]:
    """Return the header and the records of a CSV called `name`, an empty field as None.

    Fields are separated by what separates the columns' names, and quotes inside quotes are doubled or, as Spark writes
    them, escaped by backslashes. Raises `UserError` or `ValueError` that names the first bad record.
    """
    if stated := re.match(r"sep=(.)\r?\n", text):  # of Excel
        text = text[stated.end() :]
    header = text.lstrip("\r\n").partition("\n")[0]
    separator = stated[1] if stated else max(",;\t|", key=header.count)
    try:
        return _split(text, separator, name)
    except csv.Error as error:
        unescaped = re.sub(r'\\(["\\])', lambda match: {'"': '""'}.get(match[1], match[1]), text)
        if '\\"' in text:
            with suppress(csv.Error):
                return _split(unescaped, separator, name)
        raise ValueError(error) from None


def _split(text: str, separator: str, name: str) -> list[list[str | None]]:
    found: list[list[str | None]] = []
    limit = csv.field_size_limit(sys.maxsize)
    header = text.lstrip("\r\n").partition("\n")[0]
    spaced = separator in header and header.count(f"{separator} ") == header.count(separator)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=spaced)
    try:
        for record in lines:
            if not record:
                continue
            if found and len(record) != len(found[0]):
                raise UserError(
                    f"{name}, row {len(found)} (up to line {lines.line_num}) has {len(record)} fields, and "
                    f"the header {len(found[0])}"
                )
            if separator == "\t" and any("\t" in field and "\n" in field for field in record):
                raise UserError(  # tables of tabs are mostly written without quotes
                    f"{name}, row {len(found)} (up to line {lines.line_num}) holds a tab and a line break between two "
                    "quotes: is a quote left open? double quotes that are part of a text"
                )
            found.append([field or None for field in (record if found else map(str.strip, record))])
    except csv.Error as error:
        what = {"unexpected end of data": "a quote that is never closed"}.get(str(error), str(error))
        what = "text after a closing quote" if "expected after" in what else what
        raise csv.Error(f"row {len(found)}, up to line {lines.line_num}, has {what}") from None
    finally:
        csv.field_size_limit(limit)
    if not found:
        raise UserError(f"{name} is empty")
    return found
