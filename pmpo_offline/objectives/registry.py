"""Every objective by name."""

from __future__ import annotations

from pmpo_offline import objectives

OBJECTIVES = {name: objectives.declaration(getattr(objectives, name)) for name in objectives.NAMES}
"""Every objective by name, imported with torch; `declarations.OBJECTIVES` imports one when it is asked for."""
