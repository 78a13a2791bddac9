"""How good a language model is: reward, drift, perplexity, implicit preference, and what a judge says."""

from __future__ import annotations

from pmpo_offline.evaluation.language.reward import evaluate_language

__all__ = ["evaluate_language"]
