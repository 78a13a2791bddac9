"""A dataset in memory: its metadata, its Arrow tables (memory-mapped), and random minibatches of tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.ids import resolve
from pmpo_offline.data.labelling import label_tables
from pmpo_offline.data.labels import LabelRule
from pmpo_offline.data.schema import Metadata, ScoreRule, schemas
from pmpo_offline.data.storage import read_metadata, read_tables, size_problems
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.hashing import hash_bytes

if TYPE_CHECKING:
    from torch import Generator, Tensor

Share = float | Literal["collected"]
"""An accepted share, or the one that the data had when it was collected."""

_HASHED = ("prompt", "completion", "score", "label", "prompt_id", "split")


@dataclass(frozen=True, eq=False)
class Dataset:
    """One dataset; nothing in it changes, `relabelled` makes another that shares all columns but the labels."""

    metadata: Metadata
    path: Path
    table: pa.Table
    """Transitions, or responses."""
    episodes: pa.Table | None = None
    candidates: pa.Table | None = None

    def __len__(self) -> int:
        """Return the number of rows of `table`."""
        return int(self.table.num_rows)

    def sample(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        """Return `n` transitions drawn uniformly with replacement, as tensors of n rows.

        Keys: observation, action, next_observation (n, ·); reward, score (NaN where absent) and label (+1 accept,
        −1 reject, 0 unlabelled), float32; terminated, truncated, bool; episode, step and row, int64. The next
        observation of an episode's last row is the episode's `final_observation`.
        """
        import torch

        row = torch.randint(len(self), (n,), generator=generator)
        rows = row.numpy()
        batch = {name: torch.from_numpy(values[rows]) for name, values in self._arrays.items()}
        batch["episode"], batch["step"] = batch["episode"].long(), batch["step"].long()
        return batch | {"next_observation": torch.from_numpy(self.next_observation(rows)), "row": row}

    def next_observation(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (n, O), what was observed after each of these rows (n,): the diagram in `data.schema`."""
        last, final = self._last
        episode = self._arrays["episode"][rows]
        following: NDArray[np.float32] = self._arrays["observation"][np.minimum(rows + 1, len(self) - 1)]
        ends = rows == last[episode]
        following[ends] = final[episode[ends]]
        return following

    def relabelled(
        self,
        label: str | LabelRule | None = None,
        imbalance: Share | None = None,
        noise: float | None = None,
        seed: int | None = None,
    ) -> Dataset:
        """Return this dataset with other labels, equal row for row to one built with these settings.

        What is None stays as it was; imbalance="collected" undoes a balance. `return` and `success` come from the
        episodes, `return_to_go` and `reward` from the rewards; an advantage only if it is the stored score.

        Raises `UserError` for a score that is not stored and a share that is impossible.
        """
        meta = self.metadata
        rule = meta.label if label is None else label if isinstance(label, LabelRule) else LabelRule.parse(label)
        stored = rule.score in ("advantage", "column") or (self.episodes is None and rule.score == "reward")
        if stored and meta.score.name != rule.score:
            raise UserError(
                f"dataset {meta.id} stores the score {meta.score.name}, not {rule.score}: "
                f"build one that does with build-dataset --label {rule}"
            )
        noise = meta.noise if noise is None else noise
        seed = meta.seed if seed is None else seed
        asked = meta.imbalance.asked if imbalance is None else imbalance
        done = label_tables(
            self.table,
            self.episodes,
            rule,
            candidates=self.candidates,
            noise=noise,
            imbalance=None if isinstance(asked, str) else asked,
            seed=seed,
        )
        score = meta.score if meta.score.name == rule.score else ScoreRule(name=rule.score)
        changed = {"kind": done.kind, "label": rule, "score": score, "noise": noise, "seed": seed} | done.described
        return replace(
            self,
            metadata=meta.model_copy(update=changed),
            table=done.table,
            episodes=done.episodes,
            candidates=done.candidates,
        )

    @cached_property
    def has_contexts(self) -> bool:
        """Whether there is anything for a policy to tell rows apart by: False where the observation never changes."""
        if self.episodes is None:
            return True
        observation = columns.matrix(self.table, "observation")
        return bool((observation[1:] != observation[:1]).any())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the rows in memory, scores and labels included, equal however they are stored.

        A dataset that was built at an accepted share and one that was relabelled in memory have the same fingerprint:
        what was learned from one holds for the other.
        """
        tables = {"table": self.table, "episodes": self.episodes, "candidates": self.candidates}
        return columns.hash_tables({name: table for name, table in tables.items() if table is not None})

    @cached_property
    def content_hash(self) -> str:
        """Hash of all rows, by which a run records what it was trained on; rows that are held out are included.

        For responses it covers the columns and how they are read (`ends`, `tokens`), the same in both forms; for
        transitions and candidates the stored files, so that labels given in memory do not change it.
        """
        parts: list[Any] = sorted((name, info.sha256) for name, info in self.metadata.files.items())
        if self.metadata.kind == "responses":
            settings = self.metadata.provenance.settings
            content = (self.table.column(name).to_pylist() for name in _HASHED)
            parts = [[settings.get("ends", True), settings.get("tokens")], *content]
        return hash_bytes(json.dumps(part).encode() for part in parts)

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        """The columns of transitions: views of the file, but for the Boolean ones, decoded once to a byte a row."""
        if self.episodes is None:
            raise UserError(f"dataset {self.metadata.id} holds responses: read its .table, sample() is for transitions")
        vectors = ("reward", "terminated", "truncated", "episode", "step", "score")
        return {
            "observation": columns.matrix(self.table, "observation"),
            "action": columns.matrix(self.table, "action"),
            **{name: columns.vector(self.table, name) for name in vectors},
            "label": columns.labels(self.table).astype(np.float32),
        }

    @cached_property
    def _last(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The last row of every episode, and the observation that follows it."""
        last = columns.vector(self.episodes, "start") + columns.vector(self.episodes, "length") - 1
        return last, columns.matrix(self.episodes, "final_observation")


def open_dataset(directory: Path) -> Dataset:
    """Open the dataset in `directory`, checking its schema version, the sizes of its files and its columns."""
    metadata = read_metadata(directory)
    if wrong := size_problems(directory, metadata):
        raise PmpoOfflineError(f"{directory} is damaged: {wrong[0]}; build it again with --overwrite")
    tables = read_tables(directory, metadata)
    try:
        fits = all(tables[name].schema.equals(schema) for name, schema in schemas(tables).items())
    except (KeyError, AttributeError):
        fits = False
    if not fits:
        raise PmpoOfflineError(f"{directory} is damaged: its columns are not those of the schema; run verify on it")
    main = "responses" if metadata.kind == "responses" else "transitions"
    if main not in tables:
        raise PmpoOfflineError(f"{directory} is damaged: it says that it holds {metadata.kind} and has no {main}")
    return Dataset(metadata, directory, tables[main], tables.get("episodes"), tables.get("candidates"))


def load_dataset(
    id_or_path: str | Path,
    *,
    imbalance: Share | None = None,
    label: str | LabelRule | None = None,
    noise: float | None = None,
    home: Path | None = None,
) -> Dataset:
    """Open a dataset by its id (in `home`, default `ids.home()`) or its path; other labels are given in memory.

    Raises `UserError` for an unknown dataset (with near misses), another schema version, and labels that the dataset
    cannot serve; `PmpoOfflineError` for missing, truncated or malformed files.
    """
    dataset = open_dataset(resolve(id_or_path, home))
    if imbalance is None and label is None and noise is None:
        return dataset
    return dataset.relabelled(label, imbalance, noise)
