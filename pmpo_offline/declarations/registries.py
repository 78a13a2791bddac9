"""Registries of what declarations name, ours and what other packages add by entry points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmpo_offline import objectives
from pmpo_offline.runtime.registry import Registry

if TYPE_CHECKING:
    from pmpo_offline.objectives import Objective

OBJECTIVES: Registry[Objective] = Registry(
    "objective",
    "pmpo_offline.objectives",
    {name: f"pmpo_offline.objectives:{name}.objective" for name in objectives.NAMES},
)
"""Every objective by name."""
