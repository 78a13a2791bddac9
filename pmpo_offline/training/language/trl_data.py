"""TRL's forms of a dataset, plain or conversational, as a dataset of responses in memory.

::

    unpaired   prompt  completion  label             label: a Boolean, 0 or 1; None leaves the row unlabelled
    paired     prompt  chosen      rejected          two rows, and only these two are a pair
                       chosen      rejected          what both begin with is the prompt: a text or messages

In the conversational variants the texts are lists of messages, `{"role": ..., "content": ...}`, which the model's chat
template renders with the row's `tools` and `chat_template_kwargs`: the prompt with the cue for an answer, the
completion with its end. A text `prompt` beside two conversations that begin with it is not read; beside answers alone
it is the user's message. A label that is a Hugging Face `ClassLabel` says by its name which is accept. Other columns
are not read; those that would change a prompt (`system`, `input`, `images`, …) are warned of. In the plain variants the
end-of-sequence token follows a completion. All this and the tokens (`tokens.tokenize_jointly`) are as in TRL.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pmpo_offline import data
from pmpo_offline.data import Dataset, LabelRule
from pmpo_offline.data.exchange.forms.cells import filled
from pmpo_offline.data.exchange.forms.classes import classes_of, named
from pmpo_offline.data.exchange.forms.columns import ADDED, HISTORY, NOT_TEXT, SYSTEM, WORDS, word_of
from pmpo_offline.policies.language.tokens import common_prefix, with_prefix
from pmpo_offline.runtime.errors import UserError, reason_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NOT_READ = {*ADDED, *SYSTEM, *HISTORY, *NOT_TEXT} - {"tools"}
"""Columns that would change a prompt."""
_RULE = LabelRule.parse("column:0.5")


def dataset_of(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    name: str = "data",
    context: int | None = None,
) -> Dataset:
    """Return the rows as a dataset of responses in memory.

    Rows with an empty prompt or completion, or whose prompt leaves no room for a completion, are left out with a
    warning that counts them.

    Args:
        rows: a `datasets.Dataset`, or a list of dictionaries.
        tokenizer: its chat template renders conversations.
        name: for messages.
        context: the most tokens of a row, prompt and completion together; None: any number.

    Raises:
        UserError: no rows of columns or none that is left, missing columns, null texts, labels that are neither
            Booleans nor 0 or 1, conversations for a tokenizer without a template, rows of several forms mixed.
    """
    if isinstance(rows, Mapping):
        raise UserError(
            f'{name} is a dictionary of {", ".join(map(str, rows))}: choose a split, as in dataset["train"]'
        )
    if not isinstance(rows, Iterable):
        raise UserError(f"{name} is a {type(rows).__name__}: give a datasets.Dataset or a list of dictionaries")
    tokenizer = with_prefix(tokenizer, "")  # it comes before prompts when these are tokenized
    found: list[tuple[str, str, float | None, int]] = []
    dropped: Counter[str] = Counter()
    paired, chat = set[bool](), set[bool]()
    features = getattr(rows, "features", None)  # of a datasets.Dataset
    classes = classes_of(features.to_dict()) if features else {}
    unread = set[str]()
    for number, row in enumerate(rows):
        where = f"{name}: row {number}"
        if not isinstance(row, Mapping):
            raise UserError(
                f"{where} is a {type(row).__name__}: give a datasets.Dataset (of a pandas frame, Dataset.from_pandas) "
                "or a list of dictionaries"
            )
        unread |= {column for column in row.keys() & _NOT_READ if filled(row[column])}
        row = _with_prompt({**row, "label": _meaning(row, classes, where)} if "label" in classes else row)
        scores = _scores(row, where)
        paired.add(len(scores) > 1)
        if len(paired) > 1:
            raise UserError(f"{where}: rows with a label and pairs do not go together: take one form for all rows")
        for column in ("prompt", *scores):
            if not isinstance(row[column], str | list | tuple):
                kind = type(row[column]).__name__
                raise UserError(f"{where}, {column}: a {kind} is neither a text nor a list of messages")
            chat.add(not isinstance(row[column], str))
        if len(chat) > 1:
            raise UserError(f"{where}: texts and conversations do not go together: take one form for all rows")
        if empty := [column for column in ("prompt", *scores) if _is_empty(row[column])]:
            dropped[f"an empty {empty[0]}"] += 1
            continue
        texts = [_texts(row, column, tokenizer, f"{where}, {column}") for column in scores]
        head = tokenizer(texts[0][0], add_special_tokens=chat == {False}).input_ids
        if context is not None and len(head) >= context:
            dropped[f"a prompt that leaves no room in {context} tokens"] += 1
            continue
        found += [(*text, score, number) for text, score in zip(texts, scores.values(), strict=True)]
    if unread:
        warnings.warn(f"{name}: not read: {', '.join(sorted(unread))}; put what they say into prompt", stacklevel=2)
    why = ", ".join(f"{count} with {reason}" for reason, count in dropped.items())
    if not found:
        raise UserError(f"{name} has no rows" + (f" that can be used: {why}" if why else ""))
    if why:
        warnings.warn(f"{name}: left out {dropped.total()} of {number + 1} rows: {why}", stacklevel=2)
    return _in_memory(found, name, ends=chat == {False}, paired=paired == {True})


def _meaning(row: Mapping[str, Any], classes: Mapping[str, Any], where: str) -> bool | None:
    """Return what the name of a label's class says; `UserError` for a name of no known meaning."""
    word = word_of(named(row, classes).get("label"))
    if word not in WORDS:
        raise UserError(
            f"{where}: label is of a class {word!r}, which is not known to mean accept or reject: give true or false"
        )
    return {1.0: True, -1.0: False}.get(WORDS[word])


def _with_prompt(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row with what its pair begins with as the prompt if it has none, and a text before messages as one."""
    prompt, chosen, rejected = (row.get(column) for column in ("prompt", "chosen", "rejected"))
    kind = list if isinstance(prompt, str) else str | list
    if not isinstance(prompt, list | tuple) and isinstance(chosen, kind) and isinstance(rejected, kind):
        shared = _shared(chosen, rejected) if type(chosen) is type(rejected) else 0
        if shared:
            return {**row, "prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}
    if isinstance(prompt, str) and isinstance(row.get("completion", chosen), list):
        return {**row, "prompt": [{"role": "user", "content": prompt}]}
    return row


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return how many letters or messages two begin with alike; of equal ones the last is the completion."""
    shared = common_prefix(one, other) - (one == other)
    return shared - (one[shared - 1 : shared] == " ")  # a blank belongs to the word behind it


def _is_empty(text: str | Sequence[Any]) -> bool:
    """Return whether a text is blank, or a conversation holds neither a text nor a tool call."""
    messages = [{"content": text}] if isinstance(text, str) else text
    return all(
        isinstance(message, Mapping) and not (str(message.get("content") or "").strip() or message.get("tool_calls"))
        for message in messages
    )


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


def _texts(row: Mapping[str, Any], column: str, tokenizer: PreTrainedTokenizerBase, where: str) -> tuple[str, str]:
    """Return the prompt and the completion in a column as plain text."""
    prompt, completion = row["prompt"], row[column]
    if isinstance(prompt, str):
        return prompt, completion
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(f"{where}: a conversation needs a chat template, and the tokenizer has none: give texts")
    tools = row.get("tools")
    try:
        tools = json.loads(tools.strip() or "null") if isinstance(tools, str) else tools
        options = {"tokenize": False, "tools": tools or None, **(row.get("chat_template_kwargs") or {})}
        head = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, **options)
        whole = tokenizer.apply_chat_template([*prompt, *completion], **options)
    except Exception as error:  # templates are programs of the model's own and raise anything
        raise UserError(f"{where}: the chat template refuses it: {reason_of(error)}") from None
    shared = common_prefix(head, whole)  # a template may write a prompt differently once it is answered
    return head[:shared], whole[shared:]


def _in_memory(rows: list[tuple[str, str, float | None, int]], name: str, *, ends: bool, paired: bool) -> Dataset:
    prompts, completions, scores, numbers = zip(*rows, strict=True)
    # In the paired form only the two of a row are a pair; else all answers to one prompt are compared.
    known = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    columns: dict[str, Any] = {
        "prompt": prompts,
        "completion": completions,
        "score": scores,
        "label": [None] * len(rows),
        "prompt_id": numbers if paired else [known[prompt] for prompt in prompts],
        "response_id": range(len(rows)),
        "source": [name] * len(rows),
        "split": ["train"] * len(rows),
    }
    labelled = data.label_tables(pa.table(columns, schema=data.responses_schema()), None, data.Labelling(_RULE))
    metadata = data.Metadata(
        id=name,
        task="language/columns",
        score=data.ScoreRule(name="column"),
        label=_RULE,
        provenance=data.Provenance(settings={"ends": ends, "paired": paired, "joint": True}),
        **labelled.described,
    )
    return Dataset(metadata, Path(name), labelled.table)
