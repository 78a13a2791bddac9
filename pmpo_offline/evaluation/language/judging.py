"""Verdicts of a judge: which of two responses is better, whether one is good, and how far it agrees with labels.

```
two responses ─▶ asked in both orders ─▶ A, then B: the first one wins       B, then A: the second one wins
                                         A, A or B, B: decided by position: a tie, counted as a disagreement
                                         anything else in either order: unparsed, and out of the win rate
```
After Zheng et al. 2023, "Judging LLM-as-a-Judge", arXiv 2306.05685.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.held_out import held_out_prompts, held_out_responses
from pmpo_offline.evaluation.language.questions import Answers, Templates, meaning
from pmpo_offline.evaluation.statistics import Interval, bootstrap
from pmpo_offline.runtime import progress


class Pair(NamedTuple):
    """Two responses to a prompt."""

    group: int
    """Pairs of one group share a prompt and are not independent."""
    prompt: str
    ours: str
    theirs: str

    @property
    def equal(self) -> bool:
        """Whether the texts are equal: no question is needed."""
        return self.ours.strip() == self.theirs.strip()


@dataclass(frozen=True)
class Agreement:
    """Agreement of two raters on accept and reject."""

    n: int
    """Units that both have rated."""
    accuracy: float | None
    """Share of equal ratings; None for n = 0."""
    kappa: float | None
    """Cohen's: 1 always equal, 0 as often as by chance given both shares of accepts, None if chance is 1."""


@dataclass(frozen=True)
class Comparison:
    """Verdicts on pairs of responses."""

    win_rate: Interval | None
    """Share of the pairs that ours wins, a tie half; None if no pair was judged. Its 95 % interval is over prompts: the
    precision for this policy, not for its algorithm."""
    wins: int
    losses: int
    ties: int
    """Equal texts, which need no question, and disagreements."""
    disagreements: int
    """Pairs whose winner changed with their order."""
    unparsed: int
    """Pairs with an answer that is neither of the two; they do not enter the win rate."""
    first: float | None
    """Share of the readable answers that prefer the first response: 0.5 without a position bias."""


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on single responses."""

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
    asked = [pair for pair in pairs if not pair.equal]
    questions = [templates.compare(task, pair.prompt, pair.ours, pair.theirs) for pair in asked]
    questions += [templates.compare(task, pair.prompt, pair.theirs, pair.ours) for pair in asked]
    said = [
        meaning(answer, question.answers) for answer, question in zip(answers.ask(questions), questions, strict=True)
    ]
    outcomes: dict[int, list[float]] = {}
    for pair in pairs:
        if pair.equal:
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


def judge(answers: Answers, templates: Templates, task: str, responses: Sequence[tuple[str, str]]) -> Verdicts:
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


def agreement(ratings: Sequence[bool], others: Sequence[bool]) -> Agreement:
    """Compare two raters of the same units.

    κ = (p_o − p_e) / (1 − p_e) with p_o the share of equal ratings and p_e = a b + (1 − a)(1 − b), where a and b are
    the raters' shares of accepts. Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    ours, theirs = np.asarray(ratings, np.bool_), np.asarray(others, np.bool_)
    if not len(ours):
        return Agreement(0, None, None)
    equal, a, b = float((ours == theirs).mean()), float(ours.mean()), float(theirs.mean())
    chance = a * b + (1 - a) * (1 - b)
    return Agreement(len(ours), equal, (equal - chance) / (1 - chance) if chance < 1 else None)


def judging(
    answers: Answers, templates: Templates, dataset: Dataset, ours: pl.DataFrame, theirs: pl.DataFrame
) -> dict[str, Any]:
    """Ask a judge about a policy's samples beside the reference's, and about labelled responses to the same prompts.

    Args:
        answers: of the judge.
        templates: of the questions.
        dataset: with the prompts and the labels.
        ours: the policy's samples, as `evaluate_language` returns them.
        theirs: the reference's, row for row of the same prompts.

    Returns:
        `samples`: the comparison of ours with theirs, and the share of either that is good by itself (`accepted`,
        `reference_accepted`). `labels`: for one accepted and one rejected response a prompt, how often the judge
        prefers the accepted one (`pairs`), and how far its single verdicts agree with the labels (`single`).
    """
    task, count = dataset.metadata.task, ours["prompt_id"].n_unique()
    texts = dict(held_out_prompts(dataset, count).iter_rows())
    prompts = [texts[i] for i in ours["prompt_id"]]
    samples = [
        Pair(*row) for row in zip(ours["prompt_id"], prompts, ours["completion"], theirs["completion"], strict=True)
    ]
    known = labelled_pairs(held_out_responses(dataset, count))
    with progress.stage("samples"):
        found = compare(answers, templates, task, samples)
        good = judge(answers, templates, task, [(p.prompt, p.ours) for p in samples])
    with progress.stage("the reference's samples"):
        before = judge(answers, templates, task, [(p.prompt, p.theirs) for p in samples])
    singly = [(pair.prompt, text) for pair in known for text in (pair.ours, pair.theirs)]
    with progress.stage("labelled responses"):
        check = compare(answers, templates, task, known)
        verdicts = judge(answers, templates, task, singly)
    agreed = verdicts.agreement([True, False] * len(known))
    return {
        "name": answers.judge.name,
        "answers": str(answers.path),
        "samples": {
            **asdict(found),
            "accepted": good.share,
            "reference_accepted": before.share,
            "unparsed_single": good.unparsed + before.unparsed,
        },
        "labels": {"pairs": asdict(check), "single": {**asdict(agreed), "unparsed": verdicts.unparsed}},
    }
