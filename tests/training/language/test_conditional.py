"""The conditional policy in language: its loss by hand, and the text of its label wherever the adapter goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_language import byte_tokenizer, declared, labelled_rows, random_model
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pmpo_offline import load_policy
from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.drift import drift
from pmpo_offline.evaluation.language.held_out import as_read_by
from pmpo_offline.policies.language import LanguageModel, open_model
from pmpo_offline.policies.language.model import load_adapter
from pmpo_offline.policies.language.tokens import prefix_of, prompt_tokens, tokenize, tokenize_jointly, with_prefix
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language import SamplingSpec, draw
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training import train
from pmpo_offline.training.doctor import doctor
from pmpo_offline.training.language import PMPOConfig, PMPOTrainer, ResponseConfig, ResponseTrainer, train_language
from pmpo_offline.training.language.trl_data import dataset_of

ACCEPT, REJECT = "ab", "ba"
TEXTS = {"accept_text": ACCEPT, "reject_text": REJECT}
TEMPLATE = (
    "\n{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
ROWS = [
    {"prompt": "hbcad=", "completion": "dacbh", "label": True},
    {"prompt": "hbcad=", "completion": "dacbb", "label": False},
    {"prompt": "abc=", "completion": "cb", "label": None},
]


def conditional(**changes: Any) -> Any:
    return declared("conditional", training=changes, condition_weight=2.0, **TEXTS)


def written(read: PreTrainedTokenizerBase, prompt: str, completion: str, model: torch.nn.Module) -> float:
    """The log-probability of a completion and its end after a prompt, by the model itself."""
    head, tail = (read(text, add_special_tokens=False).input_ids for text in (prompt, completion))
    tail.append(read.eos_token_id)
    with torch.no_grad():
        logp = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    return float(sum(logp[len(head) - 1 + place, token] for place, token in enumerate(tail)))


def test_the_loss_by_hand(tmp_path: Path) -> None:
    model, read = random_model(), tokenizer()
    settings = {"condition_weight": 2.0, **TEXTS}
    args = ResponseConfig(str(tmp_path), objective="conditional", settings=settings, report_to=[], use_cpu=True)
    trainer = ResponseTrainer(model, args=args, train_dataset=ROWS, processing_class=read)
    entries = trainer.train_dataset
    inputs = {"index": torch.arange(3), "weight": torch.ones(3), "entries": entries}
    loss = trainer.compute_loss(trainer.model, inputs).item()
    hidden = [written(read, row["prompt"], row["completion"], model) for row in ROWS]
    shown = [
        written(read, text + row["prompt"], row["completion"], model)
        for text, row in zip((ACCEPT, REJECT), ROWS[:2], strict=True)
    ]
    assert loss == pytest.approx(-sum(hidden) / 3 - 2 * sum(shown) / 3, rel=1e-5)
    assert prefix_of(trainer.processing_class) == ACCEPT
    assert prefix_of(read) == "", "the tokenizer that was given stays as it is"


def test_every_consumer_of_the_adapter_reads_the_text(model_folder: Path, cache: Path, tmp_path: Path) -> None:
    data = dataset_of(labelled_rows(), tokenizer(), "test/answers-v0")
    algorithm = conditional(lora_layers=1, steps=3)
    trained = train_language(data, algorithm, output=tmp_path / "run", model=str(model_folder), cache=cache)
    base = open_model(model_folder, device="cpu")
    policy = trained.policy(base)
    assert (prefix_of(policy.tokenizer), prefix_of(base.tokenizer)) == (ACCEPT, "")
    assert policy.digest != replace_tokenizer_config(trained.adapter, base), "its identity knows the text"

    spec = SamplingSpec(2, 6, ends=True)
    ours = draw(policy, ["hbcad="], spec)
    plain = replace(policy, tokenizer=base.tokenizer)
    assert prompt_tokens(policy.tokenizer, "hbcad=") == prompt_tokens(base.tokenizer, ACCEPT + "hbcad=")
    foreign = AutoTokenizer.from_pretrained(trained.adapter)  # what any other library opens
    assert prefix_of(foreign) == ACCEPT
    assert draw(replace(policy, tokenizer=foreign), ["hbcad="], spec) == ours
    logits = [m.model(torch.tensor([prompt_tokens(m.tokenizer, text)])).logits[0, -1]
              for m, text in ((policy, "hbcad="), (plain, ACCEPT + "hbcad="))]  # fmt: skip
    torch.testing.assert_close(*logits)

    card = (trained.adapter / "README.md").read_text()
    assert f"prompt = {ACCEPT!r} + prompt" in card
    assert f"only behind the text {ACCEPT!r}" in card
    with pytest.raises(UserError, match=f"with '{ACCEPT}' before every prompt"):
        load_policy(tmp_path / "run")


def replace_tokenizer_config(adapter: Path, base: LanguageModel) -> str:
    """The digest of an adapter without its tokenizer."""
    (adapter / "tokenizer_config.json").rename(adapter / "elsewhere")
    found = load_adapter(base, adapter)
    (adapter / "elsewhere").rename(adapter / "tokenizer_config.json")
    assert prefix_of(found.tokenizer) == ""
    return found.digest


def test_an_adapter_of_another_objective_has_no_tokenizer(model_folder: Path, cache: Path, tmp_path: Path) -> None:
    data = dataset_of(labelled_rows(), tokenizer(), "test/answers-v0")
    trained = train_language(
        data, declared("bc", training={"steps": 1}), output=tmp_path, model=str(model_folder), cache=cache
    )
    files = {path.name for path in trained.adapter.iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert "behind" not in (trained.adapter / "README.md").read_text()


def test_the_reference_reads_prompts_without_the_text(model_folder: Path) -> None:
    base = open_model(model_folder, device="cpu")
    policy = replace(base, tokenizer=with_prefix(base.tokenizer, ACCEPT))
    rows = [tokenize(policy.tokenizer, row["prompt"], row["completion"], ends=True) for row in ROWS]
    known = as_read_by(base, policy, rows, [row["prompt"] for row in ROWS])
    assert known is not None
    moved = drift(policy, base, rows, reference_rows=known)
    for place, row in enumerate(ROWS):
        by_hand = [
            written(base.tokenizer, text + row["prompt"], row["completion"], base.model) for text in (ACCEPT, "")
        ]
        assert (moved.logp[place], moved.reference_logp[place]) == pytest.approx(by_hand, rel=1e-5)
    assert as_read_by(base, base, rows, []) is None


@pytest.mark.parametrize("template", [TEMPLATE, {"default": TEMPLATE, "other": TEMPLATE}])
def test_the_chat_template_writes_the_text_once(template: Any, tmp_path: Path) -> None:
    read, turns = byte_tokenizer(), [{"role": "user", "content": "hi\n"}]
    read.chat_template = template
    plain = read.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    text = 'Say "ja": é\n'
    changed = with_prefix(read, text)
    changed.save_pretrained(tmp_path)
    for each in (changed, AutoTokenizer.from_pretrained(tmp_path)):
        assert each.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == text + plain
    back = with_prefix(with_prefix(changed, "other"), "")
    assert back.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == plain
    rows = [{"prompt": turns, "completion": [{"role": "a", "content": "yo"}], "label": True}]
    for each in (read, changed):  # rows hold prompts without it
        assert dataset_of(rows, each).table["prompt"].to_pylist() == [plain]


def test_the_text_goes_behind_a_beginning_that_is_spelled_out() -> None:
    read = byte_tokenizer()
    read.add_special_tokens({"bos_token": "<s>"})
    changed = with_prefix(read, "ab")
    assert prompt_tokens(changed, "<s>cd") == prompt_tokens(read, "<s>abcd")
    assert tokenize(changed, "<s>cd", "ef", ends=True) == tokenize(read, "<s>abcd", "ef", ends=True)
    assert tokenize_jointly(changed, "<s>cd", "ef", chat=True) == tokenize_jointly(read, "<s>abcd", "ef", chat=True)
    read.chat_template = "{{ bos_token }}{{ messages[0].content }}"
    turns = [{"role": "user", "content": "hi"}]
    assert with_prefix(read, "ab").apply_chat_template(turns, tokenize=False) == "<s>abhi"


def test_other_trainers_go_on_behind_the_text(tmp_path: Path) -> None:
    """PMPO from a conditional adapter, whose tokenizer was saved with it."""
    saved = with_prefix(tokenizer(), ACCEPT)
    saved.save_pretrained(tmp_path / "adapter")
    read = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    args = PMPOConfig(str(tmp_path), beta=2.0, divergence="behavior", report_to=[], use_cpu=True)
    trainer = PMPOTrainer(random_model(), args=args, train_dataset=ROWS, processing_class=read)
    heads = [row.prompt for row in trainer.train_dataset.responses.tokens]
    assert heads == [prompt_tokens(tokenizer(), ACCEPT + row["prompt"]) for row in ROWS]


def test_texts_that_are_the_same_tokens_are_refused(tmp_path: Path) -> None:
    """To the tiny tokenizer every word is made of unknown letters."""
    settings = {"accept_text": "yup ", "reject_text": "not "}
    args = ResponseConfig(str(tmp_path), objective="conditional", settings=settings, report_to=[], use_cpu=True)
    with pytest.raises(UserError, match="'yup ' and 'not ' are the same tokens to this model"):
        ResponseTrainer(random_model(), args=args, train_dataset=ROWS, processing_class=tokenizer())


def test_texts_are_for_responses_and_differ(stacking: Dataset, tmp_path: Path) -> None:
    quick = {"updates": 1, "batch": 8, "hidden": [4], "components": 1}
    with pytest.raises(UserError, match=r"conditional\.accept_text: .* has no prompts: leave it out"):
        train(stacking, "conditional", settings=[{"accept_text": "a"}], overrides=quick, device="cpu")
    data = dataset_of(labelled_rows(), tokenizer(), "test/answers-v0")
    for texts, message in (
        ({}, "which text shows a model the label. set accept_text"),
        ({"accept_text": "a"}, "set reject_text"),
        ({"accept_text": "a", "reject_text": "a"}, "accept_text and reject_text are equal"),
        ({"accept_text": "", "reject_text": "a"}, "accept_text is a text of one character or more, not ''"),
        ({"accept_text": 3, "reject_text": "a"}, "accept_text is a text of one character or more, not 3"),
    ):
        with pytest.raises(UserError, match=message):
            train_language(data, declared("conditional", **texts), output=tmp_path, model="tiny")
        with pytest.raises(UserError, match=message):
            doctor(data, declared("conditional", **texts))
    with pytest.raises(UserError, match="has no prompts: leave it out"):
        doctor(stacking, "conditional", {"accept_text": "a"})
