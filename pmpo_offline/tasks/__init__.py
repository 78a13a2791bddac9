"""Tasks: they collect experience and score policies; `language` has prompts and rewards of texts.

How a dataset is labelled and stored, and how a policy is trained, is not in here. The protocol is in `task`.
"""

from pmpo_offline.data import Experience
from pmpo_offline.tasks.task import TASKS, Behavior, CollectionSpec, Outcome, ScoredCandidates, Task, get

__all__ = ["TASKS", "Behavior", "CollectionSpec", "Experience", "Outcome", "ScoredCandidates", "Task", "get"]
