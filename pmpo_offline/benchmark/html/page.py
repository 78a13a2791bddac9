"""What every page has: the template, Vega, compressed data, and a content security policy without a network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from pmpo_offline import __version__
from pmpo_offline.benchmark.registries import Drawing
from pmpo_offline.runtime.files import finite
from pmpo_offline.runtime.hashing import hash_bytes


@dataclass(frozen=True)
class Section:
    """A part of a page: Markdown, and charts below it."""

    name: str
    title: str
    text: str = ""
    charts: Sequence[Drawing] = ()

    @property
    def html(self) -> Markup:
        """The text as HTML; HTML inside the Markdown is shown as it is written."""
        return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(self.text))


def render(template: str, sections: Sequence[Section], data: Mapping[str, Any], **context: Any) -> str:
    """Return a page.

    Args:
        template: its name in `templates/`.
        sections: shown in this order; their charts are numbered through.
        data: JSON for the page's script; the specifications of the charts are added to it.
        context: variables of the template.
    """
    charts = [chart for section in sections for chart in section.charts]
    packed = _packed(json.dumps(finite({**data, "charts": charts}), separators=(",", ":"), allow_nan=False))
    environment = Environment(
        loader=PackageLoader("pmpo_offline.benchmark.html"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(
        sections=sections,
        data=packed,
        vega=vega(),
        version=__version__,
        # No text of the page can know the hash of the page's content.
        nonce=hash_bytes([packed.encode(), json.dumps(context, default=str).encode()])[:32],
        **context,
    )


@cache
def vega() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, packed."""
    from vl_convert import javascript_bundle

    return _packed(javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _packed(text: str) -> str:
    """Return a text that `unpack` in page.js reads: gzip, base64."""
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
