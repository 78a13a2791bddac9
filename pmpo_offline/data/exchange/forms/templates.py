"""How conversations become the text that a model sees: a transcript, or the chat template of a local model.

A template's completion is the reply alone. What ends it (a model's end-of-turn token) is no part of the text, because
an end is appended wherever a completion is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmpo_offline.data.exchange.forms.row import Drop, Message
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.hashing import hash_file

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_FILES = ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json")


@dataclass(frozen=True)
class Template:
    """A way to write conversations down."""

    name: str
    """As reports state it."""
    prompt: Callable[[Sequence[Message]], str]
    """The text of a history, ending where the assistant is to answer; raises `Drop` if the template refuses it."""
    completion: Callable[[str], str]
    """The text of a reply, such that it may follow a prompt's."""
    hashes: dict[str, str]
    """What else it depends on."""
    model: str | None = None
    """The folder of the model that it belongs to."""


def transcript(history: Sequence[Message]) -> str:
    """Return a history as HH-RLHF writes it; a system message comes before the first turn as it is."""
    marks = {"system": "", "user": f"{HUMAN} ", "assistant": f"{ASSISTANT} "}
    return "".join(marks[turn.role] + turn.content for turn in history) + ASSISTANT


def _checked(history: Sequence[Message]) -> str:
    if any(turn.role == "system" for turn in history[1:]):
        raise Drop("a system message is not the first turn, which transcripts have no place for: see --template")
    return transcript(history)


TRANSCRIPT = Template("Human:/Assistant: transcripts", _checked, lambda reply: f" {reply}", {})


def of_model(directory: Path) -> Template:
    """Return the chat template of a local transformers model; `UserError` where there is none.

    Templates run in transformers' sandbox, and no code in the folder is loaded.
    """
    if not (directory / "tokenizer_config.json").is_file():
        raise UserError(f"--template {directory} is no folder of a model: it holds no tokenizer_config.json")
    directory = directory.resolve()  # the dataset keeps it, and is used from other folders
    from transformers import AutoTokenizer
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every tokenizer has its own way to refuse a damaged file
        raise UserError(f"--template {directory} holds no tokenizer that can be opened: {reason_of(error)}") from None
    finally:
        logging.set_verbosity(before)
    if prefix := tokenizer.init_kwargs.get("prompt_prefix"):  # of a conditional adapter: prompts are stored without
        raise UserError(f"--template {directory} writes {prefix!r} before every prompt: take the model's own folder")
    if not tokenizer.chat_template:
        raise UserError(f"--template {directory} has no chat template: leave it out, conversations become transcripts")

    def prompt(history: Sequence[Message]) -> str:
        turns = [turn._asdict() for turn in history]
        try:
            return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # what the template itself raises (roles that must alternate, say)
            raise Drop(f"the chat template refuses the conversation: {reason_of(error)}") from None

    hashes = {name: hash_file(directory / name) for name in _FILES if (directory / name).is_file()}
    return Template(f"chat template of {directory.name}", prompt, lambda reply: reply, hashes, str(directory))
