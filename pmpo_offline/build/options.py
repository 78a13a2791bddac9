"""Options of builds and imports: the Python arguments and the options of the command line are these fields.

A field's metadata are `help`, `min`, `max` and what else a command line shows. Nothing heavy is imported here, because
every command reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from pmpo_offline.runtime.arguments import fits, in_words
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.options import option

_LABELS_OR_ROWS = "labels (the rows stay, unlabelled), or rows (as if nothing else had been collected)"
HOME = "Directory of datasets; $PMPO_OFFLINE_DATASETS sets it too."


@dataclass(frozen=True)
class Place:
    """Where a dataset is stored, and whether it may replace another one."""

    home: Path | None = option(HOME, show_default="in ~/.cache")
    overwrite: bool = option("Replace what is stored under the same name.", False)


@dataclass(frozen=True)
class Target(Place):
    """Where and in which form a dataset is stored."""

    format: Literal["arrow", "hdf5"] | None = option(
        "How it is stored: Arrow files, or HDF5 (a Minari directory or flat columns).",
        show_default="arrow; a stored one is opened as it is",
    )


@dataclass(frozen=True)
class Changes:
    """What a build changes of a declared recipe; None: as declared."""

    imbalance: float | None = option("Accepted share of the labelled units.", min=0, max=1, show_default="as declared")
    balance: Literal["labels", "rows"] | None = option(
        f"What is dropped for the share: {_LABELS_OR_ROWS}.", metavar="labels|rows", show_default="as declared"
    )
    label: str | None = option(
        "SCORE[:THRESHOLD[:MARGIN]], e.g. success, return:q0.5, advantage:sign.", show_default="as declared"
    )
    noise: float | None = option("Rate of flipped labels.", min=0, max=1, show_default="as declared")
    episodes: int | None = option("Episodes to collect, or prompts to answer.", min=1, show_default="as declared")
    seed: int | None = option("Seed of all random numbers.", min=0, show_default="as declared")


@dataclass(frozen=True)
class ImportOptions:
    """How an import is labelled; None is the default."""

    label: str | None = option(
        "SCORE[:THRESHOLD[:MARGIN]], e.g. success, return:q0.5, advantage:sign; column:7:0.5 for texts.",
        show_default="trajectories: success if some episodes succeed and some fail, else return:q0.5, nothing without "
        "rewards; texts: their labels, else column:q0.5",
    )
    """For texts `column:THRESHOLD:MARGIN` in one, or `reward[:THRESHOLD[:MARGIN]]`: the task's reward function."""
    imbalance: float | None = option("Accepted share of the labelled units.", min=0, max=1, show_default="as imported")
    noise: float | None = option("Rate of flipped labels.", min=0, max=1, show_default="0")
    seed: int = option("Seed of noise, imbalance, critics and order.", 0, min=0, max=2**31 - 1)
    balance: Literal["labels", "rows"] = option(
        f"What is dropped for the share: {_LABELS_OR_ROWS}.", "labels", metavar="labels|rows"
    )
    score: str | None = option(
        "The column of scores or labels, e.g. adv_ind of robot episodes; with --labels, of that file.",
        metavar="COLUMN",
        show_default="trajectories: label or adv_ind; texts: labels, else score, rating, …",
    )
    labels: Path | None = option(
        "Labels or scores of robot episodes: a .csv, .jsonl or .parquet file with a column episode and one of labels.",
        metavar="FILE",
        show_default="none",
    )
    accept: tuple[str, ...] = option(
        "Values of the labels (or of --score) that mean accept; all others mean reject.",
        (),
        metavar="VALUE,…",
        show_default="true, 1, yes, up, good, …",
    )
    actions: int | None = option(
        "Number of discrete actions, of trajectories whose actions are whole numbers.",
        min=2,
        max=2**31 - 1,
        show_default="as the source says",
    )

    def check(self) -> None:
        """Raise `UserError` for values that are impossible, whatever is imported."""
        types = get_type_hints(type(self))
        for each in fields(self):
            kind = types[each.name] | str if Path in get_args(types[each.name]) else types[each.name]
            if not fits(getattr(self, each.name), kind):
                raise UserError(f"import: expected {in_words(kind)} for {each.name}, not {getattr(self, each.name)!r}")
            value, least, most = getattr(self, each.name), each.metadata.get("min"), each.metadata.get("max")
            if value is not None and least is not None and not least <= value <= (value if most is None else most):
                allowed = f"of {least} or more" if most is None else f"between {least} and {most}"
                raise UserError(f"import: {each.name.replace('_', ' ')} {value:g}: choose a number {allowed}")


@dataclass(frozen=True)
class TextOptions(ImportOptions):
    """How texts are imported; None is the default. Lengths are in characters (Unicode code points)."""

    columns: tuple[str, ...] = option(
        "Texts: what columns of other names mean, as in prompt=question; several with commas.",
        (),
        metavar="MEANING=COLUMN,…",
        show_default="by their names",
    )
    threshold: str | None = option("Texts: scores above it are accepted: a number or a quantile.", show_default="q0.5")
    margin: float | None = option(
        "Texts: scores within this distance of the threshold stay unlabelled.", min=0, show_default="0"
    )
    test_share: float | None = option(
        "Texts: share of the prompts that are held out, chosen by a hash of their text.",
        min=0,
        max=1,
        show_default="0.1, or the source's own split",
    )
    template: Path | None = option(
        "Texts: folder of a model whose chat template formats conversations.",
        metavar="MODEL",
        show_default="Human:/Assistant: transcripts",
    )
    languages: tuple[str, ...] = option(
        "Texts: keep these languages, by the column language.", (), metavar="A,B", show_default="all"
    )
    redacted: Literal["keep", "drop"] = option(
        "Texts: what to do with conversations in which names were redacted.", "keep", metavar="keep|drop"
    )
    min_characters: int | None = option("Texts: shortest completion, in characters.", min=1)
    max_characters: int | None = option("Texts: longest completion, in characters.", min=1)
    max_prompt_characters: int | None = option("Texts: longest prompt, in characters.", min=1)
    deduplicate: bool = option(
        "Texts: keep the first of equal responses to equal prompts, ignoring white space.", False
    )
    """Of repeated responses whose scores contradict each other, none is imported."""

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from the defaults, as JSON values."""
        values = vars(self)
        changed = {each.name: values[each.name] for each in fields(self) if values[each.name] != each.default}
        return dict(json.loads(json.dumps(changed, default=str)))

    def check(self) -> None:
        """Raise `UserError` for values that are impossible, whatever is imported."""
        super().check()
        if self.max_characters is not None and (self.min_characters or 0) > self.max_characters:
            raise UserError(
                f"import: no completion has at least {self.min_characters} and at most {self.max_characters} characters"
            )
        if self.label is not None and (self.threshold is not None or self.margin is not None):
            raise UserError("import: --label holds threshold and margin already: leave --threshold and --margin out")
