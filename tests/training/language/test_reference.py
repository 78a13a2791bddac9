"""The cache evaluates each row once per model, whatever else changes, and survives damaged files and other writers."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from pmpo_offline.policies.language import LanguageModel
from pmpo_offline.policies.language.model import add_lora
from pmpo_offline.policies.language.scoring import states, token_logp, trunk_states
from pmpo_offline.policies.language.tokens import Tokens, collate
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.training.language import reference
from pmpo_offline.training.language.reference import Reference

ROWS = [
    Tokens((3, 4), (5, 6, 7, 8)),
    Tokens((9,), ()),
    Tokens((10, 11, 12), (13,)),
    Tokens((4, 3), (5, 6, 7, 9)),
    Tokens((3, 4, 5), (6, 7, 8)),  # the first row's tokens, but more of them are the prompt
]


class Counted:
    """A real model with the rows that have gone through its first layer."""

    def __init__(self, digest: str = "0" * 64, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
        config = LlamaConfig(vocab_size=41, initializer_range=0.3, bos_token_id=1, eos_token_id=2, **shape)
        self.rows = 0
        self.model = LlamaForCausalLM(config).to(dtype).eval()
        self.opened = LanguageModel(self.model, None, "random", digest)
        self.model.model.layers[-1].register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, inputs: tuple[torch.Tensor, ...], options: dict[str, Any]) -> None:
        position = options["position_ids"][0].tolist()
        if position != list(range(8)):  # the checks' own tokens
            # One behind the other, without padding, every row begins at position 0 again.
            self.rows += len(inputs[0]) * position.count(0)

    def cache(self, folder: Path, cut: int = 0) -> Reference:
        return Reference(self.opened, folder, cut)


@pytest.mark.parametrize("cut", [0, 2])
def test_what_is_read_is_what_the_model_says(tmp_path, cut):
    one = Counted()
    with torch.no_grad():
        for row, cached in zip(ROWS, one.cache(tmp_path, cut).rows(ROWS), strict=True):
            batch = collate([row])
            hidden = states(one.model, batch)
            torch.testing.assert_close(cached.logp, token_logp(one.model, hidden, batch.target))
            torch.testing.assert_close(cached.states, hidden)
            assert (cached.trunk is None) == (not cut)
            if cut:
                torch.testing.assert_close(cached.trunk, trunk_states(one.model, batch.ids, cut)[0])


def test_each_row_goes_through_the_model_once(tmp_path):
    one = Counted()
    cache = one.cache(tmp_path)
    cache.rows([*ROWS, *ROWS])
    assert one.rows == len(ROWS)
    cache.rows(ROWS[::-1])
    assert one.rows == len(ROWS)
    cache.rows([ROWS[0], Tokens((1,), (2,))])
    assert one.rows == len(ROWS) + 1
    later = Counted()
    found = later.cache(tmp_path).rows(ROWS)  # another process, another learner, another seed
    assert later.rows == 0
    assert all(a.logp.equal(b.logp) and a.states.equal(b.states) for a, b in zip(found, cache.rows(ROWS), strict=True))


def test_only_another_model_precision_row_cut_or_version_is_new(tmp_path, monkeypatch):
    Counted().cache(tmp_path).rows(ROWS)
    changed = [Counted(digest="1" * 64), Counted(dtype=torch.bfloat16), Counted(dtype=torch.float64)]
    for one in changed:
        assert one.cache(tmp_path).rows(ROWS)[0].states.dtype == one.model.dtype
        assert one.rows == len(ROWS)
    cut = Counted()
    cut.cache(tmp_path, 1).rows(ROWS)
    assert cut.rows == len(ROWS)
    other = Counted()
    other.cache(tmp_path, 2).rows(ROWS)
    other.cache(tmp_path, 1).rows(ROWS)
    other.cache(tmp_path).rows(ROWS)
    assert other.rows == len(ROWS)
    with monkeypatch.context() as changed:
        changed.setattr(reference, "REVISION", "another")
        other.cache(tmp_path).rows(ROWS)
    assert other.rows == 2 * len(ROWS)
    monkeypatch.setattr("pmpo_offline.training.language.reference.version", lambda name: "0.1")
    other.cache(tmp_path).rows(ROWS)
    assert other.rows == 3 * len(ROWS)


def test_dropout_is_never_cached(tmp_path):
    expected = Counted().cache(tmp_path / "evaluating").rows(ROWS)
    one = Counted()
    one.model.model.layers[0].self_attn.attention_dropout = 0.9
    one.model.train()
    found = one.cache(tmp_path / "training").rows(ROWS)
    torch.testing.assert_close([row.logp for row in found], [row.logp for row in expected])
    assert one.model.training


def test_an_adapter_that_is_switched_off_is_the_same_reference(tmp_path):
    one = Counted()
    expected = one.cache(tmp_path).rows(ROWS)
    two = Counted()
    adapted = add_lora(two.model, 2, 4, ["q_proj"])
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight.data)
    model = LanguageModel(adapted.eval(), None, "random", "0" * 64)
    found = Reference(model, tmp_path / "other", without=adapted.disable_adapter).rows(ROWS)
    torch.testing.assert_close([row.logp for row in found], [row.logp for row in expected])


def test_it_is_computed_in_batches_and_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "BATCH_TOKENS", 12)
    monkeypatch.setattr(reference, "SHARD_BYTES", 500)
    one, reports = Counted(), []
    with on_progress(lambda *each: reports.append(each)):
        found = one.cache(tmp_path, 1).rows(ROWS)
    assert one.rows == len(ROWS)
    assert reports[-1] == ("reference model", 5, 5)
    assert len(reports) > 2
    assert len(list(tmp_path.glob("*/*.safetensors"))) > 2
    for row, whole in zip(found, Counted().cache(tmp_path / "at-once", 1).rows(ROWS), strict=True):
        torch.testing.assert_close(row, whole)


def test_values_are_mapped_from_the_file(tmp_path):
    cache = Counted().cache(tmp_path)
    first, second = cache.rows(ROWS[:1])[0], cache.rows(ROWS[:1])[0]
    assert first.states.data_ptr() == second.states.data_ptr()


@pytest.mark.parametrize("left", [0, 5, 200, -3])
def test_a_truncated_file_is_one_warning_and_computed_again(tmp_path, monkeypatch, left):
    monkeypatch.setattr(reference, "BATCH_TOKENS", 12)
    monkeypatch.setattr(reference, "SHARD_BYTES", 500)
    expected = Counted().cache(tmp_path, 1).rows(ROWS)
    expected = [[value.clone() for value in row] for row in expected]
    path = max(tmp_path.glob("*/*.safetensors"), key=lambda path: path.stat().st_size)
    lost = {name.partition(".")[0] for name in load_file(path)}
    path.write_bytes(path.read_bytes()[:left])

    one = Counted()
    with pytest.warns(UserWarning, match="cannot be read") as caught:
        found = one.cache(tmp_path, 1).rows(ROWS)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert one.rows == len(lost) < len(ROWS)
    torch.testing.assert_close([list(row) for row in found], expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Counted()
        again.cache(tmp_path, 1).rows(ROWS)
    assert again.rows == 0


@pytest.mark.parametrize("damage", [lambda content: content[:5], lambda content: content[:-1] + b"?"])
def test_many_damaged_files_are_one_warning(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(reference, "BATCH_TOKENS", 12)
    monkeypatch.setattr(reference, "SHARD_BYTES", 500)
    expected = [[value.clone() for value in row] for row in Counted().cache(tmp_path, 1).rows(ROWS)]
    paths = list(tmp_path.glob("*/*.safetensors"))
    for path in paths:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"and {len(paths) - 1} other files cannot be read .*: computing") as caught:
        found = Counted().cache(tmp_path, 1).rows(ROWS)
    assert len(caught) == 1
    torch.testing.assert_close([list(row) for row in found], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_flipped_bit_is_one_warning_and_computed_again(tmp_path, dtype):
    expected = [[value.clone() for value in row] for row in Counted(dtype=dtype).cache(tmp_path, 1).rows(ROWS)]
    (path,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)

    one = Counted(dtype=dtype)
    with pytest.warns(UserWarning, match="its checksum differs") as caught:
        found = one.cache(tmp_path, 1).rows(ROWS)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert one.rows == len(ROWS)
    torch.testing.assert_close([list(row) for row in found], expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Counted(dtype=dtype)
        again.cache(tmp_path, 1).rows(ROWS)
    assert again.rows == 0


def test_a_flipped_bit_anywhere_in_a_file_is_never_read_back(tmp_path):
    """In its header too: names, types, shapes, identity and the checksum itself."""
    one = Counted()
    expected = [[value.clone() for value in row] for row in one.cache(tmp_path, 1).rows(ROWS)]
    (path,) = tmp_path.glob("*/*.safetensors")
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(0, header, 29), *range(header, len(content), 293)]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.unlink()
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = one.cache(tmp_path, 1).rows(ROWS)
        assert all(
            value.equal(known)
            for row, right in zip(found, expected, strict=True)
            for value, known in zip(row, right, strict=True)
        ), place


def test_files_that_hold_some_of_the_same_are_sound(tmp_path):
    one = Counted()
    one.cache(tmp_path).rows(ROWS[:3])
    other = one.cache(tmp_path / "other")
    other.rows(ROWS[2:])
    for path in (tmp_path / "other").glob("*/*.safetensors"):
        path.rename(tmp_path / path.relative_to(tmp_path / "other"))
    later = Counted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later.cache(tmp_path).rows(ROWS)
    assert later.rows == 0


def test_a_foreign_file_is_one_warning_and_left_alone(tmp_path):
    Counted().cache(tmp_path).rows(ROWS)
    (path,) = tmp_path.glob("*/*.safetensors")
    foreign = {name: value + 1 for name, value in load_file(path).items()}
    path = path.rename(path.with_name("copied.safetensors"))
    save_file(foreign, path, {"reference": "another", "precision": "float32"})
    content = path.read_bytes()
    one = Counted()
    with pytest.warns(UserWarning, match="does not belong to this cache") as caught:
        found = one.cache(tmp_path).rows(ROWS)
    assert len(caught) == 1
    assert one.rows == len(ROWS)
    hidden = states(one.model, collate(ROWS[:1]))
    torch.testing.assert_close(found[0].logp, token_logp(one.model, hidden, collate(ROWS[:1]).target).detach())
    assert path.read_bytes() == content


def test_what_a_killed_writer_left_is_removed(tmp_path):
    one = Counted()
    one.cache(tmp_path).rows(ROWS[:2])
    (folder,) = tmp_path.glob("*")
    (folder / ".0123.safetensors.99.tmp").write_bytes(b"half a file")
    one.cache(tmp_path).rows(ROWS)
    assert not list(folder.glob(".*"))


def fill(folder: Path, order: list[int]) -> None:
    """What one of several processes does."""
    reference.SHARD_BYTES = 500
    reference.BATCH_TOKENS = 12
    cache = Counted().cache(folder, 1)
    for i in order:
        cache.rows([ROWS[i]])


def test_writers_at_once(tmp_path, forkserver):
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]]
    processes = [forkserver.Process(target=fill, args=(tmp_path, order)) for order in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    one = Counted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = one.cache(tmp_path, 1).rows(ROWS)
    assert one.rows == 0
    expected = Counted().cache(tmp_path / "alone", 1).rows(ROWS)
    torch.testing.assert_close([list(row) for row in found], [list(row) for row in expected])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_and_what_was_there_stays(tmp_path, monkeypatch):
    Counted().cache(tmp_path).rows(ROWS[:2])
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    opening = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *args, **kw: opening(Path("/dev/full") if self.suffix == ".tmp" else self, *args, **kw),
    )
    with pytest.raises(PmpoOfflineError, match="No space left on device; free some space or choose") as caught:
        Counted().cache(tmp_path).rows(ROWS)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PmpoOfflineError, match="check the permissions"):
        Counted().cache(tmp_path).rows(ROWS)


def test_models_that_it_cannot_serve(tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma2Config(vocab_size=41, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.1, **shape)
    capped = LanguageModel(Gemma2ForCausalLM(config).eval(), None, "capped", "2" * 64)
    with pytest.raises(UserError, match="transforms its logits"):
        Reference(capped, tmp_path).rows(ROWS)
    with pytest.raises(UserError, match="has 3 layers and cannot be cut below layer 3"):
        Counted().cache(tmp_path, 3).rows(ROWS)
    assert not list(tmp_path.rglob("*.safetensors"))
