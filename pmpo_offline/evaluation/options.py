"""Options of an evaluation, of the command and of `runs.evaluate_run`; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _option(explanation: str, default: str, **more: Any) -> Any:
    return field(default=None, metadata={"help": explanation, "show_default": default, **more})


@dataclass(frozen=True)
class EvaluationOptions:
    """How much of a run is measured; None is the default."""

    samples: int | None = _option("Language models: completions per prompt.", "1", min=1)
    prompts: int | None = _option("Language models: held-out prompts; 0 is all.", "100", min=0)
    episodes: int | None = _option("Control: episodes to play.", "100", min=1)
    seed: int | None = _option("Language models: seed of the sampling.", "0", min=0, max=2**31 - 1)
    judge: str | None = _option(
        "A language model that judges samples: a name, a directory, or the URL of an OpenAI-compatible server up to "
        "/v1 (its key in $PMPO_OFFLINE_JUDGE_KEY).",
        "none",
        metavar="MODEL|URL",
    )
    judge_model: str | None = _option("Which of the models that the URL serves.", "the only one")
    judge_questions: Path | None = _option(  # noqa: RUF009
        "File of questions to the judge.", "the shipped ones", metavar="TOML"
    )
    environment: str | None = _option(
        "Control: a registered Gymnasium environment to play in, whatever the task of the run; module:Name-v0 imports "
        "the module first.",
        "the task's simulator",
        metavar="NAME",
    )
    workers: int | None = _option("Control: threads of the simulator.", "one per core", min=1)

    def without_effect(self, kind: str) -> list[str]:
        """Return the options that are given and do nothing for a run of this kind, as the command spells them."""
        idle = ["episodes", "environment", "workers"] if kind == "responses" else ["samples", "prompts", "seed"]
        idle += [] if self.judge else ["judge_model", "judge_questions"]
        return [f"--{name.replace('_', '-')}" for name in idle if getattr(self, name) is not None]
