"""What the tables of a dataset must agree on, with one another and with dataset.json; a line for each contradiction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.labels import Labelling, count_labels, label_tables
from pmpo_offline.data.schema import CandidateLabels, Counts, Metadata, schema_problems
from pmpo_offline.runtime.errors import UserError


def problems(metadata: Metadata, tables: dict[str, pa.Table]) -> list[str]:
    """Return one line for every contradiction, the most basic first; an empty list is a sound dataset."""
    return schema_problems(metadata, tables) or [
        *_content_problems(tables),
        *_action_problems(metadata, tables),
        *_label_problems(metadata, tables),
    ]


def _content_problems(tables: dict[str, pa.Table]) -> Iterator[str]:
    """Check that every value is there and finite, that episodes tile the rows, and that candidates belong to rows."""
    for name, table in tables.items():
        for field in table.schema:
            is_number = pa.types.is_floating(field.type) and field.name != "score"
            is_number |= pa.types.is_fixed_size_list(field.type)
            if is_number and not all(np.isfinite(block).all() for block in columns.blocks(table, field.name)):
                yield f"{name}.{field.name}: holds NaN or infinite values"
    yield from place_problems(tables)


def _action_problems(metadata: Metadata, tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Check that discrete actions are one integer a step, below their number."""
    if "transitions" not in tables:
        return
    kind = tables["transitions"].schema.field("action").type
    width, is_discrete = kind.list_size, pa.types.is_integer(kind.value_type)
    if is_discrete != (metadata.actions is not None) or (metadata.actions and width != 1):
        number = kind.value_type.to_pandas_dtype().__name__
        yield f"transitions.action: {width} {number} a step, dataset.json: {metadata.actions} actions"
    elif metadata.actions:
        reach = [(block.min(), block.max()) for block in columns.blocks(tables["transitions"], "action")]
        least, most = min(low for low, _ in reach), max(high for _, high in reach)
        if least < 0 or most >= metadata.actions:
            yield f"transitions.action: reaches from {least} to {most}, and there are {metadata.actions}"


def place_problems(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Check that episodes tile the rows and that candidates belong to rows: what everything else indexes by."""
    if "episodes" in tables:
        yield from _episode_problems(tables["transitions"], tables["episodes"])
    if "candidates" in tables:
        row = columns.vector(tables["candidates"], "row")
        try:
            columns.states_and_width(tables["candidates"])
            if row[0] < 0 or row[-1] >= tables["transitions"].num_rows:
                yield "candidates.row: points outside transitions"
        except UserError as error:
            yield str(error)


def _episode_problems(steps: pa.Table, episodes: pa.Table) -> Iterator[str]:
    start, length = columns.vector(episodes, "start"), columns.vector(episodes, "length").astype(np.int64)
    if (length < 1).any() or length.sum() != steps.num_rows or (start != np.cumsum(length) - length).any():
        yield f"episodes: start and length do not tile the {steps.num_rows} rows of transitions"
        return
    misplaced = miscounted = False
    early: list[int] = []
    row = 0
    for block in columns.batches(steps, "episode", "step", "terminated", "truncated"):
        end = row + len(block["step"])
        first, last = np.searchsorted(start, [row, end - 1], side="right") - 1
        own = np.arange(first, last + 1)
        episode = np.repeat(own, np.minimum(start[own] + length[own], end) - np.maximum(start[own], row))
        step = np.arange(row, end) - start[episode]
        misplaced |= bool((block["episode"] != episode).any())
        miscounted |= bool((block["step"] != step).any())
        ends = (block["terminated"] | block["truncated"]) & (step < length[episode] - 1)
        early += (row + np.flatnonzero(ends)[:1]).tolist()
        row = end
    if misplaced:
        yield "transitions.episode: differs from the episodes of start and length"
    if miscounted:
        yield "transitions.step: does not count each episode's rows from 0"
    if early:
        yield f"transitions: row {early[0]} is terminated or truncated before the end of its episode"


def _label_problems(metadata: Metadata, tables: dict[str, pa.Table]) -> Iterator[str]:
    """Check the counts, the shares, on which the bound on β rests, and that the rows of an episode have its label."""
    main, episodes = tables["responses" if metadata.kind == "responses" else "transitions"], tables.get("episodes")
    for name, table in {"rows": main, "episodes": episodes}.items():
        recorded = getattr(metadata.counts, name)
        if table is not None and recorded != table.num_rows:
            yield f"dataset.json: {recorded} {name}, the tables hold {table.num_rows}"
    if metadata.candidates and "candidates" in tables:
        yield from _count_problems("candidates ", metadata.candidates, tables["candidates"])
    if metadata.kind == "candidates":
        return
    yield from _count_problems("", metadata.counts, episodes if metadata.unit == "episode" else main)
    labels = columns.labels(main)
    rejected, labelled = int((labels < 0).sum()), int((labels != 0).sum())
    shares = {"labelled_reject_mass": rejected / len(labels), "reject_share": rejected / max(1, labelled)}
    for name, value in shares.items():
        if not np.isclose(getattr(metadata, name), value, rtol=0, atol=1e-9):
            yield f"dataset.json: {name} {getattr(metadata, name):g}, the tables give {value:g}"
    if metadata.unit == "episode":
        expected = np.repeat(columns.labels(episodes), columns.vector(episodes, "length"))
        if len(expected) == len(labels) and (expected != labels).any():
            yield "transitions.label: differs from the label of its episode"


def _count_problems(title: str, recorded: Counts | CandidateLabels, table: pa.Table) -> Iterator[str]:
    found = count_labels(columns.labels(table))
    if any(getattr(recorded, name) != count for name, count in found.items()):
        listed = f"{recorded.accepted} accepted, {recorded.rejected} rejected, {recorded.unlabelled} unlabelled"
        yield f"dataset.json: {title}{listed}; the tables hold {', '.join(map(str, found.values()))}"


def derived_problems(metadata: Metadata, tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Derive the labels and their description in dataset.json from the scores again; yield a line for each difference.

    Beyond `problems`, which every dataset passes before it is written. Rows that were dropped for a share, or left out
    by an export, are not there to derive its labels from.
    """
    if metadata.references and not metadata.references.min < metadata.references.max < math.inf:
        yield f"dataset.json: references from {metadata.references.min:g} to {metadata.references.max:g}"
    main, episodes = tables.get("responses", tables.get("transitions")), tables.get("episodes")
    if episodes is not None and not np.allclose(
        columns.vector(episodes, "return"), _returns(main, episodes), rtol=1e-6, atol=1e-6
    ):
        yield "episodes.return: differs from the sum of the rewards"
    exported = metadata.provenance.settings.get("exported")
    if metadata.imbalance.drops_rows or (isinstance(exported, dict) and exported.get("derivable") is False):
        return
    labelling = Labelling(metadata.label, metadata.imbalance.asked, metadata.noise, metadata.seed)
    try:
        done = label_tables(main, episodes, labelling, tables.get("candidates"))
    except UserError as error:
        yield f"dataset.json: its labels cannot be derived again: {error}"
        return
    for name, table in done.tables.items():
        if (columns.labels(table) != columns.labels(tables[name])).any():
            yield f"{name}.label: differs from what label {metadata.label}, noise, balance and seed make of the scores"
    derived = metadata.model_copy(update=done.described).model_dump(include={*done.described})
    for name, recorded in metadata.model_dump(include={*done.described}).items():
        yield from _differences(f"dataset.json: {name}", recorded, derived[name])


def _returns(steps: pa.Table, episodes: pa.Table) -> NDArray[np.float64]:
    """Return the sum of the rewards of every episode (E,)."""
    start, row = columns.vector(episodes, "start"), 0
    sums = np.zeros(len(start))
    for rewards in columns.blocks(steps, "reward"):
        first, last = np.searchsorted(start, [row, row + len(rewards) - 1], side="right") - 1
        begins = np.maximum(start[first : last + 1] - row, 0)
        sums[first : last + 1] += np.add.reduceat(rewards.astype(np.float64), begins)
        row += len(rewards)
    return sums


def _differences(where: str, recorded: Any, derived: Any) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(derived, dict):
        for name in recorded:
            yield from _differences(f"{where}.{name}", recorded[name], derived[name])
    elif isinstance(recorded, float) and isinstance(derived, float):
        if not math.isclose(recorded, derived, rel_tol=1e-9, abs_tol=1e-9):
            yield f"{where} {recorded:g}, the tables give {derived:g}"
    elif recorded != derived:
        yield f"{where} {recorded}, the tables give {derived}"
