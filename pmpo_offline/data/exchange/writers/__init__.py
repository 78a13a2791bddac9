"""The formats that datasets are exported to: a file each."""

from __future__ import annotations

from pmpo_offline.data.exchange.writers import texts
from pmpo_offline.data.exchange.writers.d3rlpy import D3RLPY
from pmpo_offline.data.exchange.writers.d4rl import D4RL
from pmpo_offline.data.exchange.writers.huggingface import HUGGINGFACE
from pmpo_offline.data.exchange.writers.lerobot import LEROBOT
from pmpo_offline.data.exchange.writers.minari import MINARI
from pmpo_offline.data.exchange.writers.parquet import PARQUET
from pmpo_offline.data.exchange.writers.trl import TRL
from pmpo_offline.data.exchange.writers.writer import Writer

__all__ = ["FORMATS", "TEXT_FORMATS", "Writer"]

FORMATS = {
    "minari": MINARI,
    "d4rl": D4RL,
    "d3rlpy": D3RLPY,
    "lerobot": LEROBOT,
    "huggingface": HUGGINGFACE,
    "parquet": PARQUET,
}
"""For transitions and candidates."""
TEXT_FORMATS = {"trl": TRL, "huggingface": texts.HUGGINGFACE, "parquet": texts.PARQUET}
"""For responses."""
