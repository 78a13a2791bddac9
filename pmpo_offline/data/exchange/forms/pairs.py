"""Forms with two responses a row: TRL's pairs, their prompt stated or implied, and HH-RLHF's transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from pmpo_offline.data.exchange.forms import rows
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.rows import Drop, Message, Prompt, Reading, Response, Row
from pmpo_offline.data.exchange.forms.templates import ASSISTANT, HUMAN

_SIDES = {"chosen": 1.0, "rejected": -1.0}


def of_paired(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the chosen response as accepted and the rejected one as rejected: `prompt, chosen, rejected`.

    Without a prompt, or where `chosen` and `rejected` are whole conversations and the prompt but text, the prompt is
    what both begin with. A column of scores NAME is `NAME_chosen` and `NAME_rejected`.
    """
    sides = {name: row.value(name) for name in _SIDES}
    prompts = [name for name in rows.PROMPTS if name in row.values]
    whole = any(rows.is_list(side) and (len(side) > 1 or not prompts) for side in sides.values())
    if whole and not (prompts and rows.is_list(row.value(prompts[0]))):
        reading.steady(row, True)
        yield from _implied_turns(row, reading, prompts)
    elif prompts:
        yield from _both(row, reading, *rows.answered(row, reading, sides))
    else:
        reading.steady(row, False)
        yield from _implied_text(row, reading)


def of_transcripts(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the last turns of two transcripts "\\n\\nHuman: … \\n\\nAssistant: …" that are equal up to there."""
    whole = {name: row.text(name) for name in _SIDES}
    if wrong := _first_drop(whole):
        yield wrong
        return
    texts = {name: str(text) for name, text in whole.items()}
    end = texts["chosen"].rfind(ASSISTANT) + len(ASSISTANT)
    shared = texts["chosen"][:end]
    if end < len(ASSISTANT) or not shared.startswith(HUMAN):
        yield Drop("chosen is no transcript of Human and Assistant", 2)
        return
    rest = {name: text[end:] for name, text in texts.items()}
    if HUMAN in rest["chosen"]:
        yield Drop("chosen does not end with the Assistant's turn", 2)
        return
    if not texts["rejected"].startswith(shared) or HUMAN in rest["rejected"] or ASSISTANT in rest["rejected"]:
        yield Drop("the transcripts differ before the last Assistant turn", 2)
        return
    prompt: Prompt = shared
    if not reading.transcripts:
        prompt = parsed(shared)
        rest = {name: text.removeprefix(" ") for name, text in rest.items()}
    yield from _both(row, reading, prompt, {name: row.checked(text, name) for name, text in rest.items()})


def parsed(transcript: str) -> tuple[Message, ...]:
    """Return the turns of a transcript that ends where the assistant is to answer."""
    parts = re.split(r"\n\n(Human|Assistant):", transcript)
    said = list(zip(parts[1::2], parts[2::2], strict=True))[:-1]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], text.removeprefix(" ")) for who, text in said)


def _implied_turns(row: Row, reading: Reading, prompts: list[str]) -> Iterator[Response | Drop]:
    chosen, rejected = (rows.split_last(rows.conversation(row, name), name) for name in _SIDES)
    if isinstance(chosen, Drop) or isinstance(rejected, Drop):
        yield Drop(next(each.reason for each in (chosen, rejected) if isinstance(each, Drop)), 2)
        return
    if chosen[0] != rejected[0]:
        yield Drop("the conversations differ before the last turn", 2)
        return
    contents = [turn.content.strip() for turn in chosen[0]]
    for name in prompts:
        if (row.values[name] or "").strip() not in ("", *contents):
            raise row.error(f"column {name} is no turn of the conversations in chosen and rejected: leave it out")
    yield from _both(row, reading, chosen[0], {"chosen": chosen[1], "rejected": rejected[1]})


def _implied_text(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Split two texts at the last blank of what both begin with, which is the prompt: no word is cut in two."""
    whole = {name: row.text(name) for name in _SIDES}
    if wrong := _first_drop(whole):
        yield wrong
        return
    texts = {name: str(text) for name, text in whole.items()}
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(*texts.values(), strict=False))
    shared = "".join(letter for letter, _ in alike)
    blanks = [place for place, letter in enumerate(shared) if letter.isspace()]
    if not blanks or not shared[: blanks[-1]].strip():
        yield Drop("chosen and rejected share no beginning to be the prompt", 2)
        return
    end = blanks[-1]
    rest = {name: row.checked(text[end:], name) for name, text in texts.items()}
    yield from _both(row, reading, shared[:end], rest)


def _both(row: Row, reading: Reading, prompt: Prompt | Drop, texts: dict[str, str | Drop]) -> Iterator[Response | Drop]:
    if isinstance(prompt, Drop):
        yield Drop(prompt.reason, 2)
        return
    if texts["chosen"] == texts["rejected"] and not isinstance(texts["chosen"], Drop):
        yield Drop("chosen and rejected are equal", 2)
        return
    known: dict[str, Any] = rows.about(row)
    for name, text in texts.items():
        score = row.number(f"{reading.score}_{name}") if reading.score else _SIDES[name]
        reading.pass_over(row, f"score_{name}")
        known["stored"] = rows.stored(row, f"response_id_{name}")
        yield text if isinstance(text, Drop) else Response(prompt, text, score, **known)
    if not reading.score:
        reading.meant |= {"chosen": "accept", "rejected": "reject"}


def _first_drop(whole: dict[str, str | Drop]) -> Drop | None:
    return next((Drop(each.reason, 2) for each in whole.values() if isinstance(each, Drop)), None)


def _is_transcript(row: Row) -> bool:
    text = row.values["chosen"]
    return not set(rows.PROMPTS) & row.values.keys() and isinstance(text, str) and text.startswith(HUMAN)


_SCORES = tuple(f"{{}}_{side}" for side in _SIDES)
TRANSCRIPTS = Form(
    name="HH-RLHF transcripts",
    space="hh-rlhf",
    columns=("chosen", "rejected"),
    read=of_transcripts,
    example={
        "chosen": f"{HUMAN} Name a prime.{ASSISTANT} Seven.",
        "rejected": f"{HUMAN} Name a prime.{ASSISTANT} Nine.",
    },
    meaning="the last turn of each side, all before is the prompt and must be equal; chosen: accept, rejected: reject",
    score_columns=_SCORES,
    test=_is_transcript,
)
PAIRED = Form(
    name="TRL paired",
    space="trl",
    columns=("|".join(rows.PROMPTS), "chosen", "rejected"),
    read=of_paired,
    example={"prompt": "Name a prime.", "chosen": "Seven.", "rejected": "Nine."},
    meaning="each side; chosen: accept, rejected: reject",
    score_columns=_SCORES,
)
IMPLIED = Form(
    name="TRL paired, prompt implied",
    space="trl",
    columns=("chosen", "rejected"),
    read=of_paired,
    example={"chosen": "A prime is seven.", "rejected": "A prime is nine."},
    meaning="each side after what both begin with, which is the prompt; chosen: accept, rejected: reject",
    score_columns=_SCORES,
)
