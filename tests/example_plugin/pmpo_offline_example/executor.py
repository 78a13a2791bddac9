"""An executor that runs the cells in reverse order, on this machine."""

from __future__ import annotations

from dataclasses import replace

from pmpo_offline.benchmark import Local, Plan


class Reversed(Local):
    """Runs the last cell first."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(replace(plan, cells=plan.cells[::-1]))
