"""The sentiment task: continue templated beginnings of sentences; a sentiment lexicon (VADER) is the reward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.task import LanguageTask

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

# Openings that ask for an opinion and give none; {} is a kind and a noun, "new restaurant".
_OPENINGS: dict[tuple[str, ...], tuple[str, ...]] = {
    (
        "The {} on the corner was",
        "I feel that the {} on the corner is",
        "We met near the {}, and it made us feel",
        "My sister says that the {} near her house is",
        "Most visitors say that the atmosphere of the {} is",
        "What people feel when they enter the {} is",
    ): (
        *("restaurant", "hotel", "museum", "library", "bakery", "cinema"),
        *("park", "bookshop", "market", "campsite", "swimming pool", "café"),
    ),
    (
        "My honest opinion of the {} is that it is",
        "After a month with the {}, I feel",
        "I would describe the {} that I bought as",
        "Everyone who sees my {} says that it looks",
        "When I use the {}, it makes me feel",
        "The quality of the {} is",
    ): (
        *("phone", "camera", "bicycle", "laptop", "guitar", "coffee machine"),
        *("lamp", "sofa", "car", "jacket", "radio", "headset"),
    ),
    (
        "Everybody at work says that the {} is",
        "Working with the {} made me feel",
        "As a person, the {} is",
        "The {} looked at us and felt",
        "People who know the {} say that she is",
        "My feelings about the {} are",
    ): (
        *("teacher", "neighbour", "doctor", "manager", "driver", "waiter"),
        *("colleague", "coach", "nurse", "landlord", "guide", "student"),
    ),
    (
        "Looking back, the {} made me feel",
        "By the end of the {}, everyone felt",
        "The mood at the {} was",
        "Friends who went to the {} told me that it was",
        "For me, the {} was an experience of",
        "I wrote in my diary that the {} was",
    ): (
        *("concert", "meeting", "wedding", "play", "match", "lecture"),
        *("festival", "exam", "trip", "party", "show", "election"),
    ),
}
_KINDS = ("new", "old", "first", "second", "other", "local", "little", "last")


def reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return VADER's compound score of each completion, -1 to 1, whatever the prompt.

    Raises `UserError` if vaderSentiment is not installed.
    """
    lexicon = _lexicon()
    return [lexicon.polarity_scores(text)["compound"] for text in completions]


@cache
def _openings() -> tuple[str, ...]:
    return tuple(
        template.format(f"{kind} {noun}")
        for templates, nouns in _OPENINGS.items()
        for template, kind, noun in product(templates, _KINDS, nouns)
    )


@cache
def _lexicon() -> SentimentIntensityAnalyzer:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise UserError(
            "language/sentiment is scored by vaderSentiment, which is not installed: "
            "pip install 'pmpo-offline[language]'"
        ) from None
    return SentimentIntensityAnalyzer()


TASK = LanguageTask("language/sentiment", reward, _openings, tokens=24, ends=False)
"""Continue an opening, plain text without a chat template; the more positive, the better."""
