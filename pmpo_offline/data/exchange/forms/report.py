"""What an import made of its rows: how many were read and kept, and what was dropped, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pydantic import JsonValue


@dataclass
class Report:
    """Counts of an import, filled while it reads."""

    form: str
    template: str | None = None
    """How conversations were written down; None where there are none."""
    rows: int = 0
    responses: int = 0
    """Of all rows, dropped ones included."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Responses, by the reason."""
    first: dict[str, str] = field(default_factory=dict)
    """Where each reason was first met."""
    labels: dict[str, str] = field(default_factory=dict)
    """The labels that were met, and what they were taken for."""
    languages: Counter[str] = field(default_factory=Counter)
    """Of the responses that were kept, where the source tells."""
    redacted: int = 0
    """Kept responses of conversations in which names were redacted."""
    prompts: int = 0
    train: int = 0
    test: int = 0

    def drop(self, reason: str, place: str, responses: int = 1) -> None:
        """Count responses that are left out."""
        self.dropped[reason] += responses
        self.first.setdefault(reason, place)

    def content(self) -> dict[str, JsonValue]:
        """Return everything, as dataset.json keeps it."""
        told: dict[str, JsonValue] = {"form": self.form}
        if self.template:
            told["template"] = self.template
        told |= {"rows": self.rows, "responses": self.responses, "kept": self.train + self.test}
        told |= {"prompts": self.prompts, "train": self.train, "test": self.test}
        if self.labels:
            told["labels"] = dict(self.labels)
        if self.languages:
            told["languages"] = dict(self.languages.most_common())
        if self.redacted:
            told["redacted"] = self.redacted
        told["dropped"] = dict(self.dropped.most_common())
        told["first_dropped"] = dict(self.first)
        return told
