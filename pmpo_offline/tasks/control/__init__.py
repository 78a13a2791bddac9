"""Continuous control: dm_control's suite and Gymnasium's MuJoCo tasks in one batched simulator.

```
planar, tolerance ── dm_suite ───┬─ rules ──┬─ episodes ── recording ── task
                  gymnasium_v5 ──┘             │
                               simulation ─────┘
```
"""

from pmpo_offline.tasks.control.registry import RULES, rules
from pmpo_offline.tasks.control.simulation import Moment, Rules, Simulation, Start, Step

__all__ = ["RULES", "Moment", "Rules", "Simulation", "Start", "Step", "rules"]
