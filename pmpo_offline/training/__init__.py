"""How it is trained: batches by name, one trainer for every objective, critics that judge, checkpoints that resume."""

from pmpo_offline.training.critic import CriticSettings, Judgement, judge
from pmpo_offline.training.trainer import Trained, TrainingSettings, beta_bound, settle, train

__all__ = ["CriticSettings", "Judgement", "Trained", "TrainingSettings", "beta_bound", "judge", "settle", "train"]
