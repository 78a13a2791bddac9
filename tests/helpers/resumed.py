"""The test of a learner that is restored half-way."""

from __future__ import annotations

from typing import Any

import torch


def assert_resumes(uninterrupted: Any, first: Any, second: Any) -> None:
    """Assert that six advances equal three, a checkpoint into the third learner, and three more; all equal at first."""
    for _ in range(6):
        uninterrupted.advance()
    for _ in range(3):
        first.advance()
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        second.advance()
    assert second.frames == uninterrupted.frames > 0
    expected, found = uninterrupted.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
