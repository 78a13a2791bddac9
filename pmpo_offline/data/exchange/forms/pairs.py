"""Two responses a row: TRL's paired form, its prompt stated or implied, and HH-RLHF's transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from pmpo_offline.data.exchange.forms.conversations import about, split
from pmpo_offline.data.exchange.forms.response import (
    Drop,
    Message,
    Prompt,
    Reading,
    Response,
    Row,
    conversation,
    is_conversation,
)
from pmpo_offline.data.exchange.forms.unpaired import completion_of, prompt_of, stored

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SIDES = {"chosen": 1.0, "rejected": -1.0}


def of_paired(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the chosen response as accepted and the rejected one as rejected: `prompt, chosen, rejected`.

    Without a prompt, or where `chosen` and `rejected` are whole conversations and the prompt but text, the prompt is
    what both begin with. A column of scores NAME is `NAME_chosen` and `NAME_rejected`.
    """
    sides = {name: row.values[name] for name in _SIDES}
    if not is_conversation(row.values.get("prompt")) and any(map(is_conversation, sides.values())):
        reading.steady(row, True)
        yield from _implied_turns(row, sides, reading)
    elif "prompt" in row.values:
        prompt = prompt_of(row, row.values["prompt"], reading)
        texts = {name: completion_of(row, value, name, reading) for name, value in sides.items()}
        yield from _both(row, reading, prompt, texts)
    else:
        reading.steady(row, False)
        whole = {name: row.text(name) for name in _SIDES}
        yield from _implied_text(row, whole, reading)


def of_hh(row: Row, reading: Reading) -> Iterator[Response | Drop]:
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


def _implied_turns(row: Row, sides: dict[str, Any], reading: Reading) -> Iterator[Response | Drop]:
    chosen, rejected = (split(conversation(row, value, name), name) for name, value in sides.items())
    if isinstance(chosen, Drop) or isinstance(rejected, Drop):
        yield Drop(next(each.reason for each in (chosen, rejected) if isinstance(each, Drop)), 2)
    elif chosen[0] != rejected[0]:
        yield Drop("the conversations differ before the last turn", 2)
    else:
        yield from _both(row, reading, chosen[0], {"chosen": chosen[1], "rejected": rejected[1]})


def _implied_text(row: Row, whole: dict[str, str | Drop], reading: Reading) -> Iterator[Response | Drop]:
    """What both begin with is the prompt, up to a blank: no word is cut in two."""
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
    known = about(row)
    for name, text in texts.items():
        score = row.number(f"{reading.score}_{name}") if reading.score else _SIDES[name]
        reading.pass_over(row, f"score_{name}")
        known["stored"] = stored(row, f"response_id_{name}")
        yield text if isinstance(text, Drop) else Response(prompt, text, score, **known)
    if not reading.score:
        reading.meant |= {"chosen": "accept", "rejected": "reject"}


def _first_drop(whole: dict[str, str | Drop]) -> Drop | None:
    return next((Drop(each.reason, 2) for each in whole.values() if isinstance(each, Drop)), None)
