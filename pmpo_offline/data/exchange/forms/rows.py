"""Rows as a file holds them, and what forms make of their columns: prompts, completions, labels and scores."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pmpo_offline.runtime.errors import UserError

PROMPTS = ("prompt", "instruction", "question")
ADDED = ("input", "context")
"""Columns that continue the prompt, as in Alpaca's form."""
SYSTEM = ("system", "system_prompt")
HISTORY = ("history",)
TOOLS = ("tools", "functions", "tool_calls", "function_call")
COMPLETIONS = ("completion", "response")
THUMBS = ("label", "thumbs", "feedback", "vote")
SCORES = ("score", "rating", "reward", "overall_score", "fine-grained_score")
LIST_SCORES = ("overall_score", "fine-grained_score", "score", "rating")
"""What columns may be called; the first that is there counts."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}
_LABELS = {"true": 1.0, "1": 1.0, "false": -1.0, "0": -1.0}
_THUMBS = {"up": 1.0, "thumbs_up": 1.0, "👍": 1.0, "down": -1.0, "thumbs_down": -1.0, "👎": -1.0, "-1": -1.0}
_ACCEPTING = (
    "accept",
    "accepted",
    "chosen",
    "desirable",
    "good",
    "helpful",
    "like",
    "pos",
    "positive",
    "preferred",
    "yes",
)
_REJECTING = (
    "reject",
    "rejected",
    "undesirable",
    "bad",
    "unhelpful",
    "dislike",
    "neg",
    "negative",
    "dispreferred",
    "no",
)
_CLASSES = dict.fromkeys(_ACCEPTING, 1.0) | dict.fromkeys(_REJECTING, -1.0)
_MEANINGS = {1.0: "accept", -1.0: "reject"}
_LARGEST = 3.4e38  # of float32
_MESSAGES = re.compile(
    r"""\s*(\[\s*)?\{\s*["'](role["']\s*:.*["']content|content["']\s*:.*["']role)["']\s*:.*[]}]\s*""", re.DOTALL
)
"""A text that is a conversation, written as JSON or as a Python literal."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


Prompt = str | tuple[Message, ...]
"""Text, taken as it is, or the turns of a conversation, which a template renders."""


class ClassName(str):
    """The name of a class of a Hugging Face `ClassLabel`, in place of its number."""


class Response(NamedTuple):
    """A completion of a prompt, with its score."""

    prompt: Prompt
    completion: str
    score: float = math.nan
    """+1 and −1 where the source says accept and reject; NaN where it says nothing."""
    source: str | None = None
    """Who wrote it, where the source tells."""
    language: str | None = None
    """None where the source never tells, empty where it does not tell here."""
    redacted: bool = False
    split: str | None = None
    """"train" or "test", where the source has splits of its own."""
    stored: tuple[int, int, str] | None = None
    """`prompt_id`, `response_id` and `split`, where the source is a dataset of this package."""


class Drop(NamedTuple):
    """Something that cannot become a response, and why."""

    reason: str
    responses: int = 1


class Row(NamedTuple):
    """One record of a file."""

    values: Mapping[str, Any]
    place: str
    """The file and the line or row, for messages: "train.jsonl, line 7"."""
    split: str | None = None
    """The split of the source that it is from, "train" or "test"; None where the source has none."""

    def error(self, what: str) -> UserError:
        """Return the error that names the row, and says `what`."""
        return UserError(f"{self.place}: {what}")

    def value(self, name: str) -> Any:
        """Return a column's value, a conversation also where it is written as JSON or a Python literal."""
        value = self.values.get(name)
        if isinstance(value, Mapping) and {"role", "content"} <= value.keys():
            return [value]
        if not isinstance(value, str) or not _MESSAGES.fullmatch(value):
            return value
        messages = self._parsed(name, value)
        listed = messages if isinstance(messages, list) else [messages]
        return (
            listed
            if all(isinstance(each, Mapping) and "role" in each and "content" in each for each in listed)
            else value
        )

    def listed(self, name: str) -> Sequence[Any] | None:
        """Return a column's list, also where a text holds it as JSON or a Python literal; None for null."""
        value = self.values.get(name)
        if isinstance(value, str):
            value = self._parsed(name, value)
        if value is not None and not is_list(value):
            raise self.error(f"expected a list in column {name}, found {short(value)}")
        return value

    def _parsed(self, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            pass
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise self.error(
                f"expected a list as JSON or a Python literal in column {name}, found {short(text)}"
            ) from None

    def number(self, name: str) -> float:
        """Return a finite number, NaN for null and for empty text; `UserError` for anything else."""
        value = self.values.get(name)
        if value is None or value == "":
            return math.nan
        try:
            number = float(value) if isinstance(value, (int, float, str)) else math.inf
        except (ValueError, OverflowError):
            number = math.inf
        if math.isnan(number):
            return math.nan
        if math.isinf(number) or abs(number) > _LARGEST:
            raise self.error(f"expected a number in column {name}, found {short(value)} (leave it null if unknown)")
        return number

    def text(self, name: str) -> str | Drop:
        """Return a text that is not blank, or why there is none; `UserError` for what is no text."""
        return self.checked(self.values.get(name), name)

    def checked(self, value: Any, what: str) -> str | Drop:
        """Return a value that must be a text, or why it cannot be kept; `UserError` for what is no text."""
        if value is None:
            return Drop(f"{what} is null")
        if isinstance(value, (bytes, bytearray)):
            raise self.error(f"expected text in {what}, found bytes: decode the column and import again")
        if not isinstance(value, str):
            raise self.error(f"expected text in {what}, found {short(value)}")
        return blemish(value, what) or value

    def first(self, names: Sequence[str]) -> str:
        """Return the first of these columns that the row has."""
        return next(name for name in names if name in self.values)


@dataclass
class Reading:
    """How a source is read, and what was met on the way."""

    score: str | None = None
    """The column of scores; None: what the form says itself."""
    transcripts: bool = True
    """Whether conversations become `Human:/Assistant:` transcripts, so that such texts need not be taken apart."""
    meant: dict[str, str] = field(default_factory=dict)
    """The labels that were met, and what they were taken for."""
    conversational: bool | None = None
    """Whether the texts are conversations; None before the first row."""
    list_score: str | None = None
    """The column of scores in lists of completions, once it was met: their scales are not mixed."""
    unused: bool = False
    """Whether there are numbers beside the labels, in a column `score`, that are not used."""

    def pass_over(self, row: Row, column: str) -> None:
        """Note a score that is not taken, where it says more than its label."""
        self.unused |= self.score is None and row.values.get(column) not in (None, "", 1, 0, -1)

    def steady(self, row: Row, conversational: bool) -> None:
        """Raise `UserError` where plain texts and conversations are mixed."""
        if self.conversational is None:
            self.conversational = conversational
        if self.conversational != conversational:
            kinds = {True: "a conversation", False: "plain text"}
            raise row.error(
                f"found {kinds[conversational]}, and the rows before hold {kinds[self.conversational]}: "
                "import files of one form at a time"
            )

    def label(self, row: Row, name: str) -> float:
        """Return +1 for true and 1, −1 for false and 0, NaN for null; `UserError` for anything else.

        The classes of a Hugging Face `ClassLabel` go by their names (accept, reject, pos, neg, …).
        """
        return self._meaning(row, name, _LABELS, "true, false, 1, 0 or null")

    def thumb(self, row: Row, name: str) -> float:
        """Return a thumb: as `label`, and +1 for up, −1 for down and −1; `UserError` for anything else.

        Where −1 occurs, 0 could be a reject or no opinion, and a column that holds both is refused.
        """
        value = self._meaning(row, name, _LABELS | _THUMBS, "true, false, 1, 0, -1, up, down or null")
        if {"0", "-1"} <= self.meant.keys():
            raise row.error(f"column {name} holds both 0 and -1: write null where there was no opinion")
        return value

    def feedback(self, row: Row, *, thumbs: bool) -> float:
        """Return the row's feedback; `UserError` if two columns of it contradict each other.

        A column `label` is a `label`, unless `thumbs`; all others are thumbs.
        """
        name, *others = [name for name in THUMBS if name in row.values]
        value = self.thumb(row, name) if thumbs or name != "label" else self.label(row, name)
        for other in others:
            if _LABELS.get(word := _word(row.values[other]), _THUMBS.get(word, value)) != value:
                raise row.error(f"columns {name} and {other} contradict each other: leave one of them out")
        return value

    def _meaning(self, row: Row, name: str, words: dict[str, float], known: str) -> float:
        value = row.values.get(name)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            self.meant["null"] = "unlabelled"
            return math.nan
        word = _word(value)
        if isinstance(value, ClassName):
            words, known = words | _THUMBS | _CLASSES, f"a class of one of the names {', '.join(_CLASSES)}"
        if word not in words:
            raise row.error(
                f"expected {known} in column {name}, found {short(value)} (columns of numbers: --score COLUMN)"
            )
        self.meant[word] = _MEANINGS[words[word]]
        return words[word]


def answered(row: Row, reading: Reading, completions: Mapping[str, Any]) -> tuple[Prompt | Drop, dict[str, str | Drop]]:
    """Return the row's prompt and these completions by name, each as it is stored or with the reason why it cannot be.

    A completion is a text, or the one turn of the assistant; if either it or the prompt is a conversation, a text is
    one turn.
    """
    prompt = prompt_of(row)
    if isinstance(prompt, Drop):
        return prompt, {}
    texts = {name: completion_of(row, value, name) for name, value in completions.items()}
    chat = any(map(is_list, [prompt, *completions.values()]))
    reading.steady(row, chat)
    return (Message("user", prompt),) if chat and isinstance(prompt, str) else prompt, texts


def prompt_of(row: Row) -> Prompt | Drop:
    """Return the prompt, text or turns that end with the user's, or why there is none.

    `input` continues an `instruction`; `system` and `history` make a conversation of it.
    """
    name = row.first(PROMPTS)
    value = row.value(name)
    said: Prompt | Drop
    if is_list(value):
        found = turns(row, value, "prompt")
        said = found if isinstance(found, Drop) else unanswerable(found, "prompt") or found
        texts = [] if isinstance(said, Drop) else [turn.content for turn in said]
    else:
        said = _continued(row, value)
        texts = [said] if isinstance(said, str) else []
    if isinstance(said, Drop):
        return said
    for other in (*PROMPTS, *(ADDED if is_list(value) else ())):
        if (
            other != name
            and filled(row.values.get(other))
            and not any(_holds(text, row.values[other]) for text in texts)
        ):
            raise row.error(f"columns {name} and {other} hold different prompts: leave one of them out")
    earlier = _history(row)
    if isinstance(earlier, Drop):
        return earlier
    return framed(row, (*earlier, *((Message("user", said),) if isinstance(said, str) else said)), said)


def completion_of(row: Row, value: Any, what: str) -> str | Drop:
    """Return a completion, text or the one turn of the assistant, or why there is none."""
    if not is_list(value):
        return row.checked(value, what)
    found = turns(row, value, what)
    if isinstance(found, Drop):
        return found
    return found[0].content if [each.role for each in found] == ["assistant"] else Drop(f"{what} is not one turn")


def framed(row: Row, conversation: tuple[Message, ...], otherwise: Prompt) -> Prompt | Drop:
    """Return a conversation after the row's system message; `otherwise`, if it is one turn and there is no such."""
    name = next((name for name in SYSTEM if filled(row.values.get(name))), None)
    if name is None:
        return conversation if len(conversation) > 1 else otherwise
    system = row.text(name)
    if isinstance(system, Drop):
        return system
    if conversation[0].role == "system" and conversation[0].content != system:
        raise row.error(f"column {name} and the conversation's own system message differ: leave one of them out")
    return conversation if conversation[0].role == "system" else (Message("system", system), *conversation)


def turns(row: Row, value: Sequence[Any], what: str) -> tuple[Message, ...] | Drop:
    """Return a list of {role, content} as messages, or why it cannot be kept; `UserError` where it is no such list."""
    found = []
    for each in value:
        message = turn(row, each, what)
        if isinstance(message, Drop):
            return message
        found.append(message)
    return tuple(found) or Drop(f"{what} is empty")


def turn(row: Row, value: Any, what: str) -> Message | Drop:
    """Return one {role, content}, or why it cannot be kept; `UserError` where it is none."""
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        raise row.error(f"expected a message with role and content in {what}, found {short(value)}")
    role = _ROLES.get(str(value["role"]).lower())
    if role is None:
        return Drop(f"{what} has a turn of role {short(value['role'])}")
    if any(filled(value.get(name)) for name in TOOLS):
        return Drop(f"{what} has a tool call, which a text has no place for")
    content = row.checked(value["content"], f"{what}'s content")
    return content if isinstance(content, Drop) else Message(role, content)


def conversation(row: Row, name: str) -> tuple[Message, ...] | Drop:
    """Return the turns of a column of conversations, or why they cannot be kept; `UserError` if it holds none."""
    value = row.value(name)
    if value is None:
        return Drop(f"{name} is null")
    if not is_list(value):
        raise row.error(f"expected a list of messages with role and content in column {name}, found {short(value)}")
    return turns(row, value, name)


def split_last(messages: tuple[Message, ...] | Drop, what: str) -> tuple[tuple[Message, ...], str] | Drop:
    """Return the history and the assistant's last turn, or why there is none."""
    if isinstance(messages, Drop):
        return messages
    *history, last = messages
    if last.role != "assistant":
        return Drop(f"{what} does not end with the assistant's turn")
    return unanswerable(history, what) or (tuple(history), last.content)


def unanswerable(history: Sequence[Message], what: str) -> Drop | None:
    """Return why a history is no prompt, None where the next turn is the assistant's."""
    if not history or history[-1].role == "assistant":
        return Drop(f"{what} has an assistant's turn that answers no other turn")
    return None


def about(row: Row) -> dict[str, Any]:
    """Return who wrote the row's responses, in which language, in which split, and whether names were redacted."""
    values = row.values
    named = {name: _name(values[name]) for name in ("model", "source", "language") if name in values}
    return {
        "source": named.get("model") or named.get("source") or None,
        "language": named.get("language"),
        "redacted": str(values.get("redacted")).lower() in ("true", "1"),
        "split": row.split or split_named(values.get("split")),
    }


def split_named(name: object) -> str | None:
    """Return "train" or "test" for the name of a split or of its file, None for a name that is neither."""
    found = [_SPLITS[word] for word in re.split(r"[^a-z]+", str(name).lower()) if word in _SPLITS]
    return found[-1] if found else None


_SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("test", "testing", "validation", "valid", "val", "dev", "eval"), "test"
)


def stored(row: Row, response_id: str) -> tuple[int, int, str] | None:
    """Return the place that a response had in a dataset of this package, None where the row does not tell."""
    split = row.values.get("split")
    if split not in ("train", "test") or not {"prompt_id", response_id} <= row.values.keys():
        return None
    ids = [row.number(name) for name in ("prompt_id", response_id)]
    if not all(0 <= value < 2**31 and value.is_integer() for value in ids):
        return None
    return int(ids[0]), int(ids[1]), str(split)


def blemish(text: str, what: str) -> Drop | None:
    """Return why a text cannot be stored, None for a sound one."""
    if not text or text.isspace():
        return Drop(f"{what} is empty")
    if "\0" in text:  # HDF5 ends a string there
        return Drop(f"{what} holds a NUL character")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return Drop(f"{what} is no valid Unicode")
    return None


def is_list(value: Any) -> bool:
    """Return whether a value is a list, as conversations are."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def filled(value: Any) -> bool:
    """Return whether a value says anything: it is neither null nor empty, nor a text for either."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null", "None")
    return value is not None and not (isinstance(value, float) and math.isnan(value)) and value not in ([], (), {})


def short(value: Any) -> str:
    """Return a value for a message, in 40 characters at most."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}…"


def _continued(row: Row, value: Any) -> str | Drop:
    """Return a plain prompt with what its added columns hold, unless it holds that already."""
    for name in ADDED:
        more = row.values.get(name)
        if not filled(more):
            continue
        text = row.checked(more, name)
        if isinstance(text, Drop):
            return text
        if not filled(value):
            value = text
        elif isinstance(value, str) and not _holds(value, text):
            value = f"{value}\n{text}"
    return row.checked(value, "prompt")


def _holds(text: str, part: Any) -> bool:
    """Return whether a prompt holds another text in lines of its own, as templates write it."""
    return isinstance(part, str) and f"\n{part.strip()}\n" in f"\n{text.strip()}\n"


def _history(row: Row) -> tuple[Message, ...] | Drop:
    """Return the earlier turns of a column `history`: messages, or pairs of a question and its answer."""
    if not filled(row.values.get("history")):
        return ()
    value = row.listed("history") or ()
    if not all(is_list(each) and len(each) == 2 for each in value):
        return turns(row, value, "history")
    roles = ("user", "assistant")
    messages = [{"role": role, "content": text} for pair in value for role, text in zip(roles, pair, strict=True)]
    return turns(row, messages, "history")


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    word = str(value).strip().lower().removeprefix("+")
    return {"1.0": "1", "0.0": "0", "-1.0": "-1"}.get(word, word)


def _name(value: Any) -> str:
    """Return a text, the empty one for what is none or cannot be stored."""
    return value if isinstance(value, str) and not blemish(value, "") else ""
