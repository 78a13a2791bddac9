"""Policies: stacked networks of control, with one leading dimension for all runs of a cell, and language models.

Nothing here knows a dataset, a task or an objective.
"""

from pmpo_offline.policies.mixture import Mixture, MixturePolicy

__all__ = ["Mixture", "MixturePolicy"]
