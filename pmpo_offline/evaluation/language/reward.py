"""Fresh samples on held-out prompts: what they earn, and how far they are from the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pmpo_offline.data import Dataset, LabelRule
from pmpo_offline.data.labels import label
from pmpo_offline.evaluation.language.drift import distinct, drift
from pmpo_offline.evaluation.language.held_out import form, held_out_prompts
from pmpo_offline.evaluation.language.measuring import measuring
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.tokens import Tokens, prompt_tokens
from pmpo_offline.tasks.language import LanguageTask, Samples, SamplingSpec, draw, get, names
from pmpo_offline.tasks.language.sampling import context
from pmpo_offline.training.language.responses import check_held_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def evaluate_language(
    policy: LanguageModel,
    reference: LanguageModel,
    dataset: Dataset,
    *,
    samples: int = 1,
    prompts: int | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Sample completions of held-out prompts, score them by the task's reward and compare both models' opinions.

    Every policy is given the same prompts and the same random numbers, so that two policies differ by what they have
    learned and equal policies do not differ.

    Args:
        policy: the model that is evaluated.
        reference: the model that the drift is measured from.
        dataset: responses whose split "test" names the prompts.
        samples: completions a prompt.
        prompts: how many prompts, None for all; a fixed random choice.
        seed: of the sampling.

    Returns:
        One row a sample (SCHEMA): the prompts in their fixed order, the samples of each next to one another.

    Raises:
        UserError: the dataset holds no held-out responses, or a prompt that is too long for the model.
    """
    asked = held_out_prompts(dataset, prompts)
    check_held_out(dataset, policy.tokenizer, context(policy))
    texts = asked["prompt"].to_list()
    shape = form(dataset, policy)
    with measuring(policy.model):
        drawn = draw(policy, texts, SamplingSpec(samples, shape.tokens, shape.ends, seed))
    repeated = [text for text in texts for _ in range(samples)]
    completions = [text for group in drawn.text for text in group]
    rows = _rows(policy, texts, drawn)
    found = drift(policy, reference, rows)
    rewards = _rewards(dataset, repeated, completions)
    per_token = np.where(found.length > 0, 1 / np.maximum(found.length, 1), np.nan)
    return pl.DataFrame(
        {
            "prompt_id": np.repeat(asked["prompt_id"].to_numpy(), samples),
            "sample": np.tile(np.arange(samples), len(texts)),
            "return": rewards,
            "success": None if rewards is None else accepted(dataset, rewards),
            "length": found.length,
            "kl": found.kl,
            "token_kl": found.divergence * per_token,
            "reference_logp": found.reference_logp * per_token,
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
    """Return which rewards the dataset's label rule would accept; None where its rule is not about rewards."""
    meta = dataset.metadata
    if meta.label.score != "reward" or meta.threshold is None:
        return None
    rule = LabelRule(score="reward", threshold="number", value=meta.threshold, dead_zone=meta.label.dead_zone)
    return list(label(rewards, rule) > 0)


def _rewards(dataset: Dataset, prompts: list[str], completions: list[str]) -> NDArray[np.float64] | None:
    task = reward_task(dataset)
    return None if task is None else np.asarray(task.reward(prompts, completions), np.float64)


def _rows(model: LanguageModel, prompts: list[str], drawn: Samples) -> list[Tokens]:
    """Return the very tokens that were drawn: read back from the text, some would be others."""
    end = (model.tokenizer.eos_token_id,)
    return [
        Tokens(prompt_tokens(model.tokenizer, prompt), ids + (end if ended else ()))
        for prompt, group, ends in zip(prompts, drawn.tokens, drawn.ended, strict=True)
        for ids, ended in zip(group, ends, strict=True)
    ]
