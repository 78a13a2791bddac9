"""Measure a language model on held-out prompts: samples, their rewards and drift, and all measures in one report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, LabelRule, References, label
from pmpo_offline.evaluation.language.drift import distinct, drift, measuring
from pmpo_offline.evaluation.language.held_out import as_read_by, completion_form, held_out_prompts
from pmpo_offline.evaluation.language.judging import judging
from pmpo_offline.evaluation.language.perplexity import perplexity, prose
from pmpo_offline.evaluation.language.preference import preference
from pmpo_offline.evaluation.language.questions import Answers, Judge, Templates
from pmpo_offline.evaluation.rollouts import check_scorable
from pmpo_offline.evaluation.statistics import normalized
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.tokens import Tokens, prompt_tokens
from pmpo_offline.runtime import progress
from pmpo_offline.tasks.language import LanguageTask, Samples, SamplingSpec, draw, get, names
from pmpo_offline.training.language.responses import check_held_out

SCHEMA = pl.Schema(
    {
        "prompt_id": pl.Int32,
        "sample": pl.Int32,
        "return": pl.Float64,  # the reward; null where the task has no reward function
        "success": pl.Boolean,  # would be accepted by the dataset's label rule; null where that has no threshold
        "length": pl.Int32,  # tokens, an end included
        "kl": pl.Float64,  # log π − log ρ of the sample, nats
        "token_kl": pl.Float64,  # exact KL(π ‖ ρ), nats a token; null for an empty sample, as all that follow
        "reference_logp": pl.Float64,  # log ρ, nats a token
        "distinct": pl.Float64,  # different words / words
        "completion": pl.String,
    }
)


MEANS = {
    "return": "reward",
    "success": "success",
    "length": "length",
    "kl": "kl",
    "token_kl": "token_kl",
    "reference_logp": "reference_logp",
    "distinct": "distinct_within",
}
"""Columns of `evaluate_language` whose means are reported, and the names of these."""


@dataclass(frozen=True)
class Sampling:
    """How completions of held-out prompts are drawn."""

    samples: int = 1
    """Completions a prompt."""
    prompts: int | None = None
    """How many prompts, a fixed random choice; None for all."""
    seed: int = 0


@dataclass(frozen=True)
class ReportRequest:
    """What a report measures, and where it keeps files."""

    output: Path
    """Folder of the samples and of the judge's answers."""
    sampling: Sampling = Sampling()
    judge: tuple[Judge, Templates] | None = None
    cache: Path | None = None
    """Folder of the reference cache, as for `preference`."""


def report(policy: LanguageModel, reference: LanguageModel, dataset: Dataset, request: ReportRequest) -> dict[str, Any]:
    """Measure a policy, and the model that it started from beside it.

    Returns:
        `policy` and `reference`: the `summary` of their samples, with the `perplexity` on running text (None if the
        tokens cannot write it; infinite, which `--json` prints as null, if the logits have exploded). `implicit`: how
        implicit rewards rank held-out labels. `judge`: a judge's verdicts, None without one. `notes`: what could not be
        measured, and why.

    Raises:
        UserError: nothing is held out, or the dataset's references are of another version of what scores it.
    """
    meta = dataset.metadata
    notes: list[str] = []
    if reward_task(dataset) is None:
        notes.append(f"task {meta.task} has no reward function: no reward, success and normalized score")
    else:
        check_scorable(meta)
        if meta.references is None:
            notes.append(f"dataset {meta.id} has no reference scores: no normalized score")
        if meta.label.score != "reward":
            notes.append(f"its labels are no threshold on the reward of {meta.task}: no share that would be accepted")
    measured: dict[str, Any] = {}
    frames: dict[str, pl.DataFrame] = {}
    request.output.mkdir(parents=True, exist_ok=True)
    for name, model in {"policy": policy, "reference": reference}.items():
        with progress.stage(name):
            frames[name] = evaluate_language(model, reference, dataset, request.sampling)
            frames[name].write_parquet(request.output / f"{name}.parquet")
            measured[name] = summary(frames[name], meta.references) | {"perplexity": perplexity(model, prose())}
    if measured["reference"]["perplexity"] is None:
        notes.append(f"{reference.name} has no words for running text: no perplexity")
    with progress.stage("labelled responses"):
        implicit = preference(policy, reference, dataset, prompts=request.sampling.prompts, cache=request.cache)
    if not implicit.pairs:
        notes.append("no held-out prompt has both an accept and a reject: no implicit accuracy")
    judged = None
    if request.judge:
        judge, templates = request.judge
        answers = Answers(judge, request.output / "judge.jsonl")
        judged = judging(answers, templates, dataset, frames["policy"], frames["reference"])
    return {
        "prompts": frames["policy"]["prompt_id"].n_unique(),
        "samples": request.sampling.samples,
        **measured,
        "implicit": asdict(implicit),
        "judge": judged,
        "notes": notes,
    }


def evaluate_language(
    policy: LanguageModel, reference: LanguageModel, dataset: Dataset, sampling: Sampling = Sampling()
) -> pl.DataFrame:
    """Sample completions of held-out prompts, score them by the task's reward and compare both models' probabilities.

    Every policy gets the same prompts and the same random numbers, so that differences are due to training and equal
    policies do not differ.

    Args:
        policy: the model that is evaluated.
        reference: the model that the drift is measured from.
        dataset: responses; the split "test" has the prompts.
        sampling: how many completions are drawn, and the seed.

    Returns:
        One row a sample (SCHEMA): the prompts in their fixed order, the samples of each next to one another.

    Raises:
        UserError: the dataset holds no held-out responses, or a prompt that is too long for the model.
    """
    prompts, samples = held_out_prompts(dataset, sampling.prompts), sampling.samples
    check_held_out(dataset, policy.tokenizer, policy.context)
    tokens, ends = completion_form(dataset, policy)
    with measuring(policy.model):
        drawn = draw(policy, prompts["prompt"].to_list(), SamplingSpec(samples, tokens, ends, sampling.seed))
    completions = [text for group in drawn.text for text in group]
    rows = prompts[np.repeat(np.arange(len(prompts)), samples)]
    read = _rows(policy, prompts["prompt"], drawn)
    moved = drift(policy, reference, read, reference_rows=as_read_by(reference, policy, read, rows["prompt"]))
    task = reward_task(dataset)
    rewards = None if task is None else np.asarray(task.reward(rows["prompt"].to_list(), completions), np.float64)
    per_token = np.where(moved.length > 0, 1 / np.maximum(moved.length, 1), np.nan)
    return pl.DataFrame(
        {
            "prompt_id": rows["prompt_id"],
            "sample": np.tile(np.arange(samples), len(prompts)),
            "return": rewards,
            "success": None if rewards is None else accepted(dataset, rewards),
            "length": moved.length,
            "kl": moved.kl,
            "token_kl": moved.divergence * per_token,
            "reference_logp": moved.reference_logp * per_token,
            "distinct": [distinct([text]) for text in completions],
            "completion": completions,
        },
        schema=SCHEMA,
        nan_to_null=True,
    )


def reward_task(dataset: Dataset) -> LanguageTask | None:
    """Return the task whose reward function scores this dataset's prompts, None if there is none (imported labels)."""
    name = dataset.metadata.task
    return get(name) if name in names() else None


def accepted(dataset: Dataset, rewards: NDArray[np.floating]) -> list[bool] | None:
    """Return the rewards that the dataset's label rule would accept; None if its rule does not use rewards."""
    meta = dataset.metadata
    if meta.label.score != "reward" or meta.threshold is None:
        return None
    if meta.label.threshold == "quantile":
        rewards = rewards.astype(np.float64)  # a quantile may lie between two float32 scores
    rule = LabelRule(score="reward", threshold="number", value=meta.threshold, dead_zone=meta.label.dead_zone)
    return list(label(rewards, rule) > 0)


def summary(scores: pl.DataFrame, references: References | None) -> dict[str, float | None]:
    """Return the means over all samples, and:

    normalized: 0 is the dataset's reference model, 100 the best of its K responses; None without a reward or
        references.
    reward_error: the standard error of the reward over prompts (samples of one prompt are not independent).
    distinct: different words / words over all samples: compare policies by it for one number of samples only.
    """
    means = scores.select(pl.col(column).mean().alias(name) for column, name in MEANS.items()).row(0, named=True)
    spread, reward = scores.group_by("prompt_id").agg(pl.col("return").mean())["return"], means["reward"]
    error = spread.std()
    comparable = reward is not None and references is not None and references.max != references.min
    return means | {
        "reward_error": float(error) / math.sqrt(len(spread)) if isinstance(error, float) else None,
        "normalized": normalized(reward, references.min, references.max) if comparable and references else None,
        "distinct": distinct(scores["completion"].to_list()),
    }


def _rows(model: LanguageModel, prompts: Iterable[str], drawn: Samples) -> list[Tokens]:
    """Return the tokens that were drawn; tokenizing their text again would change some."""
    end = (model.tokenizer.eos_token_id,)
    return [
        Tokens(prompt_tokens(model.tokenizer, prompt), ids + (end if ended else ()))
        for prompt, group, ends in zip(prompts, drawn.tokens, drawn.ended, strict=True)
        for ids, ended in zip(group, ends, strict=True)
    ]
