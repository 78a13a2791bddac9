"""Questions to a judge, from the committed templates or a file of the same form, and its answers.

```
{"key": sha256 of judge and question, "judge": "smollm2-135m-instruct", "question": "…", "answer": "B"}
```
Answers are appended to a file as they come, so that no question is asked twice. They are stored as written and
interpreted when they are read: a better parser needs no judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Annotated, NamedTuple, Protocol

from pydantic import BaseModel, Field, field_validator

from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, refusal
from pmpo_offline.runtime.files import from_json, read_toml
from pmpo_offline.runtime.hashing import hash_json

SHIPPED = Path(__file__).with_name("judge.toml")


class Question(NamedTuple):
    """A question with two answers to choose from."""

    text: str
    answers: tuple[str, str]


class _Template(BaseModel, frozen=True, extra="forbid"):
    question: str
    answers: tuple[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]]

    @field_validator("answers")
    @classmethod
    def _differ(cls, answers: tuple[str, str]) -> tuple[str, str]:
        one, other = (answer.casefold() for answer in answers)
        if one.startswith(other) or other.startswith(one):
            raise ValueError("one begins with the other: rename it")
        return answers


class Templates(BaseModel, frozen=True, extra="forbid"):
    """The content of judge.toml."""

    pairwise: _Template
    pointwise: _Template
    criteria: dict[str, str]
    """By task; "default" for all others."""
    request: dict[str, int | float | str | bool] = {}
    """Sent along with every request to a URL."""

    @field_validator("criteria")
    @classmethod
    def _has_default(cls, criteria: dict[str, str]) -> dict[str, str]:
        if "default" not in criteria:
            raise ValueError("one must be called default")
        return criteria

    def compare(self, task: str, prompt: str, first: str, second: str) -> Question:
        """Ask which of two responses is better; the first answer is for the first."""
        return self._fill(self.pairwise, task, prompt=prompt, first=first, second=second)

    def judge(self, task: str, prompt: str, response: str) -> Question:
        """Ask whether a response is good; the first answer is for good."""
        return self._fill(self.pointwise, task, prompt=prompt, response=response)

    def _fill(self, template: _Template, task: str, **texts: str) -> Question:
        criterion = self.criteria.get(task, self.criteria["default"])
        # In one pass: dollars in a prompt or a response are not placeholders.
        filled = Template(template.question.strip()).substitute(criterion=criterion, **texts)
        return Question(filled, template.answers)


def templates(path: Path = SHIPPED) -> Templates:
    """Read templates; `UserError` names the file and what is wrong with it."""
    try:
        read = validated(Templates, read_toml(path), str(path))
    except OSError as error:
        raise UserError(f"judge's templates {path}: {error.strerror}") from None
    try:
        read.compare("", "", "", "")
        read.judge("", "", "")
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: a question holds the unknown placeholder {error}; write $$ for a dollar") from None
    return read


class Judge(Protocol):
    """Something that answers questions."""

    name: str
    """For messages and reports."""
    identity: str
    """All that its answers depend on beside the question: judges of equal identity share answers."""

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield the index of a question and its answer, in any order, each as soon as it is known."""


class Answers:
    """The answers of one judge, in a file that grows."""

    def __init__(self, judge: Judge, path: Path) -> None:
        """Read the answers in `path`, if any; the file is created with the first new one."""
        self.judge = judge
        self.path = path
        self._known: dict[str, str] = {}
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise PmpoOfflineError(f"cannot read {path}: {error.strerror}") from None
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # a killed writer may have left an unfinished line
                record = from_json(line)
                self._known[str(record["key"])] = str(record["answer"])

    def ask(self, questions: Sequence[Question]) -> list[str]:
        """Return the raw answers to questions; only new questions go to the judge.

        Answers are kept when a judge fails or the process is interrupted.
        """
        keys = [hash_json([self.judge.identity, question.text, question.answers]) for question in questions]
        by_key = dict(zip(keys, questions, strict=True))
        new = [(key, question) for key, question in by_key.items() if key not in self._known]
        answers = self.judge.answer([question for _, question in new]) if new else ()
        for done, (i, answer) in enumerate(answers, 1):
            self._keep(*new[i], answer)
            progress.report("ask the judge", done, len(new))
        return [self._known[key] for key in keys]

    def choices(self, questions: Sequence[Question]) -> list[int | None]:
        """Return the `meaning` of the answers to questions."""
        return [
            meaning(answer, question.answers) for answer, question in zip(self.ask(questions), questions, strict=True)
        ]

    def _keep(self, key: str, question: Question, answer: str) -> None:
        record = {"key": key, "judge": self.judge.name, "question": question.text, "answer": answer}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # On a line of its own, even if a killed writer left half a line.
            with self.path.open("ab+") as file:
                begun = file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n"
                file.write((b"\n" if begun else b"") + json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise PmpoOfflineError(refusal(self.path, error, "name another file")) from None
        self._known[key] = answer


def meaning(answer: str, allowed: tuple[str, str]) -> int | None:
    """Return which of the allowed answers was given, 0 or 1; None if it is not plainly one of them.

    The answer is the whole text or the whole last line, perhaps after "Answer:"; case, quotes, stars, brackets and full
    stops around it do not matter, nor does text between <think> and </think>. Nothing is guessed from a sentence that
    mentions an answer.
    """
    text = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL).strip()
    if not text or "<think>" in text:
        return None
    last = re.sub(r"^\W*(final\s+)?(answer|verdict)\W*[:=]", "", text.splitlines()[-1], flags=re.IGNORECASE)
    choice = re.sub(r"^[\W_]+|[\W_]+$", "", last).casefold()
    choices = [option.casefold() for option in allowed]
    return choices.index(choice) if choice in choices else None
