"""From a source to a stored dataset: raw experience or responses, scores, labels, balance, metadata, files.

Sources simulate (`collect`), ask a language model (`sample`) or read files (`read`). What a learner does with a dataset
is in `training`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.build.collect import DEFAULT as DEFAULT
    from pmpo_offline.build.collect import build_dataset as build_dataset
    from pmpo_offline.build.pipeline import is_built as is_built
    from pmpo_offline.build.read import import_dataset as import_dataset
    from pmpo_offline.build.read_text import import_text as import_text
    from pmpo_offline.build.text_options import TextOptions as TextOptions

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "collect": ["DEFAULT", "build_dataset"],
        "pipeline": ["is_built"],
        "read": ["import_dataset"],
        "read_text": ["import_text"],
        "text_options": ["TextOptions"],
    },
)
