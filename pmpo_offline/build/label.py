"""The tail that builds and imports share: raw experience → judge → label → balance → store.

```
experience ── critic, clone ── label_tables ── write ──▶ <home>/<id>/
    (raw experience and what the critics say of it are kept under <home>/.raw/ and
     shared by every labelling, share and noise that is made of them)
```
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pmpo_offline import data
from pmpo_offline.data import Dataset, Experience, LabelRule
from pmpo_offline.tasks import ScoredCandidates
from pmpo_offline.training import Advantages, CandidateSettings, CriticSettings


@dataclass(frozen=True)
class Order:
    """What is to become of raw experience, and what dataset.json says of where that came from."""

    id: str
    task: str
    label: LabelRule
    imbalance: float | None
    noise: float
    seed: int
    critic: CriticSettings
    candidates: CandidateSettings | None
    digest: str
    """A hash of everything that was asked for: two datasets of one order are equal."""
    judged: str
    """Name of the file, beside the raw experience, with what the critics say of it."""
    licence: str
    references: data.References | None
    provenance: data.Provenance
    remedy: str
    """What else to do where another dataset of this id stands."""


def finish(
    order: Order,
    experience: Experience,
    scored: ScoredCandidates | None,
    folder: Path,
) -> tuple[data.Metadata, dict[str, pa.Table]]:
    """Judge (where the labels need it), label and balance raw experience; return what `data.write` stores.

    `scored` are candidate actions with their true values, None where none are asked for or only a critic can tell.
    What the critics say is kept in `folder`.
    """
    transitions, ends = experience.tables()
    judged = None
    if order.label.score == "advantage" or (order.candidates and scored is None):
        judged = _judged(order, transitions, ends, folder)
        scored = scored or ScoredCandidates(judged.row, judged.action, judged.score)
    if judged is not None and order.label.score == "advantage":
        transitions = data.columns.replace(transitions, score=pa.array(judged.advantage))
    candidates = None if scored is None or not order.candidates else _candidates(scored)
    return _label(order, transitions, ends, candidates, judged)


def _candidates(scored: ScoredCandidates) -> pa.Table:
    _, k, action_dim = scored.action.shape
    columns = {
        "row": np.repeat(scored.row, k),
        "action": data.columns.list_array(scored.action.reshape(-1, action_dim)),
        "score": scored.score.ravel(),
        "label": pa.nulls(scored.score.size, pa.bool_()),
    }
    return pa.table(columns, schema=data.candidates_schema(action_dim))


def _label(
    order: Order, transitions: pa.Table, ends: pa.Table, candidates: pa.Table | None, judged: Advantages | None
) -> tuple[data.Metadata, dict[str, pa.Table]]:
    """Label and balance the tables, and describe what came out."""
    done = data.label_tables(
        transitions,
        ends,
        order.label,
        candidates=candidates,
        noise=order.noise,
        imbalance=order.imbalance,
        seed=order.seed,
    )
    critic: dict[str, Any] = {}
    if judged is not None:
        critic = {"critic": order.critic.model_dump(mode="json"), "explained": float(judged.explained)}
    said = order.provenance
    metadata = data.Metadata(
        id=order.id,
        kind=done.kind,
        task=order.task,
        score=data.ScoreRule(name=order.label.score, settings=critic if order.label.score == "advantage" else {}),
        label=order.label,
        noise=order.noise,
        seed=order.seed,
        references=order.references,
        provenance=said.model_copy(
            update={"hashes": {"recipe": order.digest, **said.hashes}, "settings": {**said.settings, **critic}}
        ),
        licence=order.licence,
        **done.described,
    )
    tables = {"transitions": done.table, "episodes": done.episodes, "candidates": done.candidates}
    return metadata, {name: table for name, table in tables.items() if table is not None}


def _judged(order: Order, transitions: pa.Table, ends: pa.Table, folder: Path) -> Advantages:
    """Return what the critics say of the experience; kept in `folder` for every labelling of it."""
    path = folder / order.judged
    if path.exists():
        return Advantages.load(path)
    plain = replace(order, label=LabelRule.parse("success"), imbalance=None, noise=0.0)
    metadata, tables = _label(plain, transitions, ends, None, None)
    dataset = Dataset(metadata, folder, tables["transitions"], tables["episodes"])
    judged = Advantages.of(dataset, order.critic, order.candidates, order.seed, folder)
    judged.save(path)
    return judged
