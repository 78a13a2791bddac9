"""What Minari wants to know of a dataset: the content of data/metadata.json."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pmpo_offline.data.schema import Metadata

_VERSION = "0.5.3"  # of the format: readers from 0.5.3 on hold it in their list of supported versions


def minari_metadata(metadata: Metadata, steps: pa.Table, size: int) -> dict[str, Any]:
    """Describe transitions whose HDF5 file takes `size` bytes."""
    # Minari and Gymnasium take a second to import and only this form needs them.
    from gymnasium.spaces import Box
    from minari.serialization import serialize_space

    widths = {name: steps.schema.field(name).type.list_size for name in ("observation", "action")}
    spaces = {
        f"{name}_space": serialize_space(Box(-np.inf, np.inf, (width,), np.float32)) for name, width in widths.items()
    }
    references = metadata.references
    scores = {"ref_min_score": references.min, "ref_max_score": references.max} if references else {}
    return {
        "dataset_id": metadata.id,
        "minari_version": _VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": metadata.counts.episodes,
        "total_steps": metadata.counts.rows,
        "dataset_size": size / 2**20,
        **spaces,
        **scores,
        "author": ["pmpo-offline"],
        "algorithm_name": "mixture of behaviours, see the episodes' attribute behavior",
        "description": f"{metadata.task}: accept/reject labels by {metadata.label} (infos/label: 1, -1, 0 unlabelled)",
        "licence": metadata.licence,
    }
