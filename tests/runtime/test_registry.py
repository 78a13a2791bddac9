"""Registries of our entries and of those that other packages add."""

from __future__ import annotations

import importlib.metadata
import math
from importlib.metadata import EntryPoint

import pytest

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.registry import Registry

GROUP = "pmpo_offline.numbers"


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points of other packages, to be filled."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == GROUP else [])
    return points


def registry() -> Registry[float]:
    return Registry("number", GROUP, {"two": 2.0, "pi": "math:pi"})


def test_entries_are_ours_then_others_by_name(added: list[EntryPoint]) -> None:
    added += [EntryPoint("tau", "math:tau", GROUP), EntryPoint("e", "math:e", GROUP)]
    numbers = registry()
    assert list(numbers) == ["two", "pi", "e", "tau"]
    assert len(numbers) == 4
    assert (numbers["two"], numbers["pi"], numbers["tau"]) == (2.0, math.pi, math.tau)
    assert "e" in numbers
    assert "three" not in numbers
    assert (numbers.source("pi"), numbers.source("e")) == ("pmpo-offline", "math:e")


def test_an_unknown_name_is_a_user_error_with_near_misses(added: list[EntryPoint]) -> None:
    added.append(EntryPoint("three", "math:e", GROUP))
    with pytest.raises(UserError, match="unknown number 'thre': did you mean three"):
        registry()["thre"]


def test_a_second_entry_of_a_name_is_left_out_with_a_warning(added: list[EntryPoint]) -> None:
    added += [EntryPoint("pi", "math:e", GROUP), EntryPoint("e", "math:e", GROUP), EntryPoint("e", "math:tau", GROUP)]
    numbers = registry()
    with pytest.warns(UserWarning, match="has already: it is left out") as caught:
        assert list(numbers) == ["two", "pi", "e"]
    assert [str(warning.message).partition(":")[2].partition(":")[0] for warning in caught] == [
        "e adds the number pi, which pmpo-offline has already",
        "tau adds the number e, which math",
    ]
    assert (numbers["pi"], numbers["e"]) == (math.pi, math.e)


def test_a_package_that_fails_to_load_is_named(added: list[EntryPoint]) -> None:
    added += [EntryPoint("gone", "no_such_module:x", GROUP), EntryPoint("none", "math:nothing", GROUP)]
    numbers = registry()
    assert numbers["pi"] == math.pi, "the others load"
    for name in ("gone", "none"):
        with pytest.raises(UserError, match=f"number {name}: .* cannot be loaded"):
            numbers[name]
