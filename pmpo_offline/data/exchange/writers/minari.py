"""To Minari: a folder that stock Minari opens with MINARI_DATASETS_PATH set to the chosen one.

<DIR>/<id>/data/metadata.json, main_data.hdf5     as `data.hdf5` writes them; the last observation of an episode's
                                                  T+1 is its final one, labels and scores are infos and attributes
<DIR>/<id>/candidates.hdf5                        where there are candidates: row, action, score, label
"""

from __future__ import annotations

from pathlib import Path

from pmpo_offline.data import hdf5
from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.exchange.writers.writer import Writer

NOTE = (
    "An episode has one observation more than actions: after the last step comes the final observation. `infos/label` "
    "is 1 for accept, -1 for reject and 0 where unlabelled; an absent `infos/score` is NaN."
)


def place(directory: Path, dataset: Dataset) -> Path:
    """Return where under the chosen folder the dataset goes."""
    return directory / dataset.metadata.id


def write(folder: Path, dataset: Dataset) -> None:
    """Write the dataset into `folder`, its own."""
    hdf5.write_minari(folder, dataset.metadata, dataset.table, dataset.episodes)
    if dataset.candidates is not None:
        with hdf5.new_file(folder / "candidates.hdf5", hdf5.flat_size(dataset.candidates)) as file:
            hdf5.write_flat(file, dataset.candidates)


def loading(dataset: Dataset) -> list[str]:
    """Return the lines of Python that open it."""
    return [
        "# with MINARI_DATASETS_PATH set to the folder that was chosen for the export",
        f'import minari; dataset = minari.load_dataset("{dataset.metadata.id}")',
    ]


MINARI = Writer(write, loading, NOTE, place=place)
