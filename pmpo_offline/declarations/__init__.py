"""What can be built, run and learned with, declared in TOML: recipes, suites, algorithms, reference scores.

`catalog` finds and validates declarations; `OBJECTIVES` are the objectives that algorithms name, ours and those of
other packages. What a declaration leads to (datasets, runs, tables) is made elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.declarations.registries import OBJECTIVES as OBJECTIVES

# The catalog is read without torch, which the objectives import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["catalog"], submod_attrs={"registries": ["OBJECTIVES"]}
)
