"""Texts of other libraries: files or hub ids become rows, and every row becomes responses, as its form says.

A form is a file with a `Form`, registered here, or in another package by an entry point of the group
"pmpo_offline.forms". What is stored, on which side of the split, and with which labels is not decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from pmpo_offline.runtime.registry import Registry

if TYPE_CHECKING:
    from pmpo_offline.data.exchange.forms.form import Form as Form
    from pmpo_offline.data.exchange.forms.form import form_of as form_of
    from pmpo_offline.data.exchange.forms.rows import Drop as Drop
    from pmpo_offline.data.exchange.forms.rows import Reading as Reading
    from pmpo_offline.data.exchange.forms.rows import Response as Response
    from pmpo_offline.data.exchange.forms.rows import Row as Row
    from pmpo_offline.data.exchange.forms.sources import TextSource as TextSource
    from pmpo_offline.data.exchange.forms.sources import is_text as is_text
    from pmpo_offline.data.exchange.forms.sources import open_text as open_text

_HERE = "pmpo_offline.data.exchange.forms"
FORMS: Registry[Form] = Registry(
    "text form",
    "pmpo_offline.forms",
    {
        "hh-rlhf": f"{_HERE}.pairs:TRANSCRIPTS",
        "trl-paired": f"{_HERE}.pairs:PAIRED",
        "trl-paired-implied": f"{_HERE}.pairs:IMPLIED",
        "scored-lists": f"{_HERE}.unpaired:SEVERAL",
        "lmsys": f"{_HERE}.unpaired:LMSYS",
        "thumbs": f"{_HERE}.unpaired:THUMBS_LOG",
        "pmpo-offline": f"{_HERE}.unpaired:OWN",
        "trl-unpaired": f"{_HERE}.unpaired:UNPAIRED",
        "scored-rows": f"{_HERE}.unpaired:SCORED",
    },
)
"""In the order in which they are tried."""

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "form": ["Form", "form_of"],
        "rows": ["Drop", "Reading", "Response", "Row"],
        "sources": ["TextSource", "is_text", "open_text"],
    },
)
