"""Rows of text data in other people's forms, with invented texts that say which prompt and response they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]
TRICKY = ["  leading", "trailing \t", "two\nlines\r\n", "ünïcödé ✓ 漢字 🙂", 'quo"ted, and; more', "\\n {x} <|im_end|>"]
"""What texts may hold, and files mangle."""


def prompt(i: int) -> str:
    return f"prompt {i} {TRICKY[i % len(TRICKY)]}"


def completion(i: int, k: int) -> str:
    return f"{TRICKY[(i + k) % len(TRICKY)]} completion {i}.{k}" + "long " * (20_000 if (i, k) == (3, 1) else 0)


def unpaired(count: int, responses: int = 2) -> Rows:
    """TRL's unpaired form: odd responses are accepted."""
    return [
        {"prompt": prompt(i), "completion": completion(i, k), "label": k % 2 == 1}
        for i in range(count)
        for k in range(responses)
    ]


def paired(count: int) -> Rows:
    return [{"prompt": prompt(i), "chosen": completion(i, 1), "rejected": completion(i, 0)} for i in range(count)]


def said(*turns: str) -> list[dict[str, str]]:
    """A conversation, the user first."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]


def lmsys(i: int, flagged: Iterable[bool], redacted: bool, language: str = "English") -> dict[str, Any]:
    """A row of LMSYS-Chat-1M, of its columns: one flag a message."""
    flags = list(flagged)
    return {
        "conversation_id": f"{i:032x}",
        "model": ("vicuna-13b", "koala-13b")[i % 2],
        "conversation": said(*(f"conversation {i} turn {place}" for place in range(len(flags)))),
        "turn": len(flags) // 2,
        "language": language,
        "openai_moderation": [
            {"categories": {"violence": flag}, "category_scores": {"violence": 0.9 * flag}, "flagged": flag}
            for flag in flags
        ],
        "redacted": redacted,
    }


def ultrafeedback(i: int, scores: Iterable[float | None]) -> dict[str, Any]:
    """A row of UltraFeedback, of its columns."""
    return {
        "source": "evol_instruct",
        "instruction": f"instruction {i}",
        "models": ["a", "b"],
        "completions": [
            {
                "model": f"model-{k}",
                "principle": "helpfulness",
                "response": f"response {i}.{k}",
                "annotations": {"helpfulness": {"Rating": "4", "Rationale": "because"}},
                "overall_score": score,
                "fine-grained_score": None if score is None else 10 - score,
            }
            for k, score in enumerate(scores)
        ],
        "correct_answers": ["None"],
    }


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save(path: Path, rows: Rows) -> Path:
    """Write rows as the kind of file that the path's ending says."""
    if path.suffix == ".jsonl":
        return jsonl(path, rows)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".csv":
        import polars as pl

        pl.DataFrame(rows).write_csv(path)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=3)
    return path
