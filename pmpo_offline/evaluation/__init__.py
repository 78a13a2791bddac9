"""How good a policy is: rollouts on held-out episodes, and honest statistics over training runs."""

from pmpo_offline.evaluation.rollouts import evaluate

__all__ = ["evaluate"]
