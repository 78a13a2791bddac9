"""How good a language model is: reward, drift, perplexity, implicit preference, and a judge's verdicts."""

from __future__ import annotations

from pmpo_offline.evaluation.language.report import Sampling, evaluate_language

__all__ = ["Sampling", "evaluate_language"]
