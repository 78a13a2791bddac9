"""The registry of objectives: ours, and those of other packages."""

import importlib.metadata
from importlib.metadata import EntryPoint

import pytest

from pmpo_offline import objectives
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.registry import Registry


def test_objectives_are_ours_and_those_of_other_packages(monkeypatch):
    assert dict(OBJECTIVES) == objectives.OBJECTIVES
    assert OBJECTIVES.source("pmpo") == "pmpo-offline"
    theirs = EntryPoint("theirs", "pmpo_offline.objectives:bc", OBJECTIVES.group)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [theirs])
    found = Registry(OBJECTIVES.kind, OBJECTIVES.group, objectives.OBJECTIVES)
    assert found["theirs"] is objectives.bc
    with pytest.raises(UserError, match="unknown objective 'pmop': did you mean pmpo"):
        found["pmop"]
