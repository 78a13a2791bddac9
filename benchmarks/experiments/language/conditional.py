"""Does a conditional policy read its label? Acceptance on the tiny language behind either label's text, and without.

python -m benchmarks.experiments.language.conditional

Every response has one right form, so that its probability is the expected acceptance: nothing is sampled. Writes
conditional.parquet and conditional.md to benchmarks/results/language/; stops and resumes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import torch
import typer
from torch import Tensor

from benchmarks.experiments import shared
from benchmarks.experiments.labellings import resumable
from pmpo_offline import data
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.policies.language import LanguageModel, open_model
from pmpo_offline.policies.language.tokens import collate, tokenize, with_prefix
from pmpo_offline.tasks.language.models import model_directory
from pmpo_offline.training.language import train_language
from pmpo_offline.training.language.responses import take_split

OUT = shared.RESULTS / "language"
GUIDANCE = (2.0, 3.0)
"""Weights of classifier-free guidance, log π(y) + w (log π(y | accept) − log π(y)) for every token; 1 is none."""
SYMBOLS = {"accept_text": "<pad>", "reject_text": "?"}
"""One token each, of which the model has seen neither."""
EQUALLY_LONG = {"accept_text": "Good: ", "reject_text": "Bad:: "}
"""The declared texts are six and five tokens long."""
GRID: tuple[tuple[str, float, int, Mapping[str, Any], int], ...] = (
    ("bc-accepted", 2e-3, 100, {}, 3),
    ("bc-accepted", 2e-3, 1600, {}, 1),
    ("conditional", 1e-2, 100, {}, 3),
    ("conditional", 1e-2, 400, {}, 1),
    ("conditional", 1e-2, 800, {}, 1),
    ("conditional", 1e-2, 400, {"condition_weight": 3.0}, 1),
    ("conditional", 3e-3, 100, {}, 1),
    ("conditional", 3e-3, 400, {}, 3),
    ("conditional", 3e-3, 800, {}, 3),
    ("conditional", 3e-3, 1600, {}, 1),
    ("conditional", 3e-3, 200, {"condition_weight": 3.0}, 1),
    ("conditional", 3e-3, 400, {"condition_weight": 3.0}, 1),
    ("conditional", 3e-3, 800, {"condition_weight": 3.0}, 3),
    ("conditional", 3e-3, 1600, {"condition_weight": 3.0}, 1),
    ("conditional", 3e-3, 800, EQUALLY_LONG, 1),
    ("conditional", 1e-2, 400, SYMBOLS, 1),
    ("conditional", 3e-3, 1600, SYMBOLS, 1),
)
"""Learner, rate, updates, settings, runs."""


HEAD = """# Does a conditional policy read its label?

`conditional` on the tiny language, whose adapter reads the label as a text before the prompt. **hidden**, **accept**,
**reject**: the mean probability of the right response to 100 held-out prompts without a text, behind that of accepts,
and behind that of rejects; **guidance** w: log π(y) + w (log π(y | accept) − log π(y)) for every token. What follows
from it: [objectives](../../../docs/objectives.md#conditional).

```console
$ python -m benchmarks.experiments.language.conditional    # resumable
```
"""


def chunks() -> Iterator[dict[str, Any]]:
    """Yield the arguments of `make` for every run."""
    for name, rate, updates, settings, runs in GRID:
        for seed in range(runs):
            yield {"name": name, "rate": rate, "updates": updates, "settings": dict(settings), "seed": seed}


def make(name: str, rate: float, updates: int, settings: dict[str, Any], seed: int) -> pl.DataFrame:
    """Train one adapter and return its acceptance on the held-out prompts, in one row."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = {"steps": updates, "learning_rate": rate}
        trained = train_language(
            dataset(), name, settings=settings, seed=seed, output=Path(folder) / "run", overrides=overrides
        )
        policy = trained.policy(open_model(model_directory("tiny", data.home(None)), name="tiny", device="cpu"))
    texts = [trained.settings[key] for key in ("accept_text", "reject_text") if key in trained.settings]
    return pl.DataFrame(
        {
            **{"name": name, "rate": rate, "updates": updates, "seed": seed, "texts": " ".join(map(repr, texts))},
            "condition_weight": trained.settings.get("condition_weight"),
            **acceptance(policy, texts),
        }
    )


@cache
def dataset() -> Dataset:
    """Return the tiny language."""
    return build_dataset("language/tiny-v0")


def acceptance(policy: LanguageModel, texts: list[str]) -> dict[str, float]:
    """Return the mean probability of the right response: without a text, behind each label's, and guided."""
    hidden = _next(policy, "")
    found = {"hidden": hidden}
    if texts:
        found |= {"accept": _next(policy, texts[0]), "reject": _next(policy, texts[1])}
        found |= {f"guidance {w:g}": hidden + w * (found["accept"] - hidden) for w in GUIDANCE}
    return {name: _right(policy, log_next) for name, log_next in found.items()}


@torch.no_grad()
def _next(policy: LanguageModel, text: str) -> Tensor:
    """Return the log-probabilities of every next token of the right responses, (prompts · length, V)."""
    batch = collate([tokenize(with_prefix(policy.tokenizer, text), *pair, ends=True) for pair in _answers()])
    logits: Tensor = policy.model(input_ids=batch.ids).logits[batch.row, batch.place]
    return logits.log_softmax(-1)


def _right(policy: LanguageModel, log_next: Tensor) -> float:
    """Return the mean over prompts of the right response's probability, log-probabilities normalised anew."""
    target = collate([tokenize(with_prefix(policy.tokenizer, ""), *pair, ends=True) for pair in _answers()]).target
    chosen = log_next.log_softmax(-1).gather(-1, target.unsqueeze(-1)).view(len(_answers()), -1)
    return float(chosen.sum(-1).exp().mean())


@cache
def _answers() -> list[tuple[str, str]]:
    """Return the held-out prompts with their right responses."""
    prompts = sorted(set(take_split(dataset(), "test").table["prompt"].to_pylist()))
    return [(prompt, prompt.removesuffix("=")[::-1]) for prompt in prompts]


def page(raw: pl.DataFrame) -> str:
    """Return conditional.md."""
    columns = ["hidden", "accept", "reject", *(f"guidance {w:g}" for w in GUIDANCE)]
    keys = ["name", "texts", "condition_weight", "rate", "updates"]
    means = raw.group_by(keys, maintain_order=True).agg(pl.len().alias("runs"), pl.col(columns).mean())
    rows = [
        [
            *(str(row["name"]), str(row["texts"]).replace("|", "\\|") or "–"),
            *("–" if row["condition_weight"] is None else f"{row['condition_weight']:g}", f"{row['rate']:g}"),
            *(str(row["updates"]), str(row["runs"])),
            *("–" if row[column] is None else f"{row[column]:.3f}" for column in columns),
        ]
        for row in means.to_dicts()
    ]
    head = ("learner", "texts", "λ", "rate", "updates", "runs", "hidden", "accept", "reject", *columns[3:])
    cost = f"{len(raw)} runs in {raw['cpu_seconds'].sum() / 60:.0f} CPU-minutes. " + shared.hardware(
        "torch", "transformers", "peft"
    )
    return "\n".join([HEAD, *shared.table(head, rows, "llr"), "", cost, ""])


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = OUT,
    parts: Annotated[Path, typer.Option(help="Folder of finished runs, to resume from.")] = Path("conditional-parts"),
) -> None:
    """Run what is missing, and write the raw scores and the page."""
    raw = resumable(parts, chunks(), make)
    shared.save(raw, out / "conditional.parquet")
    (out / "conditional.md").write_text(page(raw), encoding="utf-8")


if __name__ == "__main__":
    shared.script(main)
