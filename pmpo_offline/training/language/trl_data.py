"""TRL's forms of a dataset, plain or conversational, as a dataset of responses in memory.

::

    unpaired   prompt  completion  label             label: a Boolean, 0 or 1; None leaves the row unlabelled
    paired     prompt  chosen      rejected          two rows, and only these two are a pair
                       chosen      rejected          of conversations: the messages that both begin with are the prompt

In the conversational variants the texts are lists of messages, `{"role": ..., "content": ...}`, which the model's chat
template renders: the prompt with the cue for an answer, the completion with its end. In the plain variants the
end-of-sequence token follows a completion, as in TRL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pmpo_offline.data import (
    Dataset,
    Labelling,
    LabelRule,
    Metadata,
    Provenance,
    ScoreRule,
    label_tables,
    responses_schema,
)
from pmpo_offline.policies.language.model import first_line
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RULE = LabelRule.parse("column:0.5")


def dataset_of(rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, name: str = "data") -> Dataset:
    """Return the rows as a dataset of responses in memory.

    Args:
        rows: a `datasets.Dataset`, or a list of dictionaries.
        tokenizer: its chat template renders conversations.
        name: for messages.

    Raises:
        UserError: no rows of columns, missing columns, empty or null texts, labels that are neither Booleans nor 0 or
            1, conversations for a tokenizer without a template, rows of several forms mixed.
    """
    if isinstance(rows, Mapping):
        raise UserError(
            f'{name} is a dictionary of {", ".join(map(str, rows))}: choose a split, as in dataset["train"]'
        )
    if not isinstance(rows, Iterable):
        raise UserError(f"{name} is a {type(rows).__name__}: give a datasets.Dataset or a list of dictionaries")
    found: list[tuple[str, str, float | None, int]] = []
    is_paired = is_chat = None
    for number, row in enumerate(rows):
        where = f"{name}: row {number}"
        if not isinstance(row, Mapping):
            raise UserError(
                f"{where} is a {type(row).__name__}: give a datasets.Dataset (of a pandas frame, Dataset.from_pandas) "
                "or a list of dictionaries"
            )
        row = _with_prompt(row)
        scores = _scores(row, where)
        if is_paired not in (None, len(scores) > 1):
            raise UserError(f"{where}: rows with a label and pairs do not go together: take one form for all rows")
        for column in ("prompt", *scores):
            if not isinstance(row[column], str | list | tuple):
                kind = type(row[column]).__name__
                raise UserError(f"{where}, {column}: a {kind} is neither a text nor a list of messages")
            if is_chat not in (None, not isinstance(row[column], str)):
                raise UserError(f"{where}: texts and conversations do not go together: take one form for all rows")
            is_chat = not isinstance(row[column], str)
        is_paired = len(scores) > 1
        rendering = _rendering(row)
        for column, score in scores.items():
            texts = _texts(row["prompt"], row[column], tokenizer, rendering, f"{where}, {column}")
            found.append((*texts, score, number))
    if not found:
        raise UserError(f"{name} has no rows")
    return _in_memory(found, name, ends=not is_chat, paired=bool(is_paired))


def _with_prompt(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row of two conversations with the messages that both begin with as its prompt; any other as it is."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(row.get("prompt"), list | tuple) or not (isinstance(chosen, list) and isinstance(rejected, list)):
        return row  # a text beside conversations repeats what they begin with, as in UltraFeedback
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    shared -= shared == len(chosen) == len(rejected)  # equal replies are replies
    if not shared:
        return row
    return {**row, "prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _scores(row: Mapping[str, Any], where: str) -> dict[str, float | None]:
    """Return the score of each completion by its column."""
    columns = {column for column, value in row.items() if value is not None or column == "label"}
    if {"prompt", "chosen", "rejected"} <= columns:
        return {"chosen": 1.0, "rejected": 0.0}
    if not {"prompt", "completion", "label"} <= columns:
        raise UserError(
            f"{where} has {', '.join(sorted(columns)) or 'nothing'}: it needs prompt, completion and label, or "
            "prompt, chosen and rejected"
        )
    label = row["label"]
    if label not in (None, 0, 1):  # True and False are 1 and 0
        raise UserError(f"{where}: label {label!r} is neither a Boolean nor 0 or 1")
    return {"completion": None if label is None else float(label)}


def _rendering(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row gives its chat template beside the messages: tools, as JSON too, and its own settings."""
    tools = row.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) and tools.strip() else tools
    return {"tools": tools or None, **(row.get("chat_template_kwargs") or {})}


def _texts(
    prompt: Any, completion: Any, tokenizer: PreTrainedTokenizerBase, rendering: dict[str, Any], where: str
) -> tuple[str, str]:
    """Return prompt and completion as plain text."""
    if not isinstance(prompt, str):
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(f"{where}: a conversation needs a chat template, and the tokenizer has none: give texts")
        turns = [turn for turn in completion if isinstance(turn, Mapping)]
        if not any(turn.get("tool_calls") or str(turn.get("content") or "").strip() for turn in turns):
            raise UserError(f"{where}: its completion is empty: leave it out")
        try:
            head = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True, **rendering)
            whole = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False, **rendering)
        except Exception as error:  # templates are programs of the model's own and raise anything
            raise UserError(f"{where}: the chat template refuses it: {first_line(error)}") from None
        if not whole.startswith(head):
            raise UserError(f"{where}: the chat template writes the prompt differently once it is answered: give texts")
        prompt, completion = head, whole[len(head) :]
    if not prompt.strip() or not completion.strip():
        raise UserError(f"{where}: its {'completion' if prompt.strip() else 'prompt'} is empty: leave it out")
    return prompt, completion


def _in_memory(rows: list[tuple[str, str, float | None, int]], name: str, *, ends: bool, paired: bool) -> Dataset:
    prompts, completions, scores, numbers = zip(*rows, strict=True)
    # In the paired form only the two of a row are a pair; else all answers to one prompt are compared.
    known = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    columns = {
        "prompt": prompts,
        "completion": completions,
        "score": scores,
        "label": [None] * len(rows),
        "prompt_id": numbers if paired else [known[prompt] for prompt in prompts],
        "response_id": range(len(rows)),
        "source": [name] * len(rows),
        "split": ["train"] * len(rows),
    }
    schema = responses_schema()
    table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema=schema)
    labelled = label_tables(table, None, Labelling(_RULE))
    metadata = Metadata(
        id=name,
        task="language/columns",
        score=ScoreRule(name="column"),
        label=_RULE,
        provenance=Provenance(settings={"ends": ends}),
        **labelled.described,
    )
    return Dataset(metadata, Path(name), labelled.table)
