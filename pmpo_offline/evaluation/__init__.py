"""How good a policy is: held-out rollouts, normalized scores, statistics over training runs, and one run's report.

`language` measures language models. Tables of many runs are in `benchmark`.
"""

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
