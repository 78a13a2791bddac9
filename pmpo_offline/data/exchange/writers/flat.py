"""What flat HDF5 files of other libraries carry beside their own arrays: who made the data, episodes, candidates."""

from __future__ import annotations

import json

import h5py

from pmpo_offline.data import hdf5
from pmpo_offline.data.dataset import Dataset


def file_name(dataset: Dataset, ending: str) -> str:
    """Return the last part of the id with the ending that the other library gives its files."""
    return f"{dataset.metadata.id.rpartition('/')[2]}{ending}"


def size(dataset: Dataset) -> int:
    """Return how many bytes of HDF5 the dataset takes at most, next observations included."""
    tables = [table for table in (dataset.episodes, dataset.candidates) if table is not None]
    width: int = dataset.table.schema.field("observation").type.list_size
    return sum(map(hdf5.flat_size, [dataset.table, *tables])) + 4 * width * len(dataset)


def write_about(file: h5py.File, dataset: Dataset) -> None:
    """Write the groups `metadata/episodes` and `metadata/candidates`, and attributes that say what the file is.

    D4RL's readers take every dataset of a file for one with a row a step, but for those with "metadata" in their names.
    """
    for name in ("episodes", "candidates"):
        table = getattr(dataset, name)
        if table is not None:
            hdf5.write_flat(file.create_group(f"metadata/{name}"), table)
    metadata = dataset.metadata
    attributes = {"id": metadata.id, "task": metadata.task, "label": str(metadata.label), "licence": metadata.licence}
    file.attrs.update(attributes)
    if references := metadata.references:
        versions = json.dumps(references.versions)
        file.attrs.update({"ref_min_score": references.min, "ref_max_score": references.max, "ref_versions": versions})
