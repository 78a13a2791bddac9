"""Datasets of other libraries, in and out: readers and writers, a file a format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmpo_offline.data.exchange.export import export_dataset

__all__ = ["export_dataset"]


def __getattr__(name: str) -> Any:
    # Reading needs nothing of writing.
    if name == "export_dataset":
        from pmpo_offline.data.exchange.export import export_dataset

        return export_dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
