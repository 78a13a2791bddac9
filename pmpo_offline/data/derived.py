"""Datasets made of others: the episodes or responses that match an expression, random parts, several datasets as one.

Labels keep their meaning: a quantile becomes the number at which it split the original, and all labels, counts and
shares are derived from the scores again. Labels that do not follow from the scores one by one (flipped ones, those of a
balanced share) would come out differently, and are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from polars.exceptions import PolarsError

from pmpo_offline.data import columns, dropping
from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.labels import Labelling, held_out, label_tables
from pmpo_offline.data.schema import LabelRule, Metadata
from pmpo_offline.data.storage import HISTORY
from pmpo_offline.runtime.errors import UserError, reason_of, unknown
from pmpo_offline.runtime.hashing import random_words


def filtered(dataset: Dataset, where: str) -> Dataset:
    """Return the episodes (or responses) for which a polars SQL expression is true.

    Args:
        dataset: of transitions or responses.
        where: over the columns of `episodes` (or `responses`), e.g. `return > 300 and behavior = 'expert'`.

    Raises:
        UserError: the expression is malformed, names no column, is no truth value a row, or matches nothing; or the
            labels do not follow from the scores.
    """
    units = _units(dataset)
    try:
        condition = pl.sql_expr(where)
        if odd := set(condition.meta.root_names()) - set(units.column_names):
            raise unknown(f"column in where {where!r}:", min(odd), units.column_names)
        dataset.check_known(condition.meta.root_names(), f"where {where!r}")
        matches = pl.DataFrame(pl.from_arrow(units)).select(condition.alias("matches"))["matches"]
    except (PolarsError, pl.exceptions.PanicException) as error:
        raise UserError(f"where {where!r}: {reason_of(error)}") from None
    if matches.dtype != pl.Boolean or len(matches) != units.num_rows:
        what = "episode" if dataset.episodes is not None else "response"
        raise UserError(f"where {where!r}: write a condition that is true or false of every {what}")
    kept = matches.fill_null(value=False).to_numpy()
    if not kept.any():
        raise UserError(f"where {where!r}: nothing of the {len(kept):,} in {dataset.metadata.id} matches")
    return _subset(dataset, kept, {"operation": "filter", "where": where})


def split(dataset: Dataset, shares: Mapping[str, float], seed: int = 0) -> dict[str, Dataset]:
    """Return disjoint random parts of a dataset, whole episodes or all responses to a prompt in one part.

    Args:
        dataset: of transitions or responses.
        shares: the share of the episodes (or prompts) of each part by its name; together at most 1.
        seed: of the random order; parts of one seed and order of shares are the same on every machine.

    Raises:
        UserError: a seed is negative, a share is not above 0, they exceed 1 together, or a part would be empty.
    """
    total = math.fsum(shares.values())
    if not shares or min(shares.values()) <= 0 or not total <= 1 + 1e-9:
        given = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise UserError(f"shares {given or dict(shares)}: give numbers above 0 that are at most 1 together")
    if seed < 0:
        raise UserError(f"seed {seed}: give 0 or more")
    units = _units(dataset)
    group = np.arange(units.num_rows) if dataset.episodes is not None else _codes(units["prompt"])
    count = int(group.max()) + 1
    place = np.empty(count, np.int64)
    place[np.argsort(random_words(count, seed, "split"), kind="stable")] = np.arange(count)
    ends = np.floor(np.cumsum([0.0, *shares.values()]) * count + 1e-6).astype(np.int64)
    parts = {}
    for (name, share), first, end in zip(shares.items(), ends, ends[1:], strict=False):
        if first == end:
            raise UserError(f"split {name}={share:g}: there are {count:,} to divide, and none would be in it")
        operation = {"operation": "split", "part": name, "shares": dict(shares), "seed": seed}
        parts[name] = _subset(dataset, (first <= place[group]) & (place[group] < end), operation)
    return parts


def combined(datasets: Sequence[Dataset]) -> Dataset:
    """Return the rows of several datasets, one after another, as one.

    Equal prompts get one `prompt_id`. Raises `UserError` where the datasets differ in task, widths, scores, label rule
    (after the thresholds of quantiles have been put in), or in how they end and are normalized.
    """
    if len(datasets) < 2:
        raise UserError("combine: give two or more datasets")
    first, rule = datasets[0], _fixed_rule(datasets[0])
    for place, other in enumerate(datasets[1:], 1):
        for what, (mine, theirs) in _meanings(first, other).items():
            if mine != theirs:
                raise UserError(
                    f"{other.metadata.id} cannot be combined with {first.metadata.id}: its {what} is {theirs}, "
                    f"not {mine}" + ("; relabel them to one rule first" if what == "label rule" else "")
                )
        if any(other.table.equals(earlier.table) for earlier in datasets[:place]):
            raise UserError(f"combine: {other.metadata.id} holds the rows of another one: give each dataset once")
    table, episodes, candidates = _concatenated(datasets)
    settings = [dataset.metadata.provenance.settings for dataset in datasets]
    shared = {k: v for k, v in settings[0].items() if all(k in other and other[k] == v for other in settings)}
    # What one source does not say is unknown of the whole.
    shared |= {name: False for name in ("success", "rewards") if any(known.get(name) is False for known in settings)}
    metadata = first.metadata.model_copy(
        update={
            "licence": " AND ".join(dict.fromkeys(dataset.metadata.licence for dataset in datasets)),
            "provenance": first.metadata.provenance.model_copy(
                update={
                    "sources": list(dict.fromkeys(s for each in datasets for s in each.metadata.provenance.sources)),
                    "packages": {k: v for each in datasets for k, v in each.metadata.provenance.packages.items()},
                    "settings": shared,
                    "hashes": {},
                }
            ),
        }
    )
    whole = replace(first, metadata=metadata, table=table, episodes=episodes, candidates=candidates)
    return _relabelled(whole, rule, {"operation": "combine"}, datasets)


def with_history(metadata: Metadata, operation: Mapping[str, Any], parents: Sequence[Dataset]) -> Metadata:
    """Return the metadata of what an operation made of these datasets, which its provenance names with their hashes."""
    was = metadata.provenance
    made_from = {
        **operation,
        "parents": [
            {
                "id": parent.metadata.id,
                "hash": parent.fingerprint,
                HISTORY: parent.metadata.provenance.settings.get(HISTORY),
            }
            for parent in parents
        ],
    }
    provenance = was.model_copy(update={"settings": {**was.settings, HISTORY: made_from}})
    return metadata.model_copy(update={"provenance": provenance, "files": {}})


def without_settings(metadata: Metadata, *names: str) -> Metadata:
    """Return the metadata without settings of their provenance that do not hold any more."""
    was = metadata.provenance
    settings = {name: value for name, value in was.settings.items() if name not in names}
    return metadata.model_copy(update={"provenance": was.model_copy(update={"settings": settings})})


def _units(dataset: Dataset) -> pa.Table:
    return dataset.table if dataset.episodes is None else dataset.episodes


def _codes(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a number for each text, equal for equal ones, counted from 0 in the order of their first places."""
    codes: NDArray[np.int64] = texts.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _subset(dataset: Dataset, kept: NDArray[np.bool_], operation: dict[str, Any]) -> Dataset:
    rule = _fixed_rule(dataset)
    table, episodes, candidates = dropping.without(dataset.table, dataset.episodes, dataset.candidates, kept)
    if candidates is not None and not candidates.num_rows:
        candidates = None
        if dataset.metadata.kind == "candidates":
            raise UserError(f"none of the states of {dataset.metadata.id} that have candidates would be left")
    part = replace(dataset, table=table, episodes=episodes, candidates=candidates)
    return _relabelled(part, rule, operation, [dataset])


def _fixed_rule(dataset: Dataset) -> LabelRule:
    """Return the rule by which each unit's label follows from its score alone; `UserError` if there is none."""
    meta = dataset.metadata
    rule = meta.label
    if rule.threshold == "quantile" and meta.threshold is not None:
        rule = rule.model_copy(update={"threshold": "number", "value": meta.threshold})
    done = label_tables(dataset.table, dataset.episodes, Labelling(rule, seed=meta.seed), dataset.candidates)
    stored = dataset.tables
    if any((columns.labels(stored[name]) != columns.labels(table)).any() for name, table in done.tables.items()):
        why = [f"noise {meta.noise:g}"] if meta.noise else []
        why += [f"accepted share {meta.imbalance.asked:g}"] if meta.imbalance.asked is not None else []
        raise UserError(
            f"the labels of {meta.id} do not follow from the scores alone ({', '.join(why) or 'an export'}): "
            "relabel it with noise 0 and imbalance collected, and relabel what you make of that"
        )
    return rule


def _meanings(one: Dataset, other: Dataset) -> dict[str, tuple[object, object]]:
    """Return what must be equal in two datasets that are combined, by name."""

    def of(dataset: Dataset) -> dict[str, object]:
        meta = dataset.metadata
        known = meta.provenance.settings
        score = [f"{name} {value}" for name, value in sorted(meta.score.settings.items()) if name != "explained"]
        settings = f" ({', '.join(score)})" if score else ""
        found: dict[str, object] = {"kind": meta.kind, "task": meta.task, "unit of a label": meta.unit}
        if dataset.episodes is not None:
            found |= {
                name: str(dataset.table.schema.field(name).type) for name in ("observation", "action")
            }  # with their widths
            found["number of actions"] = meta.actions
            found["normalized score"] = meta.references and (meta.references.min, meta.references.max)
            found["table of candidates"] = "there" if dataset.candidates is not None else "absent"
        else:
            found |= {name: known.get(name) for name in ("ends", "tokens", "model")}
        return found | {"score": f"{meta.score.name}{settings}", "label rule": str(_fixed_rule(dataset))}

    mine, theirs = of(one), of(other)
    return {name: (mine.get(name), theirs.get(name)) for name in {**mine, **theirs}}


def _concatenated(datasets: Sequence[Dataset]) -> tuple[pa.Table, pa.Table | None, pa.Table | None]:
    """Return the tables of several datasets joined, with rows, episodes and prompts renumbered."""
    table = pa.concat_tables([dataset.table for dataset in datasets]).combine_chunks()
    if datasets[0].episodes is None:
        return _renumbered(table), None, None
    episodes = pa.concat_tables([dataset.episodes for dataset in datasets]).combine_chunks()
    table, episodes = dropping.renumbered(table, episodes)
    if datasets[0].candidates is None:
        return table, episodes, None
    candidates = pa.concat_tables([dataset.candidates for dataset in datasets]).combine_chunks()
    before = np.cumsum([0, *map(len, datasets)])
    counts = [dataset.candidates.num_rows for dataset in datasets if dataset.candidates is not None]
    row = columns.vector(candidates, "row") + np.repeat(before[:-1], counts)
    return table, episodes, columns.replace(candidates, row=row)


def _renumbered(responses: pa.Table) -> pa.Table:
    """Return responses with an id for every different prompt; `UserError` for prompts in both splits."""
    prompt = _codes(responses["prompt"])
    tested = held_out(responses)
    both = np.intersect1d(prompt[tested], prompt[~tested])
    if len(both):
        raise UserError(
            f"{len(both):,} prompts are held out in one dataset and in the train split of another: "
            "leave them out of one with filter"
        )
    order = np.argsort(prompt, kind="stable")
    first = np.searchsorted(prompt[order], prompt[order])
    response = np.empty(len(prompt), np.int64)
    response[order] = np.arange(len(prompt)) - first  # counts the responses to each prompt
    return columns.replace(responses, prompt_id=prompt, response_id=response)


def _relabelled(made: Dataset, rule: LabelRule, operation: dict[str, Any], parents: Sequence[Dataset]) -> Dataset:
    """Return a dataset with labels by `rule`, and their description in the metadata, derived from its tables."""
    meta = made.metadata
    done = label_tables(made.table, made.episodes, Labelling(rule, seed=meta.seed), made.candidates)
    if meta.kind == "responses":  # its references are of its own test prompts
        meta = meta.model_copy(update={"references": None})
    # What an import dropped was of all rows, and labels now follow from the scores.
    meta = without_settings(meta, "report", "exported").model_copy(update={"label": rule} | done.described)
    return replace(made.with_labels(done, with_history(meta, operation, parents)), stored={})
