"""What a judge is asked: the committed templates, or one's own file of the same form."""

from __future__ import annotations

import tomllib
from pathlib import Path
from string import Template
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pmpo_offline.runtime.errors import UserError

SHIPPED = Path(__file__).with_name("judge.toml")


class Question(NamedTuple):
    """A question with two answers to choose from."""

    text: str
    answers: tuple[str, str]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Template(_Form):
    question: str
    answers: tuple[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]]


class Templates(_Form):
    """The content of judge.toml."""

    pairwise: _Template
    pointwise: _Template
    criteria: dict[str, str]
    request: dict[str, int | float | str | bool] = {}
    """Sent along with every request to a URL."""

    def compare(self, task: str, prompt: str, first: str, second: str) -> Question:
        """Ask which of two responses is better; the first answer is for the first."""
        return self._ask(self.pairwise, task, prompt=prompt, first=first, second=second)

    def judge(self, task: str, prompt: str, response: str) -> Question:
        """Ask whether a response is good; the first answer is for good."""
        return self._ask(self.pointwise, task, prompt=prompt, response=response)

    def _ask(self, template: _Template, task: str, **texts: str) -> Question:
        criterion = self.criteria.get(task, self.criteria["default"])
        # One pass: dollars in a prompt or a response stay what they are.
        filled = Template(template.question.strip()).substitute(criterion=criterion, **texts)
        return Question(filled, template.answers)


def templates(path: Path = SHIPPED) -> Templates:
    """Read templates; `UserError` names the file and what is wrong with it."""
    try:
        found = Templates.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        if "default" not in found.criteria:
            raise UserError(f"{path}: criteria: one is called default")
        found.compare("", "", "", "")
        found.judge("", "", "")
    except OSError as error:
        raise UserError(f"judge's templates {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: a question holds the unknown placeholder {error}; write $$ for a dollar") from None
    for each in (found.pairwise, found.pointwise):
        one, other = (answer.casefold() for answer in each.answers)
        if one.startswith(other) or other.startswith(one):
            raise UserError(f"{path}: answers {each.answers[0]!r} and {each.answers[1]!r} cannot be told apart")
    return found
