"""Hugging Face ids: what `datasets.load_dataset` finds on the hub, in its cache, or in a local folder.

The hub's data sets are data here: `datasets` runs no code of theirs since version 4, and opens no pickle.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pmpo_offline.data.exchange.forms.response import Row
from pmpo_offline.data.exchange.forms.source import TextSource
from pmpo_offline.data.exchange.origin import origin
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_bytes


def of_hub(name: str) -> TextSource:
    """Return the source `hf:NAME`, all its splits; `UserError` where it cannot be had."""
    if not name.strip("/ "):
        raise UserError("hf: names no data set: write hf:NAME, as in hf:Anthropic/hh-rlhf")
    progress.report("ask the hub", 0, 1)
    splits = _loaded(name)
    progress.report("ask the hub", 1, 1)

    def rows() -> Iterator[Row]:
        total, done = sum(map(len, splits.values())), 0
        for split, content in splits.items():
            for number, values in enumerate(content, 1):
                if done % 1024 == 0:
                    progress.report("read rows", done, total)
                done += 1
                yield Row(values, f"{name} {split}, row {number}")
        progress.report("read rows", total, total)

    return TextSource(
        name=name,
        rows=rows,
        hashes=lambda: {f"{name} {split}": _digest(content) for split, content in splits.items()},
        files={},
        packages=("datasets", "pyarrow"),
        origin=origin(Path(name)),  # of a local folder
        licence=next((content.info.license for content in splits.values() if content.info.license), "unknown"),
    )


def _loaded(name: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"hf:{name} needs the package datasets: pip install 'pmpo-offline[language]', or give its files"
        ) from None
    if int(datasets.__version__.split(".")[0]) < 4:
        raise UserError(f"hf:{name} needs datasets 4 or newer, which runs no code of data sets: upgrade the package")
    before = logging.root.manager.disable
    bars = datasets.are_progress_bars_disabled()
    logging.disable(logging.WARNING)  # the hub's client logs its attempts; how the last one ended is said below
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # whatever the hub's client of today raises: no network, no such id, no access, no data
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"hf:{name} cannot be had ({reason}): check the name and the network, or download its files and give those"
        ) from None
    finally:
        logging.disable(before)
        if not bars:
            datasets.enable_progress_bars()
    return dict(found) if isinstance(found, dict) else {"train": found}


def _digest(content: Any) -> str:
    """Return a hash of a split's features and rows, whichever files they come from."""
    batches = content.with_format("arrow").iter(batch_size=4096)
    parts = chain([list(content.features)], (batch.to_pylist() for batch in batches))
    return hash_bytes(json.dumps(part, default=str).encode() for part in parts)
