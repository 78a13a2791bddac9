"""Results as HTML, for notebooks: what `_repr_html_` of a result returns."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def html_table(title: str, facts: Mapping[str, object]) -> str:
    """Return a title over a table of names and values; a mapping among the values becomes a table inside."""
    return f"<p><b>{escape(title)}</b></p>{_table(facts)}"


class Facts(dict[str, Any]):
    """A dictionary that notebooks show as a table."""

    def _repr_html_(self) -> str:
        return html_table(str(self.get("id", "")), self)


def _table(facts: Mapping[str, object]) -> str:
    rows = (f"<tr><th>{escape(str(name))}</th><td>{_value(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{''.join(rows)}</table>"


def _value(value: object) -> str:
    if isinstance(value, Mapping) and value:
        return _table(value)
    if value is None or value == {}:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else escape(str(value))
