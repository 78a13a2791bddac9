"""The script that draws the pictures of docs/objectives.md, and that the committed pictures are what it draws."""

import runpy
from pathlib import Path

from matplotlib.testing.compare import compare_images

from pmpo_offline.objectives import OBJECTIVES

SCRIPT = Path(__file__).parents[2] / "docs" / "gradients.py"
COMMITTED = SCRIPT.parent / "pictures"
TOLERANCE = 3.0
"""Root mean square over the pixels, of 255: room for how another version of the font renderer smooths letters. Of the
changes that were tried the least (one of several curves, half a floor's height) makes 6.6."""


def test_a_picture_for_every_objective_and_none_is_stale(tmp_path: Path):
    runpy.run_path(str(SCRIPT))["main"](tmp_path)
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == sorted(path.name for path in COMMITTED.glob("*.png"))
    assert set(OBJECTIVES) <= {Path(name).stem for name in drawn}
    for name in drawn:
        different = compare_images(str(COMMITTED / name), str(tmp_path / name), tol=TOLERANCE)
        assert different is None, f"draw docs/pictures again with python docs/gradients.py: {different}"
        assert (COMMITTED / name).stat().st_size < 25_000
