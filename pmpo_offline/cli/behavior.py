"""The command that makes behaviour policies: train-behavior."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmpo_offline.cli.console import emit, working
from pmpo_offline.cli.options import Json

if TYPE_CHECKING:
    from pmpo_offline.online.behavior import BehaviorResult


def train_behavior(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A control task, as in cheetah-run.")],
    algo: Annotated[
        str | None, typer.Option(help="Name of a learner.", show_default="ppo; clone where a script solves the task")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of all random numbers.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Control steps to train for.", show_default="the learner's")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many, of processor time.", show_default="no limit")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory of the policies.", show_default="behaviors/TASK")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Start again, or resume.")] = False,
    json: Json = False,
) -> None:
    """Train the policies that collect a control task's datasets: medium, the way there (replay) and expert."""
    with working():
        from pmpo_offline.online.behavior import train_behavior as train

        done = train(task, algo, seed=seed, steps=steps, minutes=minutes, output=output, fresh=fresh)
    if json:
        from dataclasses import asdict

        emit(asdict(done))
    else:
        _show(done)


def _show(done: BehaviorResult) -> None:
    medium = "not reached" if done.medium is None else f"{done.medium:.1f}"
    print(f"{done.task} by {done.algo}, seed {done.seed}: {done.steps:,} of {done.planned:,} control steps")
    expert = "not measured" if done.expert is None else f"{done.expert:.1f} ± {done.expert_std:.1f}"
    print(f"return: random {done.random:.1f}, medium {medium}, expert {expert}", end="")
    print(f" (target {done.target:g}), {done.cpu_seconds / 60:.1f} minutes of the processor")
    if not done.finished:
        print("stopped early: run the same command again to resume")
    elif done.medium is None:
        more = f"train --fresh for more --steps than {done.planned:,}"
        print(f"no policy was medium, so that none was written: {more}")
    if done.medium is not None:
        print(f"medium, replay and expert.safetensors are in {done.path}")
