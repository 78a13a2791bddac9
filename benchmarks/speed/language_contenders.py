"""Who trains what in `language.py`."""

from __future__ import annotations

from dataclasses import dataclass

TOP = 6
"""Layers that have LoRA where not all have."""


@dataclass(frozen=True)
class Contender:
    """Who trains what."""

    title: str
    theirs: bool
    algorithm: str
    top: int | None = None
    """LoRA on this many upper layers alone; ours then caches what lies below."""
    precomputed: bool = False
    """TRL's own cache of the reference's log-probabilities."""
    mismatched: bool = False
    """KTO's reference point as TRL computes it, for a forward pass more."""


CONTENDERS = {
    "trl-dpo": Contender("TRL DPO", True, "dpo"),
    "trl-dpo-precomputed": Contender("TRL DPO, precomputed reference", True, "dpo", precomputed=True),
    "trl-dpo-top": Contender(f"TRL DPO, precomputed, top {TOP}", True, "dpo", TOP, precomputed=True),
    "trl-kto": Contender("TRL KTO", True, "kto"),
    "dpo": Contender("DPO", False, "dpo"),
    "kto-mismatched": Contender("KTO, TRL's reference point", False, "kto", mismatched=True),
    "kto": Contender("KTO, exact reference point", False, "kto"),
    "pmpo": Contender("PMPO, exact KL", False, "pmpo"),
    "dpo-top": Contender(f"DPO, cached trunk, top {TOP}", False, "dpo", TOP),
    "pmpo-top": Contender(f"PMPO, exact KL, cached trunk, top {TOP}", False, "pmpo", TOP),
}
