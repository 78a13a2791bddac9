"""Measure the shipped behaviour policies and write benchmarks/results/behaviors.md.

python -m benchmarks.experiments.behaviors.run      minutes: 200 episodes a task, walkers take longest
"""

import platform

from rich.progress import track

from benchmarks.experiments import shared
from pmpo_offline.online.behavior import TARGETS, returns
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.hashing import random_words
from pmpo_offline.tasks.control import rules

EPISODES = 100
SEEDS = [int(word >> 32) for word in random_words(EPISODES, "the table of behaviours")]
HEAD = f"""# Behaviour policies

What `pmpo-offline train-behavior TASK` made of the tasks, shipped in `datasets/behaviors/`: the mean policy's return
over {EPISODES} full episodes (± standard deviation between them), which begin where it was neither trained nor chosen.
It decides at every control step. Medium is the first policy in training to return random + 0.4 (target - random).
CPU-minutes and steps are those of the whole training, evaluations included, on one thread of a shared machine; *at* is
the policy's own step. kB: medium, expert, replay. Hopper and walker2d were stopped before their planned 3M steps;
hopper-hop was planned for 8M and went on to 13M, with a learning rate that began to fall again from there. Not counted
are the trials that led to the settings, about 50 CPU-minutes; some of the tasks were tried with one seed only.

{shared.versions("mujoco", "torch")}, {platform.machine()}. Written by `python -m benchmarks.experiments.behaviors.run`.

"""
HEADER = (
    "task",
    "algorithm, seed",
    "target",
    "expert",
    "random",
    "medium",
    "CPU-minutes",
    "steps",
    "expert at",
    "medium at",
)


def row(task: str) -> list[str]:
    """Return one row of the table."""
    directory = shared.ROOT / "datasets" / "behaviors" / task
    played = rules(task)
    cells = {}
    for name in ("expert", "medium"):
        policy = BehaviorPolicy.load(directory / f"{name}.safetensors")
        cells[name] = policy.facts, returns(policy, played, SEEDS)
    facts, expert = cells["expert"]
    medium_facts, medium = cells["medium"]
    sizes = [(directory / f"{name}.safetensors").stat().st_size for name in ("medium", "expert", "replay")]
    reached = f"{expert.mean():,.0f} ± {expert.std():,.0f}"
    return [
        task,
        f"{facts['algo']}, {facts['seed']}",
        f"{TARGETS[task]:,.0f}",
        f"**{reached}**" if expert.mean() >= TARGETS[task] else reached,
        f"{float(facts['random']):,.0f}",
        f"{medium.mean():,.0f} ± {medium.std():,.0f}",
        f"{float(facts['cpu_seconds']) / 60:.1f}",
        _millions(facts["steps"]),
        _millions(facts["frames"]),
        _millions(medium_facts["frames"]),
        " + ".join(f"{size / 1000:.0f}" for size in sizes),
    ]


def _millions(count: str) -> str:
    return f"{int(count) / 1e6:.2f}M"


if __name__ == "__main__":
    rows = [row(task) for task in track(list(TARGETS), "measure")]
    table = shared.table((*HEADER, "kB"), rows, "llr")
    (shared.RESULTS / "behaviors.md").write_text(HEAD + "\n".join(table) + "\n")
