"""How good a policy is: rollouts on held-out episodes, and honest statistics over training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.evaluation.options import EvaluationOptions as EvaluationOptions
    from pmpo_offline.evaluation.rollouts import evaluate as evaluate

# The command line imports the options alone.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"options": ["EvaluationOptions"], "rollouts": ["evaluate"]}
)
