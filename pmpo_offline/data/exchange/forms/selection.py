"""Which responses are kept, on which side of the split they fall, and in which order they are stored.

```
responses ── language, redaction ── template ── lengths ── duplicates ──▶ ids ── split by prompt ── shuffle ──▶ table
```
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pmpo_offline.data.exchange.forms.report import Report
from pmpo_offline.data.exchange.forms.response import Drop, Response
from pmpo_offline.data.exchange.forms.templates import TRANSCRIPT, Template
from pmpo_offline.data.schema import responses_schema
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_bytes
from pmpo_offline.runtime.random_words import random_words


@dataclass(frozen=True)
class Selection:
    """What is kept of the responses that were read; lengths are in characters (Unicode code points)."""

    languages: tuple[str, ...] = ()
    """None: every one."""
    redacted: Literal["keep", "drop"] = "keep"
    """Responses of conversations in which names were replaced."""
    min_characters: int | None = None
    """Of a completion."""
    max_characters: int | None = None
    max_prompt_characters: int | None = None
    """Of a prompt, as the model sees it."""
    deduplicate: bool = False
    """Of responses with equal prompts and completions, white space aside, keep the first; none if their scores
    contradict each other."""


class Kept(NamedTuple):
    """A response as it is stored, but for its ids and its split."""

    prompt: str
    completion: str
    response: Response
    side: float
    """Where it stands in the split: `side_of` its prompt."""


def select(
    read: Iterable[tuple[str, Response | Drop]], asked: Selection, template: Template, report: Report
) -> list[Kept]:
    """Return the responses to keep, of those `read` with their places; the others are counted in the report."""
    found = list(_fitting(read, asked, template, report))
    if asked.deduplicate:
        found = list(_unrepeated(found, report))
    for _, each in found:
        report.redacted += each.response.redacted
        if each.response.language:
            report.languages[each.response.language] += 1
    return [each for _, each in found]


def table(kept: list[Kept], test_share: float | None, default_source: str, seed: int, report: Report) -> pa.Table:
    """Return the table of responses in seeded random order, unlabelled.

    A `test_share` of the prompts is split off by a hash of their text (`side_of`); None keeps the splits of a
    dataset of this package, and means 0.1 for others.
    """
    ids = _ids(kept)
    share = 0.1 if test_share is None else test_share
    split = [
        stored[2] if test_share is None and stored else "test" if each.side < share else "train"
        for each in kept
        for stored in [each.response.stored]
    ]
    order = np.argsort(random_words(len(kept), seed, "responses"), kind="stable").tolist()
    report.prompts = len({prompt for prompt, _ in ids})
    report.test = split.count("test")
    report.train = len(split) - report.test
    scores = [kept[i].response.score for i in order]
    content = {
        "prompt": [kept[i].prompt for i in order],
        "completion": [kept[i].completion for i in order],
        "score": pa.array(scores, pa.float32(), mask=np.isnan(np.asarray(scores))),
        "label": pa.nulls(len(order), pa.bool_()),
        "prompt_id": pa.array([ids[i][0] for i in order], pa.int32()),
        "response_id": pa.array([ids[i][1] for i in order], pa.int32()),
        "source": [kept[i].response.source or default_source for i in order],
        "split": [split[i] for i in order],
    }
    return pa.table(content, schema=responses_schema())


def side_of(prompt: str) -> float:
    """Return a number in [0, 1) that the split goes by: a function of a prompt's text alone.

    Spaces, case and the ways to compose a letter are ignored. Of a transcript only the first turn counts, so that a
    conversation stays on one side whole. The test prompts at one share are among those at a larger one.
    """
    text = " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
    if "human:" in text:
        text = text.partition("assistant:")[0]
    return int(hash_bytes([text.encode()])[:12], 16) * 2.0**-48


def _fitting(
    read: Iterable[tuple[str, Response | Drop]], asked: Selection, template: Template, report: Report
) -> Iterator[tuple[str, Kept]]:
    wanted = {language.casefold() for language in asked.languages}
    shortest, longest = asked.min_characters or 0, asked.max_characters or math.inf
    for place, each in read:
        if isinstance(each, Drop):
            report.responses += each.responses
            report.drop(each.reason, place, each.responses)
            continue
        report.responses += 1
        if wanted and each.language is None:
            raise UserError(f"{place}: no column language tells which one it is: leave --languages out")
        if wanted and (each.language or "").casefold() not in wanted:
            report.drop("of another language", place)
        elif asked.redacted == "drop" and each.redacted:
            report.drop("redacted", place)
        else:
            kept = _written(each, template, report)
            if not shortest <= len(kept.completion) <= longest:
                short = len(kept.completion) < shortest
                report.drop(f"completion {'shorter' if short else 'longer'} than asked for", place)
            elif len(kept.prompt) > (asked.max_prompt_characters or math.inf):
                report.drop("prompt longer than asked for", place)
            else:
                yield place, kept


def _written(response: Response, template: Template, report: Report) -> Kept:
    prompt = response.prompt
    if isinstance(prompt, str):
        return Kept(prompt, response.completion, response, side_of(prompt))
    report.template = template.name
    transcribed = TRANSCRIPT.prompt(prompt)  # the split does not depend on the template
    written = transcribed if template is TRANSCRIPT else template.prompt(prompt)
    return Kept(written, template.completion(response.completion), response, side_of(transcribed))


def _unrepeated(found: list[tuple[str, Kept]], report: Report) -> Iterator[tuple[str, Kept]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for index, (_, each) in enumerate(found):
        key = (" ".join(each.prompt.split()), " ".join(each.completion.split()))
        groups.setdefault(key, []).append(index)
    for same in groups.values():
        known = [index for index in same if not math.isnan(found[index][1].response.score)]
        scores = {found[index][1].response.score for index in known}
        keep = (known or same)[0] if len(scores) <= 1 else None
        for index in same:
            if index == keep:
                yield found[index]
            else:
                why = "duplicate" if keep is not None else "duplicate with a contradicting score"
                report.drop(why, found[index][0])


def _ids(kept: list[Kept]) -> list[tuple[int, int]]:
    """Return each response's prompt_id and response_id: those it had, else counted in the order of the source."""
    had = [each.response.stored[:2] for each in kept if each.response.stored]
    if len(had) == len(kept) == len(set(had)):
        prompts = {(stored[0], each.prompt) for stored, each in zip(had, kept, strict=True)}
        if len(prompts) == len({number for number, _ in prompts}) == len({text for _, text in prompts}):
            return had
    number: dict[str, int] = {}
    answers: Counter[str] = Counter()
    ids = []
    for each in kept:
        ids.append((number.setdefault(each.prompt, len(number)), answers[each.prompt]))
        answers[each.prompt] += 1
    return ids
