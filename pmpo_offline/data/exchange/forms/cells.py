"""JSON and Python literals in cells of text: conversations, parts of a content, feedback, bytes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

TURNS = (("role", "content"), ("from", "value"))
"""Keys of a conversation's turn: as TRL and as ShareGPT call them."""
_CHAT = re.compile(
    r"""\s*"?(?:array\(\s*)?(\[\s*\{\s*\\?["'](role|content|from)\\?["']\s*:\s*\\?["']"""
    r"""|\[\s*\{(?=.*["']role\\?["']\s*:)(?=.*["']content\\?["']\s*:)"""
    r"""|\[\s*\{(?=.*["']from\\?["']\s*:\s*\\?["'](?:human|gpt|system|user)\b)(?=.*["']value\\?["']\s*:)"""
    r"""|\{\s*["'](role["']\s*:.*["']content|content["']\s*:.*["']role"""
    r"""|from["']\s*:\s*["'](human|gpt|system)["'].*["']value)["']\s*:.*\}\s*$)""",
    re.DOTALL,
)
"""What a text begins with that is a conversation, or all of one turn."""
_PARTS = re.compile(r"""\s*\[\s*\{(?=.*["']type["']\s*:)(?=.*["']text["']\s*:).*\]\s*$""", re.DOTALL)
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=object)?\)\s*$", re.DOTALL)
_BYTES = re.compile(r"""b(["']).*\1\s*$""", re.DOTALL)
_TEXTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that are text."""


def is_list(value: Any) -> bool:
    """Return whether a value is a list, as conversations are."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def is_turn(value: Any) -> bool:
    """Return whether a value has the keys of a conversation's turn."""
    return isinstance(value, Mapping) and any(keys <= value.keys() for keys in map(set, TURNS))


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


def conversation_in(value: Any) -> Any:
    """Return a conversation as a list of turns however it is written, and any other value as it is.

    It may be one turn, text that holds a literal, or a list for each key of a turn, as Hugging Face's `Sequence` stores
    it. Raises `ValueError` for text that begins as a conversation does and cannot be parsed.
    """
    if isinstance(value, Mapping):
        return [value] if is_turn(value) and not _is_transposed(value) else _transposed(value)
    if not isinstance(value, str) or not _CHAT.match(value):
        return value
    found = literal(value)
    if isinstance(found, str):  # encoded twice
        found = literal(found)
    turns = found if isinstance(found, list) else conversation_in(found)
    return turns if is_list(turns) and all(map(is_turn, turns)) else value


def joined(content: Any) -> tuple[Any, str | None]:
    """Return the text of a list of parts, as chat interfaces write content, and the type of one that is no text.

    `[{"type": "text", "text": …}]`, also as a literal; any other content is returned as it is.
    """
    parts = content
    if isinstance(content, str):
        if not _PARTS.match(content):
            return content, None
        try:
            parts = literal(content)
        except ValueError:
            return content, None
        if not is_list(parts) or not all(isinstance(part, Mapping) and part.get("type") in _TEXTS for part in parts):
            return content, None  # an answer that is JSON
    if not is_list(parts) or not parts or not all(isinstance(part, Mapping) and "type" in part for part in parts):
        return content, None
    if (other := next((part["type"] for part in parts if part["type"] not in _TEXTS), None)) is not None:
        return content, str(other)
    texts = [part.get("text") for part in parts]
    return "\n".join(texts) if all(isinstance(text, str) for text in texts) else content, None


def mapping_in(value: Any) -> Any:
    """Return an object that a text holds as a literal, and any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        found = literal(value)
    except ValueError:
        return value
    return found if isinstance(found, Mapping) else value


def is_bytes(text: str) -> bool:
    """Return whether a text is the Python literal of bytes, b'…'."""
    if not _BYTES.match(text):
        return False
    try:
        return isinstance(ast.literal_eval(text.strip()), bytes)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _is_transposed(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(map(is_list, value.values()))


def _transposed(value: Mapping[str, Any]) -> Any:
    """Return the items of `{key: list}`, the value itself where the lists are not of one length."""
    if not _is_transposed(value) or len({len(column) for column in value.values()}) > 1:
        return value
    return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
