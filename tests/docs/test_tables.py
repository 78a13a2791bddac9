"""The tables of pages that registries and declarations make are those that they make today."""

from __future__ import annotations

import pytest

from docs.tables import HERE, TABLES, renewed


@pytest.mark.parametrize("page", TABLES)
def test_the_tables_are_what_is_declared(page: str) -> None:
    written = (HERE / page).read_text(encoding="utf-8")
    assert written == renewed(page), "python -m docs.tables writes the tables again"
