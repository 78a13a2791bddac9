"""Forms with two responses a row and a verdict: who won, which is preferred and how much, or which is safe.

A verdict makes the better response an accept and the other a reject; a tie leaves both unlabelled, and "both are bad"
rejects both. Preference strengths are below 0 where the first is preferred.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pmpo_offline.data.exchange.forms import columns
from pmpo_offline.data.exchange.forms.cells import is_list, is_turn, role_of, short
from pmpo_offline.data.exchange.forms.columns import word_of
from pmpo_offline.data.exchange.forms.conversation import answered, conversation, prompt_of, with_system
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Prompt, Response, Row, about
from pmpo_offline.runtime.files import from_json

Scores = tuple[float, float]
FIRST, SECOND, TIE, BAD, GOOD = (1.0, -1.0), (-1.0, 1.0), (math.nan, math.nan), (-1.0, -1.0), (1.0, 1.0)
STRENGTHS: Mapping[str, Scores] = {}
"""The sign of the number."""
WINNERS = {
    **dict.fromkeys(("model_a", "assistant_a", "a", "left", "first"), FIRST),
    **dict.fromkeys(("model_b", "assistant_b", "b", "right", "second"), SECOND),
    **dict.fromkeys(("tie", "draw", "equal", "none", "tie (inconsistent)"), TIE),
    **dict.fromkeys(("tie (bothbad)", "tie (both_bad)", "both_bad", "bothbad", "bothbad_vote"), BAD),
    **dict.fromkeys(("both_good", "bothgood"), GOOD),
}
_FIRST, _SECOND = (
    tuple(f"{stem}{join}{mark}" for mark in marks for stem in ("response", "answer", "output") for join in ("_", ""))
    for marks in ("a1", "b2")
)
_VERDICTS = ("winner", "preference", "preferred", "choice", "better", "chosen", "verdict", "label")
_MODELS = (("model_a", "model_b"), ("model_1", "model_2"), ("generator_1", "generator_2"))
_SAID = (
    (FIRST, "accept the first, reject the second"),
    (SECOND, "accept the second, reject the first"),
    (BAD, "reject both"),
    (GOOD, "accept both"),
)


@dataclass(frozen=True)
class Comparison:
    """Which columns hold the two responses, and which say what they are worth."""

    sides: tuple[str, str]
    verdicts: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)
    """Columns of verdicts, the scores by their values; `--score` names one of them, else the first counts."""
    labels: tuple[str, str] | None = None
    """A label for each side, which comes before any verdict that is not named."""
    scores: tuple[str, str] = ("", "")
    """What follows the name of a column of scores on each side: "_A"."""
    prompt: str | None = None
    """The column of the prompt where it has an unusual name."""
    models: tuple[str, str] = ("", "")
    """The columns that name who wrote each side."""

    def read(self, row: Row, reading: Reading) -> Iterator[Response | Drop]:
        """Yield both responses with the scores that the verdict gives them."""
        scores = self._scores(row, reading)
        chats = [_up_to(row.value(name), row.values.get("turn")) for name in self.sides]
        row = row._replace(values={**row.values, **dict(zip(self.sides, chats, strict=True))})
        if all(is_list(chat) and len(chat) > 1 and is_turn(chat[0]) for chat in chats):
            said = [conversation(row, name) for name in self.sides]
            found: list[tuple[Prompt, str | Drop]] = [(with_system(row, history), reply) for history, reply in said]
            reading.refuse_mixed(row, True)
        else:
            prompt, texts = answered(row, reading, self._prompt(row), dict(zip(self.sides, chats, strict=True)))
            found = [(prompt, texts[name]) for name in self.sides]
        if found[0] == found[1]:
            raise Drop("both responses are equal")
        reading.used |= set(self.models)
        for (prompt, text), score, model in zip(found, scores, self.models, strict=True):
            yield text if isinstance(text, Drop) else Response(prompt, text, score, **about(row, model))

    def _prompt(self, row: Row) -> Prompt:
        if self.prompt is None:
            return prompt_of(row)
        prompts = {*columns.PROMPTS, self.prompt}
        values = {name: value for name, value in row.values.items() if name not in prompts}
        return prompt_of(row._replace(values={**values, "prompt": row.values[self.prompt]}))

    def _scores(self, row: Row, reading: Reading) -> Scores:
        if reading.score and reading.score not in self.verdicts:
            names = [reading.score + side for side in self.scores]
            if names[0] == names[1] or not set(names) <= row.values.keys():
                known = ", ".join([*self.verdicts, *(f"those that end in {side}" for side in self.scores if side)])
                raise row.error(f"--score {reading.score} scores no response of this form: take {known}")
            return reading.number(row, names[0]), reading.number(row, names[1])
        if self.labels and not reading.score:
            return reading.label(row, self.labels[0]), reading.label(row, self.labels[1])
        column = reading.score or next(iter(self.verdicts))
        reading.used.add(column)
        value = row.values.get(column)
        if value is None or value == "":
            reading.report.labels["null"] = "unlabelled"
            return TIE
        meanings, word = self.verdicts[column], word_of(value)
        if meanings is STRENGTHS:
            strength = row.number(column)
            scores = FIRST if strength < 0 else SECOND if strength > 0 else TIE
        elif word in meanings:
            scores = meanings[word]
        else:
            raise row.error(f"expected one of {', '.join(meanings)} in column {column}, found {short(value)}")
        reading.report.labels[word] = next((said for known, said in _SAID if known is scores), "unlabelled")
        return scores


@dataclass(frozen=True)
class ArenaLists(Comparison):
    """Arena's form with the prompts and the replies in lists with an item a turn, and three columns of verdicts."""

    def read(self, row: Row, reading: Reading) -> Iterator[Response | Drop]:
        """Yield both responses; raises `Drop` for turns without a reply."""
        prompts, *replies = (_texts(row, name) for name in ("prompt", *self.sides))
        if not prompts or any(len(side) != len(prompts) for side in replies):
            raise Drop("prompt and the responses have different numbers of turns")
        chats = {}
        for name, side in zip(self.sides, replies, strict=True):
            pairs = zip(prompts, side, strict=True)
            chats[name] = [
                {"role": role, "content": text}
                for pair in pairs
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
        values = {name: value for name, value in row.values.items() if name != "prompt"}
        won = [
            name for name in ("model_a", "model_b", "tie") if word_of(row.values.get(f"winner_{name}")) in ("1", "true")
        ]
        if len(won) != 1:
            raise row.error("expected one of winner_model_a, winner_model_b and winner_tie to be 1")
        yield from Comparison.read(self, row._replace(values={**values, **chats, "winner": won[0]}), reading)


def of_voted(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield two responses that are called by a letter or a number, as the verdict calls them: response_a, 1, first."""
    sides, column = (row.first(_FIRST), row.first(_SECOND)), reading.score or row.first(_VERDICTS)
    own = dict(zip(sides, (FIRST, SECOND), strict=True))
    numbers = {"1": FIRST, "2": SECOND, "1.5": TIE} if sides[0].endswith("1") else {}
    verdicts = {name: WINNERS | own | numbers for name in _VERDICTS if name == column}
    ends = (sides[0][-2:], sides[1][-2:])
    models = next((names for names in _MODELS if names[0] in row.values), _MODELS[0])
    yield from Comparison(sides, verdicts, scores=ends, models=models).read(row, reading)


def _up_to(chat: Any, turn: Any) -> Any:
    """Return a conversation up to the answer that a verdict is about: MT-bench has its number in a column `turn`."""
    number = int(turn) if word_of(turn).isdecimal() else 0
    messages = chat if is_list(chat) else ()
    ends = [place for place, said in enumerate(messages, 1) if is_turn(said) and role_of(said) == "assistant"]
    return chat[: ends[number - 1]] if 0 < number < len(ends) else chat


def _texts(row: Row, name: str) -> list[Any]:
    """Return a column's list of texts, written as JSON."""
    value = row.values[name]
    try:
        found = from_json(value) if isinstance(value, str) else value
    except ValueError:
        found = [value]
    return list(found) if is_list(found) else [value]


_PROMPT = "|".join(columns.PROMPTS)
_ASK, _GOOD, _POOR = "Name a prime.", "Seven.", "Nine."
_CHATS = [[{"role": "user", "content": _ASK}, {"role": "assistant", "content": text}] for text in (_GOOD, _POOR)]
SAFE = Form(
    name="PKU-SafeRLHF",
    space="safe-rlhf",
    columns=(_PROMPT, "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
    read=Comparison(
        ("response_0", "response_1"),
        {name: {"0": FIRST, "1": SECOND} for name in ("better_response_id", "safer_response_id")},
        labels=("is_response_0_safe", "is_response_1_safe"),
        models=("response_0_source", "response_1_source"),
    ).read,
    example={
        **{"prompt": _ASK, "response_0": _GOOD, "response_1": _POOR},
        **{"is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 0, "safer_response_id": 0},
    },
    meaning="each response; safe: accept, unsafe: reject; `--score better_response_id` takes the preference instead",
    card="PKU-Alignment/PKU-SafeRLHF",
    score_columns=(),
    responses_a_row=2,
)
SHP = Form(
    name="Stanford Human Preferences",
    space="shp",
    columns=("history", "human_ref_A", "human_ref_B"),
    read=Comparison(
        ("human_ref_A", "human_ref_B"),
        {"labels": {"1": FIRST, "0": SECOND}},
        scores=("_A", "_B"),
        prompt="history",
    ).read,
    example={"history": _ASK, "human_ref_A": _GOOD, "human_ref_B": _POOR, "labels": 1, "score_A": 9, "score_B": 2},
    meaning="each comment; labels 1: accept A, reject B; 0: the other way round; `--score score` takes the votes",
    card="stanfordnlp/SHP and SHP-2",
    feedback="labels",
    score_columns=(),
    responses_a_row=2,
)
HELPSTEER3 = Form(
    name="HelpSteer3 preference",
    space="helpsteer",
    columns=("context", "response1", "response2"),
    read=Comparison(("response1", "response2"), {"overall_preference": STRENGTHS}, prompt="context").read,
    example={"context": _CHATS[0][:1], "response1": _GOOD, "response2": _POOR, "overall_preference": -2},
    meaning="each response; below 0: accept the first, reject the second; above 0: the other way round; 0: unlabelled",
    card="nvidia/HelpSteer3",
    feedback="overall_preference",
    score_columns=(),
    responses_a_row=2,
)
HELPSTEER2 = replace(
    HELPSTEER3,
    name="HelpSteer2 preference",
    columns=(_PROMPT, "response_1", "response_2"),
    read=Comparison(("response_1", "response_2"), {"preference_strength": STRENGTHS}).read,
    example={"prompt": _ASK, "response_1": _GOOD, "response_2": _POOR, "preference_strength": -1},
    card="nvidia/HelpSteer2, preference/preference.jsonl.gz",
    feedback="preference_strength",
)
ARENA = Form(
    name="Chatbot Arena votes",
    space="arena",
    columns=("conversation_a", "conversation_b"),
    read=Comparison(("conversation_a", "conversation_b"), {"winner": WINNERS}, models=("model_a", "model_b")).read,
    example={
        **{"model_a": "big", "model_b": "small", "winner": "model_a"},
        **{"conversation_a": _CHATS[0], "conversation_b": _CHATS[1]},
    },
    meaning="the last turn of each; the winner: accept, the other: reject; a tie: unlabelled; both bad: two rejects",
    card="lmsys/chatbot_arena_conversations and mt_bench_human_judgments, lmarena-ai/arena-human-preference-100k",
    feedback="winner",
    score_columns=(),
    responses_a_row=2,
)
ARENA_LISTS = Form(
    name="Chatbot Arena votes, as lists",
    space="arena",
    columns=("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
    read=ArenaLists(("response_a", "response_b"), {"winner": WINNERS}, models=("model_a", "model_b")).read,
    example={
        **{"model_a": "big", "model_b": "small", "prompt": f'["{_ASK}"]', "response_a": f'["{_GOOD}"]'},
        **{"response_b": f'["{_POOR}"]', "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
    },
    meaning="the last turn of each; the winner: accept, the other: reject; a tie: unlabelled",
    card="lmarena-ai/arena-human-preference-55k",
    takes_score=False,
    responses_a_row=2,
)
VOTED = replace(
    ARENA,
    name="two responses and the winner",
    columns=(_PROMPT, "|".join(_FIRST), "|".join(_SECOND)),
    read=of_voted,
    example={"prompt": _ASK, "response_a": _GOOD, "response_b": _POOR, "winner": "both_bad"},
    meaning=ARENA.meaning.replace("the last turn of each", "each response, also `output_1`, `answer_b`, …"),
    card="AlpacaFarm and AlpacaEval (`preference` 1 or 2)",
    feedback="|".join(_VERDICTS),
)
