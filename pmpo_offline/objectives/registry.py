"""Every objective by name, imported on first use: names are listed without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pmpo_offline import objectives

if TYPE_CHECKING:
    from .objective import Objective

NAMES = (
    *("pmpo", "bc", "bc_accepts", "binary_crr", "awr", "unlikelihood", "mpo"),
    *("dpo", "ipo", "ipo_length_normalized", "nca", "kto", "bco", "td3_bc"),
    *("asymre", "topr", "npo", "weighted_reinforce", "apo_zero_unpaired", "sppo_unpaired", "aot_unpaired", "apo_down"),
    *("conditional", "sspo", "d2o", "dro", "rpo"),
)
"""Loss functions of this package that are objectives, in the order in which they are listed."""


class _Objectives(Mapping[str, "Objective"]):
    """What each of the losses declares."""

    def __getitem__(self, name: str) -> Objective:
        if name not in NAMES:
            raise KeyError(name)
        return objectives.declaration(getattr(objectives, name))

    def __contains__(self, name: object) -> bool:
        return name in NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


OBJECTIVES: Mapping[str, Objective] = _Objectives()
"""Every objective by name."""
