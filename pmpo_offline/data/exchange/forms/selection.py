"""Which responses are kept, on which side of the split they fall, in which order they are stored, and the report.

```
responses ── language, redaction ── template ── lengths ── duplicates ──▶ ids ── split by prompt ── shuffle ──▶ table
```
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data.exchange.forms.conversation import caught
from pmpo_offline.data.exchange.forms.report import Report
from pmpo_offline.data.exchange.forms.row import Drop, Response
from pmpo_offline.data.exchange.forms.templates import Template, side_of
from pmpo_offline.data.schema import responses_schema
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import random_words

_TEST_SHARE = 0.1
_SPLITS = ("train", "test")
_UNKNOWN = {-1.0, -9.0, -99.0, -999.0, -9999.0}
"""Numbers that often mean that a score is unknown."""

END_MARKS = (
    *("<|im_end|>", "</s>", "<|eot_id|>", "<|endoftext|>", "<end_of_turn>", "<eos>", "<|end|>", "<|return|>"),
    "<|end_of_text|>",
)
"""What chat templates and tokenizers end an answer with."""


@dataclass(frozen=True)
class Selection:
    """What is kept of the responses that were read; lengths are in characters (Unicode code points)."""

    languages: tuple[str, ...] = ()
    """Empty: every one."""
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


Found = tuple[str, Kept]
"""Where a response was read, and what is kept of it."""


def select(
    read: Iterable[tuple[str, Response | Drop]], chosen: Selection, template: Template, report: Report
) -> list[Kept]:
    """Return the responses to keep, of those `read` with their places; the others are counted in the report."""
    found = list(_once(_fitting(read, chosen, template, report), report))
    if chosen.deduplicate:
        found = list(_unrepeated(found, report))
    else:
        report.contradicting, report.repeated = _alike([item for _, item in found])
    for _, item in found:
        prompt, completion = item.response.prompt, item.completion
        report.redacted += bool(item.response.redacted)
        report.cut_off += item.response.is_cut_off
        report.responses_that_begin_with_the_prompt += isinstance(prompt, str) and completion.startswith(prompt)
        report.responses_with_marks_at_the_end += completion.rstrip().endswith(END_MARKS)
        if item.response.language:
            report.languages[item.response.language] += 1
    return [item for _, item in found]


def restored(item: Kept) -> Kept:
    """Return a response of an export with the score that it had, rather than one that its label says."""
    stored = item.response.stored
    score = math.nan if stored is None or stored.score is None else stored.score
    return item._replace(response=item.response._replace(score=score))


def table(
    kept: list[Kept], test_share: float | None, default_source: str, seed: int | None, report: Report
) -> pa.Table:
    """Return the table of responses, with the labels that an export of this package says.

    Rows are in seeded random order, or without a seed as they come. A `test_share` of the prompts is split off by a
    hash of their text (`side_of`); None keeps the splits of a dataset of this package and of a source with held-out
    rows, and means 0.1 for others.
    """
    rows = list(zip(kept, _ids(kept), _split(kept, test_share, report), strict=True))
    if seed is not None:
        rows = [rows[i] for i in np.argsort(random_words(len(kept), seed, "responses"), kind="stable")]
    items, ids, split = zip(*rows, strict=True)
    responses = [item.response for item in items]
    scores = np.array([response.score for response in responses])
    report.kept = len(kept)
    report.prompts = len({prompt_id for prompt_id, _ in ids})
    report.train, report.test = split.count("train"), split.count("test")
    report.lone_negative = lone_negative(scores)
    report.scores_rounded = int(np.sum((abs(scores) >= 2**24) & (scores.astype(np.float32) != scores)))
    content = {
        "prompt": [item.prompt for item in items],
        "completion": [item.completion for item in items],
        "score": pa.array(scores, pa.float32(), from_pandas=True),
        "label": [response.stored.label if response.stored else None for response in responses],
        "prompt_id": [prompt_id for prompt_id, _ in ids],
        "response_id": [response_id for _, response_id in ids],
        "source": [response.source or default_source for response in responses],
        "split": split,
    }
    return pa.table(content, schema=responses_schema())


def lone_negative(scores: NDArray[np.floating]) -> dict[float, int]:
    """Return the one score below 0, and its count, if it is a number that often means unknown; labels have none."""
    below = scores[scores < 0]
    values = set(below.tolist())
    return (
        {value: len(below) for value in values}
        if len(values) == 1 and values <= _UNKNOWN and (scores > 1).any()
        else {}
    )


def _fitting(
    read: Iterable[tuple[str, Response | Drop]], chosen: Selection, template: Template, report: Report
) -> Iterator[Found]:
    for place, response in read:
        report.responses += response.responses if isinstance(response, Drop) else 1
        kept = response if isinstance(response, Drop) else caught(_kept, response, place, chosen, template, report)
        if isinstance(kept, Drop):
            report.drop(kept.reason, place, kept.responses)
        else:
            yield place, kept


def _kept(response: Response, place: str, chosen: Selection, template: Template, report: Report) -> Kept:
    """Return a response as it is stored; raises `Drop` for one that is not wanted, or that the template refuses."""
    if chosen.languages and response.language is None:
        raise UserError(f"{place}: no column language tells which one it is: leave --languages out")
    if chosen.languages and (response.language or "").casefold() not in map(str.casefold, chosen.languages):
        raise Drop("of another language")
    if chosen.redacted == "drop" and response.redacted is None:
        raise UserError(f"{place}: no column redacted tells whether names were replaced: leave --redacted out")
    if chosen.redacted == "drop" and response.redacted:
        raise Drop("redacted")
    prompt, completion = response.prompt, response.completion
    if not isinstance(prompt, str):
        report.template = template.name
        prompt, completion = template.prompt(prompt), template.completion(completion)
    if len(completion) < (chosen.min_characters or 0):
        raise Drop("completion shorter than asked for")
    if len(completion) > (chosen.max_characters or math.inf):
        raise Drop("completion longer than asked for")
    if len(prompt) > (chosen.max_prompt_characters or math.inf):
        raise Drop("prompt longer than asked for")
    return Kept(prompt, completion, response)


def _once(found: Iterable[Found], report: Report) -> Iterator[Found]:
    """Yield each response of a dataset of this package once: pairs repeat the sides that they have in common."""
    known = set()
    for place, item in found:
        key = (item.response.stored, item.prompt, item.completion, item.response.score)
        if item.response.stored and key in known:
            report.drop("the same response as in another pair", place)
        else:
            known.add(key)
            yield place, item


def _alike(kept: list[Kept]) -> tuple[int, int]:
    """Count the responses of which equal ones have other labels or scores, and those that repeat one in all of it."""
    scores: dict[tuple[str, str], list[float]] = {}
    for item in kept:
        scores.setdefault(_same(item), []).append(item.response.score)
    contradicting = repeated = 0
    for values in (values for values in scores.values() if len(values) > 1):
        known = [value for value in values if not math.isnan(value)]
        contradicting += len(known) if len(set(known)) > 1 else 0
        repeated += len(values) - len(set(known)) - (len(known) < len(values))
    return contradicting, repeated


def _same(item: Kept) -> tuple[str, str]:
    """Return what equal responses to equal prompts have in common, white space aside."""
    return " ".join(item.prompt.split()), " ".join(item.completion.split())


def _unrepeated(found: list[Found], report: Report) -> Iterator[Found]:
    groups: dict[tuple[str, str], list[Found]] = {}
    for place, kept in found:
        groups.setdefault(_same(kept), []).append((place, kept))
    for same in groups.values():
        known = [one for one in same if not math.isnan(one[1].response.score)]
        agree = len({kept.response.score for _, kept in known}) <= 1
        first = (known or same)[0]
        for one in same:
            if agree and one is first:
                yield one
            else:
                report.drop("duplicate" if agree else "duplicate with a contradicting score", one[0])


def _split(kept: list[Kept], test_share: float | None, report: Report) -> list[str]:
    """Return the split of each response, and note where it is the source's."""
    share = _TEST_SHARE if test_share is None else test_share
    sides = ["test" if side_of(item.response.opening or item.response.prompt) < share else "train" for item in kept]
    if test_share is not None:
        return sides
    named = {item.response.split for item in kept}
    own = "test" in named and len(named) > 1 and not any(item.response.stored for item in kept)
    report.split = "as in the source" if own else None
    # Where rows to hold out are named and no others, all others are to learn from.
    unnamed = "train" if own and "train" not in named else None
    split = []
    for item, side in zip(kept, sides, strict=True):
        said = item.response.split if own else None
        split.append(item.response.stored.split if item.response.stored else said or unnamed or side)
    train, test = ({item.prompt for item, one in zip(kept, split, strict=True) if one == name} for name in _SPLITS)
    report.prompts_in_both_splits = len(train & test)
    return split


def _ids(kept: list[Kept]) -> list[tuple[int, int]]:
    """Return each response's prompt_id and response_id: those it had, else counted in the order of the source."""
    had = [item.response.stored[:2] for item in kept if item.response.stored]
    if len(had) == len(kept) == len(set(had)):
        prompts = {(stored[0], item.prompt) for stored, item in zip(had, kept, strict=True)}
        if len(prompts) == len({number for number, _ in prompts}) == len({text for _, text in prompts}):
            return had
    number: dict[str, int] = {}
    answers: Counter[str] = Counter()
    ids = []
    for item in kept:
        ids.append((number.setdefault(item.prompt, len(number)), answers[item.prompt]))
        answers[item.prompt] += 1
    return ids
