"""One line for a name that does not exist, however many there are."""

from __future__ import annotations

import pytest

from pmpo_offline.runtime.errors import counted, unknown

MANY = [f"family/set-{i:02d}-v0" for i in range(40)]


def test_one_is_not_a_plural() -> None:
    assert [counted(number, "run") for number in (0, 1, 2, 1000)] == ["0 runs", "1 run", "2 runs", "1,000 runs"]


def test_few_names_are_told_whole() -> None:
    assert str(unknown("format", "zip", ["hdf5", "arrow"])) == "unknown format 'zip': known: arrow, hdf5"
    assert str(unknown("format", "zip", [])) == "unknown format 'zip': known: none"


def test_near_misses_are_told_of_however_many() -> None:
    assert str(unknown("dataset", "family/set-7-v0", MANY)).startswith(
        "unknown dataset 'family/set-7-v0': did you mean"
    )


def test_words_of_other_libraries_and_initials_are_read_before_near_misses() -> None:
    training = ["batch", "beta", "floor", "hidden", "lora_layers", "updates", "weight_decay"]
    for theirs, ours in {"bs": "batch", "epochs": "updates", "kl_coef": "beta", "layers": "hidden"}.items():
        assert str(unknown("setting", theirs, training)).endswith(f"did you mean {ours}?")
    assert str(unknown("setting", "lr", ["floor", "learning_rate"])).endswith("did you mean learning_rate?")
    assert str(unknown("setting", "lr", ["floor", "beta"])).endswith("did you mean floor?")


@pytest.mark.parametrize(("kind", "hint"), [("dataset", ", see pmpo-offline list"), ("key", "")])
def test_many_names_are_not(kind: str, hint: str) -> None:
    message = str(unknown(kind, "x", MANY))
    assert message.endswith(f" and 35 more{hint}")
    assert sum(name in message for name in MANY) == 5
    assert len(message) < 200
