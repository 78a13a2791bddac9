"""Files of language models and of what they answered: sound ones of each kind, and the call that reads them."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from helpers import small_language

from fuzz.imports import Target
from pmpo_offline.data.exchange.forms import templates
from pmpo_offline.data.exchange.forms.row import Drop, Message
from pmpo_offline.evaluation.language.questions import Answers, Question
from pmpo_offline.policies.language import model as language
from pmpo_offline.tasks.language import responses
from pmpo_offline.tasks.language.responses import Responses

CHAT = "{% for turn in messages %}<{{ turn['role'] }}>{{ turn['content'] }}{% endfor %}<assistant>"
MODEL = "[!c]*"
"""Files of a model in a folder, but for its chat template, which is a program."""


@cache
def base() -> language.LanguageModel:
    """Return a small model, opened once in this process."""
    folder = Path(tempfile.mkdtemp())
    _model(folder)
    return language.open_model(folder)


def _model(folder: Path) -> None:
    small_language.random_model().save_pretrained(folder)
    small_language.tokenizer().save_pretrained(folder)


def _open_model(folder: Path) -> None:
    opened = language.open_model(folder, device="cpu")
    opened.tokenizer("a b", add_special_tokens=False)


def _template(folder: Path) -> None:
    tokenizer = small_language.byte_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)


def _read_template(folder: Path) -> None:
    template = templates.of_model(folder)
    with suppress(Drop):
        template.prompt([Message("user", "hello"), Message("assistant", "β"), Message("user", "?")])


def _adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(small_language.random_model(), LoraConfig(r=2, target_modules=["q_proj"]))
    language.save_adapter(model, folder / "adapter")


def _read_adapter(folder: Path) -> None:
    language.load_adapter(base(), folder / "adapter")


def _checkpoint(folder: Path) -> None:
    from pmpo_offline.training.language import checkpoints

    path = folder / "checkpoint-3"
    path.mkdir()
    state = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    checkpoints._write(path / "optimizer.safetensors", [state, {"last_epoch": 3}])
    checkpoints._write(path / "rng_state_0.safetensors", [torch.get_rng_state(), []])
    checkpoints._write(path / "adapter_model.safetensors", [torch.ones(2)])
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 3, "log_history": []}))
    checkpoints.seal(path)


def _resumed(folder: Path) -> None:
    from pmpo_offline.training.language.checkpoints import last_complete

    last_complete(folder)


OWNER = {"model": "m", "precision": "float32"}


def _reference(folder: Path) -> None:
    from pmpo_offline.training.language.reference import Shards

    Shards(folder, OWNER).write({"one": torch.ones(3), "two": torch.zeros(2, 2)})


def _read_reference(folder: Path) -> None:
    from pmpo_offline.training.language.reference import Shards

    shards = Shards(folder, OWNER)
    shards.refresh()
    for name in ("one", "two"):
        if name in shards:
            assert int(shards[name].sum()) == (3 if name == "one" else 0)
    shards.warn_of_damage()


_SAMPLED = Responses(np.array(["p", "β"]), np.array([["a", "b"], ["c", ""]]), np.array([[True, False], [True, True]]))


def _shipped(folder: Path) -> None:
    responses.write_shipped(folder / "r.parquet", _SAMPLED, {"model": "m"})


def _read_shipped(folder: Path) -> None:
    responses.read_shipped(folder / "r.parquet")


def _read_sampled(folder: Path) -> str:
    return str({name: values.tolist() for name, values in vars(Responses.load(folder / "r.npz")).items()})


class _Judge:
    name, identity = "one", "1"

    def answer(self, questions: list[Question]) -> list[tuple[int, str]]:
        return [(i, "A") for i, _ in enumerate(questions)]


_QUESTIONS = [Question(f"Which is better, {i}?", ("A", "B")) for i in range(4)]


def _asked(folder: Path) -> None:
    Answers(_Judge(), folder / "answers.jsonl").choices(_QUESTIONS)


LANGUAGE: dict[str, Target] = {
    "language model": Target(_model, _open_model, MODEL),
    "configuration of a model": Target(_model, _open_model, "config.json"),
    "chat template": Target(_template, _read_template),
    "adapter": Target(_adapter, _read_adapter, "adapter/*"),
    "language checkpoint": Target(_checkpoint, _resumed, "checkpoint-3/*"),
    "reference cache": Target(_reference, _read_reference),
    "shipped responses": Target(_shipped, _read_shipped),
    "sampled responses": Target(lambda folder: _SAMPLED.save(folder / "r.npz"), _read_sampled),
    "answers of a judge": Target(_asked, _asked),
}
