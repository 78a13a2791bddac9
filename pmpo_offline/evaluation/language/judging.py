"""Verdicts of a judge: which of two responses is better, whether one is good, and how far it agrees with labels.

```
two responses ─▶ in both orders      ─▶ A, then B: the first one wins       B, then A: the second one wins
                                         A, A or B, B: decided by position: a tie, counted as a disagreement
                                         anything else in either order: unparsed, and out of the win rate
```
After Zheng et al. 2023, "Judging LLM-as-a-Judge", arXiv 2306.05685.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import polars as pl

from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.held_out import held_out_prompts, held_out_responses
from pmpo_offline.evaluation.language.questions import Answers, Templates
from pmpo_offline.evaluation.statistics import Interval, interval
from pmpo_offline.runtime import progress


class Pair(NamedTuple):
    """Two responses to a prompt."""

    group: int
    """Pairs of one group share a prompt and are not independent."""
    prompt: str
    ours: str
    theirs: str


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


def compare(answers: Answers, templates: Templates, task: str, pairs: Sequence[Pair]) -> Comparison:
    """Compare the responses of each pair in both orders; pairs of equal texts are ties without a question."""
    equal: list[Pair] = []
    differing: list[Pair] = []
    for pair in pairs:
        (equal if pair.ours.strip() == pair.theirs.strip() else differing).append(pair)
    questions = [templates.compare(task, pair.prompt, pair.ours, pair.theirs) for pair in differing]
    questions += [templates.compare(task, pair.prompt, pair.theirs, pair.ours) for pair in differing]
    choices = answers.choices(questions)
    scores = [(pair.group, 0.5) for pair in equal]
    wins = losses = disagreements = 0
    for pair, before, after in zip(differing, choices, choices[len(differing) :], strict=False):
        if before is not None and after is not None:
            wins += before < after
            losses += before > after
            disagreements += before == after
            scores.append((pair.group, (1 + after - before) / 2))
    by_prompt = pl.DataFrame(scores, ["prompt", "score"], orient="row").group_by("prompt", maintain_order=True).mean()
    readable = [choice for choice in choices if choice is not None]
    return Comparison(
        win_rate=interval([by_prompt["score"]], lambda scores: scores.mean(-1)) if scores else None,
        wins=wins,
        losses=losses,
        ties=len(equal) + disagreements,
        disagreements=disagreements,
        unparsed=len(differing) - wins - losses - disagreements,
        first=readable.count(0) / len(readable) if readable else None,
    )


def judge(answers: Answers, templates: Templates, task: str, responses: Sequence[tuple[str, str]]) -> pl.Series:
    """Return whether each (prompt, response) is good, null where the answer could not be read."""
    choices = answers.choices([templates.judge(task, prompt, response) for prompt, response in responses])
    return pl.Series([None if choice is None else choice == 0 for choice in choices], dtype=pl.Boolean)


def labelled_pairs(responses: pl.DataFrame) -> list[Pair]:
    """Return the first accept and the first reject of each prompt that has both, the accept as ours.

    One pair a prompt, so that no prompt with many responses outweighs the others; the rows of a dataset are shuffled.
    """
    first = [pl.col("completion").filter(pl.col("label") == label).first() for label in (True, False)]
    by_prompt = responses.group_by("prompt_id", maintain_order=True)
    pairs = by_prompt.agg(pl.col("prompt").first(), ours=first[0], theirs=first[1]).drop_nulls()
    return [Pair(*row) for row in pairs.iter_rows()]


def agreement(ratings: Sequence[bool | None] | pl.Series, others: Sequence[bool]) -> Agreement:
    """Compare two raters of the same units, where the first has rated them.

    κ = (p_o − p_e) / (1 − p_e) with p_o the share of equal ratings and p_e = a b + (1 − a)(1 − b), where a and b are
    the raters' shares of accepts. Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    rated = pl.DataFrame({"a": ratings, "b": others}, {"a": pl.Boolean, "b": pl.Boolean}).drop_nulls("a")
    if rated.is_empty():
        return Agreement(0, None, None)
    equal, a, b = rated.select(pl.col("a").eq(pl.col("b")).mean().alias("equal"), pl.col("a", "b").mean()).row(0)
    chance = a * b + (1 - a) * (1 - b)
    return Agreement(len(rated), equal, (equal - chance) / (1 - chance) if chance < 1 else None)


def judging(
    answers: Answers, templates: Templates, dataset: Dataset, ours: pl.DataFrame, theirs: pl.DataFrame
) -> dict[str, Any]:
    """Judge a policy's samples beside the reference's, and labelled responses to the same prompts.

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
        comparison = compare(answers, templates, task, samples)
        good = judge(answers, templates, task, [(p.prompt, p.ours) for p in samples])
    with progress.stage("the reference's samples"):
        before = judge(answers, templates, task, [(p.prompt, p.theirs) for p in samples])
    with progress.stage("labelled responses"):
        check = compare(answers, templates, task, known)
        verdicts = judge(answers, templates, task, [(p.prompt, text) for p in known for text in (p.ours, p.theirs)])
    agreed = agreement(verdicts, [True, False] * len(known))
    return {
        "name": answers.judge.name,
        "answers": str(answers.path),
        "samples": {
            **asdict(comparison),
            "accepted": good.mean(),
            "reference_accepted": before.mean(),
            "unparsed_single": good.null_count() + before.null_count(),
        },
        "labels": {"pairs": asdict(check), "single": {**asdict(agreed), "unparsed": verdicts.null_count()}},
    }
