"""Forms with a chosen and a rejected response a row: TRL's pairs, and HH-RLHF's transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from pmpo_offline.data.exchange.forms import columns
from pmpo_offline.data.exchange.forms.cells import filled, first_filled, is_list, mapping_in, short
from pmpo_offline.data.exchange.forms.conversation import answered, conversation, prompt_in, prompt_of, with_system
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.names import may_ask
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Message, Prompt, Response, Row, about, stored
from pmpo_offline.data.exchange.forms.templates import ASSISTANT, HUMAN, last_answer

_SIDES = {"chosen": 1.0, "rejected": -1.0}
_NAMES = {side: (side, f"{side}_response") for side in _SIDES}
_TIES = ("tie", "ties")


def of_paired(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the chosen response as accepted and the rejected one as rejected: `prompt, chosen, rejected`.

    Without a prompt, or where `chosen` and `rejected` are whole conversations, the prompt is what both begin with. A
    column of scores NAME is `NAME_chosen` and `NAME_rejected`, or `chosen_NAME` and `rejected_NAME`.
    """
    names = {side: row.first(both) for side, both in _NAMES.items()}
    sides = {side: row.value(name) for side, name in names.items()}
    prompted = row.find(columns.PROMPTS) is not None
    if any(is_list(side) and (len(side) > 1 or not prompted) for side in sides.values()):
        prompt, sides = _implied_turns(row, names)
    elif prompted:
        prompt = prompt_of(row)
        if all(isinstance(text, str) for text in (prompt, *sides.values())) and all(
            side.startswith(prompt) for side in sides.values()
        ):
            raise Drop("chosen and rejected repeat the prompt")
    else:
        prompt, sides = _implied_text(row, names)
    yield from _both(row, reading, prompt, sides)


def of_preferred(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the outputs of OpenAI's preferences: the request is an object with `messages`, and perhaps tools."""
    request = mapping_in(row.values["input"])
    if not isinstance(request, Mapping) or "messages" not in request:
        raise row.error(f"expected an object with messages in column input, found {short(row.values['input'])}")
    if used := first_filled(request, columns.NOT_TEXT):
        raise Drop(f"input has {used}, which a text has no place for")
    sides = {"chosen": row.values["preferred_output"], "rejected": row.values["non_preferred_output"]}
    others = {name: value for name, value in row.values.items() if name != "input"}
    yield from of_paired(row._replace(values={**others, **sides, "prompt": request["messages"]}), reading)


def of_answers(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the two next turns of a conversation that ends with the user's."""
    yield from of_paired(row._replace(values={**row.values, "prompt": row.values[row.first(columns.CHATS)]}), reading)


def of_rejected(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the last turn of a conversation as chosen, and the answer beside it as rejected."""
    history, chosen = conversation(row, row.first(columns.CHATS))
    sides = {"chosen": chosen, "rejected": row.values["rejected_response"]}
    yield from _both(row, reading, with_system(row, history), sides)


def of_transcripts(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the last turns of two transcripts "\\n\\nHuman: … \\n\\nAssistant: …" that are equal up to there."""
    chosen, rejected = (f"\n\n{row.text(name).lstrip()}" for name in _SIDES)
    end = chosen.rfind(ASSISTANT) + len(ASSISTANT)
    shared, replies = chosen[:end], {"chosen": chosen[end:], "rejected": rejected[end:]}
    if end < len(ASSISTANT) or not shared.startswith(HUMAN):
        raise Drop("chosen is no transcript of Human and Assistant")
    if HUMAN in replies["chosen"]:
        raise Drop("chosen does not end with the Assistant's turn")
    if not rejected.startswith(shared) or HUMAN in replies["rejected"] or ASSISTANT in replies["rejected"]:
        raise Drop("the transcripts differ before the last Assistant turn")
    prompt: Prompt = shared
    if not reading.transcripts:
        prompt = parsed(shared)
        replies = {name: text.removeprefix(" ") for name, text in replies.items()}
    yield from _both(row, reading, prompt, replies)


def parsed(transcript: str) -> tuple[Message, ...]:
    """Return the turns of a transcript that ends where the assistant is to answer."""
    parts = re.split(r"\n\n(Human|Assistant):", transcript)
    turns = list(zip(parts[1::2], parts[2::2], strict=True))[:-1]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[mark], text.removeprefix(" ")) for mark, text in turns)


def _implied_turns(row: Row, names: dict[str, str]) -> tuple[Prompt, dict[str, Any]]:
    (history, chosen), (other, rejected) = (conversation(row, name) for name in names.values())
    if history != other:
        raise Drop("the conversations differ before the last turn")
    prompt = prompt_in(row, history, "conversations in chosen and rejected")
    return prompt, {"chosen": chosen, "rejected": rejected}


def _implied_text(row: Row, names: dict[str, str]) -> tuple[Prompt, dict[str, Any]]:
    """Split two texts at the last blank of what both begin with, or at the mark of an answer: no word is cut in two."""
    texts = {side: row.text(name) for side, name in names.items()}
    asking = [name for name, value in row.values.items() if isinstance(value, str) and may_ask(name)]
    if found := next((name for name in asking if name not in names.values() and filled(row.values[name])), None):
        raise row.error(f"column {found} may be the prompt of chosen and rejected: add --columns prompt={found}")
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*texts.values(), strict=False))))
    blank = max((place for place in range(shared) if texts["chosen"][place].isspace()), default=0)
    end = max(blank, last_answer(texts["chosen"][:shared]))
    prompt = texts["chosen"][:end]
    if not prompt.strip():
        raise Drop("chosen and rejected share no beginning to be the prompt")
    return prompt, {name: text[end:] for name, text in texts.items()}


def _both(row: Row, reading: Reading, prompt: Prompt, sides: dict[str, Any]) -> Iterator[Response | Drop]:
    prompt, texts = answered(row, reading, prompt, sides)
    if texts["chosen"] == texts["rejected"]:
        raise Drop("chosen and rejected are equal")
    if str(row.values.get("status")).lower() in _TIES:  # of distilabel: neither was preferred
        raise Drop("chosen and rejected are a tie")
    if not reading.score:
        _compare_scores(row, reading)
    for name, text in texts.items():
        score = reading.number(row, _score(row, reading.score, name)) if reading.score else _SIDES[name]
        writers = (f"source_{name}", f"{name}_model", f"{name}-model")
        reading.used |= set(writers)
        known = about(row, *writers) | {"stored": stored(row, name)}
        yield text if isinstance(text, Drop) else Response(prompt, text, score, **known)
    if not reading.score:
        reading.report.labels |= {"chosen": "accept", "rejected": "reject"}


def _compare_scores(row: Row, reading: Reading) -> None:
    """Note scores that are not taken, and where they contradict which response was chosen."""
    for name in columns.SCORES:
        found = [column for side in _SIDES if (column := row.find(_score_columns(name, side)))]
        values = [row.values[column] for column in found]
        if len(values) == 2 and all(isinstance(value, int | float) for value in values):
            reading.used |= set(found)
            for value in values:
                reading.pass_over({name: value})
            if values[0] <= values[1]:
                how = "chosen equal" if values[0] == values[1] else "chosen lower"
                reading.report.pairs_by_own_scores[how] += 1
            return


def _score_columns(name: str, side: str) -> list[str]:
    return [f"{name}_{side}", f"{side}_{name}", f"{side}-{name}"]


def _score(row: Row, name: str, side: str) -> str:
    """Return the column of one side's scores that `--score NAME` selects."""
    names = _score_columns(name, side)
    if not (found := row.find(names)):
        raise row.error(f"there is no column {' or '.join(names[:2])}: it holds {row.held}")
    return found


def _is_transcript(row: Row) -> bool:
    """Return whether the row has no prompt of its own and begins as a transcript does."""
    text = row.values["chosen"]
    begun = isinstance(text, str) and text.lstrip().startswith(HUMAN.strip()) and ASSISTANT in text
    return begun and row.find(columns.PROMPTS) is None


def _is_answered(row: Row) -> bool:
    sides = [row.value(row.first(names)) for names in _NAMES.values()]
    return all(is_list(side) and len(side) == 1 for side in sides)


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
    card="Anthropic/hh-rlhf",
    score_columns=(),
    responses_a_row=2,
    test=_is_transcript,
)
PAIRED = Form(
    name="TRL paired",
    space="trl",
    columns=("|".join(columns.PROMPTS), *("|".join(names) for names in _NAMES.values())),
    read=of_paired,
    example={"prompt": "Name a prime.", "chosen": "Seven.", "rejected": "Nine."},
    meaning="each side; chosen: accept, rejected: reject",
    card="TRL's dataset formats; HuggingFaceH4/ultrafeedback_binarized, microsoft/WildFeedback, Intel/orca_dpo_pairs, "
    "LLaMA-Factory",
    score_columns=(),
    responses_a_row=2,
)
OPENAI = replace(
    PAIRED,
    name="OpenAI preferences",
    space="openai",
    columns=("input", "preferred_output", "non_preferred_output"),
    read=of_preferred,
    example={
        "input": {"messages": [{"role": "user", "content": "Name a prime."}], "tools": []},
        "preferred_output": [{"role": "assistant", "content": "Seven."}],
        "non_preferred_output": [{"role": "assistant", "content": "Nine."}],
    },
    meaning="each output; preferred: accept, the other: reject; a request with tools is dropped",
    card="OpenAI's preference fine-tuning",
    takes_score=False,
)
ANSWERS = replace(
    PAIRED,
    name="two answers to a conversation",
    columns=("|".join(columns.CHATS), *PAIRED.columns[1:]),
    read=of_answers,
    example={
        "messages": [{"role": "user", "content": "Name a prime."}],
        "chosen": {"role": "assistant", "content": "Seven."},
        "rejected": {"role": "assistant", "content": "Nine."},
    },
    card="axolotl's `chat_template.default`",
    test=_is_answered,
)
REJECTED = replace(
    PAIRED,
    name="conversations with a rejected answer",
    columns=("|".join(columns.CHATS), "rejected_response"),
    read=of_rejected,
    example={
        "messages": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "Seven."}],
        "rejected_response": "Nine.",
    },
    meaning="the assistant's last turn: accept; `rejected_response`: reject",
    card="ms-swift",
    takes_score=False,
)
IMPLIED = replace(
    PAIRED,
    name="TRL paired, prompt implied",
    columns=PAIRED.columns[1:],
    example={"chosen": "A prime is seven.", "rejected": "A prime is nine."},
    meaning="each side after what both begin with, which is the prompt; chosen: accept, rejected: reject",
    card="TRL's dataset formats; argilla/dpo-mix-7k",
)
