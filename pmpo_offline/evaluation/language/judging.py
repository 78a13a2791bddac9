"""All that a judge is asked about one policy: its samples against the reference's, and held-out labels as a check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.answers import Answers, Judge
from pmpo_offline.evaluation.language.held_out import held_out_prompts, held_out_responses
from pmpo_offline.evaluation.language.judge import Pair, compare, judge, labelled_pairs
from pmpo_offline.evaluation.language.local_judge import LocalJudge
from pmpo_offline.evaluation.language.questions import Templates
from pmpo_offline.evaluation.language.remote_judge import RemoteJudge
from pmpo_offline.policies.language.model import open_model
from pmpo_offline.runtime import progress
from pmpo_offline.tasks.language import model_directory


def open_judge(
    name: str,
    templates: Templates,
    *,
    model: str | None = None,
    home: Path | None = None,
) -> Judge:
    """Return the judge of this name: a URL, or what `model_directory` finds; errors are those of either."""
    if "://" in name:
        return RemoteJudge(name, model, options=templates.request)
    return LocalJudge(open_model(model_directory(name, home), name=name))


def judging(
    answers: Answers,
    templates: Templates,
    dataset: Dataset,
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
) -> dict[str, Any]:
    """Ask a judge about samples, and about labelled responses to the same prompts.

    Args:
        answers: of the judge.
        templates: of the questions.
        dataset: whose prompts and labels they are.
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
