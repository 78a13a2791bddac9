"""Opening models, knowing which one it is, and LoRA adapters, through real transformers and peft files."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from pmpo_offline.policies.language import add_lora, load_adapter, open_model, quiet, save_adapter
from pmpo_offline.runtime.errors import UserError

IDS = torch.tensor([[3, 5, 8, 13]])


def words(**special: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<s>", "<unk>", "</s>", *"abcdefgh"])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "<unk>")), **special)


@pytest.fixture
def directory(tmp_path: Path, llama: Callable[..., LlamaForCausalLM]) -> Path:
    """A model as `save_pretrained` leaves it, with a tokenizer that has no padding token."""
    path = tmp_path / "small"
    llama().save_pretrained(path)
    words(eos_token="</s>").save_pretrained(path)
    return path


def test_opens_what_transformers_saved_and_says_nothing(directory, llama, capfd, recwarn):
    opened = open_model(directory, device="cpu")
    assert opened.name == "small"
    assert not opened.model.training
    assert opened.device == torch.device("cpu")
    assert opened.tokenizer.pad_token == "</s>", "a tokenizer without padding pads with its end"
    assert torch.equal(opened.model(IDS).logits, llama()(IDS).logits)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_dtype_is_that_of_the_weights(directory):
    assert open_model(directory, name="half", dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16


def test_digest_follows_weights_and_tokenizer_and_nothing_else(directory, llama):
    first = open_model(directory, device="cpu").digest
    (directory / "README.md").write_text("words about it")
    moved = directory.rename(directory.with_name("moved"))
    assert open_model(moved, device="cpu").digest == first
    llama(1).save_pretrained(moved)
    second = open_model(moved, device="cpu").digest
    words(eos_token="</s>", pad_token="<s>").save_pretrained(moved)
    assert len({first, second, open_model(moved, device="cpu").digest}) == 3


def no_config(path: Path) -> None:
    (path / "config.json").unlink()


def pickled(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def truncated(path: Path) -> None:
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:1000])


def unheard_of(path: Path) -> None:
    (path / "config.json").write_text(json.dumps({"model_type": "perpetuum-mobile"}))


def no_tokenizer(path: Path) -> None:
    for file in path.glob("tokenizer*"):
        file.unlink()


def no_end(path: Path) -> None:
    no_tokenizer(path)
    words(unk_token="<unk>").save_pretrained(path)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (no_config, r"holds no language model: there is no config\.json"),
        (pickled, "holds no weights in safetensors"),
        (truncated, "cannot be opened as a causal language model: "),
        (unheard_of, "cannot be opened as a causal language model: .*perpetuum-mobile"),
        (no_tokenizer, "cannot be opened as a causal language model: "),
        (no_end, "has no EOS token"),
    ],
)
def test_directory_that_is_no_model_is_refused_in_one_line(directory, break_it, message):
    break_it(directory)
    with pytest.raises(UserError, match=message) as error:
        open_model(directory, device="cpu")
    assert "\n" not in str(error.value)
    assert str(directory) in str(error.value)


def test_what_is_not_possible_here_is_said_in_one_line(directory):
    with pytest.raises(UserError, match=r"unknown dtype 'float23': did you mean float32"):
        open_model(directory, dtype="float23")
    with pytest.raises(UserError, match="unknown quantization '3bit'"):
        open_model(directory, quantize="3bit")
    if not torch.cuda.is_available():
        for bits in ("8bit", "4bit"):
            with pytest.raises(UserError, match=f"^{bits} weights need an NVIDIA GPU, and there is none here"):
                open_model(directory, quantize=bits)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_few_bits_need_bitsandbytes(directory, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"^8bit weights need bitsandbytes: pip install bitsandbytes$"):
        open_model(directory, quantize="8bit")


def test_fresh_adapter_changes_no_output_and_trains_only_the_upper_layers(llama):
    adapted = add_lora(llama(), 4, 8, ["q_proj", "down_proj"], from_layer=1)
    assert torch.equal(adapted(IDS).logits, llama()(IDS).logits)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(trained) == 4
    assert all("layers.1." in name and "lora_" in name for name in trained)


def test_adapters_go_on_models_whose_layers_are_called_otherwise():
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_embd=16, n_layer=3, n_head=2, n_positions=16))
    adapted = add_lora(gpt2, 2, 2, ["c_attn"], from_layer=2)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(trained) == 2
    assert all(".h.2." in name for name in trained)


def test_adapter_on_nothing_is_refused(llama):
    with pytest.raises(UserError, match=r"^unknown LoRA target 'q_prj': did you mean q_proj"):
        add_lora(llama(), 4, 8, ["q_prj"])
    with pytest.raises(UserError, match="the model has 2 layers, choose 0 to 1"):
        add_lora(llama(), 4, 8, ["q_proj"], from_layer=2)


def moved_adapter(directory: Path) -> tuple[PeftModel, torch.Tensor]:
    """An adapter that is not zero, and what the model says with it."""
    adapted = add_lora(open_model(directory, device="cpu").model, 4, 8, ["q_proj", "v_proj"])
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.3)
    return adapted, adapted(IDS).logits


def test_adapter_comes_back_as_it_was_and_can_be_switched_off(directory, tmp_path):
    adapted, said = moved_adapter(directory)
    for _ in range(2):  # the second takes the first one's place
        save_adapter(adapted, tmp_path / "adapter")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert not list(tmp_path.glob(".adapter*"))

    base = open_model(directory, device="cpu")
    alone = base.model(IDS).logits
    loaded = load_adapter(base, tmp_path / "adapter")
    assert torch.equal(loaded.model(IDS).logits, said)
    assert not torch.allclose(said, alone)
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    with loaded.model.disable_adapter():
        assert torch.equal(loaded.model(IDS).logits, alone)
    assert torch.equal(base.model(IDS).logits, alone)  # it is still there, in the same memory
    own = {weight.data_ptr() for name, weight in loaded.model.named_parameters() if "lora_" not in name}
    assert own == {weight.data_ptr() for weight in base.model.parameters()}
    assert loaded.digest != base.digest
    assert loaded.digest == load_adapter(open_model(directory, device="cpu"), tmp_path / "adapter").digest


def test_an_adapter_takes_nothing_elses_place(directory, tmp_path):
    mine = tmp_path / "adapter" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UserError, match="adapter exists and is no adapter: move it away"):
        save_adapter(moved_adapter(directory)[0], tmp_path / "adapter")
    assert mine.read_text() == "mine"


def test_trainable_adapter_can_be_trained_on(directory, tmp_path):
    save_adapter(moved_adapter(directory)[0], tmp_path / "adapter")
    loaded = load_adapter(open_model(directory, device="cpu"), tmp_path / "adapter", trainable=True)
    assert {name.split(".")[-3] for name, weight in loaded.model.named_parameters() if weight.requires_grad} == {
        "lora_A",
        "lora_B",
    }


def test_what_is_no_adapter_of_this_model_is_refused_in_one_line(directory, tmp_path, llama):
    base = open_model(directory, device="cpu")
    with pytest.raises(UserError, match=r"holds no adapter: there is no adapter_config\.json"):
        load_adapter(base, directory)
    save_adapter(add_lora(llama(hidden_size=64), 4, 8, ["q_proj"]), tmp_path / "wide")
    with pytest.raises(UserError, match=r"wide is no adapter of small: ") as error:
        load_adapter(open_model(directory, device="cpu"), tmp_path / "wide")
    assert "\n" not in str(error.value)
    shutil.copytree(tmp_path / "wide", tmp_path / "cut")
    (tmp_path / "cut" / "adapter_model.safetensors").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"cut is no adapter of small: "):
        load_adapter(open_model(directory, device="cpu"), tmp_path / "cut")


def test_quiet_restores_what_the_caller_had_set():
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.INFO)
    try:
        with quiet():
            assert transformers_logging.get_verbosity() == logging.ERROR
            assert not transformers_logging.is_progress_bar_enabled()
        assert transformers_logging.get_verbosity() == logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(before)
