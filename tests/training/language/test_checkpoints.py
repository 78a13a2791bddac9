"""Checkpoints of language models are resumed from only if every file is as it was written."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from pmpo_offline.training.language import checkpoints

NAMES = ("adapter_model.safetensors", "optimizer.safetensors", "rng_state_0.safetensors")


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    for name in NAMES:
        checkpoints._write(path / name, {"x": torch.arange(8.0) + step, "lr": 0.1})
    (path / "trainer_state.json").write_text("{}")
    checkpoints.seal(path)
    return path


def test_the_last_complete_one_is_found_and_incomplete_ones_are_removed(tmp_path: Path) -> None:
    first, second, killed = (checkpoint(tmp_path, step) for step in (2, 4, 6))
    (killed / "checksums.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.last_complete(tmp_path) == second
    assert sorted(tmp_path.iterdir()) == [first, second]


@pytest.mark.parametrize("name", [*NAMES, "trainer_state.json", "checksums.json"])
def test_a_flipped_bit_is_said_and_not_resumed_from(tmp_path: Path, name: str) -> None:
    sound, damaged = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 4
    (damaged / name).write_bytes(content)
    with pytest.warns(UserWarning, match=r"checkpoint-4 is damaged \(.*\): removed"):
        assert checkpoints.last_complete(tmp_path) == sound
    assert not damaged.exists()
