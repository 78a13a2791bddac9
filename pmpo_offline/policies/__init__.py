"""Policies: stacked networks of control, with one leading dimension for all runs of a cell, and language models.

Nothing here knows a dataset, a task or an objective.
"""

from pmpo_offline.policies.categorical import Categorical, CategoricalPolicy
from pmpo_offline.policies.function import Act, FunctionPolicy
from pmpo_offline.policies.mixture import Mixture, MixturePolicy

Policy = MixturePolicy | FunctionPolicy
"""What a task scores."""

__all__ = ["Act", "Categorical", "CategoricalPolicy", "FunctionPolicy", "Mixture", "MixturePolicy", "Policy"]
