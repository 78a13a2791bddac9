"""Registries of what declarations name, ours and what other packages add by entry points."""

from __future__ import annotations

from pmpo_offline import objectives
from pmpo_offline.objectives import Objective
from pmpo_offline.runtime.registry import Registry

OBJECTIVES: Registry[Objective] = Registry("objective", "pmpo_offline.objectives", objectives.OBJECTIVES)
"""Every objective by name."""
