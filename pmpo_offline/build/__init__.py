"""From a source to a stored dataset: raw experience or responses, scores, labels, balance, metadata, files.

`pipeline` is the one way there; sources simulate (`collect`), ask a language model (`sample`) or read files (`read`,
`read_text`). How datasets are stored, labelled and balanced is in `data`, what is trained on them in `training`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.build.cleaning import Leftover as Leftover
    from pmpo_offline.build.cleaning import clean as clean
    from pmpo_offline.build.collect import DEFAULT as DEFAULT
    from pmpo_offline.build.collect import build_dataset as build_dataset
    from pmpo_offline.build.options import TextOptions as TextOptions
    from pmpo_offline.build.pipeline import is_built as is_built
    from pmpo_offline.build.pipeline import require_built as require_built
    from pmpo_offline.build.read import import_dataset as import_dataset
    from pmpo_offline.build.read_text import import_text as import_text

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cleaning": ["Leftover", "clean"],
        "collect": ["DEFAULT", "build_dataset"],
        "options": ["TextOptions"],
        "pipeline": ["is_built", "require_built"],
        "read": ["import_dataset"],
        "read_text": ["import_text"],
    },
)
