"""Conversations that are written in one text: what begins a turn of the user, and what begins the assistant's."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_USUAL = (
    (r"(?:^|\n)[ \t]*Human:", r"\n[ \t]*Assistant:"),
    (r"\bHuman:", r"\bAssistant:"),
    (r"<\|im_start\|>\s*user\b", r"<\|im_start\|>\s*assistant\b"),
    (r"<\|start_header_id\|>\s*user\b", r"<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>"),
    (r"<\|header_start\|>\s*user\b", r"<\|header_start\|>\s*assistant\s*<\|header_end\|>"),
    (r"<\|start_of_role\|>\s*user\b", r"<\|start_of_role\|>\s*assistant\s*<\|end_of_role\|>"),
    (r"<\|start\|>\s*user\b", r"<\|start\|>\s*assistant\b"),
    (r"<start_of_turn>\s*user\b", r"<start_of_turn>\s*model\b"),
    (r"<[|｜](?:user|prompter)[|｜]>", r"<[|｜](?:assistant|bot)[|｜]>"),
    (r"<(?:human|user)>", r"<(?:bot|assistant)>"),
    (r"<reserved_106>", r"<reserved_107>"),
    (r"<\|USER_TOKEN\|>", r"<\|CHATBOT_TOKEN\|>"),
    (r"###\s*Instruction:", r"\n\s*###\s*Response:"),
    (r"^", r"<extra_id_1>\s*Assistant\b"),
    (r"\[INST\]", r"\[/INST\]"),
    (r"(?:^|\n)[ \t#]*(?:User|Human):", r"\n[ \t#]*(?:Assistant|Bot|AI):"),
    (r"(?:^|\n)[ \t#]*Customer:", r"\n[ \t#]*Agent:"),
    (r"\bUSER:", r"\bASSISTANT:"),
)
_TRANSCRIPTS = 2
"""The first of them, which are HH-RLHF's."""
_WORDS = ("assistant", "model", "bot", "<reserved_107>", "response:", "[/inst]", "ai:", "agent:")
"""Every mark of the assistant holds one of these, case aside."""


class _Marks(NamedTuple):
    user: re.Pattern[str]
    assistant: re.Pattern[str]
    asked: re.Pattern[str]
    """A text that ends where the assistant is to answer the user."""
    again: re.Pattern[str]
    """Another turn of the user; in prose there is "the user: …", so that bare words count in capitals only."""
    is_transcript: bool


_MARKS = [
    _Marks(
        re.compile(user, re.IGNORECASE),
        re.compile(assistant, re.IGNORECASE),
        re.compile(rf"{user}.*{assistant}\s*$", re.IGNORECASE | re.DOTALL),
        re.compile(user, 0 if user.startswith(r"\b") else re.IGNORECASE),
        place < _TRANSCRIPTS,
    )
    for place, (user, assistant) in enumerate(_USUAL)
]


def goes_on(prompt: str, completion: str) -> bool:
    """Return whether a completion goes on with another turn of the user, by the marks with which the prompt ends."""
    if not _may_be_marked(prompt.casefold()):
        return False
    marks = next((marks for marks in _MARKS if marks.user.pattern != "^" and marks.asked.search(prompt)), None)
    return marks is not None and marks.again.search(completion) is not None


def opening(text: str) -> str:
    """Return what comes before the first answer; a mark after which the assistant is to answer belongs to it."""
    whole = normal(text)
    if not _may_be_marked(whole):
        return whole
    for marks in _MARKS:
        question = marks.user.search(text)
        answer = question and marks.assistant.search(text, question.end())
        if not answer:
            continue
        if marks.is_transcript:  # as the turns of a conversation have it
            return normal(text[: answer.start()]) + " "
        return normal(text[: answer.end() if marks.asked.search(text) else answer.start()])
    return whole


def last_answer(text: str) -> int:
    """Return where the text after the last mark of the assistant begins, 0 if there is none."""
    if not _may_be_marked(text.casefold()):
        return 0
    ends = [[found.end() for found in marks.assistant.finditer(text)] for marks in _MARKS if marks.user.search(text)]
    return max((end for found in ends for end in found), default=0)


def normal(text: str) -> str:
    """Return a text without what does not tell prompts apart: case, white space, how letters are composed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _may_be_marked(text: str) -> bool:
    return any(word in text for word in _WORDS)
