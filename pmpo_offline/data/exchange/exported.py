"""Exports of this package come back whole: their metadata, and their tables with scores, labels and candidates.

Every export has its metadata in a file beside it (`origin.MARKER`); a single file of arrays holds them too, in the text
`metadata/dataset`, so that it may be moved, and the tables of episodes and candidates, one array a column:
`metadata/episodes/…`, `metadata/candidates/…`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, Experience, columns
from pmpo_offline.data.schema import Metadata, candidates_schema, episodes_schema
from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.files import from_json

ABOUT = "metadata/dataset"
"""The array that holds the metadata of the dataset as JSON."""
Tables = dict[str, pa.Table]


class Arrays(Protocol):
    """Named arrays of a file."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all arrays."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return one array."""


def described(metadata: Metadata) -> str:
    """Return the metadata of an exported dataset as JSON, without the files that it was stored in."""
    return metadata.model_dump_json(exclude={"files"})


def about(dataset: Dataset) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield (name, array) of what a file of arrays holds beside the steps; texts are arrays of objects."""
    yield ABOUT, np.array(described(dataset.metadata), object)
    for title, table in dataset.others.items():
        for name in table.column_names:
            yield f"metadata/{title}/{name}", columns.values(table, name)


def metadata_of(content: Any, where: object) -> Metadata:
    """Return exported metadata; `UserError` if they are damaged, or of a later version of this package."""
    parsed = validated(Metadata, content, f"{where} holds no metadata that this pmpo-offline can read")
    return parsed.model_copy(update={"schema_version": Metadata.model_fields["schema_version"].default})


def found_in(arrays: Arrays, where: object) -> Metadata | None:
    """Return the metadata in a file of arrays, None if it is no export of this package."""
    if ABOUT not in arrays.names:
        return None
    try:
        content = from_json(_texts(arrays[ABOUT].reshape(1))[0].as_py())
    except ValueError as error:
        raise UserError(f"{where} is damaged: {ABOUT} cannot be read ({reason_of(error)}); export it again") from None
    return metadata_of(content, where)


def tables(arrays: Arrays, experience: Experience, score: NDArray[Any], label: NDArray[Any]) -> Tables:
    """Return the tables of an exported dataset.

    Args:
        arrays: hold the episodes and the candidates.
        experience: the steps; what the episodes are is read from `arrays`.
        score: (N,) of the steps, NaN where absent.
        label: (N,) of the steps, +1, −1 and 0.
    """
    if "metadata/episodes/terminated" not in arrays.names:
        raise UserError("the file lacks metadata/episodes, which every export of pmpo-offline has: export it again")
    steps, _ = replace(experience, terminated=arrays["metadata/episodes/terminated"]).tables()
    found = {"transitions": columns.replace(steps, score=score, label=label)}
    schemas = {
        "episodes": episodes_schema(experience.observation.shape[1]),
        "candidates": candidates_schema(experience.action.shape[1]),
    }
    for title, schema in schemas.items():
        if f"metadata/{title}/score" in arrays.names:
            stored = {name: arrays[f"metadata/{title}/{name}"] for name in schema.names}
            found[title] = columns.table_of(
                {name: _texts(values) if pa.types.is_string(schema.field(name).type) else values
                 for name, values in stored.items()},
                schema,
            )  # fmt: skip
    return found


def experience_of(steps: Mapping[str, NDArray[Any]], episodes: pa.Table) -> Experience:
    """Return the episodes with these observations, actions and rewards of their steps."""
    return Experience(
        observation=steps["observation"],
        action=steps["action"],
        reward=steps["reward"],
        length=columns.vector(episodes, "length").astype(np.int64),
        success=columns.vector(episodes, "success"),
        terminated=columns.vector(episodes, "terminated"),
        seed=columns.vector(episodes, "seed"),
        final_observation=columns.matrix(episodes, "final_observation"),
        behavior=np.array(episodes["behavior"].to_pylist()),
    )


def _texts(values: NDArray[Any]) -> pa.Array:
    try:
        return pa.array([value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()])
    except UnicodeDecodeError:
        raise UserError("the file holds texts that are no UTF-8: it is damaged, export it again") from None
