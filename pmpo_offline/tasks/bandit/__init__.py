"""Bandits: functions of one action, learned from which of a few actions did better."""

from __future__ import annotations

from pmpo_offline.tasks.bandit.functions import FUNCTIONS, Function
from pmpo_offline.tasks.bandit.task import BanditTask

__all__ = ["FUNCTIONS", "BanditTask", "Function"]
