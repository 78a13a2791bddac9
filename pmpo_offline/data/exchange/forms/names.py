"""What the words of a column's name suggest: feedback, part of a prompt, a score of which less is better."""

from __future__ import annotations

import re
from functools import cache

from pmpo_offline.data.exchange.forms.cells import INVISIBLE

RANKS = {"rank", "ranks", "ranking", "rankings"}
"""Words of columns that count from the best down: the score is the number with the other sign."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


NUMBERS = _set("score scores rating ratings reward grade stars labels helpfulness")
"""Words of columns for feedback that are mostly for numbers."""
_FEEDBACK = NUMBERS - {"helpfulness"} | _set(
    "label feedback thumb thumbs vote verdict correct helpful preferred accepted approved liked chosen useful upvoted "
    "good acceptable positive preference judgment judgement decision reaction"
)
_BESIDE_FEEDBACK = _set("is was if up user human expert final gold overall mean average judge")
"""Words of columns that may be feedback, and the words beside them."""
_PARTS = _set(
    "prompt question query instruction problem post text request input inputs message body content dialogue dialog "
    "utterance"
)
_ASKING = _PARTS | _set("user human task title definition")
_NO_TEXT = _set("id ids uuid hash index type count name category length tokens source")
"""Words of columns that may be a prompt, and of those that are none in spite of them."""
_SOURCES = _set("sentence premise hypothesis code snippet story email excerpt transcript claim context source text")
_BESIDE_PARTS = _set("user human additional extra original raw in")
"""Words of columns that are part of a prompt if rows of one prompt differ in them, and the words beside them."""
_ABOUT_ROWS = _NO_TEXT | _set("date time timestamp created updated at url model author license version tags metadata")
"""Words of columns about the row."""
_NO_PART = _ABOUT_ROWS | _set(
    "comment comments reason rationale explanation justification critique review note notes feedback annotation "
    "annotator reference gold expected answer answers response output completion chosen rejected generation"
)
"""Words of columns that rarely are part of a prompt, for they are about the answer or the row."""
LOWER = _set(
    "loss losses nll perplexity ppl error errors cost costs penalty regret distance toxicity harmfulness position "
    "violations latency failures uncertainty toxic harmful harm unsafe hallucinated hallucination hallucinations "
    "biased rejected flagged failed failure fail violation offensive spam bad wrong incorrect refused refusal "
    "insult threat obscene profanity reject rejects rejection negative negatives"
)
"""Words of columns of which less is mostly better: `--score` must say it."""


@cache
def snake(name: str) -> str:
    """Return a name in lower case, its words joined by underscores: `thumbsUp` is thumbs_up."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip(INVISIBLE))
    return re.sub(r"[\s_-]+", "_", words).lower()


@cache
def words_of(name: str) -> frozenset[str]:
    """Return the words of a name, in lower case."""
    return frozenset(snake(name).split("_"))


def is_feedback(name: str) -> bool:
    """Return whether a name is made of words for labels and scores alone: human_label, is_correct."""
    words = words_of(name)
    return bool(words & _FEEDBACK) and words <= _FEEDBACK | _BESIDE_FEEDBACK


def may_ask(name: str) -> bool:
    """Return whether a column may hold what was asked, by the words of its name: problem, user_prompt, but user_id."""
    words = words_of(name)
    return bool(words & _ASKING) and not words & _NO_TEXT


def is_part_of_prompt(name: str) -> bool:
    """Return whether a name is made of words for parts of a prompt alone: input_text, user_input, code."""
    words = words_of(name)
    return bool(words & (_PARTS | _SOURCES)) and words <= _PARTS | _SOURCES | _BESIDE_PARTS


def is_about_row(name: str) -> bool:
    """Return whether a name is made of words about the row: created_at, user_id, model_version, metadata."""
    return words_of(name) <= _ABOUT_ROWS | {"user"}


def may_be_part(name: str, value: str) -> bool:
    """Return whether a text of several words may be part of a prompt, by the words of its column's name."""
    return " " in value.strip() and not words_of(name) & _NO_PART and not is_feedback(name)
