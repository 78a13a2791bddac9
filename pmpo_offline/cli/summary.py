"""What commands print of a dataset: a summary of some ten lines, or all that is known of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmpo_offline.cli.console import print_lines, readable
from pmpo_offline.runtime.errors import counted

COUNTS = {"form", "template", "rows", "responses", "kept", "prompts", "train", "test", "labels", "languages"} | {
    *("split", "episodes", "episodes_dropped", "first_dropped", "columns_not_used")
}
"""What an import's report holds beside what was lost or is doubtful, of which a summary hides nothing."""
LEGEND = {
    "reject_mass": "rejected rows of all rows, before balancing (P_r)",
    "labelled_reject_mass": "the same after balancing",
    "reject_share": "rejected rows of the labelled ones (w_r)",
    "beta_min": "least β with a minimum where rows look alike: from reject_mass",
    "beta_min_rows": "where each row has its own state: from labelled_reject_mass",
}
"""Of numbers that differ in what they are shares of; `train`, `bench` and `doctor` choose the one that applies."""

_SHOWN = 8
"""Values of a column of labels that a summary lists."""


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print everything that `build.show` returns, but for the hashes, which are for programs."""
    sizes = {name: f"{info['bytes']:,} bytes" for name, info in facts.get("files", {}).items()}
    print_lines({**facts, **({"files": sizes} if sizes else {})})
    if facts["built"]:
        print()
        print_lines(LEGEND)


def print_summary(*datasets: Mapping[str, Any]) -> None:
    """Print what `build.show` returns of datasets in some ten lines each: contents, labels, origin, losses, what next.

    A blank line comes between two.
    """
    for place, facts in enumerate(datasets):
        if place:
            print()
        print_lines(_summary(facts) if facts["built"] else _declared(facts))


def _declared(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{facts['id']} (not built)",
        "title": facts["title"],
        "holds": facts["description"],
        "labels": f"{facts['label']}, noise {facts['noise']:g}, accepted share {_share(facts['imbalance'])}",
        "licence": facts["licence"],
        "next": f"pmpo-offline build-dataset {facts['id']}",
        "recipe": f"pmpo-offline show {facts['id']} --full",
    }


def _summary(facts: Mapping[str, Any]) -> dict[str, Any]:
    labels = f"{facts['accepted']:,} accepted, {facts['rejected']:,} rejected, {facts['unlabelled']:,} unlabelled"
    quantile = f", which is {readable(facts['threshold'])}" if ":q" in facts["label"] else ""
    flipped = f", noise {facts['noise']:g}" if facts["noise"] else ""
    column = f", of column {facts['column']}" if facts["column"] else ""
    meant = f": {_meanings(meant)}" if (meant := facts.get("report", {}).get("labels")) else ""
    name = shlex.quote(facts["path"] if _is_elsewhere(facts) else facts["id"])
    return {
        "id": facts["id"],
        "holds": _holds(facts),
        "labels": f"{labels}, one per {facts['unit']}",
        "rule": f"{facts['label']}{quantile}{flipped}{column}{meant}",
        **_balance(facts),
        "from": "; ".join([*_operation(facts["made_from"]), *facts["sources"]]) or "–",
        **_losses(facts),
        "splits": ", ".join(f"{count:,} {split}" for split, count in facts["splits"].items()),
        "licence": facts["licence"],
        "path": facts["path"],
        **({"page": facts["page"]} if "page" in facts else {}),
        "next": f"pmpo-offline doctor {name}",
        "more": f"pmpo-offline show {name} --full",
    }


def _meanings(labels: Mapping[str, str]) -> str:
    """Return what the values of a column mean, accepts first, in a line that many values do not make longer."""
    ordered = dict(sorted(labels.items(), key=lambda pair: (pair[1], pair[0]))[:_SHOWN])
    return readable(ordered) + (f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")


def _holds(facts: Mapping[str, Any]) -> str:
    if facts["kind"] == "responses":
        held = f"{counted(facts['rows'], 'response')} to {counted(facts['prompts'], 'prompt')}"
    else:
        held = f"{counted(facts['rows'], 'step')} in {counted(facts['episodes'], 'episode')}"
    if candidates := facts["candidates"]:
        held += f", {candidates['per_state']} candidate actions at each of {candidates['states']:,} steps"
    return f"{held}, of task {facts['task']}"


def _balance(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the line on what a balanced share cost, none where nothing was asked for and nothing dropped."""
    made = facts["imbalance"]
    accepted, rejected = made["dropped_accepted"], made["dropped_rejected"]
    if made["asked"] is None and not accepted and not rejected:
        return {}
    lost = "dropped with their rows" if made.get("balance") == "rows" else "left unlabelled"
    cost = f"{accepted:,} accepts and {rejected:,} rejects {lost}" if accepted or rejected else "nothing was dropped"
    return {"balance": f"{_share(made['achieved'])} accepted, {_share(made['asked'])} asked: {cost}"}


def _share(value: float | None) -> str:
    return "as collected" if value is None else f"{value:.4g}"


def _operation(made_from: Mapping[str, Any]) -> list[str]:
    if not made_from:
        return []
    how = {key: value for key, value in made_from.items() if key not in ("operation", "parents")}
    return [f"{made_from['operation']} of {', '.join(made_from['parents'])}" + (f" ({readable(how)})" if how else "")]


def _losses(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the lines on what an import dropped, did not use or doubts."""
    report = facts.get("report", {})
    whole, unit = (report["responses"], "responses") if "responses" in report else (report.get("rows"), "rows")
    first = {why: f", first at {place}" for why, place in report.get("first_dropped", {}).items()}
    lost = facts.get("dropped", {})
    dropped = [f"{count:,} of {whole:,} {unit}: {why}{first.get(why, '')}" for why, count in lost.items()]
    unused = [name or "(no name)" for name in report.get("columns_not_used", [])]  # of an index that pandas wrote
    noted = [f"{name.replace('_', ' ')}: {readable(value)}" for name, value in report.items() if name not in COUNTS]
    lines = {
        "dropped": "\n".join(dropped),
        "not used": f"{counted(len(unused), 'column')}: {', '.join(unused)}" if unused else "",
        "noted": "\n".join(noted),
    }
    return {name: text for name, text in lines.items() if text}


def _is_elsewhere(facts: Mapping[str, Any]) -> bool:
    """Return whether a dataset is found by its path and not by its id alone."""
    from pmpo_offline.data import home

    return bool(Path(facts["path"]).resolve() != (home() / facts["id"]).resolve())
