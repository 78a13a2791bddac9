"""The committed pictures of docs/objectives.md are those that docs/gradients.py draws."""

from pathlib import Path

TOLERANCE = 3.0
"""Root mean square over the pixels, of 255: room for how another version of the font renderer smooths letters. Of the
changes that were tried the least (one of several curves, half a floor's height) makes 6.6."""


def test_the_committed_pictures_are_what_is_drawn(tmp_path: Path):
    from matplotlib.testing.compare import compare_images  # here, because no other test needs pyplot

    from docs.gradients import FOLDER, PICTURES, main

    main(tmp_path)
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == sorted(f"{name}.png" for name in PICTURES)
    assert drawn == sorted(path.name for path in FOLDER.glob("*.png"))
    for name in drawn:
        different = compare_images(str(FOLDER / name), str(tmp_path / name), tol=TOLERANCE)
        assert different is None, f"draw docs/pictures again with python -m docs.gradients: {different}"
        assert (FOLDER / name).stat().st_size < 25_000
