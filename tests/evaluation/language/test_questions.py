"""What counts as an answer, what is kept, and what a judge is asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest

from pmpo_offline.evaluation.language.questions import Answers, Question, meaning, templates
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.progress import on_progress

LETTERS = ("A", "B")


class Scripted:
    """Answers by a rule, counts what it is asked, and may die on the way."""

    def __init__(self, rule, dies_after: int | None = None, identity: str = "scripted") -> None:
        self.name, self.identity = "scripted", identity
        self.rule, self.dies_after, self.asked = rule, dies_after, []

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        for i, question in reversed(list(enumerate(questions))):
            if self.dies_after is not None and len(self.asked) == self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(question.text)
            yield i, self.rule(question)


@pytest.mark.parametrize(
    ("answer", "which"),
    [
        ("A", 0),
        (" b\n", 1),
        ("**B**.", 1),
        ("[[A]]", 0),
        ('"A"', 0),
        ("Answer: B", 1),
        ("**Final answer:** A", 0),
        ("The second one is happier.\n\nVerdict: B", 1),
        ("Both are fine.\nA", 0),
        ("<think>B? No. A is\nB</think>\nA", 0),
        ("", None),
        ("C", None),
        ("A or B", None),
        ("A and B", None),
        ("A is better than B.", None),
        ("I prefer A", None),
        ("AB", None),
        ("A\nbut I am not sure", None),
        ("<think>A\nA", None),  # cut off in the middle of a thought
        ("Answer:", None),
        ("ä", None),
    ],
)
def test_nothing_is_guessed(answer, which):
    assert meaning(answer, LETTERS) == which


def test_words():
    assert meaning("Yes.", ("yes", "no")) == 0
    assert meaning("NO", ("yes", "no")) == 1
    assert meaning("no, it is not", ("yes", "no")) is None


def test_a_judge_is_asked_nothing_twice(tmp_path):
    questions = [Question(f"question {i % 4}", LETTERS) for i in range(6)]
    judge = Scripted(lambda question: f"of {question.text}")
    told = []
    answers = Answers(judge, tmp_path / "judge.jsonl")
    expected = [f"of question {i % 4}" for i in range(6)]
    with on_progress(lambda *stage: told.append(stage)):
        assert answers.ask(questions) == expected
    assert sorted(judge.asked) == [f"question {i}" for i in range(4)]  # nor in one call
    assert told == [("ask the judge", done, 4) for done in (1, 2, 3, 4)]

    silent = Scripted(lambda question: pytest.fail("asked again"))
    assert Answers(silent, tmp_path / "judge.jsonl").ask(questions) == expected
    other = Scripted(lambda question: "mine", identity="another")
    assert Answers(other, tmp_path / "judge.jsonl").ask(questions) == ["mine"] * 6
    assert Answers(silent, tmp_path / "judge.jsonl").ask(questions) == expected
    record = json.loads((tmp_path / "judge.jsonl").read_text().splitlines()[0])
    assert record.keys() == {"key", "judge", "question", "answer"}


def test_a_stopped_judging_goes_on(tmp_path):
    path = tmp_path / "deep" / "judge.jsonl"
    questions = [Question(f"question {i}", LETTERS) for i in range(5)]
    with pytest.raises(KeyboardInterrupt):
        Answers(Scripted(lambda question: "A", dies_after=3), path).ask(questions)
    with path.open("ab") as file:
        file.write(b'{"key": "cut o')  # killed in the middle of a line
    judge = Scripted(lambda question: "A")
    assert Answers(judge, path).ask(questions) == ["A"] * 5
    assert len(judge.asked) == 2
    silent = Scripted(lambda question: pytest.fail("asked again"))
    assert Answers(silent, path).ask(questions) == ["A"] * 5


def test_templates_take_any_text():
    shipped = templates()
    question = shipped.compare("language/sentiment", "Cost: $5 {x} $prompt", "$first", "%s \\")
    assert all(part in question.text for part in ("Cost: $5 {x} $prompt", "$first", "%s \\", "positive"))
    assert question.text.index("$first") < question.text.index("%s")
    assert question.answers == ("A", "B")
    assert "helpful" in shipped.judge("hf/other", "p", "r").text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("$first", "$frist"), "frist"),
        (('["A", "B"]', '["A"]'), "answers"),
        (('["A", "B"]', '["A", "Ab"]'), "begins with the other"),
        (("default =", "usual ="), "default"),
        (("[pointwise]", "[pointwise"), "TOML"),
    ],
)
def test_wrong_templates_are_named_in_one_line(tmp_path, change, said):
    from pmpo_offline.evaluation.language.questions import SHIPPED

    path = tmp_path / "mine.toml"
    path.write_text(SHIPPED.read_text().replace(*change))
    with pytest.raises(UserError, match=said) as error:
        templates(path)
    assert "\n" not in str(error.value)
    assert "mine.toml" in str(error.value)
    with pytest.raises(UserError, match="No such file"):
        templates(tmp_path / "none.toml")
