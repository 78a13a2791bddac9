"""What an import of texts is asked for, called and labelled by, and what it cannot be."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import JsonValue

from pmpo_offline.build.naming import digest, variant
from pmpo_offline.data import LabelRule
from pmpo_offline.data.exchange.forms import Form, TextSource
from pmpo_offline.data.exchange.forms.selection import Selection
from pmpo_offline.runtime.errors import UserError, unknown

NAMESPACE = "language"
"""Of the tasks that imported texts are of."""
_READABLE = ("imbalance", "noise", "seed")
"""The options that an id can say in a word."""


@dataclass(frozen=True)
class TextOptions:
    """How texts are imported; what is None is as usual."""

    score: str | None = None
    """The column of scores."""
    threshold: str | None = None
    """A number, or a quantile such as q0.5 (the default)."""
    margin: float | None = None
    """Scores at most this far from the threshold are left unlabelled."""
    label: str | None = None
    """`column:THRESHOLD:MARGIN` in one, or `reward[:THRESHOLD[:MARGIN]]`, scored by the task's reward function."""
    imbalance: float | None = None
    """Accepted share of the labelled responses."""
    noise: float | None = None
    """Rate of flipped labels."""
    test_share: float | None = None
    """Share of the prompts that go to the split "test"; default 0.1, or as an export of this package has them."""
    template: Path | None = None
    """Folder of the model whose chat template writes conversations down; default `Human:/Assistant:` transcripts."""
    selection: Selection = field(default_factory=Selection)
    seed: int = 0

    def changed(self) -> dict[str, JsonValue]:
        """Return the options that are not the usual ones."""
        usual = asdict(TextOptions())
        given = {name: value for name, value in asdict(self).items() if value != usual[name]}
        chosen = {
            name: value for name, value in given.pop("selection", {}).items() if value != usual["selection"][name]
        }
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in (given | chosen).items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def check_options(options: TextOptions) -> None:
    """Raise `UserError` for options that are impossible, whatever is imported."""
    shares = {"imbalance": options.imbalance, "noise": options.noise, "test share": options.test_share}
    for setting, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            raise UserError(f"import: {setting} {share:g}: choose a number between 0 and 1")
    if options.seed < 0:
        raise UserError(f"import: seed {options.seed}: choose a number of 0 or more")
    chosen = options.selection
    if chosen.max_characters is not None and (chosen.min_characters or 0) > chosen.max_characters:
        raise UserError(
            f"import: no completion has at least {chosen.min_characters} and at most {chosen.max_characters} characters"
        )
    if options.label is not None and (options.threshold is not None or options.margin is not None):
        raise UserError("import: --label holds threshold and margin already: leave --threshold and --margin out")


def rule_of(form: Form, options: TextOptions) -> LabelRule:
    """Return the rule that splits the scores: as asked for, else at their median, or at 0 where they are yes and no."""
    if options.label is not None:
        rule = LabelRule.parse(options.label)
        if rule.score not in ("column", "reward"):
            raise UserError(f"label '{rule}': texts are scored by column, or by reward with --task")
        return rule
    if form.scored:
        margin = "" if options.margin is None else f":{options.margin!r}"
        return LabelRule.parse(f"column:{options.threshold or 'q0.5'}{margin}")
    if options.threshold is not None or options.margin is not None:
        raise UserError(
            f"the feedback is yes or no ({form.name}) and a threshold is for scores: name their column with --score"
        )
    return LabelRule.parse("column")


def task_of(found: TextSource, asked: str | None) -> str:
    """Return the name of the task: the one asked for, that of the dataset it was exported from, or one of its own."""
    if asked is None:
        return found.origin.task if found.origin else f"{NAMESPACE}/{re.sub(r'-v[0-9]+$', '', _own_name(found))}"
    from pmpo_offline.tasks import language

    if asked not in language.names():
        raise unknown("task of texts", asked, language.names())
    return asked


def id_of(found: TextSource, form: Form, options: TextOptions) -> str:
    """Return the id by default: the form, then the source's own name as far as ids allow, then what was changed."""
    name = _own_name(found)
    changed = options.changed()
    readable = {key: changed.pop(key) for key in _READABLE if key in changed}
    # Options may hold anything, and ids may not.
    hashed = {"": digest(changed)[:8]} if changed else {}
    return variant(f"{form.space}/{name if re.search(r'-v[0-9]+$', name) else f'{name}-v0'}", readable | hashed)


def _own_name(found: TextSource) -> str:
    """Return the last part of the source's name, in letters that ids are made of."""
    parts = [re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-_") for part in found.name.split("/")]
    return next((part for part in reversed(parts) if part), "unnamed")
