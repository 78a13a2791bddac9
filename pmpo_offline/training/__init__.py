"""How it is trained: batches by name, one trainer for every objective, critics that judge, checkpoints that resume."""

from pmpo_offline.training.bound import beta_bound
from pmpo_offline.training.config import TrainingSettings, settle
from pmpo_offline.training.control.trainer import Trained, train
from pmpo_offline.training.critics.advantages import CandidateSettings, Judged
from pmpo_offline.training.critics.cross_fitted import CriticSettings, Judgement, judge

__all__ = [
    "CandidateSettings",
    "CriticSettings",
    "Judged",
    "Judgement",
    "Trained",
    "TrainingSettings",
    "beta_bound",
    "judge",
    "settle",
    "train",
]
