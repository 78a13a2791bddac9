"""Rows as a file holds them, and what forms make of their columns: prompts, completions, labels and scores."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pmpo_offline.runtime.errors import UserError

T = TypeVar("T")
PROMPTS = ("prompt", "instruction", "question")
ADDED = ("input", "context", "passage", "document")
"""Columns that continue the prompt, as in Alpaca's form."""
SYSTEM = ("system", "system_prompt", "system_message")
HISTORY = ("history", "chat_history")
COMPLETIONS = ("completion", "response")
THUMBS = ("label", "thumbs", "feedback", "vote")
SCORES = ("score", "rating", "reward", "overall_score", "fine-grained_score")
LIST_SCORES = ("overall_score", "fine-grained_score", "score", "rating")
"""What columns may be called; the first that is there counts."""
NOT_TEXT = ("tools", "functions", "tool_calls", "function_call", "reasoning_content", "images", "image", "audio")
"""Columns, and keys of a conversation's turns, whose rows are dropped where they are used."""

_ROLES = {
    **{"system": "system", "developer": "system", "user": "user", "human": "user"},
    **dict.fromkeys(("assistant", "gpt"), "assistant"),
}
_ACCEPTS = "true 1 up thumbs_up 👍 accept accepted chosen desirable good helpful like pos positive preferred yes"
_REJECTS = (
    "false 0 -1 down thumbs_down 👎 reject rejected undesirable bad unhelpful dislike neg negative no dispreferred"
)
_LABELS = dict.fromkeys(_ACCEPTS.split(), 1.0) | dict.fromkeys(_REJECTS.split(), -1.0)
_MEANINGS = {1.0: "accept", -1.0: "reject"}
_SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "held", "holdout"), "test"
)
_LARGEST = 3.4e38  # of float32
_TURNS = (("role", "content"), ("from", "value"))
"""Keys of a turn: as TRL and as ShareGPT call them."""
_MESSAGES = re.compile(
    r"""\s*(\[\s*)?\{\s*["'](role["']\s*:.*["']content|content["']\s*:.*["']role"""
    r"""|from["']\s*:\s*["'](human|gpt|system)["'].*["']value)["']\s*:.*[]}]\s*""",
    re.DOTALL,
)
"""A text that is a conversation, written as JSON or as a Python literal."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


Prompt = str | tuple[Message, ...]
"""Text, taken as it is, or the turns of a conversation, which a template renders."""


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


class Drop(Exception):
    """Something that cannot become a response, and why: a form raises it for a whole row, or yields it."""

    def __init__(self, reason: str, responses: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.responses = responses


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
        if not isinstance(value, str):
            return [value] if _is_turn(value) else value
        if not _MESSAGES.fullmatch(value):
            return value
        found = self._parsed(name, value)
        turns = found if isinstance(found, list) else [found]
        return turns if all(map(_is_turn, turns)) else value

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
        except (ValueError, RecursionError):
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
        if abs(number) > _LARGEST:
            raise self.error(f"expected a number in column {name}, found {short(value)} (leave it null if unknown)")
        return number

    def text(self, name: str) -> str:
        """Return a text that can be stored; raises `Drop` for null and blank ones, `UserError` for what is no text."""
        return self.checked(self.values.get(name), name)

    def checked(self, value: Any, what: str) -> str:
        """Return a value that must be a text that can be stored; raises as `text` does."""
        if value is None:
            raise Drop(f"{what} is null")
        if isinstance(value, (bytes, bytearray)):
            raise self.error(f"expected text in {what}, found bytes: decode the column and import again")
        if not isinstance(value, str):
            raise self.error(f"expected text in {what}, found {short(value)}")
        if blemish := _blemish(value):
            raise Drop(f"{what} {blemish}")
        return value

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
    unused: str | None = None
    """What `--score` calls the first numbers beside the labels that are not used, if there are any."""

    def pass_over(self, scores: Mapping[str, Any]) -> None:
        """Note scores that are not taken, by what `--score` calls them, where they say more than their label."""
        if self.score is None and self.unused is None:
            self.unused = next((name for name, value in scores.items() if value not in (None, "", 1, 0, -1)), None)

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

    def feedback(self, row: Row, *, thumbs: bool) -> float:
        """Return the row's feedback; `UserError` if two columns of it contradict each other.

        A column `label` has no −1 unless it holds `thumbs`; all others are thumbs.
        """
        name, *others = [name for name in THUMBS if name in row.values]
        value = self.label(row, name, signed=thumbs or name != "label")
        for other in others:
            if _LABELS.get(_word(row.values[other]), value) not in (value, None) and not math.isnan(value):
                raise row.error(f"columns {name} and {other} contradict each other: leave one of them out")
        return value

    def label(self, row: Row, name: str, *, signed: bool = False) -> float:
        """Return +1 for true, 1 and words as up, good, yes; −1 for false, 0, down, bad, no, …; NaN for null.

        The number −1 is a reject where labels are `signed`. Where it occurs, 0 could be a reject or no opinion, and a
        column that holds both is refused, as is every other value: `UserError`.
        """
        value = row.values.get(name)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            self.meant["null"] = "unlabelled"
            return math.nan
        word = _word(value)
        if word not in _LABELS or (word == "-1" and not signed):
            known = "true, false, 1, 0, -1, up, down or null" if signed else "true, false, 1, 0 or null"
            raise row.error(
                f"expected {known} in column {name}, found {short(value)} (words such as good or bad are read too; "
                "columns of numbers: --score COLUMN)"
            )
        self.meant[word] = _MEANINGS[_LABELS[word]]
        if {"0", "-1"} <= self.meant.keys():
            raise row.error(f"column {name} holds both 0 and -1: write null where there was no opinion")
        return _LABELS[word]


def caught(read: Callable[..., T], *arguments: Any) -> T | Drop:
    """Return what a function returns, or the `Drop` that it raises."""
    try:
        return read(*arguments)
    except Drop as drop:
        return drop


def answered(
    row: Row, reading: Reading, prompt: Prompt, completions: Mapping[str, Any]
) -> tuple[Prompt, dict[str, str | Drop]]:
    """Return the prompt and these completions by name, each as it is stored or with the reason why it cannot be.

    A completion is a text, or the one turn of the assistant; if either it or the prompt is a conversation, a text is
    one turn.
    """
    texts = {name: caught(completion_of, row, value, name) for name, value in completions.items()}
    chat = any(map(is_list, [prompt, *completions.values()]))
    reading.steady(row, chat)
    return (Message("user", prompt),) if chat and isinstance(prompt, str) else prompt, texts


def prompt_of(row: Row) -> Prompt:
    """Return the prompt, text or turns that end with the user's; raises `Drop` where there is none.

    `input` continues an `instruction`; `system` and `history` make a conversation of it.
    """
    name = row.first(PROMPTS)
    value = row.value(name)
    if is_list(value):
        said = turns(row, value, "prompt")
        if wrong := unanswerable(said, "prompt"):
            raise wrong
    else:
        said = (Message("user", _continued(row, value)),)
    others = [other for other in (*PROMPTS, *(ADDED if is_list(value) else ())) if other != name]
    refuse_unsaid(row, others, said, f"columns {name} and {{}} hold different prompts: leave one of them out")
    conversation = framed(row, (*_history(row), *said))
    return conversation if is_list(value) or len(conversation) > 1 else said[0].content


def refuse_unsaid(row: Row, names: Iterable[str], said: Sequence[Message], problem: str) -> None:
    """Raise `UserError` with the problem for the first column that holds something else than these turns."""
    for name in names:
        value = row.values.get(name)
        if filled(value) and not any(_holds(turn.content, value) for turn in said):
            raise row.error(problem.format(name))


def completion_of(row: Row, value: Any, what: str) -> str:
    """Return a completion, text or the one turn of the assistant; raises `Drop` where there is none."""
    if not is_list(value):
        return row.checked(value, what)
    found = turns(row, value, what)
    if [turn.role for turn in found] != ["assistant"]:
        raise Drop(f"{what} is not one turn")
    return found[0].content


def framed(row: Row, conversation: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return a conversation after the row's system message, if there is one."""
    name = next((name for name in SYSTEM if filled(row.values.get(name))), None)
    if name is None:
        return conversation
    system = row.text(name)
    if conversation[0].role != "system":
        return (Message("system", system), *conversation)
    if conversation[0].content != system:
        raise row.error(f"column {name} and the conversation's own system message differ: leave one of them out")
    return conversation


def turns(row: Row, value: Sequence[Any], what: str) -> tuple[Message, ...]:
    """Return a list of turns as messages; raises `Drop` for turns that cannot be stored, `UserError` for others."""
    if not value:
        raise Drop(f"{what} is empty")
    return tuple(turn(row, message, what) for message in value)


def turn(row: Row, value: Any, what: str) -> Message:
    """Return one {role, content} as a message; raises as `turns` does."""
    if not _is_turn(value):
        raise row.error(f"expected a message with role and content in {what}, found {short(value)}")
    role_key, content_key = next(keys for keys in _TURNS if keys[0] in value)
    role = role_of(value)
    if role is None:
        raise Drop(f"{what} has a turn of role {short(value[role_key])}")
    if used := next((name for name in NOT_TEXT if filled(value.get(name))), None):
        raise Drop(f"{what} has {used}, which a text has no place for")
    return Message(role, row.checked(value[content_key], f"{what}'s content"))


def role_of(value: Mapping[str, Any]) -> str | None:
    """Return the role of a turn: system, user or assistant; None for others."""
    return _ROLES.get(str(value.get("role", value.get("from"))).lower())


def conversation(row: Row, name: str) -> tuple[tuple[Message, ...], str]:
    """Return the history and the assistant's last turn of a column of conversations; raises as `turns` does."""
    value = row.value(name)
    if value is None:
        raise Drop(f"{name} is null")
    if not is_list(value):
        raise row.error(f"expected a list of messages with role and content in column {name}, found {short(value)}")
    *history, last = turns(row, value, name)
    if last.role != "assistant":
        raise Drop(f"{name} does not end with the assistant's turn")
    if wrong := unanswerable(history, name):
        raise wrong
    return tuple(history), last.content


def unanswerable(history: Sequence[Message], what: str) -> Drop | None:
    """Return why a history is no prompt, None where the next turn is the assistant's."""
    if not history or history[-1].role == "assistant":
        return Drop(f"{what} has an assistant's turn that answers no other turn")
    return None


def about(row: Row) -> dict[str, Any]:
    """Return who wrote the row's responses, in which language, in which split, and whether names were redacted."""
    values = row.values
    named = {name: _name(row, name) for name in ("model", "source", "language") if name in values}
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


def stored(row: Row, response_id: str) -> tuple[int, int, str] | None:
    """Return the place that a response had in a dataset of this package, None where the row does not tell."""
    split = row.values.get("split")
    if split not in ("train", "test") or not {"prompt_id", response_id} <= row.values.keys():
        return None
    ids = [row.number(name) for name in ("prompt_id", response_id)]
    if not all(0 <= value < 2**31 and value.is_integer() for value in ids):
        return None
    return int(ids[0]), int(ids[1]), str(split)


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


def _blemish(text: str) -> str | None:
    """Return why a text cannot be stored, None for a sound one."""
    if not text or text.isspace():
        return "is empty"
    if "\0" in text:  # HDF5 ends a string there
        return "holds a NUL character"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return "is no valid Unicode"
    return None


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and any(keys <= value.keys() for keys in map(set, _TURNS))


def _continued(row: Row, value: Any) -> str:
    """Return a plain prompt with what its added columns hold, unless it holds that already."""
    for name in ADDED:
        more = row.values.get(name)
        if not filled(more):
            continue
        text = row.checked(more, name)
        if not filled(value):
            value = text
        elif isinstance(value, str) and not _holds(value, text):
            value = f"{value}\n{text}"
    return row.checked(value, "prompt")


def _holds(text: str, part: Any) -> bool:
    """Return whether a prompt holds another text in lines of its own, as templates write it."""
    return isinstance(part, str) and f"\n{part.strip()}\n" in f"\n{text.strip()}\n"


def _history(row: Row) -> tuple[Message, ...]:
    """Return the earlier turns of a column `history`: messages, or pairs of a question and its answer."""
    name = next((name for name in HISTORY if filled(row.values.get(name))), None)
    if name is None:
        return ()
    value = row.listed(name) or ()
    if all(is_list(pair) and len(pair) == 2 for pair in value):
        roles = ("user", "assistant")
        value = [{"role": role, "content": text} for pair in value for role, text in zip(roles, pair, strict=True)]
    return turns(row, value, name)


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    word = re.sub(r"(?<=\w)[ -](?=\w)", "_", str(value).strip().lower().removeprefix("+"))
    return {"1.0": "1", "0.0": "0", "-1.0": "-1"}.get(word, word)


def _name(row: Row, column: str) -> str:
    """Return a text, the empty one for what is none or cannot be stored; `UserError` for bytes."""
    value = row.values[column]
    if isinstance(value, bytes):
        row.checked(value, column)
    return value if isinstance(value, str) and not _blemish(value) else ""
