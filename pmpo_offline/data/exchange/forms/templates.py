"""Conversations as one text: how they are written, the marks by which such texts are recognised, and their split.

They are written as transcripts, or by the chat template of a local model.

A template's completion is the reply alone. What ends it (a model's end-of-turn token) is no part of the text, because
an end is appended wherever a completion is trained on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from pmpo_offline.data.exchange.forms.row import Drop, Message, Prompt
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_FILES = ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json")
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
"""What begins a turn of the user, and what begins the assistant's."""
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


@dataclass(frozen=True)
class Template:
    """A way to write conversations down."""

    name: str
    """As reports state it."""
    prompt: Callable[[Sequence[Message]], str]
    """The text of a history, ending where the assistant is to answer; raises `Drop` if the template refuses it."""
    completion: Callable[[str], str]
    """The text of a reply, such that it may follow a prompt's."""
    hashes: dict[str, str]
    """What else it depends on."""
    model: str | None = None
    """The folder of the model that it belongs to."""


def transcript(history: Sequence[Message]) -> str:
    """Return a history as HH-RLHF writes it; a system message comes before the first turn as it is."""
    marks = {"system": "", "user": f"{HUMAN} ", "assistant": f"{ASSISTANT} "}
    return "".join(marks[turn.role] + turn.content for turn in history) + ASSISTANT


def _checked(history: Sequence[Message]) -> str:
    if any(turn.role == "system" for turn in history[1:]):
        raise Drop("a system message is not the first turn, which transcripts have no place for: see --template")
    return transcript(history)


TRANSCRIPT = Template("Human:/Assistant: transcripts", _checked, lambda reply: f" {reply}", {})


def of_model(directory: Path) -> Template:
    """Return the chat template of a local transformers model; `UserError` where there is none.

    Templates run in transformers' sandbox, and no code in the folder is loaded.
    """
    if not (directory / "tokenizer_config.json").is_file():
        raise UserError(f"--template {directory} is no folder of a model: it holds no tokenizer_config.json")
    directory = directory.resolve()  # the dataset keeps it, and is used from other folders
    from transformers import AutoTokenizer
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every tokenizer has its own way to refuse a damaged file
        raise UserError(f"--template {directory} holds no tokenizer that can be opened: {reason_of(error)}") from None
    finally:
        logging.set_verbosity(before)
    if prefix := tokenizer.init_kwargs.get("prompt_prefix"):  # of a conditional adapter: prompts are stored without
        raise UserError(f"--template {directory} writes {prefix!r} before every prompt: take the model's own folder")
    if not tokenizer.chat_template:
        raise UserError(f"--template {directory} has no chat template: leave it out, conversations become transcripts")

    def prompt(history: Sequence[Message]) -> str:
        turns = [turn._asdict() for turn in history]
        try:
            text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # what the template itself raises (roles that must alternate, say)
            raise Drop(f"the chat template refuses the conversation: {reason_of(error)}") from None
        for turn in history:  # of the assistant's, templates leave out thoughts
            if turn.role != "assistant" and turn.content.strip() not in text:
                raise Drop(f"the chat template leaves out the {turn.role}'s turn")
        return text

    hashes = {name: hash_file(directory / name) for name in _FILES if (directory / name).is_file()}
    return Template(f"chat template of {directory.name}", prompt, lambda reply: reply, hashes, str(directory))


def goes_on(prompt: str, completion: str) -> bool:
    """Return whether a completion goes on with another turn of the user, by the marks with which the prompt ends."""
    if not _may_be_marked(prompt.casefold()):
        return False
    marks = next((marks for marks in _MARKS if marks.user.pattern != "^" and marks.asked.search(prompt)), None)
    return marks is not None and marks.again.search(completion) is not None


def repeats(prompt: str, completion: str) -> bool:
    """Return whether a completion is a conversation in which the prompt is a turn of the user before an answer."""
    place = completion.find(prompt.strip())
    marked = place > 0 and any(marks.user.search(completion, 0, place) for marks in _MARKS if marks.user.pattern != "^")
    return marked and last_answer(completion) > place


def last_answer(text: str) -> int:
    """Return where the text after the last mark of the assistant begins, 0 if there is none."""
    if not _may_be_marked(text.casefold()):
        return 0
    ends = [[found.end() for found in marks.assistant.finditer(text)] for marks in _MARKS if marks.user.search(text)]
    return max((end for found in ends for end in found), default=0)


def side_of(prompt: Prompt) -> float:
    """Return a number in [0, 1) that the split goes by: a function of a prompt's text alone.

    Spaces, case and the ways to compose a letter are ignored. Of a conversation only what comes before the first answer
    counts, so that it stays on one side whole: a list of turns or a text in one of the usual markups (`Human:`,
    `User:`, ChatML, `[INST]`, …), whichever template writes it. A greeting before the user's first turn is no answer.
    The test prompts at one share are among those at a larger one.
    """
    text = _opening(prompt) if isinstance(prompt, str) else _first_turns(prompt)
    return int(hash_bytes([text.encode()])[:12], 16) * 2.0**-48


def _first_turns(turns: tuple[Message, ...]) -> str:
    """Return the system's and the user's turns before the first answer, as a transcript has them."""
    start = next((place for place, turn in enumerate(turns) if turn.role == "user"), len(turns))
    before = [turn for turn in turns[:start] if turn.role == "system"]
    first = [*before, *takewhile(lambda turn: turn.role != "assistant", turns[start:])]
    written = _normal(transcript(first))
    return written if start == len(turns) else written.removesuffix("assistant:")


def _opening(text: str) -> str:
    """Return what comes before the first answer; a mark after which the assistant is to answer belongs to it."""
    whole = _normal(text)
    if not _may_be_marked(whole):
        return whole
    for marks in _MARKS:
        question = marks.user.search(text)
        answer = question and marks.assistant.search(text, question.end())
        if not answer:
            continue
        if marks.is_transcript:  # as the turns of a conversation have it
            return _normal(text[: answer.start()]) + " "
        return _normal(text[: answer.end() if marks.asked.search(text) else answer.start()])
    return whole


def _normal(text: str) -> str:
    """Return a text without what does not tell prompts apart: case, white space, how letters are composed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _may_be_marked(text: str) -> bool:
    return any(word in text for word in _WORDS)
