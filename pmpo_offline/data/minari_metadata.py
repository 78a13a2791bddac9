"""Minari's metadata.json of a dataset: the environment, if it is one of Gymnasium's, the spaces and what else it shows.

With the environment's own specification and spaces, `recover_environment` makes it and `combine_datasets` joins the
dataset with others that were recorded in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.schema import Metadata

ENVIRONMENTS = {
    "HalfCheetah-v5": "mujoco/halfcheetah",
    "Hopper-v5": "mujoco/hopper",
    "Walker2d-v5": "mujoco/walker2d",
}
"""The task here that an environment of Gymnasium is, to the version."""
_VERSION = "0.5.3"  # of the format: readers from 0.5.3 on list it as supported


def observation_type(task: str) -> type[np.floating]:
    """Return the type that Minari expects of a task's observations: that of Gymnasium's environments, else float32."""
    return np.float64 if task in ENVIRONMENTS.values() else np.float32


def minari_metadata(metadata: Metadata, steps: pa.Table) -> dict[str, Any]:
    """Return the content of metadata.json but for the size; `steps` are the transitions."""
    from gymnasium.spaces import Box, Discrete, Space
    from minari.serialization import serialize_space

    environment = {task: name for name, task in ENVIRONMENTS.items()}.get(metadata.task)
    width = steps.schema.field("observation").type.list_size
    seen = Box(-np.inf, np.inf, (width,), observation_type(metadata.task))
    acted: Space[Any]
    if metadata.actions is not None:
        acted = Discrete(metadata.actions)
    else:
        low, high = _bounds(metadata, steps)
        acted = Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    references = metadata.references
    scores = {"ref_min_score": references.min, "ref_max_score": references.max} if references else {}
    return {
        "dataset_id": metadata.id,
        "minari_version": _VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": metadata.counts.episodes,
        "total_steps": metadata.counts.rows,
        **({"env_spec": _specification(environment)} if environment else {}),
        "observation_space": serialize_space(seen),
        "action_space": serialize_space(acted),
        **scores,
        "author": ["pmpo-offline"],
        "author_email": [],
        "algorithm_name": "mixture of behaviours, see the episodes' attribute behavior",
        "description": f"{metadata.task}: accept/reject labels by {metadata.label} (infos/label: 1, -1, 0 unlabelled)",
        "licence": metadata.licence,
    }


def _bounds(metadata: Metadata, steps: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the greatest action (A,): the source's own, else ±1 if none is greater, or ±∞."""
    settings = metadata.provenance.settings
    recorded: Any = settings.get("action_low_high")
    if recorded is not None:
        low, high = (np.array(bound, np.float64) for bound in recorded)  # None becomes NaN
        return np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    # Actions of every task here lie within ±1.
    reach = max(float(np.abs(block).max()) for block in columns.blocks(steps, "action"))
    bound = np.full(steps.schema.field("action").type.list_size, 1.0 if reach <= 1 else np.inf)
    return -bound, bound


def _specification(environment: str) -> str:
    import gymnasium

    return gymnasium.spec(environment).to_json()
