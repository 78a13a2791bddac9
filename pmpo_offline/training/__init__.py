"""How it is trained: batches by name, one trainer for every objective, critics that judge, checkpoints that resume."""

from pmpo_offline.training.bound import beta_bound
from pmpo_offline.training.critic import CriticSettings, Judgement, judge
from pmpo_offline.training.judging import CandidateSettings, Judged
from pmpo_offline.training.settings import TrainingSettings, settle
from pmpo_offline.training.trainer import Trained, train

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
