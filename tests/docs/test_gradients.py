"""The script that draws the pictures of docs/objectives.md."""

import runpy
from pathlib import Path

from PIL import Image

from pmpo_offline.objectives import OBJECTIVES

SCRIPT = Path(__file__).parents[2] / "docs" / "gradients.py"


def test_a_picture_for_every_objective(tmp_path: Path):
    runpy.run_path(str(SCRIPT))["main"](tmp_path)
    assert set(OBJECTIVES) <= {path.stem for path in tmp_path.glob("*.png")}
    for path in tmp_path.glob("*.png"):
        committed = SCRIPT.parent / "pictures" / path.name
        with Image.open(path) as drawn, Image.open(committed) as shown:
            assert drawn.size == shown.size
            assert len(drawn.getcolors()) > 10, "something is drawn"
        assert path.stat().st_size < 25_000
