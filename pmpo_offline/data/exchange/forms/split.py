"""Which side of the split a prompt is on: a function of its text before the first answer, in whatever markup."""

from __future__ import annotations

import re
import unicodedata
from itertools import takewhile

from pmpo_offline.data.exchange.forms.response import Message, Prompt
from pmpo_offline.data.exchange.forms.templates import transcript
from pmpo_offline.runtime.hashing import hash_bytes


def side_of(prompt: Prompt) -> float:
    """Return a number in [0, 1) that the split goes by: a function of a prompt's text alone.

    Spaces, case and the ways to compose a letter are ignored. Of a conversation only what comes before the first answer
    counts, so that it stays on one side whole: a list of turns or a text in one of the usual markups (`Human:`,
    `User:`, ChatML, `[INST]`, …), whichever template writes it. A greeting before the user's first turn is no answer.
    The test prompts at one share are among those at a larger one.
    """
    text = _opening(prompt) if isinstance(prompt, str) else _first_turns(prompt)
    return int(hash_bytes([text.encode()])[:12], 16) * 2.0**-48


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _first_turns(turns: tuple[Message, ...]) -> str:
    """Return the system's and the user's turns before the first answer, as a transcript has them."""
    start = next((place for place, turn in enumerate(turns) if turn.role == "user"), len(turns))
    before = [turn for turn in turns[:start] if turn.role == "system"]
    opening = [*before, *takewhile(lambda turn: turn.role != "assistant", turns[start:])]
    written = _normal(transcript(opening))
    return written if start == len(turns) else written.removesuffix("assistant:")


_TRANSCRIPTS = (
    (r"(?:^|\n)[ \t]*Human:", r"\n[ \t]*Assistant:"),
    (r"\bHuman:", r"\bAssistant:"),
)
_MARKUPS = (
    (r"<\|im_start\|>\s*user\b", r"<\|im_start\|>\s*assistant\b"),
    (r"<\|start_header_id\|>\s*user\b", r"<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>"),
    (r"<start_of_turn>\s*user\b", r"<start_of_turn>\s*model\b"),
    (r"<[|｜]user[|｜]>", r"<[|｜]assistant[|｜]>"),
    (r"<\|USER_TOKEN\|>", r"<\|CHATBOT_TOKEN\|>"),
    (r"###\s*Instruction:", r"\n\s*###\s*Response:"),
    (r"^", r"<extra_id_1>\s*Assistant\b"),
    (r"\[INST\]", r"\[/INST\]"),
    (r"(?:^|\n)[ \t#]*User:", r"\n[ \t#]*(?:Assistant|Bot|AI):"),
    (r"\bUSER:", r"\bASSISTANT:"),
)
"""How conversations are written in one text: what begins a turn of the user, and what begins the assistant's."""


def _opening(text: str) -> str:
    """Return what comes before the first answer; a mark after which the assistant is to answer belongs to it."""
    for user, assistant in (*_TRANSCRIPTS, *_MARKUPS):
        question = re.search(user, text, re.IGNORECASE)
        answer = question and re.compile(assistant, re.IGNORECASE).search(text, question.end())
        if not answer:
            continue
        if (user, assistant) in _TRANSCRIPTS:  # as the turns of a conversation have it
            return _normal(text[: answer.start()]) + " "
        is_open = re.search(rf"{assistant}\s*$", text, re.IGNORECASE)
        return _normal(text[: answer.end() if is_open else answer.start()])
    return _normal(text)
