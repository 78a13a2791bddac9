"""A judge's answers: kept line by line as they come, so that a judge is asked nothing twice, and read strictly.

```
{"key": sha256 of judge and question, "judge": "smollm2-135m-instruct", "question": "…", "answer": "B"}
```
The answer is kept as it was written. What it means is decided when it is read, so that a better reader needs no judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pmpo_offline.evaluation.language.questions import Question
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.hashing import hash_json


class Judge(Protocol):
    """Something that answers questions."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def identity(self) -> str:
        """What its answers depend on beside the question: answers of equal identity are interchangeable."""

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield the index of a question and what was answered, in any order, each as soon as it is known."""


class Answers:
    """The answers of one judge, in a file that grows."""

    def __init__(self, judge: Judge, path: Path) -> None:
        """Open the answers in `path`; the file is written when the first one comes."""
        self.judge = judge
        self.path = path
        self._known = _read(path)

    def ask(self, questions: Sequence[Question]) -> list[str]:
        """Return the raw answers to questions, asking the judge only those that it has not answered yet.

        What has been answered stays answered, whatever ends this.
        """
        keys = [self._key(question) for question in questions]
        missing = {key: each for key, each in zip(keys, questions, strict=True) if key not in self._known}
        names = list(missing)
        answers = self.judge.answer(list(missing.values())) if missing else ()
        for done, (i, answer) in enumerate(answers, 1):
            self._keep(names[i], missing[names[i]], answer)
            progress.report("ask the judge", done, len(missing))
        return [self._known[key] for key in keys]

    def _key(self, question: Question) -> str:
        return hash_json([self.judge.identity, question.text, question.answers])

    def _keep(self, key: str, question: Question, answer: str) -> None:
        record = {"key": key, "judge": self.judge.name, "question": question.text, "answer": answer}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # On a line of its own, even where a killed writer left half a line.
            with self.path.open("ab+") as file:
                begun = file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n"
                file.write((b"\n" if begun else b"") + json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise PmpoOfflineError(f"cannot write {self.path}: {error.strerror}") from None
        self._known[key] = answer


def meaning(answer: str, allowed: tuple[str, str]) -> int | None:
    """Return which of the allowed answers was given, 0 or 1; None where it is not plainly one of them.

    The answer stands alone, or alone on the last line, perhaps after "Answer:"; case, quotes, stars, brackets and stops
    around it do not matter, and neither does what a reasoning model writes between <think> and </think>. Nothing is
    guessed from a sentence that mentions an answer.
    """
    said = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL).strip()
    lines = said.splitlines()
    if not lines or "<think>" in said:
        return None
    last = re.sub(r"^\W*(final\s+)?(answer|verdict)\W*[:=]", "", lines[-1], flags=re.IGNORECASE)
    found = re.sub(r"^[\W_]+|[\W_]+$", "", last).casefold()
    choices = [each.casefold() for each in allowed]
    return choices.index(found) if found in choices else None


def _read(path: Path) -> dict[str, str]:
    """Return the answers by key; lines that a killed writer left unfinished are skipped."""
    known: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise PmpoOfflineError(f"cannot read {path}: {error.strerror}") from None
    for line in lines:
        try:
            record = json.loads(line)
            known[str(record["key"])] = str(record["answer"])
        except (ValueError, KeyError, TypeError):
            continue
    return known
