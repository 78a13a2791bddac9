"""A synthetic proxy of the RGB-stacking benchmark: stack red on blue with a Cartesian gripper, green distracts.

```
shapes ── scene ── simulation ─┬─ rewards ──┬─ episodes ─┬─ recording ── task
 (objects) (model) (batched    ├─ observation            │
                    physics)   └─ behaviors ─────────────┘
```
"""
