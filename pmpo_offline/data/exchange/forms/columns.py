"""What columns, labels and scores mean: of several names in one tuple, the first that a row has counts.

Names are compared without regard to case and to how words are joined: `thumbsUp`, `Thumbs Up` and `thumbs_up` are one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pmpo_offline.data.exchange.forms.cells import NOTHING, is_list, is_turn, mapping_in, role_of
from pmpo_offline.data.exchange.forms.names import LOWER, NUMBERS, RANKS, is_feedback, snake, words_of
from pmpo_offline.data.exchange.forms.row import ENDINGS, Row
from pmpo_offline.runtime.errors import UserError, unknown


def _names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


PROMPTS = ("prompt", "instruction", "question", "query", "user_message", "conversations", "input")
ADDED = _names(
    "input context passage document article background contexts passages documents knowledge paragraph choices options "
    "retrieved_contexts"
)
"""Columns that continue the prompt, as in Alpaca's form."""
SYSTEM = _names(
    "system system_prompt system_message system_instruction system_instructions preamble sys_prompt developer_message "
    "instructions"  # the last is of OpenAI's Responses
)
HISTORY = ("history", "chat_history", "conversation_history", "previous_turns")
COMPLETIONS = ("completion", "response", "output", "answer", "reply", "assistant_message")
LABELS = ("label", "kto_tag", "is_safe", "thumbs", "thumbs_up", "thumb", "feedback", "vote", "accepted", "liked")
THUMBS_DOWN = ("thumbs_down", "disliked", "dislike", "downvoted", "downvote", "rejected")
"""A reject where it is set; beside `thumbs_up` or the like, neither of them set is no opinion."""
SCORES = ("score", "rating", "reward", "helpfulness", "overall_score", "fine-grained_score", "stars")
LIST_SCORES = ("overall_score", "fine-grained_score", "score", "rating", "reward", "rank")
CHATS = ("messages", "conversations", "conversation", "contents")
SIDES = ("chosen_response", "rejected_response")
"""Other names of the sides of a pair, chosen and rejected."""
LISTS = ("completions", "answers", "responses", "generations", "candidates")
NOT_TEXT = _names(
    "tools functions tool_calls function_call reasoning_content thinking images image image_url image_path audio "
    "audios videos video attachments attachment message_files suffix"
)
"""Columns whose rows are dropped where they are used."""
NOT_TEXT_IN_TURNS = {*NOT_TEXT, "reasoning", "reasoning_details", "tool_invocations", "files"} - {"suffix"}
"""Keys of a conversation's turns, however their words are joined, whose rows are dropped where they are used."""
_HELD_OUT = "test testing devtest validation valid val dev eval evaluation heldout held holdout"
PARTS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(_HELD_OUT.split(), "test")
"""The split that a word for a part of a data set means."""
_TRAIN_FLAGS = "is_train is_training in_train in_train_set"
_TEST_FLAGS = (
    "is_test is_validation is_val is_eval is_dev in_test in_test_set is_held_out held_out is_holdout holdout "
    "is_heldout heldout"
)
SPLIT_FLAGS = {
    **dict.fromkeys(_TRAIN_FLAGS.split(), ("train", "test")),
    **dict.fromkeys(_TEST_FLAGS.split(), ("test", "train")),
}
"""Columns of a yes or no, and the splits that yes and no mean."""
SPLITS = (
    *("split", "data_split", "dataset_split", "split_name", "partition", "subset", "set", "fold", "phase"),
    *SPLIT_FLAGS,
)
"""Columns that may say in which split of the source a row is."""
AMBIGUOUS_SPLITS = ("subset", "set", "phase")
"""Those that mostly say something else."""
GONE = _names("deleted removed excluded exclude discarded spam is_deleted is_removed is_excluded is_spam")
"""Columns that mark rows that are not to be used."""
STATES_GONE = {"deleted", "removed", "excluded", "discarded", "skipped"}
"""Values of a column `status` in such rows."""
ABOUT = ("model", "source", "language", "lang", "redacted", *ENDINGS, *SPLITS)
_SAME = (PROMPTS, COMPLETIONS, LABELS, SCORES, SYSTEM, HISTORY, CHATS)
_PAIR = ("chosen", "rejected")
_USUAL = (*(same[0] for same in _SAME), *_PAIR, "source", "language", "split")
_KNOWN = {name for names in (*_SAME, ADDED, LISTS, NOT_TEXT, ABOUT, THUMBS_DOWN, _PAIR) for name in names}

_ACCEPTS = (
    "true 1 t y yes up thumbsup thumbs_up thumb_up upvote upvoted 👍 ✅ ✓ ✔ like liked accept accepted approve "
    "approved chosen desirable good great helpful pos positive preferred correct right pass passed safe success "
    "satisfied"
)
_REJECTS = (
    "false 0 -1 f n no down thumbsdown thumbs_down thumb_down downvote downvoted 👎 dislike disliked reject rejected "
    "disapproved ❌ ✗ ✘ undesirable bad unhelpful neg negative dispreferred incorrect wrong fail failed unsafe failure "
    "unsatisfied dissatisfied"
)
_NEITHER = "neutral unknown unrated skip skipped ignore ignored"
WORDS: Mapping[str, float] = {
    **dict.fromkeys(_ACCEPTS.split(), 1.0),
    **dict.fromkeys(_REJECTS.split(), -1.0),
    **dict.fromkeys((*_NEITHER.split(), *NOTHING - {""}), math.nan),
}
"""Scores of what labels are called; NaN is unlabelled."""
_INSIDE = ("rating", "thumb", "thumbs", "label", "value", "score", "type")
"""Keys of feedback that is an object."""


def renaming(first: Row, asked: Mapping[str, str], score: str | None, others: Iterable[str]) -> dict[str, str | None]:
    """Return the new names of a source's columns, by its own; None for a column that another takes the place of.

    Args:
        first: the first row.
        asked: `--columns`: what a column means, and its name, or the path to it ("feedback.rating").
        score: the column of `--score`, which is not taken for anything else.
        others: names of columns that forms have.

    Raises:
        UserError: there is no such column or no such meaning.
    """
    names: dict[str, str | None] = {}
    for meaning, name in asked.items():
        if meaning not in _KNOWN:
            raise unknown("meaning of a column", meaning, _USUAL)
        if name not in first.values and not _at(first.values, name)[0]:
            raise first.error(f"--columns: there is no column {name}: it holds {first.held}")
        same = next((names for names in _SAME if meaning in names), (meaning,))
        names |= {other: None for other in same if other not in (ADDED if meaning in PROMPTS else ())}
    written = {snake(name): name for name in others} | {name: name for name in _KNOWN}
    for name in first.values:
        usual = written.get(snake(name), name)
        if usual in (name, *asked) or name in (score, *asked.values()) or name in _KNOWN:
            continue
        if usual in first.values or usual in names.values():
            raise first.error(
                f"holds several columns called {usual}: rename {name}, or say what it means with --columns"
            )
        names[name] = usual
    names |= {name: meaning for meaning, name in asked.items()}
    return names | _implied(renamed(first, names), names, score)


def _implied(row: Row, names: Mapping[str, str | None], score: str | None) -> dict[str, str]:
    """Return what columns of other names mean by what a first row holds.

    A conversation that ends with the user's turn is the prompt of a completion beside it; the one column whose name is
    made of words for feedback is the label, if it holds one or nothing: `user_feedback: up`, `rating: like`.
    """
    found = {}
    said = {name: turns[-1] for name in (*CHATS, "context") if is_list(turns := row.value(name)) and turns}
    asked = next((name for name, last in said.items() if is_turn(last) and role_of(last) == "user"), None)
    if asked and not (row.values.keys() & {*PROMPTS} - {asked}) and row.values.keys() & {*COMPLETIONS, *LISTS}:
        found[asked] = "prompt"
    one = row.values.keys() & {*COMPLETIONS, *CHATS} and not row.values.keys() & {*LABELS, *THUMBS_DOWN}
    if one and score is None:
        rated = [name for name in row.values if name in SCORES or is_feedback(name)]
        if len(rated) == 1 and _may_label(rated[0], inside(row.values[rated[0]])):
            found[rated[0]] = "label"
    old = {new: name for name, new in names.items() if new}
    return {old.get(name, name): meaning for name, meaning in found.items()}


def _may_label(name: str, value: Any) -> bool:
    """Return whether a value of a column for feedback may be a label, rather than a number that is a score."""
    word = word_of(value)
    if not isinstance(value, str | None) or word in NOTHING or re.fullmatch(r"-?\d+", word):
        return word in WORDS and not words_of(name) & NUMBERS
    return word in WORDS and not (name in SCORES and word in ("true", "false"))


def renamed(row: Row, names: Mapping[str, str | None]) -> Row:
    """Return a row with the columns' new names.

    Of an object that a path leads into, what it holds beside that says how its text came about (tools, the reason of
    its end) is a column too, and the rest is called `<name>.*`.
    """
    if not names:
        return row
    values = {new: value for name, value in row.values.items() if (new := names.get(name, name)) is not None}
    for path, new in names.items():
        top, parent = path.partition(".")[0], path.rpartition(".")[0]
        if new is None or path in row.values or top not in row.values:
            continue
        values[new] = _at(row.values, path)[1]  # None where the object lacks it
        around = _at(row.values, parent)[1]
        for name in (*NOT_TEXT, *ENDINGS):
            if isinstance(around, Mapping) and name in around:
                values.setdefault(name, around[name])
        if top in values and top not in names.values():
            values[f"{top}.*"] = values.pop(top)
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


def directed(score: str, where: str = "--score", written: str = "--score=") -> tuple[str, float]:
    """Return the column that `--score` (or a header) names, and the sign with which more of it is better.

    "-loss" takes its numbers, or labels, with the other sign, "+loss" as they are; ranks and thumbs down have the other
    sign of themselves. Raises `UserError` for other names of which less is mostly better.
    """
    if score[:1] in ("-", "+") and len(score) > 1:
        return score[1:], -1.0 if score[0] == "-" else 1.0
    words = words_of(score.rpartition("/")[2])  # of an array of a group: infos/failed
    if words & RANKS:
        return score, -1.0
    if words & LOWER:
        raise UserError(f"{where} {score}: if less of it is better, write {written}-{score}, else {written}+{score}")
    return score, -1.0 if snake(score) in THUMBS_DOWN else 1.0


def check_asked(asked: Mapping[str, str], accept: Sequence[str]) -> None:
    """Raise `UserError` if `--columns` takes for a label or a score a column of which less is mostly better."""
    for meaning, name in asked.items():
        if meaning in SCORES and not accept and directed(name)[1] < 0:
            raise UserError(f"--columns {meaning}={name}: ranks count from the best down: write --score {name}")
        if meaning in LABELS and not accept and words_of(name) & LOWER:
            raise UserError(
                f"--columns {meaning}={name}: true seems to mean reject: add --accept with the value that means "
                "accept, as in --accept false"
            )


def is_set(value: Any) -> bool:
    """Return whether a flag is set, also where it is a text."""
    return WORDS.get(word_of(value)) == 1


def split_named(name: object) -> str | None:
    """Return "train" or "test" for the name of a split or of its file, None for a name that is neither."""
    for part in reversed(str(name).split("/")):
        words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", part).lower())
        if found := {PARTS[word] for word in words if word in PARTS}:
            return found.pop() if len(found) == 1 else None
    return None


def _at(values: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Return whether there is something at a path of names and numbers of items, from 0, and what it is."""
    found: Any = values
    for name in path.split("."):
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif is_list(found) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return False, None
    return True, found


def inside(value: Any) -> Any:
    """Return what feedback that is an object says, `{"rating": "up"}`; any other value as it is."""
    found = mapping_in(value)
    return next((found[key] for key in _INSIDE if key in found), value) if isinstance(found, Mapping) else value


def word_of(value: Any) -> str:
    """Return a label without case, white space, signs of emoji and the like: "Thumbs Up" is thumbs_up, 1.0 is 1."""
    if isinstance(value, (float, Decimal)) and float(value).is_integer():
        return str(int(value))
    word = re.sub("[\ufe0f\U0001f3fb-\U0001f3ff]", "", str(value)).strip().strip(":").lower()
    word = word.removeprefix("+") or word  # +1 is 1, and + is a word of its own
    word = re.sub(r"(?<=\w)[ -](?=\w)", "_", word)
    return re.sub(r"(?<=\d)\.0+$", "", word.replace("−", "-"))
