"""The page of a dataset: its labels and scores, episodes or responses, what can learn from it, and its card."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import polars as pl

from pmpo_offline.benchmark.html import dataset_charts, page
from pmpo_offline.benchmark.html.dataset_charts import LABELS
from pmpo_offline.data import Dataset, Metadata, columns
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.doctor import Diagnosis, doctor

MOST_RESPONSES, MOST_CHARACTERS = 200, 2_000
"""Responses that a page lists, evenly taken, and characters of each."""
_READY = ["ready", "–", "–", "–", "–", ""]
"""What `_line` returns for an algorithm that can be trained, and has no threshold and no note."""
CHARTS = {
    "scores": ("Scores and labels", dataset_charts.scores),
    "behaviors": ("Behaviours", dataset_charts.behaviors),
    "episodes": ("Episodes", dataset_charts.episodes),
}
TEXTS = {
    "scores": "Dashed: the threshold of the label rule.",
    "behaviors": "How good the episodes of each behaviour are, and how they were labelled.",
    "episodes": "Some episodes, thinned to at most 60 points each; move the slider to read the values at a step.",
    "actions": "Episodes are of one step: the first two dimensions of their actions.",
}


def dataset_page(dataset: Dataset) -> str:
    """Return the page of a dataset as one HTML document."""
    meta = dataset.metadata
    sections = []
    for number, (name, (title, draw)) in enumerate(CHARTS.items()):
        progress.report("sections of the page", number, len(CHARTS))
        if charts := draw(dataset):
            alone = name == "episodes" and meta.counts.episodes == len(dataset)
            sections.append(page.Section(name, title, TEXTS["actions" if alone else name], charts))
    lines = [_line(diagnosis) for diagnosis in diagnoses(dataset)]
    counts = {"rows": meta.counts.rows, "episodes": meta.counts.episodes}
    counts |= {name: getattr(meta.counts, name) for name in LABELS.values()}
    return page.render(
        "dataset.html.j2",
        sections,
        {"films": dataset_charts.filmstrips(dataset)},
        title=meta.id,
        task=meta.task,
        unit=meta.unit,
        rule=", ".join([f"{meta.label}", *_about(meta)]),
        tiles=[(f"{count:,}", name) for name, count in counts.items() if count or name in LABELS.values()],
        diagnoses=[line for line in lines if line[1:] != _READY],
        ready=[line[0] for line in lines if line[1:] == _READY],
        responses=_responses(dataset),
        card=page.Section("card", "Card", _card(dataset)),
        files=[(name, f"{info.bytes:,}", info.sha256) for name, info in meta.files.items()],
    )


def _about(meta: Metadata) -> Iterator[str]:
    """Yield what a label rule leaves open: the column of its scores, and flipped labels."""
    if "column" in meta.score.settings:
        yield f"of {dataset_charts.score_name(meta)}"
    if meta.noise:
        yield f"{meta.noise:g} of the labels flipped"


def diagnoses(dataset: Dataset) -> list[Diagnosis]:
    """Return `doctor`'s diagnosis for every applicable algorithm of the dataset's family."""
    found, meta = [], dataset.metadata
    for algorithm in catalog.algorithms(catalog.family(meta.task, by_step=meta.label.by_step)):
        try:
            found.append(doctor(dataset, algorithm))
        except UserError:  # it needs what this kind of dataset never has
            continue
    return sorted(found, key=lambda diagnosis: diagnosis.collapse is None)  # those with thresholds first


def _line(diagnosis: Diagnosis) -> list[str]:
    """Return the texts of a row: the algorithm, the verdict, β with its thresholds, and the first note."""

    def number(value: float | None) -> str:
        return "–" if value is None else "∞" if math.isinf(value) else f"{value:.3g}"

    beta = diagnosis.settings.get("beta") if diagnosis.bound is not None else None
    numbers = [beta, diagnosis.bound, diagnosis.collapse, diagnosis.suggested_beta]
    return [diagnosis.algorithm, diagnosis.verdict, *map(number, numbers), next(iter(diagnosis.notes), "")]


def _responses(dataset: Dataset) -> list[dict[str, Any]]:
    if dataset.metadata.kind != "responses":
        return []
    taken = dataset.table.take(dataset_charts.evenly(dataset.table.num_rows, MOST_RESPONSES))
    frame = pl.DataFrame(pl.from_arrow(taken.select(["prompt", "completion", "score", "source", "split"])))
    return [
        {
            **row,
            "label": LABELS[int(sign)],
            "score": "" if row["score"] is None else f"score {row['score']:.4g}",
            **{name: _shortened(row[name]) for name in ("prompt", "completion")},
        }
        for row, sign in zip(frame.to_dicts(), columns.labels(taken), strict=True)
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} … ({len(text):,} characters)"


def _card(dataset: Dataset) -> str:
    """Return the card's Markdown, below its front matter and its title."""
    path = dataset.path / "README.md"
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    body = text.partition("\n---\n")[2] if text.startswith("---\n") else text
    return body.strip().removeprefix(f"# {dataset.metadata.id}")
