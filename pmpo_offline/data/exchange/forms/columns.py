"""Names of columns and what they mean: of several in one tuple, the first that a row has counts.

Names are compared without regard to case and to how words are joined: `thumbsUp`, `Thumbs Up` and `thumbs_up` are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pmpo_offline.data.exchange.forms.row import Row
from pmpo_offline.runtime.errors import UserError, unknown

PROMPTS = ("prompt", "instruction", "question", "query", "user_message", "conversations", "input")
ADDED = ("input", "context", "passage", "document", "article", "background")
"""Columns that continue the prompt, as in Alpaca's form."""
SYSTEM = ("system", "system_prompt", "system_message")
HISTORY = ("history", "chat_history")
COMPLETIONS = ("completion", "response", "output", "answer", "reply", "assistant_message")
LABELS = ("label", "kto_tag", "is_safe", "thumbs", "thumbs_up", "thumb", "feedback", "vote", "accepted", "liked")
THUMBS_DOWN = "thumbs_down"
"""A reject where it is set; beside `thumbs_up`, neither of them set is no opinion."""
SCORES = ("score", "rating", "reward", "helpfulness", "overall_score", "fine-grained_score", "stars")
LIST_SCORES = ("overall_score", "fine-grained_score", "score", "rating", "reward", "rank")
RANKS = ("rank",)
"""Columns that count from the best down: the score is the number with the other sign."""
CHATS = ("messages", "conversations", "conversation")
LISTS = ("completions", "answers", "responses", "generations", "candidates")
NOT_TEXT = (
    *("tools", "functions", "tool_calls", "function_call", "reasoning_content"),
    *("images", "image", "audio", "audios", "videos"),
)
"""Columns, and keys of a conversation's turns, whose rows are dropped where they are used."""
ABOUT = ("model", "source", "language", "lang", "redacted", "split")
_SAME = (PROMPTS, COMPLETIONS, LABELS, SCORES, SYSTEM, HISTORY, CHATS)
_USUAL = (*(same[0] for same in _SAME), "chosen", "rejected", "source", "language", "split")
_KNOWN = {
    *ADDED,
    *LISTS,
    *NOT_TEXT,
    *ABOUT,
    THUMBS_DOWN,
    "chosen",
    "rejected",
    *(name for same in _SAME for name in same),
}


def renaming(first: Row, asked: Mapping[str, str]) -> dict[str, str | None]:
    """Return the new names of a source's columns, by its own; None for a column that another takes the place of.

    Args:
        first: the first row.
        asked: `--columns`: what a column means, and its name, or the path to it ("feedback.rating").

    Raises:
        UserError: there is no such column or no such meaning.
    """
    names: dict[str, str | None] = {}
    for meaning, name in asked.items():
        if meaning not in _KNOWN:
            raise unknown("meaning of a column", meaning, _USUAL)
        if name not in first.values and not _at(first.values, name)[0]:
            raise first.error(f"--columns: there is no column {name}: it holds {', '.join(list(first.values)[:12])}")
        same = next((names for names in _SAME if meaning in names), (meaning,))
        names |= {other: None for other in same if other not in (ADDED if meaning in PROMPTS else ())}
    for name in first.values:
        if name in _KNOWN or name in asked.values() or (usual := _snake(name)) not in _KNOWN or usual in asked:
            continue
        if usual in first.values or usual in names.values():
            raise first.error(
                f"holds several columns called {usual}: rename {name}, or say what it means with --columns"
            )
        names[name] = usual
    return {**names, **{name: meaning for meaning, name in asked.items()}}


def renamed(row: Row, names: Mapping[str, str | None]) -> Row:
    """Return a row with the columns' new names."""
    if not names:
        return row
    values = {new: value for name, value in row.values.items() if (new := names.get(name, name)) is not None}
    for path, new in names.items():
        if new is not None and path not in row.values and (found := _at(row.values, path))[0]:
            values[new] = found[1]
    return row._replace(values=values)


def parse(asked: Sequence[str]) -> dict[str, str]:
    """Return what `--columns prompt=question,label=kto_tag` says; `UserError` for text of another form."""
    pairs = [[side.strip() for side in part.partition("=")[::2]] for part in asked]
    if wrong := [part for part, pair in zip(asked, pairs, strict=True) if not all(pair)]:
        raise UserError(f"--columns {','.join(asked)}: write MEANING=COLUMN, as in prompt=question, not {wrong[0]!r}")
    found = dict(pairs)
    if len(found) < len(pairs) or len(set(found.values())) < len(pairs):
        raise UserError(f"--columns {','.join(asked)}: names a column or a meaning twice")
    return found


def first_of(row: Row, names: Iterable[str]) -> str | None:
    """Return the first of these columns that a row has."""
    return next((name for name in names if name in row.values), None)


def _snake(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s_-]+", "_", words).lower()


def _at(values: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Return whether there is something at a path of names, and what it is."""
    found: Any = values
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return False, None
        found = found[name]
    return True, found
