"""Say something nice: templated openings of sentences, continued, and scored by a sentiment lexicon (VADER)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.errors import UserError
from pmpo_offline.tasks.language import smollm2
from pmpo_offline.tasks.language.combinations import chosen

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

# Openings that say nothing good or bad themselves; {} is a kind and a thing: "new restaurant".
_PLACES = (
    "The {} on the corner was",
    "We spent an evening at the {}, and it was",
    "My sister told me that the {} near her house is",
    "When we arrived at the {}, we found it",
    "After two hours in the {}, I thought that it was",
    "People in our town say that the {} is",
    "The first thing I noticed about the {} was",
    "Most visitors describe the {} as",
)
_THINGS = (
    "The {} that I bought last week is",
    "My review of the {}: it is",
    "I have used the {} every day for a month, and it has been",
    "A friend asked me about the {}, so I told her that it is",
    "Compared with the one I had before, the {} is",
    "The {} arrived on Monday, and I am",
    "To be honest about the {}, I feel",
    "If you think of getting the {}, you should know that it is",
)
_PEOPLE = (
    "The {} who talked to us yesterday was",
    "Everybody at work thinks that the {} is",
    "I met the {} at the station, and we were",
    "When I asked the {} for help, the answer was",
    "Our {} wrote me a letter that was",
    "My parents always said that the {} was",
    "Working with the {} has been",
    "I told the {} how I felt, and then everything became",
)
_EVENTS = (
    "The {} last night was",
    "Looking back, the {} made me feel",
    "We talked about the {} all the way home, because it was",
    "I went to the {} alone, and it turned out to be",
    "The local newspaper called the {}",
    "For the people who had worked on it, the {} was",
    "What I remember of the {} is that it was",
    "By the end of the {}, everyone was",
)
_KINDS = ("new", "old", "first", "second", "other", "local", "little", "last")
_GROUPS = (
    (
        _PLACES,
        "restaurant hotel museum library bakery cinema park bookshop market campsite swimming-pool café".split(),
    ),
    (_THINGS, "phone camera bicycle laptop guitar coffee-machine novel game car jacket radio headset".split()),
    (_PEOPLE, "teacher neighbour doctor manager driver waiter colleague coach nurse landlord guide student".split()),
    (_EVENTS, "concert meeting wedding play match lecture festival exam trip party show election".split()),
)


class SentimentTask:
    """Continue an opening; the more positive, the better; `language/sentiment`."""

    id = "language/sentiment"
    model = smollm2.NAME
    tokens = 24
    ends = False

    def prompts(self, count: int, seed: int) -> list[str]:
        """Return different openings, plain text without a chat template."""
        return chosen(self.id, _openings(), count, seed)

    def reward(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float32]:
        """Return VADER's compound score of each completion, −1 to 1, whatever the prompt; (n,).

        Raises `UserError` if vaderSentiment is not installed.
        """
        lexicon = _lexicon()
        return np.array([lexicon.polarity_scores(text)["compound"] for text in completions], np.float32)


@cache
def _openings() -> tuple[str, ...]:
    return tuple(
        template.format(f"{kind} {noun.replace('-', ' ')}")
        for templates, nouns in _GROUPS
        for template, kind, noun in product(templates, _KINDS, nouns)
    )


@cache
def _lexicon() -> SentimentIntensityAnalyzer:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise UserError(
            "language/sentiment is scored by vaderSentiment, which is not installed: pip install 'pmpo-offline[language]'"
        ) from None
    return SentimentIntensityAnalyzer()
