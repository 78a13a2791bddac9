"""Report of an import of texts: what became of the rows, counted while they are read, and what is warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import JsonValue

from pmpo_offline.data.exchange.forms.columns import SCORES
from pmpo_offline.data.exchange.forms.names import is_feedback
from pmpo_offline.data.exchange.forms.row import ENDINGS

_SEVERAL, _MOST = 0.1, 0.5
"""Shares of the responses from which on repetitions are warned of."""
_ALWAYS = {"form", "rows", "responses", "kept", "prompts", "train", "test", "dropped", "first_dropped"}
"""What dataset.json has even where it is 0 or empty."""
_SORTED = ("languages", "dropped")
"""Counts of which the largest comes first."""


@dataclass
class Report:
    """Counts of an import, filled while it reads, by the names that dataset.json has for them."""

    form: str = ""
    template: str | None = None
    """How conversations were written down; None where there are none."""
    rows: int = 0
    responses: int = 0
    """Of all rows, dropped ones included."""
    kept: int = 0
    prompts: int = 0
    train: int = 0
    test: int = 0
    split: str | None = None
    """Said where the split is the source's."""
    labels: dict[str, str] = field(default_factory=dict)
    """The labels that occurred, and how they were interpreted."""
    languages: Counter[str] = field(default_factory=Counter)
    """Of the responses that were kept, where the source tells."""
    redacted: int = 0
    """Kept responses of conversations in which names were redacted."""
    contradicting: int = 0
    """Kept responses of which an equal one, to an equal prompt, white space aside, has another label or score."""
    repeated: int = 0
    """Kept responses that repeat another one: its prompt, its text and its label or score."""
    cut_off: int = 0
    """Kept responses that the source says were cut off, by a limit of length or a filter."""
    responses_that_begin_with_the_prompt: int = 0
    """Kept responses that begin with the whole text of their prompt."""
    responses_with_marks_at_the_end: int = 0
    """Kept responses that end with the mark of an end, as `</s>`."""
    pairs_by_own_scores: Counter[str] = field(default_factory=Counter)
    """Pairs whose own scores contradict their order: "chosen lower" or "chosen equal"."""
    columns_not_used: list[str] = field(default_factory=list)
    """Columns that hold something and were not used."""
    columns_that_differ_within_a_prompt: list[str] = field(default_factory=list)
    """Those of texts in which rows of one prompt differ."""
    splits_not_understood: Counter[str] = field(default_factory=Counter)
    """What columns of splits say besides train and test: the rows go where their prompts' hash puts them."""
    scores_rounded: int = 0
    """Kept scores that differ as float32, all of them beyond 2²⁴."""
    prompts_in_both_splits: int = 0
    """Prompts that the source has in both of its splits."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Responses, by the reason."""
    first_dropped: dict[str, str] = field(default_factory=dict)
    """Where each reason was first met."""
    lone_negative: dict[float, int] = field(default_factory=dict)
    """The one score below 0, and how often it occurs, where it is a number that often means unknown; warned of only."""

    def drop(self, reason: str, place: str, responses: int = 1) -> None:
        """Count responses that are left out."""
        self.dropped[reason] += responses
        self.first_dropped.setdefault(reason, place)

    def content(self) -> dict[str, JsonValue]:
        """Return everything, as dataset.json keeps it; what did not occur is left out."""
        found = {name: value for name, value in vars(self).items() if value or name in _ALWAYS}
        found.pop("lone_negative", None)
        return {name: dict(value.most_common()) if name in _SORTED else value for name, value in found.items()}

    def lost(self) -> str:
        """Return a line on what was dropped, empty if nothing was."""
        if not (dropped := sum(self.dropped.values())):
            return ""
        why, count = self.dropped.most_common(1)[0]
        part = "all" if count == dropped else f"most of them ({count:,})"
        return (
            f"{dropped:,} of {self.responses:,} responses dropped, {part} as {why}, first at "
            f"{self.first_dropped[why]}; `show` lists every reason"
        )

    def warnings(self) -> Iterator[str]:
        """Yield a line for everything that may make the data other than they seem, and what to do about it."""
        if self.contradicting:
            yield (
                f"{self.contradicting:,} responses are the same text, to the same prompt, as one with another label or "
                "score: --deduplicate leaves them out, and a column that tells them apart may be called system or "
                "context"
            )
        if self.repeated > _SEVERAL * self.kept:
            yield f"{self.repeated:,} responses repeat another one, with its label: --deduplicate keeps one of each"
        if self.cut_off:
            yield (
                f"{self.cut_off:,} responses were cut off, as the source says ({', '.join(ENDINGS[:2])}, …), and are "
                "kept: a model learns to end there, leave them out if it should not"
            )
        if (count := self.responses_that_begin_with_the_prompt) > _MOST * self.kept:
            yield f"{count:,} responses begin with the whole prompt: if it was copied there, cut it off"
        if count := self.responses_with_marks_at_the_end:
            yield (
                f"{count:,} responses end with a mark such as </s>: training appends the end of an answer itself, cut "
                "the marks off"
            )
        if self.pairs_by_own_scores:
            pairs = self.pairs_by_own_scores.items()
            counts = " and ".join(f"{count:,} {how.removeprefix('chosen ')}" for how, count in pairs)
            yield (
                f"the chosen response of some pairs has no higher score than the rejected one ({counts}): it was "
                "accepted as it was chosen, and --score takes the scores instead"
            )
        if self.scores_rounded:
            yield (
                f"{self.scores_rounded:,} scores beyond 2^24 were rounded, because scores are stored as float32: "
                "subtract what they have in common"
            )
        if count := self.prompts_in_both_splits:
            yield f"{count:,} prompts are in both of the source's splits: --test-share 0.1 splits by prompts"
        if splits := self.splits_not_understood:
            said = ", ".join(f"{what} ({count:,})" for what, count in splits.most_common(3))
            yield f"which rows are held out is not clear from {said}: call them train and test"
        if feedback := [name for name in self.columns_not_used if is_feedback(name) and name not in SCORES]:
            yield (
                f"{' and '.join(feedback[:3])} may be feedback and is not used: --columns label={feedback[0]} takes "
                "labels from it, --score takes numbers"
            )
        if apart := self.columns_that_differ_within_a_prompt:
            yield (
                f"rows of one prompt differ in {' and '.join(apart[:3])}, which is not used: if it is part of the "
                f"prompt, add --columns context={apart[0]}, or system={apart[0]}"
            )
        for score, count in self.lone_negative.items():
            yield f"{count:,} scores are {score:g} and no other is below 0: if that means unknown, write null"
