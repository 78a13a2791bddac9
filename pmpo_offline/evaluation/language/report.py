"""Everything that is measured of one trained language model, beside the same of the model that it started from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.answers import Answers, Judge
from pmpo_offline.evaluation.language.judging import judging
from pmpo_offline.evaluation.language.perplexity import perplexity, prose
from pmpo_offline.evaluation.language.preference import preference
from pmpo_offline.evaluation.language.questions import Templates
from pmpo_offline.evaluation.language.reward import evaluate_language, reward_task
from pmpo_offline.evaluation.language.summary import summary
from pmpo_offline.evaluation.rollouts import check_versions
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.runtime import progress


def report(
    policy: LanguageModel,
    reference: LanguageModel,
    dataset: Dataset,
    *,
    output: Path,
    samples: int = 1,
    prompts: int | None = None,
    seed: int = 0,
    judge: tuple[Judge, Templates] | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Measure a policy; its samples, the reference's and the judge's answers are kept in `output`.

    What the reference says of the dataset's own rows is read from `cache`, as `preference` does.

    Returns:
        `policy` and `reference`: the `summary` of either's samples, with its `perplexity` on running text (None where
        the tokens cannot write that; infinite, which JSON has no number for and `--json` prints as null, where the
        logits have exploded). `implicit`: how its implicit rewards rank held-out labels. `judge`: what a judge says,
        None without one. `notes`: what could not be measured, and why.

    Raises:
        UserError: nothing is held out, or the dataset's references are of another version of what scores it.
    """
    meta = dataset.metadata
    notes: list[str] = []
    if reward_task(dataset) is None:
        notes.append(f"task {meta.task} has no reward function: no reward, success and normalized score")
    else:
        check_versions(meta.id, meta.references)
        if meta.references is None:
            notes.append(f"dataset {meta.id} has no reference scores: no normalized score")
    models = {"policy": policy, "reference": reference}
    frames = {}
    output.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        with progress.stage(name):
            frames[name] = evaluate_language(model, reference, dataset, samples=samples, prompts=prompts, seed=seed)
        frames[name].write_parquet(output / f"{name}.parquet")
    found: dict[str, Any] = {name: dict(summary(frame, meta.references)) for name, frame in frames.items()}
    for name, model in models.items():
        with progress.stage(name):
            read = perplexity(model, prose())
        found[name] |= {"perplexity": None if read is None else read.value}
        if read is None and name == "reference":
            notes.append(f"{model.name} has no words for running text: no perplexity")
    with progress.stage("labelled responses"):
        implicit = preference(policy, reference, dataset, prompts=prompts, cache=cache)
    if not implicit.pairs:
        notes.append("no held-out prompt has both an accept and a reject: no implicit accuracy")
    judged = None
    if judge:
        answers = Answers(judge[0], output / "judge.jsonl")
        judged = judging(answers, judge[1], dataset, frames["policy"], frames["reference"])
    return {
        "prompts": frames["policy"]["prompt_id"].n_unique(),
        "samples": samples,
        **found,
        "implicit": asdict(implicit),
        "judge": judged,
        "notes": notes,
    }
