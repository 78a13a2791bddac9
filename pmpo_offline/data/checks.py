"""Checks that the tables of a dataset and its metadata agree, before a write and by `verify`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pmpo_offline.data import columns
from pmpo_offline.data.labels import states_and_width
from pmpo_offline.data.schema import Kind, Metadata, schemas
from pmpo_offline.runtime.errors import UserError

_TABLES: dict[Kind, tuple[set[str], set[str]]] = {
    "transitions": ({"transitions", "episodes"}, {"candidates"}),
    "candidates": ({"transitions", "episodes", "candidates"}, set()),
    "responses": ({"responses"}, set()),
}


def problems(metadata: Metadata, tables: dict[str, pa.Table]) -> list[str]:
    """Return one line for every contradiction, the most basic first; an empty list is a sound dataset."""
    required, optional = _TABLES[metadata.kind]
    if missing := required - set(tables):
        return [f"kind {metadata.kind!r} lacks the table {', '.join(sorted(missing))}"]
    if excess := set(tables) - required - optional:
        return [f"kind {metadata.kind!r} has no table {', '.join(sorted(excess))}"]
    return list(_schema(tables)) or [
        *_values(tables),
        *_episodes(tables),
        *_candidates(tables),
        *_counts(metadata, tables),
        *_shares(metadata, tables),
    ]


def _schema(tables: dict[str, pa.Table]) -> Iterator[str]:
    try:
        expected = schemas(tables)
    except (KeyError, AttributeError):
        yield "transitions: observation and action must be fixed-size lists of float32"
        return
    for name, schema in expected.items():
        if not tables[name].schema.equals(schema):
            found = {field.name: field.type for field in tables[name].schema}
            wrong = [field.name for field in schema if found.get(field.name) != field.type]
            yield f"{name}: columns {', '.join(wrong) or 'are out of order or too many'} differ from the schema"
        elif not tables[name].num_rows:
            yield f"{name}: no rows"


def _values(tables: dict[str, pa.Table]) -> Iterator[str]:
    for name, table in tables.items():
        for field in table.schema:
            if field.name not in ("score", "label") and table.column(field.name).null_count:
                yield f"{name}.{field.name}: holds nulls"
            elif pa.types.is_fixed_size_list(field.type) and not np.isfinite(columns.matrix(table, field.name)).all():
                yield f"{name}.{field.name}: holds NaN or infinite values"


def _episodes(tables: dict[str, pa.Table]) -> Iterator[str]:
    if "episodes" not in tables:
        return
    steps, episodes = tables["transitions"], tables["episodes"]
    start, length = columns.vector(episodes, "start"), columns.vector(episodes, "length").astype(np.int64)
    if (length < 1).any() or length.sum() != steps.num_rows or (start != np.cumsum(length) - length).any():
        yield f"episodes: start and length do not tile the {steps.num_rows} rows of transitions"
        return
    episode = np.repeat(np.arange(episodes.num_rows), length)
    if (columns.vector(steps, "episode") != episode).any():
        yield "transitions.episode: differs from the episodes of start and length"
    if (columns.vector(steps, "step") != np.arange(steps.num_rows) - start[episode]).any():
        yield "transitions.step: does not count each episode's rows from 0"
    ends = columns.vector(steps, "terminated") | columns.vector(steps, "truncated")
    ends[start + length - 1] = False
    if ends.any():
        yield f"transitions: row {int(ends.argmax())} is terminated or truncated before the end of its episode"


def _candidates(tables: dict[str, pa.Table]) -> Iterator[str]:
    if "candidates" not in tables:
        return
    try:
        states_and_width(tables["candidates"])
    except UserError as error:
        yield str(error)
        return
    row = columns.vector(tables["candidates"], "row")
    if row[0] < 0 or row[-1] >= tables["transitions"].num_rows:
        yield "candidates.row: points outside transitions"


def _counts(metadata: Metadata, tables: dict[str, pa.Table]) -> Iterator[str]:
    main = tables["responses" if metadata.kind == "responses" else "transitions"]
    counts = metadata.counts
    if counts.rows != main.num_rows:
        yield f"dataset.json: {counts.rows} rows, the tables hold {main.num_rows}"
    if "episodes" in tables and counts.episodes != tables["episodes"].num_rows:
        yield f"dataset.json: {counts.episodes} episodes, the tables hold {tables['episodes'].num_rows}"
    if metadata.kind != "candidates":
        main = tables["episodes"] if metadata.unit == "episode" else main
        yield from _label_counts("", (counts.accepted, counts.rejected, counts.unlabelled), main)
    if "candidates" in tables and (ranked := metadata.candidates):
        counted = (ranked.accepted, ranked.rejected, ranked.unlabelled)
        yield from _label_counts("candidates ", counted, tables["candidates"])


def _shares(metadata: Metadata, tables: dict[str, pa.Table]) -> Iterator[str]:
    """Check the shares, on which the bound on β rests, and that the rows of an episode have its label."""
    if metadata.kind == "candidates":
        return
    signs = columns.labels(tables["responses" if metadata.kind == "responses" else "transitions"])
    rejected, labelled = int((signs < 0).sum()), int((signs != 0).sum())
    found = {"labelled_reject_mass": rejected / len(signs), "reject_share": rejected / max(1, labelled)}
    for name, value in found.items():
        if not np.isclose(getattr(metadata, name), value, rtol=0, atol=1e-9):
            yield f"dataset.json: {name} {getattr(metadata, name):g}, the tables give {value:g}"
    if metadata.unit == "episode":
        episodes = tables["episodes"]
        given = np.repeat(columns.labels(episodes), columns.vector(episodes, "length"))
        if len(given) == len(signs) and (given != signs).any():
            yield "transitions.label: differs from the label of its episode"


def _label_counts(what: str, recorded: tuple[int, int, int], table: pa.Table) -> Iterator[str]:
    signs = columns.labels(table)
    found = tuple(int((signs == sign).sum()) for sign in (1, -1, 0))
    if found != recorded:
        yield (
            f"dataset.json: {what}{recorded[0]} accepted, {recorded[1]} rejected, {recorded[2]} unlabelled; "
            f"the tables hold {found[0]}, {found[1]}, {found[2]}"
        )
