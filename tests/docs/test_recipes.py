"""The recipes of docs/recipes.md that are marked tested run, and count the accepted steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.encoded import make

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.exchange.writers import WRITERS

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCK = r"```python\n(.*?)```"
RECIPES = {
    paragraph.split(" (tested)")[0]: code
    for paragraph, code in re.findall(rf"([^\n]+\(tested\)[^`]*(?:`[^`\n]+`[^`]*)*?)\n\n{BLOCK}", PAGE, re.DOTALL)
}
ID = "rgb-stacking/proxy-v0"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder with an export in each format, and the number of accepted steps."""
    folder = tmp_path_factory.mktemp("recipes")
    metadata, tables = make([3, 1, 4, 2, 5], "advantage", candidates=4, id=ID)
    data.write(folder / "home" / ID, metadata, tables)
    dataset = data.open_dataset(folder / "home" / ID)
    for to in re.findall(r"for to in ([^;]+);", PAGE)[0].split():
        assert to in WRITERS
        export_dataset(dataset, to, folder / to)
    return folder, int((columns.labels(dataset.table) > 0).sum())


def test_every_recipe_that_is_called_tested_is_found() -> None:
    assert len(RECIPES) == PAGE.count("(tested)") >= 8


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_counts_the_accepted_steps(
    exports: tuple[Path, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str
) -> None:
    import datasets

    folder, expected = exports
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found: dict[str, Any] = {}
    exec(compile(RECIPES[recipe], recipe, "exec"), found)
    assert found["accepted"] == expected


def test_code_of_all_recipes_compiles() -> None:
    for code in re.findall(BLOCK, PAGE, re.DOTALL):
        compile(code, "recipe", "exec")


def test_a_folder_of_an_export_is_not_read_as_one_table(exports: tuple[Path, int]) -> None:
    """Readers are given a table's folder; that of the export is refused, where three tables were mixed before."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    for to in ("parquet", "huggingface"):
        assert ds.dataset(exports[0] / to / "transitions").count_rows() == 15
        with pytest.raises(pa.ArrowInvalid):
            ds.dataset(exports[0] / to).count_rows()
