"""Continuous control: dm_control's suite and Gymnasium's MuJoCo tasks in one batched simulator.

simulation, planar ── dm_suite, gymnasium_v5 (rules) ── task (behaviours)
"""

from pmpo_offline.tasks.control.simulation import Rules, Simulation, State, begin_seed, play
from pmpo_offline.tasks.control.task import RULES, ControlTask, held_out, rules

__all__ = ["RULES", "ControlTask", "Rules", "Simulation", "State", "begin_seed", "held_out", "play", "rules"]
