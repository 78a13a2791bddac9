"""What cells of a record hold: texts, lists, literals, and conversations however they are written."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TURNS = (("role", "content"), ("from", "value"))
"""Keys of a conversation's turn: as TRL and as ShareGPT call them."""
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "ai", "chatbot", "chatgpt", "bard"), "assistant"),
}
"""What roles are called, in lower case."""
_ROLES, _CONTENTS = ("role", "from", "sender", "speaker"), ("content", "value", "text", "message")
"""Other words for them, of which any two may be together."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_CHAT = re.compile(
    r"""\s*"?(?:array\(\s*)?(\[\s*\{\s*\\?["'](role|content|from)\\?["']\s*:\s*\\?["']"""
    r"""|\[\s*\{(?=.*["']role\\?["']\s*:)(?=.*["']content\\?["']\s*:)"""
    r"""|\{\s*["']messages["']\s*:\s*\[\s*\{"""
    r"""|\[\s*\{(?=.*["']from\\?["']\s*:\s*\\?["'](?:human|gpt|system|user)\b)(?=.*["']value\\?["']\s*:)"""
    r"""|\{\s*["'](role["']\s*:.*["']content|content["']\s*:.*["']role"""
    r"""|from["']\s*:\s*["'](human|gpt|system)["'].*["']value)["']\s*:.*\}\s*$)""",
    re.DOTALL,
)
"""What a text begins with that is a conversation, or all of one turn."""
_PARTS = re.compile(r"""\s*\[\s*\{(?=.*["']type["']\s*:)(?=.*["']text["']\s*:).*\]\s*$""", re.DOTALL)
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=object)?\)\s*$", re.DOTALL)
_BYTES = re.compile(r"""b(["']).*\1\s*$""", re.DOTALL)
NOTHING = frozenset(("", "null", "none", "nan", "n/a", "na", "\\n"))
"""Texts for what is not known, in lower case: MySQL writes \\N."""
_EMPTY = NOTHING | {"[]", "{}", "<noinput>", "noinput"}
"""Texts in other columns that say nothing: `<noinput>` is of Self-Instruct."""
_LONGEST = max(map(len, _EMPTY))
INVISIBLE = " \t\r\n\u00a0\u200b\u200c\u200d\u2060\ufeff"
"""Letters without a shape, of which some are no white space."""
_USER_KEYS = {"user", "human", "prompt", "question", "query", "instruction", "input"}
_ANSWER_KEYS = {"assistant", "bot", "gpt", "model", "response", "answer", "output", "completion", "reply"}
"""Keys of a question and its answer in one object."""
_TEXTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that are text."""


def filled(value: Any) -> bool:
    """Return whether a value says anything: it is neither null nor empty, nor a text for either."""
    if value is None:
        return False
    if isinstance(value, str):
        word = value.strip()
        return bool(word) and (len(word) > _LONGEST or word.lower() not in _EMPTY)
    if isinstance(value, (list, tuple, dict)):
        return len(value) > 0
    return bool(value == value)  # NaN is not


def first_filled(values: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the first of these names whose value says anything, None if none does."""
    return next((name for name in names if name in values and filled(values[name])), None)


def short(value: Any) -> str:
    """Return a value for a message, in 40 characters at most."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}…"


def blemish_of(text: str) -> str | None:
    """Return why a text cannot be stored, None for a sound one."""
    if not text or text.isspace() or (text[0] in INVISIBLE and not text.strip(INVISIBLE)):
        return "is empty"
    if "\0" in text:  # HDF5 ends a string there
        return "holds a NUL character"
    if not text.isascii() and _SURROGATE.search(text):
        return "is no valid Unicode"
    return None


def is_list(value: Any) -> bool:
    """Return whether a value is a list, as conversations are."""
    return isinstance(value, (list, tuple))


def is_turn(value: Any) -> bool:
    """Return whether a value has the keys of a conversation's turn."""
    return isinstance(value, Mapping) and any(keys <= value.keys() for keys in map(set, TURNS))


def role_of(value: Mapping[str, Any]) -> str | None:
    """Return the role of a turn: system, user or assistant; None for others."""
    return ROLES.get(str(value.get("role", value.get("from"))).strip().lower())


def content_of(value: Mapping[str, Any]) -> Any:
    """Return the content of a turn, as TRL or as ShareGPT calls it."""
    return value.get("content", value.get("value"))


def literal(text: str) -> Any:
    """Return the value of JSON, of a Python literal or of a NumPy array of objects; `ValueError` for other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    stripped = text.strip()
    array = _ARRAY.match(stripped)
    try:
        return ast.literal_eval(array[1] if array else stripped)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("neither JSON nor a Python literal") from None


def _literal_or_text(text: str) -> Any:
    """Return the value that a text holds as a literal, the text itself where it holds none."""
    try:
        return literal(text)
    except ValueError:
        return text


def conversation_in(value: Any) -> Any:
    """Return a conversation as a list of turns however it is written, and any other value as it is.

    It may be one turn, the request of an API (`{"messages": …}` and nothing else), text that holds a literal, or a list
    for each key of a turn, as Hugging Face's `Sequence` stores it. Raises `ValueError` for text that begins as a
    conversation does and cannot be parsed.
    """
    if is_list(value):
        return _turns(value)
    if isinstance(value, Mapping):
        if is_list(value.get("messages")) and [key for key, held in value.items() if filled(held)] == ["messages"]:
            return _turns(value["messages"])
        (turn,) = _turns([value])
        return [turn] if is_turn(turn) and not _is_transposed(value) else _transposed(value)
    if not isinstance(value, str) or not _CHAT.match(value):
        return value
    found = literal(value)
    if isinstance(found, str):  # encoded twice
        found = literal(found)
    turns = conversation_in(found)
    return turns if is_list(turns) and all(map(is_turn, turns)) else value


def _turns(items: Sequence[Any]) -> Sequence[Any]:
    """Return turns of role and content for those of other keys, for Gemini's `parts`, and for pairs.

    Pairs are objects such as Capybara's `input` and `output`, or lists of two texts.
    """
    first = items[0] if items else None
    if is_list(first) and all(is_list(item) and len(item) == 2 for item in items):
        return _of_pairs(items)
    if not isinstance(first, Mapping):
        return items
    role, content = (next((key for key in keys if key in first), None) for keys in (_ROLES, _CONTENTS))
    if role and content and not is_turn(first) and all(isinstance(item, Mapping) for item in items):
        return [{**item, "role": item.get(role), "content": item.get(content)} for item in items]
    asked, answered = first.keys() & _USER_KEYS, first.keys() & _ANSWER_KEYS
    if len(first) == 2 and asked and answered and all(isinstance(item, Mapping) for item in items):
        sides = (("user", *asked), ("assistant", *answered))
        return [{"role": role, "content": item.get(key)} for item in items for role, key in sides]
    if "parts" not in first or "role" not in first:
        return items
    return [
        {**item, "content": _typed(item["parts"])} if isinstance(item, Mapping) and is_list(item.get("parts")) else item
        for item in items
    ]


def _of_pairs(items: Sequence[Any]) -> list[Any]:
    """Return turns for lists of a role and a text, or of a question (null before a greeting) and its answer."""
    if str(items[0][0]).lower() not in ROLES:
        items = [side for item in items for side in zip(("user", "assistant"), item, strict=True)]
    return [{"role": role, "content": text} for role, text in items if not (text is None and role == "user")]


def _typed(parts: Sequence[Any]) -> list[Any]:
    """Return the parts of a content with their types, which Gemini's have as a key: text, functionCall, inlineData."""
    return [
        {"type": "thought" if part.get("thought") else "text" if "text" in part else next(iter(part), "part"), **part}
        if isinstance(part, Mapping)
        else {"type": "text", "text": part}
        for part in parts
    ]


def joined(content: Any) -> tuple[Any, str | None]:
    """Return the text of a list of parts, as chat interfaces write content, and the type of one that is no text.

    `[{"type": "text", "text": …}]`, also as a literal; any other content is returned as it is.
    """
    parts = content
    if isinstance(content, str):
        parts = _literal_or_text(content) if _PARTS.match(content) else content
        if not is_list(parts) or not all(isinstance(part, Mapping) and part.get("type") in _TEXTS for part in parts):
            return content, None  # text, or an answer that is JSON
    if not is_list(parts) or not parts or not all(isinstance(part, Mapping) and "type" in part for part in parts):
        return content, None
    if (other := next((part["type"] for part in parts if part["type"] not in _TEXTS), None)) is not None:
        return content, str(other)
    texts = [part.get("text") for part in parts]
    texts = [text.get("value") if isinstance(text, Mapping) else text for text in texts]  # of OpenAI's Assistants
    known = [text for text in texts if text is not None]
    if not known:
        return None, None
    return "\n".join(known) if all(isinstance(text, str) for text in known) else content, None


def mapping_in(value: Any) -> Any:
    """Return an object that a text holds as a literal, and any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    found = _literal_or_text(value)
    return found if isinstance(found, Mapping) else value


def is_written_list(text: Any) -> bool:
    """Return whether a value is a text that holds a list of texts as JSON or a Python literal."""
    if not isinstance(text, str) or not text.startswith("["):
        return False
    found = _literal_or_text(text)
    return is_list(found) and len(found) > 0 and all(isinstance(item, str) for item in found)


def is_bytes(text: str) -> bool:
    """Return whether a text is the Python literal of bytes, b'…'."""
    return bool(_BYTES.match(text)) and isinstance(_literal_or_text(text), bytes)


def _is_transposed(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(map(is_list, value.values()))


def _transposed(value: Mapping[str, Any]) -> Any:
    """Return the items of `{key: list}`, the value itself where the lists are not of one length."""
    if not _is_transposed(value) or len({len(column) for column in value.values()}) > 1:
        return value
    return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
