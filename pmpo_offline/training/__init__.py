"""From a dataset and an algorithm to a trained policy: runs, checkpoints, and a diagnosis before anything is trained.

`control` trains stacks of policies on transitions, `language` language models on responses, `critics` estimates values.
How good the result is, and how it is compared with others, is found out elsewhere.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.training.config import TrainingSettings as TrainingSettings
    from pmpo_offline.training.config import beta_bound as beta_bound
    from pmpo_offline.training.config import settle as settle
    from pmpo_offline.training.control.trainer import Trained as Trained
    from pmpo_offline.training.control.trainer import train as train
    from pmpo_offline.training.critics.advantages import Advantages as Advantages
    from pmpo_offline.training.critics.advantages import CandidateSettings as CandidateSettings
    from pmpo_offline.training.critics.cross_fitted import CriticEstimates as CriticEstimates
    from pmpo_offline.training.critics.cross_fitted import CriticSettings as CriticSettings
    from pmpo_offline.training.critics.cross_fitted import fit_critic as fit_critic

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["TrainingSettings", "beta_bound", "settle"],
        "control.trainer": ["Trained", "train"],
        "critics.advantages": ["Advantages", "CandidateSettings"],
        "critics.cross_fitted": ["CriticEstimates", "CriticSettings", "fit_critic"],
    },
)
