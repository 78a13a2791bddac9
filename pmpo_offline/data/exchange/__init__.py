"""Datasets of other libraries, in and out: readers of trajectories, forms of texts, and writers, each a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pmpo_offline.data.exchange.export import export_dataset as export_dataset
    from pmpo_offline.data.exchange.export import left_out as left_out

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"export": ["export_dataset", "left_out"]})
