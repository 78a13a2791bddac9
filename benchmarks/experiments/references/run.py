"""Measure the returns that are 0 and 100 of the normalized score, and write them into baselines/references.toml.

python -m benchmarks.experiments.references.run [TASK ...]      default: all tasks

It takes seconds to minutes a task. Entries of other versions of the simulators are kept.
"""

import sys
import tomllib
from importlib.metadata import version

from rich.progress import track

from benchmarks.experiments import shared
from pmpo_offline import tasks
from pmpo_offline.runtime.files import atomic_file
from pmpo_offline.tasks import Task

TARGET = shared.ROOT / "baselines" / "references.toml"
CONTROL = 1000  # episodes
STACKING = 200


def measure(task: Task) -> dict[str, object]:
    """Return one entry."""
    if task.id.startswith("bandit/"):  # whose rewards are scaled to this in closed form
        how = "in closed form: the mean reward of uniformly random actions and the reward of the best one"
        return {"min": -1.0, "max": 0.0, "how": how}
    stacking = task.id.startswith("rgb-stacking/")
    episodes = STACKING if stacking else CONTROL
    low, high = task.references(episodes, seed=0, threads=2)
    if stacking:
        how = (
            f"mean return over {episodes} held-out layouts of uniformly random actions and of the noise-free script "
            f"(success {low.success.mean():.3f} and {high.success.mean():.3f})"
        )
    else:
        expert = task.sources([{"name": "expert", "weight": 1, "policy": "expert"}])["expert"]
        how = (
            f"mean return over {episodes} held-out episodes of uniformly random actions and of the mean of the shipped "
            f"expert, sha256 {expert[:12]} (standard deviations {low.returns.std():.1f} and {high.returns.std():.1f})"
        )
    return {
        "min": round(float(low.returns.mean()), 4),
        "max": round(float(high.returns.mean()), 4),
        "how": how,
        "versions": {name: version(name) for name in task.simulators},
    }


def write(entries: dict[str, list[dict[str, object]]]) -> None:
    """Write all entries."""
    lines = ["# Returns that are 0 and 100 of the normalized score; written by benchmarks.experiments.references.run."]
    for name, measured in sorted(entries.items()):
        for each in measured:
            versions = ", ".join(f'{package} = "{number}"' for package, number in each.get("versions", {}).items())
            lines += ["", f'[["{name}"]]', f"min = {each['min']}", f"max = {each['max']}", f'how = "{each["how"]}"']
            lines += [f"versions = {{ {versions} }}"] if versions else []
    with atomic_file(TARGET) as scratch:
        scratch.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure the tasks named on the command line, or all."""
    for name in track(sys.argv[1:] or sorted(tasks.TASKS), "measure"):
        entry = measure(tasks.get(name))
        known = tomllib.loads(TARGET.read_text()) if TARGET.exists() else {}
        others = [each for each in known.get(name, []) if each.get("versions") != entry.get("versions")]
        write(known | {name: [entry, *others]})


if __name__ == "__main__":
    main()
