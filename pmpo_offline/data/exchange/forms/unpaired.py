"""Forms whose responses each have a label or a score: one a row, or a list of them a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pmpo_offline.data.exchange.forms import rows
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.rows import Drop, Reading, Response, Row

_PROMPT, _COMPLETION = "|".join(rows.PROMPTS), "|".join(rows.COMPLETIONS)


def of_unpaired(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a label: `prompt, completion, label`, or a thumb of another name."""
    reading.pass_over(row, "score")
    yield _response(row, reading, reading.feedback(row, thumbs=False), rows.about(row))


def of_scored(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a score."""
    yield _response(row, reading, row.number(reading.score or row.first(rows.SCORES)), rows.about(row))


def of_own(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row that an export of this package wrote, at its own place."""
    score = row.number(reading.score) if reading.score else reading.label(row, "label")
    reading.pass_over(row, "score")
    yield _response(row, reading, score, rows.about(row) | {"stored": rows.stored(row, "response_id")})


def of_several(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield each of `completions: [{response, overall_score, …}]` as a response to the row's prompt."""
    several = row.listed("completions")
    if several is None:
        yield Drop("completions is null")
        return
    prompt = rows.prompt_of(row)
    if isinstance(prompt, Drop):
        yield Drop(prompt.reason, len(several))
        return
    reading.steady(row, rows.is_list(prompt))
    for number, each in enumerate(several, 1):
        if not isinstance(each, Mapping):
            raise row.error("expected objects with a response and its score in column completions")
        one = Row(each, f"{row.place}, completion {number}")
        if not set(rows.COMPLETIONS) & each.keys():
            raise one.error(f"lacks response: it holds {', '.join(sorted(each)[:12])}")
        score = reading.score or reading.list_score or next((name for name in rows.LIST_SCORES if name in each), None)
        if score is None or score not in each:
            raise one.error(f"lacks {score or ' or '.join(rows.LIST_SCORES)}: name the column of scores with --score")
        reading.list_score = score
        text = rows.completion_of(one, one.value(one.first(rows.COMPLETIONS)), "response")
        known = rows.about(row) | {"source": rows.about(one)["source"]}
        yield text if isinstance(text, Drop) else Response(prompt, text, one.number(score), **known)


def _response(row: Row, reading: Reading, score: float, known: dict[str, Any]) -> Response | Drop:
    prompt, texts = rows.answered(row, reading, {"completion": row.value(row.first(rows.COMPLETIONS))})
    if isinstance(prompt, Drop):
        return prompt
    text = texts["completion"]
    return text if isinstance(text, Drop) else Response(prompt, text, score, **known)


SEVERAL = Form(
    name="several scored responses a prompt",
    space="scored",
    columns=(_PROMPT, "completions"),
    read=of_several,
    example={
        "instruction": "Name a prime.",
        "completions": [{"response": "Seven.", "overall_score": 9.0}, {"response": "Nine.", "overall_score": 1.5}],
    },
    meaning="each completion; its score is `overall_score`, else `fine-grained_score`, `score` or `rating`",
    scored=True,
    score_columns=(),
)
OWN = Form(
    name="an export of pmpo-offline",
    space="pmpo",
    columns=("prompt", "completion", "label", "prompt_id", "response_id", "split"),
    read=of_own,
    example={
        **{"prompt": "Name a prime.", "completion": "Seven.", "score": 1.0, "label": True},
        **{"prompt_id": 0, "response_id": 2, "source": "tiny", "split": "test"},
    },
    meaning="a row, at its place; the label, or with `--score score` the number",
)
UNPAIRED = Form(
    name="TRL unpaired",
    space="trl",
    columns=(_PROMPT, _COMPLETION),
    read=of_unpaired,
    example={"prompt": "Name a prime.", "completion": "Seven.", "label": True},
    meaning="a row; true, 1: accept; false, 0: reject; null: unlabelled",
    feedback="|".join(rows.THUMBS),
    takes_score=False,
)
SCORED = Form(
    name="one scored response a row",
    space="scored",
    columns=(_PROMPT, _COMPLETION),
    read=of_scored,
    example={"prompt": "Name a prime.", "completion": "Seven.", "score": 4.5},
    meaning="a row; the number",
    feedback="|".join(rows.SCORES),
    scored=True,
)
