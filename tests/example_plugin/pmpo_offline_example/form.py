"""A form of texts: answers that were rated with stars, `{"ask": …, "reply": …, "stars": 1 to 5}`."""

from __future__ import annotations

from collections.abc import Iterator

from pmpo_offline.data.exchange.forms import Drop, Form, Reading, Response, Row


def of_stars(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the row's reply with its stars, unless one of them is empty (`row.text` raises `Drop` then)."""
    yield Response(row.text("ask"), row.text("reply"), row.number("stars"))


STARS = Form(
    name="answers with stars",
    space="stars",
    columns=("ask", "reply", "stars"),
    read=of_stars,
    example={"ask": "Name a prime.", "reply": "Seven.", "stars": 5},
    meaning="a row; its score is the number of stars",
    scored=True,
    takes_score=False,
)
