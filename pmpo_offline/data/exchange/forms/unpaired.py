"""Forms whose responses each have a label or a score: one a row, alternatives in a list, or the steps of a solution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pmpo_offline.data.exchange.forms.cells import filled, is_list, is_turn, mapping_in, short
from pmpo_offline.data.exchange.forms.columns import COMPLETIONS, LABELS, LIST_SCORES, LISTS, PROMPTS, SCORES
from pmpo_offline.data.exchange.forms.conversation import answered, caught, conversation, prompt_in, prompt_of
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Response, Row, about, stored

_PROMPT, _COMPLETION, _LIST = "|".join(PROMPTS), "|".join(COMPLETIONS), "|".join(LISTS)
_PARALLEL = ("scores", "ratings", "rating", "rewards", "labels", "ranks")
"""Columns of a score for each item of a list of texts."""


def of_unpaired(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a label: `prompt, completion, label`, or a thumb of another name."""
    yield _response(row, reading, reading.feedback(row))


def of_scored(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a score."""
    yield _response(row, reading, reading.rating(row))


def of_own(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row that an export of this package wrote, at its own place."""
    score = reading.number(row, reading.score) if reading.score else reading.label(row, "label")
    reading.pass_over({"score": row.values.get("score")})
    yield _response(row, reading, score)._replace(stored=stored(row))


def of_several(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield each of `completions: [{response, overall_score, …}]` as a response to the row's prompt.

    The items may also be texts, with their scores in a list beside them.
    """
    name = row.first(LISTS)
    several = row.listed(name)
    if several is None:
        raise Drop(f"{name} is null")
    prompt = caught(prompt_of, row)
    if isinstance(prompt, Drop):
        yield Drop(prompt.reason, len(several))
        return
    for number, (content, score) in enumerate(_items(row, reading, name, several), 1):
        one = Row(content, f"{row.place}, {name.removesuffix('s')} {number}")
        said = one.find((*COMPLETIONS, "text", "content"))
        if said is None:
            raise one.error(f"lacks response: it holds {one.held}")
        asked, texts = answered(one, reading, prompt, {"response": one.value(said)})
        known = about(row) | {"source": about(one)["source"]}
        text = texts["response"]
        rated = one._replace(values={**row.values, **content})  # the row may say how to read its scores
        yield text if isinstance(text, Drop) else Response(asked, text, reading.number(rated, score), **known)


def of_steps(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield each step of a solution, with the steps before it at the end of the prompt: one label a step.

    Steps are separated by a line break, as TRL's trainer of stepwise rewards does.
    """
    prompt = row.text("prompt")
    steps, labels = (row.listed(name) or () for name in ("completions", "labels"))
    if not steps:
        raise Drop("completions is empty")
    if len(steps) != len(labels):
        raise row.error(f"expected a label for each step, found {len(labels)} labels for {len(steps)} completions")
    before = f"{prompt}\n"
    reading.refuse_mixed(row, False)
    for number, (step, label) in enumerate(zip(steps, labels, strict=True), 1):
        one = Row({"label": label}, f"{row.place}, step {number}")
        text = caught(row.checked, step, "step")
        if isinstance(text, Drop):
            yield Drop(text.reason, len(steps) - number + 1)
            return
        yield Response(before, text, reading.label(one, "label"), opening=prompt, **about(row))
        before = f"{before}{text}\n"


def of_rated_steps(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield every rated candidate of every step, with the steps that were chosen before it at the end of the prompt."""
    prompt = caught(row.object("question").text, "problem")
    steps = row.object("label").objects("steps")
    if isinstance(prompt, Drop):
        yield Drop(f"question.{prompt.reason}", sum(len(step.objects("completions")) for step in steps))
        return
    reading.refuse_mixed(row, False)
    reading.report.labels |= {"1": "accept", "-1": "reject", "0": "unlabelled"}
    before = f"{prompt}\n"
    for number, step in enumerate(steps, 1):
        candidates = step.objects("completions")
        for one in candidates:
            text = caught(row.checked, one.values.get("text"), "step")
            rating = one.number("rating")
            if not (math.isnan(rating) or rating in (-1, 0, 1)):
                raise row.error(f"expected -1, 0 or 1 as the rating of step {number}, found {rating:g}")
            known = {"score": rating or math.nan, "opening": prompt, **about(row)}
            yield text if isinstance(text, Drop) else Response(before, text, **known)
        chosen = step.values.get("chosen_completion")
        if not (chosen is None or chosen in range(len(candidates))):
            raise row.error(f"step {number}: expected the number of a completion as chosen, found {short(chosen)}")
        said = step.values.get("human_completion") if chosen is None else candidates[int(chosen)].values
        taken = said.get("text") if isinstance(said, Mapping) else said
        if not isinstance(taken, str):  # labelling ended here
            return
        before = f"{before}{taken}\n"


def _items(row: Row, reading: Reading, name: str, several: Any) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield every item of a list as columns, with the name of the one that is its score."""
    scores = reading.score or row.find(_PARALLEL)
    for number, content in enumerate(several):
        if isinstance(content, Mapping) and (scores is None or not is_turn(content)):
            place = f"{row.place}, {name.removesuffix('s')} {number + 1}"
            item = Row(content, place)
            score = reading.score or reading.list_score or item.find(LIST_SCORES)
            if score is None or score not in content:
                raise item.error(f"lacks {score or ' or '.join(LIST_SCORES)}: name the column of scores with --score")
            reading.list_score = score
            yield content, score
        elif scores is None:
            raise row.error(f"expected objects with a response and its score in column {name}")
        else:
            row.require(scores)
            values = row.listed(scores) if filled(row.values[scores]) else [None] * len(several)
            if values is None or len(values) != len(several):
                raise row.error(f"expected a score for each of the {len(several)} items of {name} in column {scores}")
            reading.used.add(scores)
            score = {"ranks": "rank"}.get(scores, scores)
            yield {"response": content, score: values[number]}, score


def _response(row: Row, reading: Reading, score: float) -> Response:
    name = row.first(COMPLETIONS)
    value = row.value(name)
    if is_list(value) and len(value) > 1:  # a whole conversation, beside its prompt as text or turns
        history, text = conversation(row, name)
        reading.refuse_mixed(row, True)
        return Response(prompt_in(row, history, f"conversation in {name}"), text, score, **about(row))
    prompt, texts = answered(row, reading, prompt_of(row), {"completion": value})
    if isinstance(found := texts["completion"], Drop):
        raise found
    return Response(prompt, found, score, **about(row))


def _holds_list(row: Row) -> bool:
    """Return whether alternatives have scores inside or beside them."""
    items = row.items(row.first(LISTS)) or [{}]  # of what is no list, reading says so
    return isinstance(items[0], Mapping) or row.find(_PARALLEL) is not None


def _holds_steps(row: Row) -> bool:
    return all(isinstance(step, str) for step in row.items("completions"))


_ASK = "Name a prime."
SEVERAL = Form(
    name="several scored responses a prompt",
    space="scored",
    columns=(_PROMPT, _LIST),
    read=of_several,
    example={
        "instruction": _ASK,
        "completions": [{"response": "Seven.", "overall_score": 9.0}, {"response": "Nine.", "overall_score": 1.5}],
    },
    meaning="each item; its `overall_score`, else `fine-grained_score`, `score`, `rating`, `reward` or −`rank`, or the "
    "items of `scores`, `ratings`, … beside it",
    card="openbmb/UltraFeedback, berkeley-nest/Nectar",
    scored=True,
    score_columns=(),
    test=_holds_list,
)
STEPWISE = Form(
    name="TRL stepwise supervision",
    space="trl",
    columns=("prompt", "completions", "labels"),
    read=of_steps,
    example={
        "prompt": "Is 91 prime?",
        "completions": ["91 is 7 times 13.", "So it is prime."],
        "labels": [True, False],
    },
    meaning="each step, after the prompt and the steps before it; its label",
    card="TRL's dataset formats; trl-lib/math_shepherd and prm800k",
    takes_score=False,
    test=_holds_steps,
)
PRM800K = Form(
    name="PRM800K",
    space="prm800k",
    columns=("question", "label"),
    read=of_rated_steps,
    example={
        "question": {"problem": "Is 91 prime?"},
        "label": {
            "steps": [
                {"completions": [{"text": "91 is 7 times 13.", "rating": 1}], "chosen_completion": 0},
                {
                    "completions": [{"text": "It is prime.", "rating": -1}, {"text": "It is not.", "rating": 1}],
                    "chosen_completion": None,
                },
            ]
        },
    },
    meaning="each candidate of a step, after the problem and the steps chosen before it; 1: accept, −1: reject, 0: "
    "unlabelled",
    card="openai/prm800k",
    takes_score=False,
    test=lambda row: all(isinstance(mapping_in(row.values[name]), Mapping) for name in ("question", "label")),
)
OWN = Form(
    name="an export of pmpo-offline",
    space="pmpo",
    columns=("prompt", "completion", "label", "prompt_id", "response_id", "split"),
    read=of_own,
    example={
        **{"prompt": _ASK, "completion": "Seven.", "score": 1.0, "label": True},
        **{"prompt_id": 0, "response_id": 2, "source": "tiny", "split": "test"},
    },
    meaning="a row, at its place; the label, or with `--score score` the number",
    card="`export --to trl`, `huggingface` or `parquet`",
)
UNPAIRED = Form(
    name="TRL unpaired",
    space="trl",
    columns=(_PROMPT, _COMPLETION),
    read=of_unpaired,
    example={"prompt": _ASK, "completion": "Seven.", "label": True},
    meaning="a row; true, 1, yes, up, …: accept; false, 0, −1, no, down, …: reject; null: unlabelled; 0 or −1",
    card="TRL's dataset formats; argilla/kto-mix-15k, LLaMA-Factory's `kto_tag`, PKU-Alignment/BeaverTails",
    feedback="|".join(LABELS),
    takes_score=False,
)
SCORED = Form(
    name="one scored response a row",
    space="scored",
    columns=(_PROMPT, _COMPLETION),
    read=of_scored,
    example={"prompt": _ASK, "completion": "Seven.", "score": 4.5},
    meaning="a row; the number",
    card="nvidia/HelpSteer and HelpSteer2 (`--score correctness`, …)",
    feedback="|".join(SCORES),
    scored=True,
)
