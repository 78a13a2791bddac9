"""Responses that ship with the package, so that nobody needs to sample them again: one Parquet file, one row each.

datasets/language/<task>-<key>.parquet    key: a hash of the settings that they were sampled with
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.tasks.language.responses import Responses

_FACTS = b"pmpo_offline"


def shipped(task: str, key: str) -> tuple[Responses, dict[str, str]] | None:
    """Return the responses of these settings and the facts about their sampling, None where none ship.

    Raises `PmpoOfflineError` if the file is damaged.
    """
    path = place(task, key)
    return read(path) if path.is_file() else None


def place(task: str, key: str) -> Path:
    """Return where the responses of a task stand that were sampled with the settings of this key."""
    namespace, _, name = task.partition("/")
    return catalog.root("datasets") / namespace / f"{name}-{key}.parquet"


def write(path: Path, responses: Responses, facts: Mapping[str, str]) -> None:
    """Write the file, compressed; `OSError` if the disk refuses."""
    prompts, each = responses.completion.shape
    table = pa.table(
        {
            "prompt": np.repeat(responses.prompt, each).tolist(),
            "completion": responses.completion.reshape(-1).tolist(),
            "ended": responses.ended.reshape(-1),
        }
    )
    described = table.replace_schema_metadata({_FACTS: json.dumps({**facts, "per_prompt": str(each)})})
    pq.write_table(described, path, compression="zstd", compression_level=19, row_group_size=prompts * each)


def read(path: Path) -> tuple[Responses, dict[str, str]]:
    """Read such a file; `PmpoOfflineError` if it is damaged."""
    try:
        table = pq.read_table(path)
        facts: dict[str, str] = json.loads(table.schema.metadata[_FACTS])
        each = int(facts.pop("per_prompt"))
        prompt, completion = (np.array(table[name].to_pylist()) for name in ("prompt", "completion"))
        ended = table["ended"].to_numpy()
        return Responses(prompt[::each], completion.reshape(-1, each), ended.reshape(-1, each)), facts
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise PmpoOfflineError(f"{path} is damaged ({line}): install pmpo-offline again") from None
