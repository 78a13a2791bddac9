"""Bandits: functions of one action, learned from which of a few actions did better."""

from pmpo_offline.tasks.bandit.functions import FUNCTIONS, GMM, Function
from pmpo_offline.tasks.bandit.task import BanditTask

BANDITS = {**FUNCTIONS, GMM.name: GMM}
"""The functions of all bandit tasks by name."""

__all__ = ["BANDITS", "FUNCTIONS", "GMM", "BanditTask", "Function"]
