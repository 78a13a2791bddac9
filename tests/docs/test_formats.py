"""docs/datasets.md holds the tables that the registries of forms and readers make."""

from __future__ import annotations

import re
from pathlib import Path

from pmpo_offline.data.exchange.forms import form
from pmpo_offline.data.exchange.readers import source

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")


def test_the_page_has_every_form_and_every_reader() -> None:
    for name, table in (("forms", form.table()), ("readers", source.table())):
        (shown,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", PAGE, re.DOTALL)
        assert shown == f"{table}\n", f"paste the table into docs/datasets.md:\n{table}"
