"""Options of an evaluation, of the command and of `runs.evaluate_run`; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pmpo_offline.runtime.options import option


@dataclass(frozen=True)
class EvaluationOptions:
    """How much of a run is measured; None is the default."""

    samples: int | None = option("Language models: completions per prompt.", show_default="1", min=1)
    prompts: int | None = option("Language models: held-out prompts; 0 is all.", show_default="100", min=0)
    episodes: int | None = option("Control: episodes to play.", show_default="100", min=1)
    seed: int | None = option("Language models: seed of the sampling.", show_default="0", min=0, max=2**31 - 1)
    judge: str | None = option(
        "A language model that judges samples: a name, a directory, or the URL of an OpenAI-compatible server up to "
        "/v1 (its key in $PMPO_OFFLINE_JUDGE_KEY).",
        show_default="none",
        metavar="MODEL|URL",
    )
    judge_model: str | None = option("Which of the models that the URL serves.", show_default="the only one")
    judge_questions: Path | None = option(
        "File of questions to the judge.", show_default="the shipped ones", metavar="TOML"
    )
    environment: str | None = option(
        "Control: a registered Gymnasium environment to play in, whatever the task of the run; module:Name-v0 imports "
        "the module first.",
        show_default="the task's simulator",
        metavar="NAME",
    )
    workers: int | None = option("Control: threads of the simulator.", show_default="one per core", min=1)
