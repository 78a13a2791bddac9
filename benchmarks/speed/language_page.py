"""The page that `language.py` writes: the table, and what became of the goals."""

from __future__ import annotations

from typing import Any

GOALS = (
    ("dpo", "trl-dpo", 2.5),
    ("dpo", "trl-dpo-precomputed", 2.0),
    ("kto", "trl-kto", 3.0),
    ("pmpo", "trl-dpo-precomputed", 1.0),
    ("dpo-top", "trl-dpo", 8.0),
)
"""Ours, theirs, and how many times as fast a step of ours should be."""
EQUAL = (
    ("dpo", "trl-dpo"),
    ("dpo", "trl-dpo-precomputed"),
    ("kto-mismatched", "trl-kto"),
    ("dpo-top", "trl-dpo-top"),
)
"""The same objective on the same rows and adapter: ours, theirs."""

SMALLER = (
    ("dpo", "trl-dpo"),
    ("kto", "trl-kto"),
    ("pmpo", "trl-dpo"),
    ("dpo-top", "trl-dpo-top"),
    ("pmpo-top", "trl-dpo-top"),
)
"""Of which memory is compared; the goal is no more than theirs."""


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    here, table, load = found["machine"], found["contenders"], found["load"]
    where = here["gpu"] or f"{here['processor']}, one thread of {here['cores']} cores, load {load[0]} to {load[1]}"
    clock = "Seconds" if found["clock"] == "wall" else "Seconds of the processor"
    lines = [
        "# Speed of the language models' trainers",
        "",
        f"{where}; Python {here['python']}, torch {here['torch']}, transformers {here['transformers']}, peft "
        f"{here['peft']}, TRL {here['trl']}. Written by `python benchmarks/speed/language.py`.",
        "",
        f"{clock} a step of 8 rows of about 64 tokens, half of them the prompt's, of SmolLM2-135M-Instruct in float32 "
        "with LoRA of rank 8 on q, k, v, o: medians of whole steps of `Trainer.train()`, processes in turns. Memory is "
        "the largest resident size of a process after its first step. *Top 6*: LoRA on the upper 6 of 30 layers alone. "
        "Losses are of the same rows before the first step, with an adapter of random numbers.",
        "",
        "| | s a step | min to max | steps | times TRL DPO | peak, MB | loss |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    base = table["trl-dpo"]["seconds"] if "trl-dpo" in table else None
    for row in table.values():
        times = f"{base / row['seconds']:.2f}" if base else ""
        lines.append(
            f"| {row['title']} | {row['seconds']:.2f} | {row['min']:.2f} to {row['max']:.2f} | {row['steps']} | "
            f"{times} | {row['peak_mb']:,.0f} | {row['loss']:.6f} |"
        )
    lines += ["", "| ours | theirs | goal | found | |", "|---|---|---:|---:|---|"]
    for ours, theirs, goal in GOALS:
        if ours in table and theirs in table:
            times = table[theirs]["seconds"] / table[ours]["seconds"]
            lines.append(
                f"| {table[ours]['title']} | {table[theirs]['title']} | {goal:g} | {times:.2f} | "
                f"{'met' if times >= goal else 'missed'} |"
            )
    pairs = [(a, b) for a, b in EQUAL if a in table and b in table]
    apart = max((abs(table[a]["loss"] - table[b]["loss"]) for a, b in pairs), default=0.0)
    memory = [table[a]["peak_mb"] / table[b]["peak_mb"] for a, b in SMALLER if a in table and b in table]
    lines += ["", f"Losses of the same objective differ by at most {apart:.1e}."]
    if memory:
        lines[-1] += (
            f" Ours needs {min(memory):.2f} to {max(memory):.2f} of the memory of TRL's trainer of the same layers."
        )
    return "\n".join(lines) + "\n"
