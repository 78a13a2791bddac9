"""The README.md of an adapter: what it is an adapter of, what it learned from, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pmpo_offline.data import Metadata


def adapter_card(base: str, on_hub: bool, dataset: Metadata, record: Mapping[str, Any]) -> str:
    """Return the card as Markdown whose front matter the Hugging Face hub reads.

    Args:
        base: the model's name on the hub, or else the name that its owner gave it.
        on_hub: whether it is the former.
        dataset: what it was trained on.
        record: algorithm, settings and seed of the run, as in run.json.
    """
    counts = dataset.counts
    settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    model = f'"{base}"' if on_hub else f'"the directory of {base}"'
    linked = f"[{base}](https://huggingface.co/{base})" if on_hub else f"`{base}`, which is not on the hub"
    return "\n".join(
        [
            "---",
            *([f"base_model: {base}"] if on_hub else []),
            "library_name: peft",
            "pipeline_tag: text-generation",
            f"tags: [lora, pmpo-offline, {record['objective']}]",
            "---",
            "",
            f"# {record['algorithm']} on {dataset.id}",
            "",
            f"A LoRA adapter of {linked}, trained by pmpo-offline.",
            "",
            "| | |",
            "|---|---|",
            f"| algorithm | {record['algorithm']} ({settings}), seed {record['seed']} |",
            f"| feedback | `{dataset.id}`: {counts.accepted:,} accepted, {counts.rejected:,} rejected, "
            f"{counts.unlabelled:,} unlabelled responses |",
            f"| labels | `{dataset.label}`, {dataset.noise:g} of them flipped |",
            f"| licence of the data | {dataset.licence} |",
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({model})",
            f"base = AutoModelForCausalLM.from_pretrained({model})",
            'model = PeftModel.from_pretrained(base, "path/of/this/folder")',
            "```",
            "",
        ]
    )
