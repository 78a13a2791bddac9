"""Content that is no model is one line: what is wrong, and where."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError


def test_an_unknown_key_comes_before_the_one_that_is_missing_for_it() -> None:
    class Suite(BaseModel):
        model_config = ConfigDict(extra="forbid")
        algorithms: list[str]

    with pytest.raises(UserError, match=r"a\.toml: unknown key 'algoritms': did you mean algorithms\? \(and 1 more\)"):
        validated(Suite, {"algoritms": []}, "a.toml")
