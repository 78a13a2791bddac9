"""What columns, labels and scores mean: of several names in one tuple, the first that a row has counts.

Names are compared without regard to case and to how words are joined: `thumbsUp`, `Thumbs Up` and `thumbs_up` are one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pmpo_offline.data.exchange.forms.row import Row, filled, mapping_in, short
from pmpo_offline.runtime.errors import UserError, unknown

PROMPTS = ("prompt", "instruction", "question", "query", "user_message", "conversations", "input")
ADDED = ("input", "context", "passage", "document", "article", "background", "contexts", "passages", "documents")
"""Columns that continue the prompt, as in Alpaca's form."""
SYSTEM = ("system", "system_prompt", "system_message", "system_instruction", "system_instructions", "preamble")
HISTORY = ("history", "chat_history", "conversation_history", "previous_turns")
COMPLETIONS = ("completion", "response", "output", "answer", "reply", "assistant_message")
LABELS = ("label", "kto_tag", "is_safe", "thumbs", "thumbs_up", "thumb", "feedback", "vote", "accepted", "liked")
THUMBS_DOWN = "thumbs_down"
"""A reject where it is set; beside `thumbs_up`, neither of them set is no opinion."""
SCORES = ("score", "rating", "reward", "helpfulness", "overall_score", "fine-grained_score", "stars")
LIST_SCORES = ("overall_score", "fine-grained_score", "score", "rating", "reward", "rank")
_RANKS = {"rank", "ranks", "ranking", "rankings"}
"""Words of columns that count from the best down: the score is the number with the other sign."""
_LOWER = (
    "loss losses nll perplexity ppl error errors cost costs penalty regret distance toxicity harmfulness position "
    "violations latency failures uncertainty toxic harmful harm unsafe hallucinated hallucination hallucinations "
    "biased rejected flagged failed failure fail violation offensive spam bad wrong incorrect refused refusal "
    "insult threat obscene profanity"
)
"""Words of columns of which less is mostly better: `--score` must say it."""
CHATS = ("messages", "conversations", "conversation")
LISTS = ("completions", "answers", "responses", "generations", "candidates")
NOT_TEXT = (
    *("tools", "functions", "tool_calls", "function_call", "reasoning_content", "thinking"),
    *("images", "image", "image_url", "image_path", "audio", "audios", "videos", "video"),
)
"""Columns, and keys of a conversation's turns, whose rows are dropped where they are used."""
_SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "held", "holdout"), "test"
)
_HALVES = ("data_split", "dataset_split", "split_name", "partition", "subset", "set", "fold")
_FLAGS = {
    **dict.fromkeys(("is_train", "is_training"), ("train", "test")),
    **dict.fromkeys(("is_test", "is_validation", "is_eval", "is_dev", "is_held_out", "held_out"), ("test", "train")),
}
"""Columns of a yes or no, and the splits that yes and no mean."""
SPLITS = ("split", *_HALVES, *_FLAGS)
"""Columns that may say in which split of the source a row is."""
_AMBIGUOUS = ("subset", "set")
"""Those that mostly say something else."""
_BETTER = {
    **{f"{word}_is_better": 1.0 for word in ("higher", "larger", "greater", "bigger", "more")},
    **{f"{word}_is_better": -1.0 for word in ("lower", "smaller", "less")},
}
"""Columns that say whether more or less of a score is better."""
_SCALES = ("max_score", "max_rating", "score_max", "rating_max", "scale", "score_scale", "rating_scale", "out_of")
"""Columns of the largest score that could be given."""
GONE = (
    *("deleted", "removed", "excluded", "exclude", "discarded", "spam"),
    *("is_deleted", "is_removed", "is_excluded", "is_spam"),
)
"""Columns that mark rows that are not to be used."""
ABOUT = ("model", "source", "language", "lang", "redacted", *SPLITS)
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

_ACCEPTS = (
    "true 1 t y yes up thumbsup thumbs_up thumb_up upvote upvoted 👍 like liked accept accepted approve approved "
    "chosen desirable good great helpful pos positive preferred correct right pass passed safe success satisfied"
)
_REJECTS = (
    "false 0 -1 f n no down thumbsdown thumbs_down thumb_down downvote downvoted 👎 dislike disliked reject rejected "
    "disapproved undesirable bad unhelpful neg negative dispreferred incorrect wrong fail failed unsafe failure "
    "unsatisfied dissatisfied"
)
_NEITHER = "null none nan n/a na neutral unknown unrated skip skipped"
WORDS: Mapping[str, float] = {
    **dict.fromkeys(_ACCEPTS.split(), 1.0),
    **dict.fromkeys(_REJECTS.split(), -1.0),
    **dict.fromkeys(_NEITHER.split(), math.nan),
}
"""Scores of what labels are called; NaN is unlabelled."""
_INSIDE = ("rating", "thumb", "thumbs", "label", "value", "score", "type")
"""Keys of feedback that is an object."""


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
        if name in _KNOWN or name in asked.values() or (usual := snake(name)) not in _KNOWN or usual in asked:
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


def directed(score: str, where: str = "--score", written: str = "--score=") -> tuple[str, float]:
    """Return the column that `--score` (or a header) names, and the sign with which more of it is better.

    "-loss" takes its numbers with the other sign, "+loss" as they are; ranks have the other sign of themselves. Raises
    `UserError` for other names of which less is mostly better.
    """
    if score[:1] in ("-", "+") and len(score) > 1:
        return score[1:], -1.0 if score[0] == "-" else 1.0
    if _words(score) & _RANKS:
        return score, -1.0
    if _words(score) & {*_LOWER.split()}:
        raise UserError(f"{where} {score}: if less of it is better, write {written}-{score}, else {written}+{score}")
    return score, 1.0


def check_asked(asked: Mapping[str, str], accept: Sequence[str]) -> None:
    """Raise `UserError` if `--columns` takes for a label or a score a column of which less is mostly better."""
    for meaning, name in asked.items():
        if meaning in SCORES and not accept:
            directed(name)
        if meaning in LABELS and not accept and _words(name) & {*_LOWER.split()}:
            raise UserError(
                f"--columns {meaning}={name}: true seems to mean reject: add --accept with the value that means "
                "accept, as in --accept false"
            )


def split_named(name: object) -> str | None:
    """Return "train" or "test" for the name of a split or of its file, None for a name that is neither."""
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", str(name)).lower())
    found = [_SPLITS[word] for word in words if word in _SPLITS]
    return found[-1] if found else None


def first_of(row: Row, names: Iterable[str]) -> str | None:
    """Return the first of these columns that a row has."""
    return next((name for name in names if name in row.values), None)


def _words(name: str) -> set[str]:
    return set(snake(name).split("_"))


def snake(name: str) -> str:
    """Return a name in lower case, its words joined by underscores: `thumbsUp` is thumbs_up."""
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


class SomeFramed(UserError):
    """Some rows have a system message or a history, and others are plain texts: read them with `Row.framed`."""


@dataclass
class Reading:
    """How a source is read, and what was met on the way."""

    score: str | None = None
    """The column of scores; None: the form's own."""
    transcripts: bool = True
    """Whether conversations become `Human:/Assistant:` transcripts, so that such texts need not be taken apart."""
    accept: tuple[str, ...] = ()
    """The values of the column of labels (or of `score`) that mean accept, all others meaning reject; empty: words."""
    sign: float = 1.0
    """Of the scores in the column `score`, such that more is better."""
    meant: dict[str, str] = field(default_factory=dict)
    """The labels that occurred, and how they were interpreted."""
    conversational: bool | None = None
    """Whether the texts are conversations; None before the first row."""
    framed: bool = False
    """Whether a row had a system message or a history."""
    list_score: str | None = None
    """The column of scores in lists of completions, once it was met: their scales are not mixed."""
    unused: str | None = None
    """What `--score` calls the first numbers beside the labels that are not used, if there are any."""
    used: set[str] = field(default_factory=set)
    """Columns that labels and scores were taken from."""
    unread: set[str] = field(default_factory=set)
    """Columns that hold something and are not the form's."""
    other_splits: Counter[str] = field(default_factory=Counter)
    """What columns of splits say besides train and test."""
    scales: dict[str, Any] = field(default_factory=dict)
    """The first value of each column of largest scores."""
    disagreeing: Counter[str] = field(default_factory=Counter)
    """Pairs whose own scores say "lower" or "equal" of the chosen response."""
    kinds: dict[tuple[str, bool], str] = field(default_factory=dict)
    """Where a column of scores first held a Boolean, and a number that is none."""

    def pass_over(self, scores: Mapping[str, Any]) -> None:
        """Note scores that are not taken, by what `--score` calls them, where they say more than their label."""
        if self.score is None and self.unused is None:
            self.unused = next((name for name, value in scores.items() if value not in (None, "", 1, 0, -1)), None)

    def steady(self, row: Row, conversational: bool) -> None:
        """Raise `UserError` where plain texts and conversations are mixed: `SomeFramed` if a row has what frames it."""
        if self.conversational is None:
            self.conversational = conversational
        self.framed |= any(filled(row.values.get(name)) for name in (*SYSTEM, *HISTORY))
        if self.conversational != conversational:
            kinds = {True: "a conversation", False: "plain text"}
            error = row.error(
                f"found {kinds[conversational]}, and the rows before hold {kinds[self.conversational]}: "
                "import files of one form at a time"
            )
            raise SomeFramed(str(error)) if self.framed else error

    def split(self, row: Row) -> str | None:
        """Return the split that a row is of by its file and its columns, None if nothing says it.

        Raises `UserError` for numbered parts, of which none is held out, and for columns that contradict each other.
        """
        found = {"(its file's name)": row.split} if row.split else {}
        for name in SPLITS:
            if name not in row.values or not filled(value := row.values[name]):
                continue
            word = word_of(value)
            if name in _FLAGS:
                if word not in WORDS:
                    raise row.error(f"expected true or false in column {name}, found {short(value)}")
                found |= {1.0: {name: _FLAGS[name][0]}, -1.0: {name: _FLAGS[name][1]}}.get(WORDS[word], {})
            elif name not in _AMBIGUOUS and re.fullmatch(r"-?\d+", word):
                what = (
                    "the folds: call one test in a column split"
                    if name == "fold"
                    else "its parts: call them train and test"
                )
                raise row.error(f"column {name} numbers {what}, or add --test-share 0.1")
            elif named := split_named(value) if "split" in name else _SPLITS.get(word):
                found[name] = named
            elif name not in _AMBIGUOUS:
                self.other_splits[f"{name} {short(value)}"] += 1
        if len(set(found.values())) > 1:
            raise row.error(f"columns {' and '.join(found)} say different splits: leave all but one out")
        return next(iter(found.values()), None)

    def number(self, row: Row, name: str) -> float:
        """Return a column's score: its number, with the other sign for a rank; the label where `accept` is given.

        Raises `UserError` where a column holds true or false beside numbers other than 0 and 1, where another says that
        less is better, or that scores are on several scales.
        """
        self.used.add(name)
        if self.accept:
            return self.label(row, name)
        self._check_scale(row, name)
        value, number = row.values.get(name), row.number(name)
        flag = isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))
        if flag or not (math.isnan(number) or number in (0, 1)):
            self.kinds.setdefault((name, flag), row.place)
            if other := self.kinds.get((name, not flag)):
                held = ("true or false", "a number")[:: 1 if flag else -1]
                raise row.error(f"column {name} holds {held[0]}, and {held[1]} in {other}: write one kind of score")
        return number * (self.sign if self.score else -1.0 if name in _RANKS else 1.0)

    def _check_scale(self, row: Row, name: str) -> None:
        for other, sign in _BETTER.items():
            if other in row.values:
                self.used.add(other)
                if WORDS.get(word_of(row.values[other]), sign) * sign * self.sign < 0 and name not in _RANKS:
                    more, direction = ("less", "-") if self.sign > 0 else ("more", "+")
                    raise row.error(
                        f"column {other} says that {more} of {name} is better: write --score={direction}{name}"
                    )
        for other in _SCALES:
            if other in row.values and filled(value := row.values[other]):
                self.used.add(other)
                if (first := self.scales.setdefault(other, value)) != value:
                    raise row.error(
                        f"column {other} is {short(value)}, and {short(first)} before: divide the scores by it"
                    )

    def feedback(self, row: Row) -> float:
        """Return the label of the row; `UserError` if two columns of labels contradict each other."""
        name, *others = [name for name in LABELS if name in row.values]
        value = self.label(row, name)
        for other in others:
            if not self.accept and not math.isnan(value) and WORDS.get(word_of(row.values[other]), value) == -value:
                raise row.error(f"columns {name} and {other} contradict each other: leave one of them out")
        if THUMBS_DOWN not in row.values:
            return value
        down = self.label(row, THUMBS_DOWN)
        if value == down == 1:
            raise row.error(f"columns {name} and {THUMBS_DOWN} are both set: leave one of them out")
        return value if value == 1 else -1.0 if down == 1 else math.nan

    def label(self, row: Row, name: str) -> float:
        """Return +1 for true, 1 and words as up, good, yes; −1 for false, 0, −1, down, bad, no, …; NaN for null.

        Where −1 occurs, 0 could be a reject or no opinion, and a column that holds both is refused, as is every value
        of no known meaning: `UserError`.
        """
        self.used.add(name)
        value = inside(row.values.get(name))
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            self.meant["null"] = "unlabelled"
            return math.nan
        word = word_of(value)
        if self.accept:
            label = 1.0 if word in map(word_of, self.accept) else -1.0
        elif word in WORDS:
            label = WORDS[word]
        else:
            raise row.error(
                f"expected true, false, 1, 0, -1, up, down or null in column {name}, found {short(value)} (words such "
                "as good or bad are read too; others: --accept VALUE; columns of numbers: --score COLUMN)"
            )
        self.meant[word] = {1.0: "accept", -1.0: "reject"}.get(label, "unlabelled")
        if {"0", "-1"} <= self.meant.keys() and not self.accept:
            raise row.error(f"column {name} holds both 0 and -1: write null where there was no opinion")
        return label


def inside(value: Any) -> Any:
    """Return what feedback that is an object says, `{"rating": "up"}`; any other value as it is."""
    found = mapping_in(value)
    return next((found[key] for key in _INSIDE if key in found), value) if isinstance(found, Mapping) else value


def word_of(value: Any) -> str:
    """Return a label without case, white space, signs of emoji and the like: "Thumbs Up" is thumbs_up, 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    word = re.sub("[\ufe0f\U0001f3fb-\U0001f3ff]", "", str(value)).strip().strip(":").lower().removeprefix("+")
    word = re.sub(r"(?<=\w)[ -](?=\w)", "_", word)
    return {"1.0": "1", "0.0": "0", "-1.0": "-1", "−1": "-1"}.get(word, word)
