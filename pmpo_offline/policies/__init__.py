"""What is trained: stacked policies, one leading dimension for all runs of a cell."""

from pmpo_offline.policies.mixture import Mixture, MixturePolicy

__all__ = ["Mixture", "MixturePolicy"]
