"""Measure what the normalized score is relative to and write baselines/references.toml.

python benchmarks/measure_references.py
"""

from importlib.metadata import version
from pathlib import Path

from pmpo_offline import tasks

EPISODES = 200

lines = ["# Returns that are 0 and 100 of the normalized score; written by benchmarks/measure_references.py."]
for name in sorted(tasks.TASKS):
    task = tasks.get(name)
    lines += ["", f'["{name}"]']
    if name.startswith("bandit/"):  # whose rewards are scaled to this in closed form
        lines += [
            "min = -1.0",
            "max = 0.0",
            'how = "in closed form: the mean reward of uniformly random actions and the reward of the best one"',
        ]
        continue
    low, high = task.references(EPISODES, seed=0, threads=2)
    lines += [
        f"min = {low.returns.mean():.4f}",
        f"max = {high.returns.mean():.4f}",
        f'how = "mean return over {EPISODES} held-out layouts of uniformly random actions and of the noise-free script '
        f'(success {low.success.mean():.3f} and {high.success.mean():.3f})"',
        f'versions = {{ {task.simulator} = "{version(task.simulator)}" }}',
    ]
target = Path(__file__).parent.parent / "baselines" / "references.toml"
target.write_text("\n".join(lines) + "\n")
print(target.read_text())
