"""Algorithms, raw scores, and pictures for the tests of benchmarks."""

from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark import report

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


class _DrawnOnce:
    """The picture of a report, which is drawn when it is saved, and of the same rows only once."""

    draw = staticmethod(report.picture)
    drawn: dict[str, bytes] = {}  # noqa: RUF012

    def __init__(self, *rows: Any) -> None:
        self.rows = rows

    def savefig(self, path: Path, **options: Any) -> None:
        key = repr((self.rows, options))
        if key not in self.drawn:
            self.draw(*self.rows).savefig(buffer := BytesIO(), **options)
            self.drawn[key] = buffer.getvalue()
        path.write_bytes(self.drawn[key])


@pytest.fixture(scope="session", autouse=True)
def pictures_drawn_once() -> Iterator[None]:
    """Most benchmarks here end in the table of another, and its picture takes a third of their time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report, "picture", _DrawnOnce)
        yield
