"""The forms of text data that are understood, told apart by their columns.

```
TRL paired          prompt, chosen, rejected (text or conversations); also without prompt, which both then begin with
HH-RLHF             chosen, rejected as "\\n\\nHuman: … \\n\\nAssistant: …"
several scored      prompt or instruction, completions: [{response, overall_score}]
LMSYS-Chat-1M       conversation, openai_moderation or --score
thumbs              messages with label, thumbs, feedback or vote, or --score
own                 prompt, completion, label, prompt_id, response_id, split: an export of this package
TRL unpaired        prompt, completion, label
one scored a row    prompt, completion (or instruction, response), score or --score
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pmpo_offline.data.exchange.forms.conversations import THUMBS, of_lmsys, of_messages
from pmpo_offline.data.exchange.forms.pairs import HUMAN, of_hh, of_paired
from pmpo_offline.data.exchange.forms.response import Drop, Reading, Response, Row
from pmpo_offline.data.exchange.forms.scored_lists import of_several
from pmpo_offline.data.exchange.forms.unpaired import COMPLETIONS, PROMPTS, SCORES, of_own, of_scored, of_unpaired
from pmpo_offline.runtime.errors import UserError

_UNDERSTOOD = (
    "prompt, completion, label; prompt, chosen, rejected; chosen, rejected; prompt, completion, score; "
    "prompt, completions; messages, label; conversation, openai_moderation"
)


@dataclass(frozen=True)
class Form:
    """How the rows of a data set become responses."""

    name: str
    """As reports state it."""
    space: str
    """The namespace of the ids that such data get."""
    needs: tuple[str, ...]
    """The columns that every row has."""
    read: Callable[[Row, Reading], Iterator[Response | Drop]]
    scored: bool
    """Whether its scores are numbers that need a threshold, rather than yes and no."""

    def responses(self, row: Row, reading: Reading) -> Iterator[Response | Drop]:
        """Yield the responses of a row; `UserError` for one of another form."""
        if missing := [name for name in self.needs if name not in row.values]:
            held = ", ".join(list(row.values)[:12])
            raise row.error(
                f"lacks {', '.join(missing)}, which the rows before have ({self.name}): it holds {held}; "
                "import files of one form at a time"
            )
        return self.read(row, reading)


def form_of(row: Row, score: str | None) -> Form:
    """Return the form that a data set's first row is of, with this column of scores if one is named.

    Raises `UserError` that says which columns were found and which would be understood.
    """
    has = set(row.values)
    prompts = [name for name in PROMPTS if name in has][:1]
    completions = [name for name in COMPLETIONS if name in has][:1]
    if {"chosen", "rejected"} <= has:
        return _paired(row, has, score)
    if prompts and "completions" in has:
        return Form("several scored responses a prompt", "scored", (*prompts, "completions"), of_several, True)
    _named(row, has, score)
    if "conversation" in has and (score or "openai_moderation" in has):
        flags = score or "openai_moderation"
        return Form("LMSYS-Chat-1M conversations", "lmsys", ("conversation", flags), of_lmsys, score is not None)
    thumbs = [name for name in THUMBS if name in has][:1]
    if "messages" in has and (score or thumbs):
        feedback = score or thumbs[0]
        return Form("messages with feedback", "thumbs", ("messages", feedback), of_messages, score is not None)
    if prompts and completions:
        needs = (*prompts, *completions)
        if {"prompt", "completion", "label", "prompt_id", "response_id", "split"} <= has:
            return Form("an export of pmpo-offline", "pmpo", (*needs, score or "label"), of_own, score is not None)
        if thumbs and not score:
            return Form("TRL unpaired", "trl", (*needs, *thumbs), of_unpaired, False)
        if numbers := [score] if score else [name for name in SCORES if name in has][:1]:
            return Form("one scored response a row", "scored", (*needs, *numbers), of_scored, True)
    raise UserError(
        f"{row.place}: these columns make no form that is understood: {', '.join(sorted(has)[:12]) or 'none'}; "
        f"understood are {_UNDERSTOOD} (another column of scores is named with --score)"
    )


def _paired(row: Row, has: set[str], score: str | None) -> Form:
    if score:
        for side in ("chosen", "rejected"):
            _named(row, has, f"{score}_{side}")
    needs = ("chosen", "rejected", *(f"{score}_{side}" for side in ("chosen", "rejected") if score))
    text = row.values["chosen"]
    if "prompt" not in has and isinstance(text, str) and text.startswith(HUMAN):
        return Form("HH-RLHF transcripts", "hh-rlhf", needs, of_hh, score is not None)
    if "prompt" in has:
        return Form("TRL paired", "trl", ("prompt", *needs), of_paired, score is not None)
    return Form("TRL paired, prompt implied", "trl", needs, of_paired, score is not None)


def _named(row: Row, has: set[str], score: str | None) -> None:
    if score and score not in has:
        raise UserError(f"{row.place}: there is no column {score}: it holds {', '.join(sorted(has)[:12])}")
