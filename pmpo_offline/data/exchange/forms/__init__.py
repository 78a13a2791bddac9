"""Texts of other libraries: files or hub ids become rows, and every row becomes responses, as its form says.

A form is a file with a `Form`, registered here, or in another package by an entry point of the group
"pmpo_offline.forms"; what such a file needs can be imported from here. What is stored, on which side of the split, and
with which labels is not decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from pmpo_offline.runtime.registry import Registry

if TYPE_CHECKING:
    from pmpo_offline.data.exchange.forms.form import Form as Form
    from pmpo_offline.data.exchange.forms.reading import Reading as Reading
    from pmpo_offline.data.exchange.forms.row import Drop as Drop
    from pmpo_offline.data.exchange.forms.row import Response as Response
    from pmpo_offline.data.exchange.forms.row import Row as Row

_HERE = "pmpo_offline.data.exchange.forms"
FORMS: Registry[Form] = Registry(
    "text form",
    "pmpo_offline.forms",
    {
        "pmpo-offline": f"{_HERE}.unpaired:OWN",
        "pku-saferlhf": f"{_HERE}.compared:SAFE",
        "shp": f"{_HERE}.compared:SHP",
        "helpsteer3": f"{_HERE}.compared:HELPSTEER3",
        "helpsteer2": f"{_HERE}.compared:HELPSTEER2",
        "arena": f"{_HERE}.compared:ARENA",
        "arena-lists": f"{_HERE}.compared:ARENA_LISTS",
        "voted": f"{_HERE}.compared:VOTED",
        "hh-rlhf": f"{_HERE}.pairs:TRANSCRIPTS",
        "openai-preferences": f"{_HERE}.pairs:OPENAI",
        "trl-paired": f"{_HERE}.pairs:PAIRED",
        "two-answers": f"{_HERE}.pairs:ANSWERS",
        "rejected-answers": f"{_HERE}.pairs:REJECTED",
        "trl-paired-implied": f"{_HERE}.pairs:IMPLIED",
        "trl-stepwise": f"{_HERE}.unpaired:STEPWISE",
        "scored-lists": f"{_HERE}.unpaired:SEVERAL",
        "oasst": f"{_HERE}.trees:MESSAGES",
        "oasst-trees": f"{_HERE}.trees:TREES",
        "librechat": f"{_HERE}.trees:LIBRECHAT",
        "prm800k": f"{_HERE}.unpaired:PRM800K",
        "lmsys": f"{_HERE}.chats:LMSYS",
        "wildfb": f"{_HERE}.chats:SATISFACTION",
        "thumbs-on-turns": f"{_HERE}.chats:ON_TURNS",
        "thumbs": f"{_HERE}.chats:THUMBS_LOG",
        "scored-conversations": f"{_HERE}.chats:SCORED_CHATS",
        "trl-unpaired": f"{_HERE}.unpaired:UNPAIRED",
        "scored-rows": f"{_HERE}.unpaired:SCORED",
        "chats": f"{_HERE}.chats:UNRATED",
    },
)
"""In the order in which they are tried."""

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"form": ["Form"], "reading": ["Reading"], "row": ["Drop", "Response", "Row"]}
)
