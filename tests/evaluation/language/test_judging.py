"""Win rates, position bias and agreement of judges whose answers are known."""

from __future__ import annotations

import pytest
from sklearn.metrics import cohen_kappa_score

from pmpo_offline.evaluation.language.held_out import held_out_responses
from pmpo_offline.evaluation.language.judging import Agreement, Pair, agreement, compare, judge, labelled_pairs
from pmpo_offline.evaluation.language.questions import Answers, templates


class Rule:
    """Answers by a function of the texts between the tags."""

    name = identity = "rule"

    def __init__(self, rule) -> None:
        self.rule, self.asked = rule, 0

    def answer(self, questions):
        for i, question in enumerate(questions):
            self.asked += 1
            texts = [
                question.text.partition(f"<{tag}>\n")[2].partition(f"\n</{tag}>")[0]
                for tag in ("response_A", "response_B", "response")
            ]
            yield i, self.rule(*[text for text in texts if text])


def pairs(*texts: tuple[str, str]) -> list[Pair]:
    return [Pair(i, f"prompt {i}", ours, theirs) for i, (ours, theirs) in enumerate(texts)]


def asked(rule, texts, tmp_path):
    return compare(Answers(Rule(rule), tmp_path / "a.jsonl"), templates(), "any", pairs(*texts))


def longer(first: str, second: str) -> str:
    return "A" if len(first) > len(second) else "B"


def test_a_fair_judge(tmp_path):
    found = asked(longer, [("long text", "short"), ("longest text", "text"), ("a", "bb"), ("same", "same ")], tmp_path)
    assert (found.wins, found.losses, found.ties, found.disagreements, found.unparsed) == (2, 1, 1, 0, 0)
    assert found.win_rate.estimate == 2.5 / 4
    assert found.win_rate.low < 2.5 / 4 < found.win_rate.high
    assert found.first == 0.5


def test_a_judge_that_looks_at_the_place_only(tmp_path):
    found = asked(lambda first, second: "A", [("x", "y"), ("z", "w")], tmp_path)
    assert (found.wins, found.losses, found.ties, found.disagreements) == (0, 0, 2, 2)
    assert (found.win_rate.estimate, found.first) == (0.5, 1.0)


def test_a_judge_that_chatters(tmp_path):
    def chatter(first, second):
        return "I like both." if "x" in (first, second) else longer(first, second)

    found = asked(chatter, [("x", "y"), ("long", "w"), ("x", "x")], tmp_path)
    assert (found.wins, found.losses, found.ties, found.unparsed) == (1, 0, 1, 1)
    assert found.win_rate.estimate == 1.5 / 2  # of what was judged
    assert asked(lambda *_: "?", [("x", "y")], tmp_path / "b").win_rate is None


def test_equal_texts_cost_no_question(tmp_path):
    rule = Rule(longer)
    compare(Answers(rule, tmp_path / "a.jsonl"), templates(), "any", pairs(("same", " same"), ("xx", "y")))
    assert rule.asked == 2


def test_samples_of_one_prompt_count_as_one(tmp_path):
    three = [Pair(0, "p", "long", "x"), Pair(0, "p", "longer", "x"), Pair(1, "q", "x", "long")]
    found = compare(Answers(Rule(longer), tmp_path / "a.jsonl"), templates(), "any", three)
    assert found.win_rate.estimate == 0.5  # prompt 0 is won, prompt 1 is lost
    assert (found.wins, found.losses) == (2, 1)


def test_single_responses_and_their_labels(tmp_path):
    def rule(text):
        return "perhaps" if text == "none" else "yes" if "good" in text else "no"

    texts = [("p", "good"), ("p", "bad"), ("q", "good one"), ("q", "none")]
    found = judge(Answers(Rule(rule), tmp_path / "a.jsonl"), templates(), "any", texts)
    assert found.to_list() == [True, False, True, None]
    assert agreement(found, [True, False, False, True]) == agreement([True, False, True], [True, False, False])


def test_kappa():
    ours, theirs = [True] * 6 + [False] * 4, [True] * 4 + [False] * 5 + [True]
    found = agreement(ours, theirs)
    assert found.accuracy == 0.7
    assert found.kappa == pytest.approx(cohen_kappa_score(ours, theirs))
    assert agreement([True, False], [False, True]).kappa == -1
    assert agreement([True, True], [True, True]) == Agreement(2, 1.0, None)
    assert agreement([], []) == Agreement(0, None, None)


def test_pairs_of_labelled_responses(responses):
    rows = [(prompt, f"{prompt}{score}", score, "test") for prompt in "abc" for score in (0.0, 1.0, 2.0, -1.0)]
    rows += [("d", "only accepted", 1.0, "test")]
    found = labelled_pairs(held_out_responses(responses(rows)))
    assert sorted(pair.prompt for pair in found) == ["a", "b", "c"]
    assert {(pair.ours[1:], pair.theirs[1:]) for pair in found} == {("1.0", "0.0")}
