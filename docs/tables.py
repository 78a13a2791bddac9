"""Write the tables of the pages that registries and declarations make: `python -m docs.tables`.

A table lies between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pmpo_offline.data.exchange.forms import FORMS, columns
from pmpo_offline.data.exchange.readers import READERS
from pmpo_offline.data.exchange.writers import WRITERS
from pmpo_offline.declarations import catalog

HERE = Path(__file__).parent


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table as Markdown."""
    lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    first, *others = lines
    return "\n".join([first, f"|{'---|' * len(heads)}", *others])


def code(words: Iterable[str]) -> str:
    """Return words in backquotes."""
    return ", ".join(f"`{word}`" for word in words)


def forms() -> str:
    """Return the forms of texts, a row of each as it is in a file, and what columns may be called."""
    rows = [(form.name, f"`{form.described}`", form.meaning, form.card) for form in FORMS.values()]
    shown = "\n".join(form.shown for form in FORMS.values())
    names = {
        "prompt": columns.PROMPTS,
        "continues the prompt": columns.ADDED,
        "system message": columns.SYSTEM,
        "earlier turns": columns.HISTORY,
        "completion": columns.COMPLETIONS,
        "list of completions": columns.LISTS,
        "conversation": columns.CHATS,
        "label": (*columns.LABELS, *columns.THUMBS_DOWN),
        "score": columns.SCORES,
    }
    called = table(
        ("meaning", "names of columns, the first of which counts"),
        [(meaning, code(words)) for meaning, words in names.items()],
    )
    return (
        f"{table(('form', 'columns', 'a response is; its score', 'as in'), rows)}\n\n```json\n{shown}\n```\n\n{called}"
    )


def readers() -> str:
    """Return the readers of trajectories."""
    rows = [(reader.name, reader.reads, f"`import {reader.example}`") for reader in READERS.values()]
    return table(("reader", "what is read", "as in"), rows)


def writers() -> str:
    """Return the formats of exports."""
    words = {"transitions": "steps", "responses": "texts"}
    rows = [
        (f"`{name}`", " and ".join(words[kind] for kind in words if kind in writer.kinds), writer.description)
        for name, writer in WRITERS.items()
    ]
    return table(("`--to`", "of", "what is written"), rows)


def suites() -> str:
    """Return the suites, with what they train and for which accepted shares."""
    rows = []
    for suite in catalog.suites():
        arms = dict.fromkeys([*suite.algorithms, *suite.filtered])
        shares = ", ".join("as collected" if share is None else f"{100 * share:g} %" for share in suite.imbalance)
        rows.append((f"`{suite.name}`", suite.description, shares, ", ".join(arms)))
    return table(("suite", "what it compares", "accepted", "algorithms"), rows)


TABLES = {
    "importing.md": {"forms": forms, "readers": readers, "writers": writers},
    "benchmark.md": {"suites": suites},
}
"""What makes each table, by page and name."""


def renewed(page: str) -> str:
    """Return a page with its tables as they are declared today."""
    text = (HERE / page).read_text(encoding="utf-8")
    for name, make in TABLES[page].items():
        before, rest = text.split(f"<!-- {name} -->\n")
        text = f"{before}<!-- {name} -->\n{make()}\n<!-- /{name} -->{rest.split(f'<!-- /{name} -->')[1]}"
    return text


if __name__ == "__main__":
    for page in TABLES:
        (HERE / page).write_text(renewed(page), encoding="utf-8")
