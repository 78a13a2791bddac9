"""To TRL: files that its trainers take unchanged.

kto/train.parquet, kto/test.parquet    prompt, completion, label: the labelled responses (a null label ends KTOTrainer
                                       with an error of torch's), and beside them score, ids, source and split
dpo/train.parquet, dpo/test.parquet    prompt, chosen, rejected: every accepted response with every rejected one of its
                                       prompt, and their scores, response_ids and sources

Rows are shuffled: KTOTrainer reads them in their order, and would otherwise get minibatches of one class.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.data.exchange.writers.parquet import splits, write_tables
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError, counted
from pmpo_offline.runtime.hashing import random_words


def write(folder: Path, dataset: Dataset) -> None:
    """Write both forms, each with one file per split; `UserError` if nothing is labelled."""
    forms = both_forms(dataset)
    if forms["kto"].is_empty():
        raise UserError(f"no response of {dataset.metadata.id} is labelled, and TRL takes labelled ones only")
    for done, (name, rows) in enumerate(forms.items()):
        order = np.argsort(random_words(rows.height, dataset.metadata.seed, name), kind="stable")
        for split, part in splits(rows[order].to_arrow()).items():
            # Without polars' own types of text, which not all readers know.
            write_tables(folder / name / f"{split}.parquet", [part], store_schema=False)
        progress.report("write rows", done + 1, len(forms))


def both_forms(dataset: Dataset) -> dict[str, pl.DataFrame]:
    """Return the labelled responses (kto), and every accepted response with every rejected one of its prompt (dpo)."""
    same = ["prompt_id", "prompt", "split"]
    rows = pl.DataFrame(pl.from_arrow(dataset.table)).filter(pl.col("label").is_not_null())
    chosen, rejected = (
        rows.filter(pl.col("label") == accepted).select(
            *same,
            pl.col("completion").alias(side),
            *(pl.col(name).alias(f"{name}_{side}") for name in ("score", "response_id", "source")),
        )
        for side, accepted in (("chosen", True), ("rejected", False))
    )
    pairs = chosen.join(rejected, on=same, maintain_order="left_right")
    pairs = pairs.filter(pl.col("chosen") != pl.col("rejected"))  # labelled one way and the other: no preference
    order = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "^.*_id.*$", "^source_.*$", "split")
    return {"kto": rows, "dpo": pairs.select(map(pl.col, order))}


def left_out(dataset: Dataset) -> list[str]:
    """Return what TRL's forms cannot hold."""
    unlabelled = dataset.metadata.counts.unlabelled
    missing = [counted(unlabelled, "unlabelled response")] if unlabelled else []
    none = "pairs (no prompt has both an accepted and a rejected response)"
    return missing if both_forms(dataset)["dpo"].height else [*missing, none]


def data_files(dataset: Dataset) -> Mapping[str, str]:
    """Return the files of each configuration, as the front matter names them."""
    found = {}
    for name, rows in both_forms(dataset).items():
        held = [f"{{split: {split}, path: {name}/{split}.parquet}}" for split in splits(rows.to_arrow())]
        if held:
            found[name] = f"[{', '.join(held)}]"
    return found


TRL = Writer(
    "labelled responses for KTOTrainer, and pairs for DPOTrainer",
    write,
    lambda dataset: [
        "import datasets",
        'unpaired = datasets.load_dataset("path/of/this/folder", "kto", split="train")  # for KTOTrainer',
        'paired = datasets.load_dataset("path/of/this/folder", "dpo", split="train")  # for DPOTrainer',
    ],
    "`kto` is TRL's unpaired form, `dpo` its paired one, of every accepted with every rejected response of a prompt. "
    "Unlabelled responses are left out. The trainers append an end to every completion, whether or not the dataset's "
    "own completions end.",
    kinds=("responses",),
    data_files=data_files,
    left_out=left_out,
)
