from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from helpers.raw_scores import raw_scores

DECLARATION = """
title = "{title}"
objective = "{objective}"
rows = "all"
start = "reference"
[settings]
{settings}
[training]
updates = 100
"""


@pytest.fixture(scope="session")
def declare_in() -> Callable[..., str]:
    """Write an algorithm of one's own into a folder, see `declare`."""

    def write(folder: Path, name: str, objective: str, settings: str = "", *, family: str = "rgb-stacking") -> str:
        path = folder / family / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(DECLARATION.format(title=name, objective=objective, settings=settings))
        return str(path)

    return write


@pytest.fixture
def declare(tmp_path: Path, declare_in: Callable[..., str]) -> Callable[..., str]:
    """Write an algorithm of one's own and return its path, which serves wherever an algorithm's name does."""
    return partial(declare_in, tmp_path)


@pytest.fixture
def scores() -> Callable[..., pl.DataFrame]:
    """Make the raw scores of one row of the table, see `raw_scores`."""
    return raw_scores
