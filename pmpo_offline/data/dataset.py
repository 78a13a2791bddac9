"""Datasets in memory: memory-mapped Arrow tables of rows, episodes and candidates, and what describes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.checks import place_problems
from pmpo_offline.data.columns import Tables, hash_tables
from pmpo_offline.data.labels import LabelledTables, Labelling, label_tables
from pmpo_offline.data.schema import Balance, LabelRule, Metadata, ScoreRule, schema_problems
from pmpo_offline.data.storage import file_problems, read_metadata, read_tables, remedy, resolve
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, unknown
from pmpo_offline.runtime.hashing import hash_bytes

if TYPE_CHECKING:  # torch takes a second to import: what only lists and verifies datasets does without
    import polars
    from torch import Generator, Tensor

    from pmpo_offline.data.gathering import Column
    from pmpo_offline.data.views import Episode, TorchRows

Share = float | Literal["collected"]
"""An accepted share, or the share of the labels as collected."""

_SOURCE_TELLS = {"success": ("success",), "rewards": ("reward", "return", "return_to_go")}
"""Columns and scores by the setting of an import that is false where its source does not tell them."""
_LABELS = ["score", "label"]
_HASHED = ("prompt", "completion", "score", "label", "prompt_id", "split")


@dataclass(frozen=True, eq=False)
class Dataset(Tables):
    """One immutable dataset; `relabelled` returns another that shares all columns but scores and labels."""

    metadata: Metadata
    path: Path
    table: pa.Table
    """Transitions, or responses."""
    episodes: pa.Table | None = None
    candidates: pa.Table | None = None
    stored: Mapping[str, pa.Table] = field(default_factory=dict, repr=False)
    """The tables as they were opened at `path`: of their rows, `metadata.files` has the hashes."""

    def __len__(self) -> int:
        """Return the number of rows of `table`."""
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        counts = self.metadata.counts
        return (
            f"Dataset({self.metadata.id}: {len(self):,} rows, label {self.metadata.label}, "
            f"{counts.accepted:,} accepted, {counts.rejected:,} rejected, {counts.unlabelled:,} unlabelled)"
        )

    def _repr_html_(self) -> str:
        return self.metadata._repr_html_()

    @checked()
    def __getitem__(self, key: int | slice | str) -> Any:
        """Return a row, the rows of a slice or a column of `table` as Python values, as Hugging Face's datasets do.

        A row is a mapping by column, the rows of a slice are a mapping of lists, and a column is a list; absent scores
        and labels are None. `table`, `to_polars` and `to_torch` do not make a Python value of every number.

        Raises `UserError` for a column that is not there, and `IndexError` for such a row: it ends a loop over rows.
        """
        if isinstance(key, str):
            if key not in self.table.column_names:
                raise unknown("column", key, self.table.column_names)
            return self.table[key].to_pylist()
        if isinstance(key, slice):
            return self.table.take(np.arange(len(self))[key]).to_pydict()
        return self.table.slice(range(len(self))[key], 1).to_pylist()[0]

    @checked()
    def sample(self, n: int, generator: Generator | None = None) -> dict[str, Tensor]:
        """Return `n` transitions drawn uniformly with replacement, as tensors of n rows.

        Keys: observation, action, next_observation (n, ·); reward, score (NaN where absent) and label (+1 accept,
        −1 reject, 0 unlabelled), float32; terminated, truncated, bool; episode, step and row, int64. The next
        observation of an episode's last row is the episode's `final_observation`. `UserError` for a negative n.
        """
        import torch

        self._require_transitions()
        if n < 0:
            raise UserError(f"{self.metadata.id}: sample(n) takes a number of 0 or more, not {n}")
        row = torch.randint(len(self), (n,), generator=generator)
        rows = row.numpy()
        observation, following = self.column("observation").pairs(row)
        episode, is_last = self._place(rows)
        ends = self._ends
        following[is_last] = torch.from_numpy(ends["final_observation"][episode[is_last]])
        return {
            "observation": observation,
            **{name: self.column(name)[row] for name in ("action", "reward", "score")},
            "label": self.column("label")[row].float(),
            **{name: torch.from_numpy(is_last & ends[name][episode]) for name in ("terminated", "truncated")},
            "episode": torch.from_numpy(episode),
            "step": torch.from_numpy(rows - ends["start"][episode]),
            "next_observation": following,
            "row": row,
        }

    def next_observation(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the observation (n, O) that follows each of these rows (n,); see the diagram in `data.schema`."""
        import torch

        after = torch.from_numpy(np.minimum(rows + 1, len(self) - 1))
        following: NDArray[np.float32] = self.column("observation")[after].numpy()
        episode, is_last = self._place(rows)
        following[is_last] = self._ends["final_observation"][episode[is_last]]
        return following

    def _place(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the episode of each row (n,), found by its start, and whether the row is its last."""
        ends = self._ends
        episode = np.searchsorted(ends["start"], rows, side="right") - 1
        return episode, rows == ends["last"][episode]

    @checked()
    def relabelled(
        self,
        label: str | LabelRule | None = None,
        imbalance: Share | None = None,
        noise: float | None = None,
        seed: int | None = None,
        balance: Balance | None = None,
    ) -> Dataset:
        """Return this dataset with other labels, equal row for row to one built with these settings.

        None keeps the dataset's own setting; imbalance="collected" undoes a balance. `return` and `success` come from
        the episodes, `return_to_go` and `reward` from the rewards; an advantage only if it is the stored score.
        balance="rows" leaves out the rows of the units that exceed the share; "labels" only their labels.

        Raises `UserError` for a score that is not stored, a share that is impossible, and other labels of a dataset
        without the rows that were dropped for its share.
        """
        meta = self.metadata
        rule = meta.label if label is None else label if isinstance(label, LabelRule) else LabelRule.parse(label)
        stored = rule.score in ("advantage", "column") or (self.episodes is None and rule.score == "reward")
        if stored and meta.score.name != rule.score:
            raise UserError(
                f"dataset {meta.id} stores the score {meta.score.name}, not {rule.score}: "
                f"build one that does with build-dataset --label {rule}"
            )
        if rule != meta.label:
            self.check_known([rule.score], f"label '{rule}'")
        share = meta.imbalance.asked if imbalance is None else imbalance
        if share == "collected":
            share = None
        if balance is None:
            balance = "labels" if share is None else meta.imbalance.balance
        noise = meta.noise if noise is None else noise
        seed = meta.seed if seed is None else seed
        if seed < 0:
            raise UserError(f"seed {seed}: give 0 or more")
        labelling = Labelling(rule, share, noise, seed, balance)
        if meta.imbalance.drops_rows:
            if labelling == Labelling(meta.label, meta.imbalance.asked, meta.noise, meta.seed, "rows"):
                return self
            raise UserError(
                f"dataset {meta.id} lacks the rows that were dropped for its accepted share: give other labels to the "
                "dataset that has them all"
            )
        done = label_tables(self.table, self.episodes, labelling, self.candidates)
        score = meta.score if meta.score.name == rule.score else ScoreRule(name=rule.score)
        if rule != meta.label:  # a build has warned of its own rule
            done.warn(meta.id)
        changed = {"label": rule, "score": score, "noise": noise, "seed": seed} | done.described
        return self.with_labels(done, meta.model_copy(update=changed))

    def with_labels(self, done: LabelledTables, metadata: Metadata) -> Dataset:
        """Return this dataset with tables that were labelled, and what describes them."""
        return replace(self, metadata=metadata, table=done.table, episodes=done.episodes, candidates=done.candidates)

    @checked()
    def filter(self, where: str) -> Dataset:
        """Return the episodes (or responses) for which a polars SQL expression over their columns is true.

        As in `dataset.filter("return > 300 and behavior = 'expert'")`; errors are those of `derived.filtered`.
        """
        from pmpo_offline.data.derived import filtered

        return filtered(self, where)

    @checked()
    def split(self, shares: Mapping[str, float], seed: int = 0) -> dict[str, Dataset]:
        """Return disjoint random parts, e.g. of shares {"train": 0.9, "test": 0.1}; see `derived.split`."""
        from pmpo_offline.data.derived import split

        return split(self, shares, seed)

    def episodes_iter(self) -> Iterator[Episode]:
        """Yield the episodes in their order, with the names that Minari's have; `UserError` for responses."""
        from pmpo_offline.data.views import episodes_of

        return episodes_of(self)

    def to_torch(self) -> TorchRows:
        """Return the rows as a torch dataset, for `torch.utils.data.DataLoader`."""
        from pmpo_offline.data.views import TorchRows

        return TorchRows(self)

    def to_polars(self) -> polars.DataFrame:
        """Return the rows as a polars table, without a copy where polars can share Arrow's memory."""
        import polars

        frame = polars.from_arrow(self.table)
        assert isinstance(frame, polars.DataFrame)  # a table, never a series
        return frame

    @property
    def unknown(self) -> frozenset[str]:
        """Columns and scores of labels that the source of an import does not tell; the columns hold false and 0."""
        settings = self.metadata.provenance.settings
        return frozenset(
            name for known, names in _SOURCE_TELLS.items() if settings.get(known) is False for name in names
        )

    def check_known(self, names: Iterable[str], use: str) -> None:
        """Raise `UserError`, which begins with `use`, if one of these columns or scores is unknown."""
        if said := sorted(self.unknown.intersection(names)):
            what = "does not say which episodes succeeded" if said[0] == "success" else "holds no rewards"
            raise UserError(f"{use}: the source of {self.metadata.id} {what}: {said[0]} is unknown")

    @cached_property
    def has_contexts(self) -> bool:
        """True if observations differ, so that a policy can tell rows apart; True for responses."""
        if self.episodes is None:
            return True
        first = columns.matrix(self.table.slice(0, 1), "observation")
        return any(bool((block != first).any()) for block in columns.blocks(self.table, "observation"))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the rows in memory, scores and labels included, equal however they are stored.

        A dataset that was built at an accepted share and one that was relabelled in memory have the same fingerprint:
        what was learned from one holds for the other.
        """
        return hash_tables({"table": self.table, **self.others})

    @cached_property
    def labels_hash(self) -> str:
        """Hash of the rows in memory and their labels, without what a critic estimates: scores, and candidates."""
        tables = {"table": self.table.drop_columns(["score"]), **self.others}
        tables.pop("candidates", None)
        return hash_tables(tables)

    @cached_property
    def content_hash(self) -> str:
        """Hash of all rows, by which a run records what it was trained on; rows that are held out are included.

        For responses it covers the columns and how they are read (`ends`, `tokens`), the same in both forms; for
        transitions and candidates the stored files, so that labels given in memory do not change it, or all columns
        but scores and labels, if they are not those of the files.
        """
        parts: list[Any] = sorted((name, info.sha256) for name, info in self.metadata.files.items())
        if self.metadata.kind != "responses" and not columns.same_memory(self.tables, self.stored, but=_LABELS):
            parts = [hash_tables({name: table.drop_columns(_LABELS) for name, table in self.tables.items()})]
        if self.metadata.kind == "responses":
            settings = self.metadata.provenance.settings
            content = (self.table.column(name).to_pylist() for name in _HASHED)
            parts = [[settings.get("ends", True), settings.get("tokens")], *content]
        return hash_bytes(json.dumps(part).encode() for part in parts)

    def column(self, name: str) -> Column:
        """Return a column of transitions, from which rows are gathered; `PmpoOfflineError` if they are damaged."""
        self._require_transitions()
        name = str(name)
        if name not in self._columns:
            from pmpo_offline.data.gathering import Column

            if name not in self.table.column_names:
                raise unknown("column", name, self.table.column_names)
            self._columns[name] = Column.of(self.table, name)
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, Column]:
        """The columns that were asked for; the places of rows are checked before the first."""
        if wrong := next(place_problems(self.tables), None):
            raise PmpoOfflineError(f"dataset {self.metadata.id} is damaged: {wrong}; {remedy(self.metadata)}")
        return {}

    def _require_transitions(self) -> None:
        if self.episodes is None:
            raise UserError(
                f"dataset {self.metadata.id} holds responses, not transitions: train a language model on it, "
                "or read its .table"
            )

    @cached_property
    def _ends(self) -> dict[str, NDArray[Any]]:
        """The first and last row of every episode, its flags in the last one, and the observation that follows it.

        Flags are nowhere else, and episodes tile the rows, as `_columns` has checked.
        """
        assert self.episodes is not None
        assert self._columns is not None
        start = columns.vector(self.episodes, "start")
        last = start + columns.vector(self.episodes, "length") - 1
        flags = {name: self.table[name].take(last).to_numpy() for name in ("terminated", "truncated")}
        return {
            "start": start,
            "last": last,
            "final_observation": columns.matrix(self.episodes, "final_observation"),
            **flags,
        }


def open_dataset(directory: Path, *, verify: bool = False) -> Dataset:
    """Open the dataset in `directory`, checking its schema version, the sizes of its files and its columns.

    With `verify`, the hash of every file too.
    """
    metadata = read_metadata(directory)
    if wrong := file_problems(directory, metadata, hashes=verify):
        raise PmpoOfflineError(f"{directory} is damaged: {wrong[0]}; {remedy(metadata)}")
    tables = read_tables(directory, metadata)
    if wrong := schema_problems(metadata, tables):
        raise PmpoOfflineError(f"{directory} is damaged: {wrong[0]}; run verify on it")
    main = tables["responses" if metadata.kind == "responses" else "transitions"]
    return Dataset(metadata, directory, main, tables.get("episodes"), tables.get("candidates"), stored=tables)


@checked()
def load_dataset(
    id_or_path: str | Path,
    *,
    imbalance: Share | None = None,
    label: str | LabelRule | None = None,
    noise: float | None = None,
    balance: Balance | None = None,
    verify: bool = False,
    home: str | Path | None = None,
) -> Dataset:
    """Open a dataset by its id (in `home`, default `data.home()`) or its path; other labels are given in memory.

    `verify` compares every file with the hash that was recorded when it was written, as training and benchmarks do: a
    change in place that keeps a file's size is found by nothing else.

    Raises `UserError` for an unknown dataset (with near misses), another schema version, and labels that the dataset
    cannot serve; `PmpoOfflineError` for missing, truncated or malformed files.
    """
    dataset = open_dataset(resolve(id_or_path, home), verify=verify)
    if imbalance is None and label is None and noise is None and balance is None:
        return dataset
    return dataset.relabelled(label, imbalance, noise, balance=balance)
