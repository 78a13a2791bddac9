"""Several scored responses a row, as UltraFeedback has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pmpo_offline.data.exchange.forms.conversations import about
from pmpo_offline.data.exchange.forms.response import Drop, Reading, Response, Row, is_conversation
from pmpo_offline.data.exchange.forms.unpaired import COMPLETIONS, PROMPTS, completion_of, first, prompt_of

SCORES = ("overall_score", "fine-grained_score", "score", "rating")
"""What the score of a completion may be called; the first that is there counts."""


def of_several(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield each of `completions: [{response, overall_score, …}]` as a response to the row's prompt."""
    several = row.values.get("completions")
    if several is None:
        yield Drop("completions is null")
        return
    if not is_conversation(several):
        raise row.error("completions is no list of responses with their scores")
    prompt = prompt_of(row, row.values[first(row, PROMPTS)], reading)
    if isinstance(prompt, Drop):
        yield Drop(prompt.reason, len(several))
        return
    for place, each in enumerate(several):
        if not isinstance(each, Mapping):
            raise row.error("completions holds no objects with a response and its score")
        one = Row(each, f"{row.place}, completion {place + 1}")
        named = {name for name in (*COMPLETIONS, *SCORES, reading.score) if name in each}
        if not named & set(COMPLETIONS):
            raise one.error(f"lacks response: it holds {', '.join(sorted(each)[:12])}")
        score = reading.score or next((name for name in SCORES if name in named), None)
        if score not in each:
            raise one.error(f"lacks {score or ' or '.join(SCORES)}: name the column of scores with --score")
        text = completion_of(one, each[first(one, COMPLETIONS)], "response", Reading())
        known = about(row) | {"source": about(one)["source"]}
        yield text if isinstance(text, Drop) else Response(prompt, text, one.number(str(score)), **known)
