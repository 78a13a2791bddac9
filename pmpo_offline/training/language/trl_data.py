"""TRL's forms of a dataset, plain or conversational, as a dataset of responses in memory.

::

    unpaired   prompt  completion  label             label: a Boolean, 0 or 1; None leaves the row unlabelled
    paired     prompt  chosen      rejected          two rows, and only these two are a pair
                       chosen      rejected          of conversations: the messages that both begin with are the prompt

In the conversational variants the texts are lists of messages, `{"role": ..., "content": ...}`, which the model's chat
template renders: the prompt with the cue for an answer, the completion with whatever ends one. In the plain variants
the end-of-sequence token follows a completion, as in TRL.
"""

from __future__ import annotations

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
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RULE = LabelRule.parse("column:0.5")


def dataset_of(rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, name: str = "data") -> Dataset:
    """Return the rows as a dataset of responses that is nowhere on disk.

    Args:
        rows: a `datasets.Dataset`, a list of dictionaries.
        tokenizer: whose chat template renders conversations.
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
    chat: bool | None = None
    form: bool | None = None
    for number, row in enumerate(rows):
        where = f"{name}: row {number}"
        if not isinstance(row, Mapping):
            raise UserError(
                f"{where} is a {type(row).__name__}: give a datasets.Dataset (of a pandas frame, Dataset.from_pandas) "
                "or a list of dictionaries"
            )
        if row.get("prompt") is None:
            row = _with_prompt(row)
        columns = {column for column, value in row.items() if value is not None or column == "label"}
        if {"prompt", "chosen", "rejected"} <= columns:
            texts: list[tuple[str, float | None]] = [("chosen", 1.0), ("rejected", 0.0)]
        elif {"prompt", "completion", "label"} <= columns:
            texts = [("completion", _label(row["label"], where))]
        else:
            raise UserError(
                f"{where} has {', '.join(sorted(columns)) or 'nothing'}: it needs prompt, completion and label, or "
                "prompt, chosen and rejected"
            )
        pair = len(texts) > 1
        if form is not None and form != pair:
            raise UserError(f"{where}: rows with a label and pairs do not go together: take one form for all rows")
        form = pair
        for column in ("prompt", *(column for column, _ in texts)):
            if not isinstance(row[column], str | list | tuple):
                kind = type(row[column]).__name__
                raise UserError(f"{where}, {column}: a {kind} is neither a text nor a list of messages")
        kinds = {isinstance(row[column], str) for column in ("prompt", *(column for column, _ in texts))}
        if len(kinds) > 1 or (chat is not None and chat in kinds):
            raise UserError(f"{where}: texts and conversations do not go together: take one form for all rows")
        chat = not kinds.pop()
        for column, score in texts:
            prompt, completion = _texts(row["prompt"], row[column], tokenizer, f"{where}, {column}")
            found.append((prompt, completion, score, number))
    if not found:
        raise UserError(f"{name} has no rows")
    return _in_memory(found, name, ends=not chat, paired=bool(form))


def _with_prompt(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row of two conversations with the messages that they share as its prompt; any other as it is."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not (isinstance(chosen, list) and isinstance(rejected, list)):
        return row
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        return row
    return {**row, "prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _texts(prompt: Any, completion: Any, tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[str, str]:
    """Return prompt and completion as plain text."""
    if not isinstance(prompt, str):
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(f"{where}: a conversation needs a chat template, and the tokenizer has none: give texts")
        try:
            head = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
            whole = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
        except Exception as error:  # templates are programs of the model's own and raise what they like
            raise UserError(f"{where}: the chat template refuses it: {str(error).strip().splitlines()[0]}") from None
        if not whole.startswith(head):
            raise UserError(f"{where}: the chat template writes the prompt differently once it is answered: give texts")
        prompt, completion = head, whole[len(head) :]
    if not prompt.strip() or not completion.strip():
        raise UserError(f"{where}: its {'completion' if prompt.strip() else 'prompt'} is empty: leave it out")
    return prompt, completion


def _label(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if value not in (0, 1):  # True and False are
        raise UserError(f"{where}: label {value!r} is neither a Boolean nor 0 or 1")
    return float(value)


def _in_memory(rows: list[tuple[str, str, float | None, int]], name: str, *, ends: bool, paired: bool) -> Dataset:
    prompts, completions, scores, numbers = zip(*rows, strict=True)
    # In the paired form only what was put together is a pair; else all answers to one prompt are compared.
    known = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    table = pa.table(
        {
            "prompt": pa.array(prompts, pa.string()),
            "completion": pa.array(completions, pa.string()),
            "score": pa.array(scores, pa.float32()),
            "label": pa.nulls(len(rows), pa.bool_()),
            "prompt_id": pa.array(numbers if paired else [known[prompt] for prompt in prompts], pa.int32()),
            "response_id": pa.array(range(len(rows)), pa.int32()),
            "source": pa.array([name] * len(rows), pa.string()),
            "split": pa.array(["train"] * len(rows), pa.string()),
        }
    ).cast(responses_schema())
    labelled = label_tables(table, None, Labelling(_RULE))
    metadata = Metadata(
        id=name,
        kind="responses",
        task="language/columns",
        score=ScoreRule(name="column"),
        label=_RULE,
        provenance=Provenance(settings={"ends": ends}),
        **labelled.described,
    )
    return Dataset(metadata, Path(name), labelled.table)
