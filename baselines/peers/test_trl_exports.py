"""What `export --to trl` writes, taken by TRL's own trainers: every labelled row and pair arrives, in mixed batches."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers.labelled import saved
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from baselines.peers.language import WORDS, arguments, llama, tokenizer
from datasets import Dataset, load_dataset
from pmpo_offline import data
from pmpo_offline.benchmark.language_cells import raw_scores
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.policies.language import load_adapter, open_model

PROMPTS, EACH = 40, 4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[data.Dataset, Path]:
    """Prompts of four scored responses, a fifth of them unlabelled and a quarter of the prompts held out; exported."""
    folder = tmp_path_factory.mktemp("texts")
    prompt, response = np.repeat(np.arange(PROMPTS), EACH), np.tile(np.arange(EACH), PROMPTS)
    rows = pa.table(
        {
            "prompt": [words(i) for i in prompt],
            "completion": [" " + words(i, 1 + k) for i, k in zip(prompt, response, strict=True)],
            "score": ((prompt + response) % 5).astype(np.float32),
            "label": pa.nulls(len(prompt), pa.bool_()),
            "prompt_id": prompt.astype(np.int32),
            "response_id": response.astype(np.int32),
            "source": ["invented"] * len(prompt),
            "split": np.where(prompt % 4 == 0, "test", "train").tolist(),
        },
        schema=data.responses_schema(),
    )
    dataset = saved(folder / "home/test/texts-v0", rows, None, "column:2:0.5", id="test/texts-v0")
    return dataset, export_dataset(dataset, "trl", folder / "out")


def words(*numbers: int) -> str:
    """Return four words that say these numbers."""
    number = sum(each * 100**place for place, each in enumerate(numbers))
    return " ".join(WORDS[number // 30**place % 30] for place in range(4))


def opened(exported: tuple[data.Dataset, Path], form: str, tmp_path: Path) -> dict[str, Dataset]:
    """Return the splits of an export as `datasets` opens them."""
    return dict(load_dataset(str(exported[1]), form, cache_dir=str(tmp_path / "cache")))


def decoded(ids: list[list[int]]) -> list[str]:
    """Return the words of tokens, without the end that TRL appends."""
    made = tokenizer()
    return [" ".join(made.convert_ids_to_tokens([token for token in row if token < len(WORDS)])) for row in ids]


def built(trainer: Any, args: Any, splits: Any) -> Any:
    """Return one of TRL's trainers on the exported splits."""
    return trainer(
        model=llama(0),
        ref_model=llama(1),
        args=args,
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
        processing_class=tokenizer(),
    )


def test_kto_takes_the_unpaired_form_unchanged(exported: tuple[data.Dataset, Path], tmp_path: Path) -> None:
    """Its own preparation keeps every prompt, completion and label, and its batches in file order hold both classes."""
    splits = opened(exported, "kto", tmp_path)
    trainer = built(KTOTrainer, KTOConfig(**arguments(tmp_path, 8)), splits)
    rows = pl.DataFrame(pl.from_arrow(exported[0].table)).filter(pl.col("label").is_not_null())
    for split, prepared in (("train", trainer.train_dataset), ("test", trainer.eval_dataset)):
        due = rows.filter(pl.col("split") == split)
        found = zip(
            decoded(prepared["prompt_ids"]), decoded(prepared["completion_ids"]), prepared["label"], strict=True
        )
        assert Counter(found) == Counter(
            (prompt, completion.strip(), label)
            for prompt, completion, label in due.select("prompt", "completion", "label").iter_rows()
        )
    batches = [batch["label"] for batch in trainer.get_train_dataloader()]
    mixed = [bool(label.any()) and not bool(label.all()) for label in batches]
    assert sum(mixed) >= len(mixed) - 2  # in the order of the file, as TRL reads it
    trainer.train()
    assert trainer.state.global_step > 0


def test_dpo_takes_the_pairs_unchanged(exported: tuple[data.Dataset, Path], tmp_path: Path) -> None:
    """Its own preparation keeps every pair."""
    splits = opened(exported, "dpo", tmp_path)
    trainer = built(DPOTrainer, DPOConfig(**arguments(tmp_path, 8)), splits)
    for name, split in (("train", trainer.train_dataset), ("test", trainer.eval_dataset)):
        sides = {side: decoded(split[f"{side}_ids"]) for side in ("chosen", "rejected")}
        for side, found in sides.items():
            assert found == [each.strip() for each in splits[name][side]]
    trainer.train()
    assert trainer.state.global_step > 0


def test_rows_as_they_are_stored_need_their_nulls_left_out(exported: tuple[data.Dataset, Path], tmp_path: Path) -> None:
    """A null label ends KTOTrainer; the line that the dataset's card gives makes its rows fit."""
    stored = load_dataset(str(exported[0].path), split="train", cache_dir=str(tmp_path / "cache"))

    def trainer(rows: Dataset) -> KTOTrainer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return KTOTrainer(
                model=llama(0),
                ref_model=llama(1),
                args=KTOConfig(**arguments(tmp_path, 8)),
                train_dataset=rows,
                processing_class=tokenizer(),
            )

    with pytest.raises(TypeError):
        trainer(stored)
    line = 'rows.filter(lambda row: row["split"] == "train" and row["label"] is not None)'
    assert line in (exported[0].path / "README.md").read_text()
    fitting = eval(line, {"rows": stored})
    assert len(trainer(fitting).train_dataset) == sum(label is not None for label in fitting["label"]) > 0


def test_an_adapter_of_trl_is_evaluated_like_ours(exported: tuple[data.Dataset, Path], tmp_path: Path) -> None:
    """Before its first update it is the reference to the last digit; after a few its samples have drifted."""
    dataset, export = exported
    model = tmp_path / "model"
    llama(0).float().save_pretrained(model)
    tokenizer().save_pretrained(model)
    reference = open_model(model, device="cpu")
    rows = load_dataset(str(export), "dpo", split="train", cache_dir=str(tmp_path / "cache"))
    scores = []
    for steps, rate in ((1, 0.0), (5, 0.1)):
        args = DPOConfig(**arguments(tmp_path, 8), max_steps=steps, learning_rate=rate, save_strategy="no")
        lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
        trainer = DPOTrainer(
            model=llama(0).float(), args=args, train_dataset=rows, processing_class=tokenizer(), peft_config=lora
        )
        trainer.train()
        trainer.save_model(str(tmp_path / f"adapter-{steps}"))
        policy = load_adapter(reference, tmp_path / f"adapter-{steps}")
        scores.append(raw_scores(policy, reference, dataset, 7))
    assert [part["episode"].to_list() for part in scores] == [list(range(7))] * 2
    assert scores[0]["kl"].abs().max() == 0
    assert scores[1]["token_kl"].min() > 1e-4
