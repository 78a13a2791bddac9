"""A language model as a judge: which of two responses is better, whether one is good, and how far to trust it.

```
two responses ─▶ asked in both orders ─▶ A, then B: the first one wins       B, then A: the second one wins
                                         A, A or B, B: the place decided: a tie, counted as a disagreement
                                         anything else in either order: unparsed, and out of the win rate
```
After Zheng et al. 2023, "Judging LLM-as-a-Judge", arXiv 2306.05685.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from pmpo_offline.evaluation.language.agreement import Agreement, agreement
from pmpo_offline.evaluation.language.answers import Answers, meaning
from pmpo_offline.evaluation.language.questions import Templates
from pmpo_offline.evaluation.statistics import Interval, bootstrap


class Pair(NamedTuple):
    """Two responses to a prompt."""

    group: int
    """Pairs of one group share a prompt and are not independent."""
    prompt: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Comparison:
    """What a judge said of pairs of responses."""

    win_rate: Interval | None
    """Share of the pairs that ours wins, a tie half, with its 95 % interval over prompts: how well this one policy was
    measured on these prompts, not how well its algorithm does. None where no pair was judged."""
    wins: int
    losses: int
    ties: int
    """Equal texts, which nobody is asked about, and disagreements."""
    disagreements: int
    """Pairs of which the judge preferred one in one order and the other in the other."""
    unparsed: int
    """Pairs with an answer that is neither of the two; they do not enter the win rate."""
    first: float | None
    """Share of the readable answers that prefer the response that stands first: 0.5 without a position bias."""


@dataclass(frozen=True)
class Verdicts:
    """What a judge said of single responses."""

    accepted: list[bool | None]
    """None: neither of the two answers."""

    @property
    def unparsed(self) -> int:
        """How many answers could not be read."""
        return self.accepted.count(None)

    @property
    def share(self) -> float | None:
        """The share of accepts among the readable answers."""
        read = [each for each in self.accepted if each is not None]
        return sum(read) / len(read) if read else None

    def agreement(self, labels: Sequence[bool]) -> Agreement:
        """Compare the readable answers with labels of the same responses."""
        both = [(ours, theirs) for ours, theirs in zip(self.accepted, labels, strict=True) if ours is not None]
        return agreement([ours for ours, _ in both], [theirs for _, theirs in both])


def compare(answers: Answers, templates: Templates, task: str, pairs: Sequence[Pair]) -> Comparison:
    """Ask which response of each pair is better, in both orders."""
    asked = [pair for pair in pairs if not _equal(pair)]
    questions = [templates.compare(task, pair.prompt, pair.ours, pair.theirs) for pair in asked]
    questions += [templates.compare(task, pair.prompt, pair.theirs, pair.ours) for pair in asked]
    said = [
        meaning(answer, question.answers) for answer, question in zip(answers.ask(questions), questions, strict=True)
    ]
    outcomes: dict[int, list[float]] = {}
    for pair in pairs:
        if _equal(pair):
            outcomes.setdefault(pair.group, []).append(0.5)
    wins = losses = disagreements = 0
    for pair, before, after in zip(asked, said[: len(asked)], said[len(asked) :], strict=True):
        if before is None or after is None:
            continue
        wins, losses = wins + (before < after), losses + (before > after)
        disagreements += before == after
        outcomes.setdefault(pair.group, []).append((1 + after - before) / 2)
    judged = [float(np.mean(group)) for group in outcomes.values()]
    readable = [each for each in said if each is not None]
    return Comparison(
        win_rate=bootstrap([judged], lambda scores: scores.mean(-1)) if judged else None,
        wins=wins,
        losses=losses,
        ties=len(pairs) - len(asked) + disagreements,
        disagreements=disagreements,
        unparsed=len(asked) - wins - losses - disagreements,
        first=readable.count(0) / len(readable) if readable else None,
    )


def judge(
    answers: Answers,
    templates: Templates,
    task: str,
    responses: Sequence[tuple[str, str]],
) -> Verdicts:
    """Ask of each (prompt, response) whether it is good."""
    questions = [templates.judge(task, prompt, response) for prompt, response in responses]
    said = answers.ask(questions)
    read = [meaning(answer, question.answers) for answer, question in zip(said, questions, strict=True)]
    return Verdicts([None if each is None else each == 0 for each in read])


def labelled_pairs(responses: pl.DataFrame) -> list[Pair]:
    """Return the first accept and the first reject of each prompt that has both, the accept as ours.

    One pair a prompt, so that no prompt with many responses outweighs the others; the rows of a dataset are shuffled.
    """
    found = []
    for (group,), rows in responses.group_by(["prompt_id"], maintain_order=True):
        accepts, rejects = (rows.filter(pl.col("label") == label)["completion"] for label in (True, False))
        if len(accepts) and len(rejects):
            found.append(Pair(int(str(group)), rows["prompt"][0], accepts[0], rejects[0]))
    return found


def _equal(pair: Pair) -> bool:
    return pair.ours.strip() == pair.theirs.strip()
