"""Write docs/tutorial.ipynb from docs/tutorial.md: `python docs/make_notebook.py`."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def notebook() -> nbformat.NotebookNode:
    """Return the tutorial as a notebook: blocks of Python are cells of code, all else is text."""
    page = (HERE / "tutorial.md").read_text(encoding="utf-8")
    page = page.replace(" The same as a\nnotebook: [tutorial.ipynb](tutorial.ipynb).", "")
    parts = [part.strip() for part in BLOCK.split(page)]
    make = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [make[place % 2](text, id=f"cell-{place}") for place, text in enumerate(parts) if text]
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )


if __name__ == "__main__":
    nbformat.write(notebook(), HERE / "tutorial.ipynb")
