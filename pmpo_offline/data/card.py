"""The dataset card: a README.md that people read and whose front matter Hugging Face's `load_dataset` obeys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pmpo_offline.data.schema import Metadata

_NOTE = "`label` is true for accept, false for reject and null where unlabelled."


def card(metadata: Metadata, tables: list[str], format: str) -> str:
    """Return the README.md of a dataset with these tables, in the form "arrow" or "hdf5"."""
    # Hugging Face reads flat files only: in HDF5 form, transitions are a Minari directory without one.
    readable = [name for name in tables if format == "arrow" or name != "transitions"]
    return page(metadata, {name: f"{name}.{format}" for name in readable}, _loading(metadata, tables, format))


def page(metadata: Metadata, data_files: Mapping[str, str], loading: Sequence[str], note: str = _NOTE) -> str:
    """Return a README.md: front matter with a configuration a table, the description, and the code that loads it.

    `data_files` names the files of each table, the default one first, as Hugging Face's front matter does; `note` says
    how to read the columns.
    """
    counts, imbalance = metadata.counts, metadata.imbalance
    achieved = "nothing labelled" if imbalance.achieved is None else f"{imbalance.achieved:.4g}"
    asked = "as collected" if imbalance.asked is None else f"{imbalance.asked:g} asked"
    dropped = f"{imbalance.dropped_accepted} accepts and {imbalance.dropped_rejected} rejects left unlabelled for it"
    lines = [
        *_front_matter(metadata, data_files),
        f"# {metadata.id}",
        "",
        f"Task `{metadata.task}` with accept/reject feedback, one label for each {metadata.unit}. "
        f"Made by pmpo-offline, schema version {metadata.schema_version}.",
        "",
        "| | |",
        "|---|---|",
        f"| rows, episodes | {counts.rows:,}, {counts.episodes:,} |",
        f"| labels | {counts.accepted:,} accepted, {counts.rejected:,} rejected, {counts.unlabelled:,} unlabelled |",
        f"| label rule | `{metadata.label}` on the score `{metadata.score.name}` |",
        f"| label noise | {metadata.noise:g} of the labels flipped |",
        f"| accepted share | {achieved} ({asked}; {dropped}) |",
        f"| reject mass P_r before balancing | {metadata.reject_mass:.4g} |",
        f"| seed | {metadata.seed} |",
        f"| licence | {metadata.licence} |",
    ]
    if references := metadata.references:
        lines.append(f"| normalized score | 0 at {references.min:g}, 100 at {references.max:g}: {references.how} |")
    lines += ["", note, ""]
    return "\n".join([*lines, "```python", *loading, "```", ""])


def _front_matter(metadata: Metadata, data_files: Mapping[str, str]) -> list[str]:
    quote = json.dumps  # a JSON string is a YAML string, whatever it holds
    lines = ["---", f"license: {quote(metadata.licence.lower())}", f"pretty_name: {quote(metadata.id)}"]
    lines += ["tags:", "- pmpo-offline", "- accept-reject-feedback", "- offline-reinforcement-learning"]
    if data_files:
        lines.append("configs:")
    for position, (name, files) in enumerate(data_files.items()):
        lines += [f"- config_name: {name}", f"  data_files: {files}"]
        lines += ["  default: true"] if position == 0 else []
    return [*lines, "---"]


def _loading(metadata: Metadata, tables: list[str], format: str) -> list[str]:
    lines = ["from pmpo_offline import load_dataset", f'dataset = load_dataset("{metadata.id}")', ""]
    if format == "arrow":
        lines += [
            f'import polars; polars.scan_ipc("{tables[0]}.arrow")',
            f'import datasets; rows = datasets.load_dataset("path/of/this/folder", "{tables[0]}", split="train")',
        ]
        if metadata.kind == "responses":
            lines += [
                "# Hugging Face calls all rows of a file its split train; held out are those whose column says so.",
                "# TRL's KTOTrainer takes labelled rows only (export --to trl writes them, and pairs for DPOTrainer):",
                'rows.filter(lambda row: row["split"] == "train" and row["label"] is not None)',
            ]
    elif "transitions" in tables:
        lines += [
            "# with MINARI_DATASETS_PATH set to the folder that holds all datasets",
            f'import minari; minari.load_dataset("{metadata.id}")',
        ]
    return lines
