"""Prompts, completions and conversations, as the columns of a row state them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pmpo_offline.data.exchange.forms import cells
from pmpo_offline.data.exchange.forms.cells import content_of, filled, first_filled, is_list, is_turn, role_of, short
from pmpo_offline.data.exchange.forms.columns import ADDED, COMPLETIONS, HISTORY, NOT_TEXT_IN_TURNS, PROMPTS, SYSTEM
from pmpo_offline.data.exchange.forms.names import may_ask, snake
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Message, Prompt, Row, stored
from pmpo_offline.data.exchange.forms.templates import goes_on, repeats

T = TypeVar("T")
_READ = {*PROMPTS, *ADDED, *COMPLETIONS, *SYSTEM}
"""Columns of texts that are read beside a prompt."""
_PROMPTS_OF_TURNS = (*PROMPTS, *ADDED)
_PROMPTS_OF_TEXT = tuple(name for name in PROMPTS if name not in ADDED)
"""Columns that compete with a prompt: those that are added continue a text, but not a list of turns."""
_PLAIN = {key for keys in cells.TURNS for key in keys}


def caught(read: Callable[..., T], *arguments: Any) -> T | Drop:
    """Return what a function returns, or the `Drop` that it raises."""
    try:
        return read(*arguments)
    except Drop as drop:
        return drop


def answered(
    row: Row, reading: Reading, prompt: Prompt, completions: Mapping[str, Any]
) -> tuple[Prompt, dict[str, str | Drop]]:
    """Return the prompt and these completions by name, each as it is stored or with the reason why it cannot be.

    A completion is a text, or the one turn of the assistant; if either it or the prompt is a conversation, a text is
    one turn.
    """
    texts = {name: caught(completion_of, row, value, name) for name, value in completions.items()}
    chat = any(map(is_list, [prompt, *completions.values()]))
    reading.refuse_mixed(row, chat)
    if isinstance(prompt, str) and all(map(cells.is_written_list, [prompt, *completions.values()])):
        raise row.error(
            f"prompt and {' and '.join(completions)} are lists of texts that are written as text: write the texts "
            "themselves, or a list of turns with role and content"
        )
    if isinstance(prompt, str) and not any(stored(row, side) for side in ("", *completions)):
        for name, text in texts.items():
            if isinstance(text, str) and goes_on(prompt, text):
                texts[name] = Drop(f"{name} goes on with a turn of the user")
            elif isinstance(text, str) and repeats(prompt, text):
                texts[name] = Drop(f"{name} repeats the prompt as a turn of the user")
    return (Message("user", prompt),) if chat and isinstance(prompt, str) else prompt, texts


def prompt_of(row: Row) -> Prompt:
    """Return the prompt, text or turns that end with the user's; raises `Drop` where there is none.

    `input` continues an `instruction`; `system` and `history` make a conversation of it.
    """
    name = row.first(PROMPTS)
    value = row.value(name)
    if is_list(value):
        said = turns(row, value, "prompt")
        if wrong := unanswerable(said, "prompt"):
            raise wrong
    else:
        said = (Message("user", _continued(row, value)),)
        if name == "input":  # which mostly continues an instruction
            _refuse_instructions(row)
    others = [other for other in (_PROMPTS_OF_TURNS if is_list(value) else _PROMPTS_OF_TEXT) if other != name]
    refuse_unsaid(row, others, said, f"columns {name} and {{}} hold different prompts: leave one of them out")
    conversation = with_system(row, after_history(row, said))
    return conversation if row.as_turns or is_list(value) or len(conversation) > 1 else said[0].content


def _refuse_instructions(row: Row) -> None:
    """Raise `UserError` for a column that may be the instruction of `input`: a text of several words that asks."""
    for name, value in row.values.items():
        if name not in _READ and isinstance(value, str) and " " in value.strip() and may_ask(name):
            raise row.error(f"column {name} may be the instruction of input: add --columns instruction={name}")


def refuse_unsaid(row: Row, names: Iterable[str], said: Sequence[Message], problem: str) -> None:
    """Raise `UserError` with the problem for the first column that holds something else than these turns."""
    for name in names:
        if not filled(row.values.get(name)):
            continue
        value = row.value(name)
        chat = is_list(value) and all(map(is_turn, value))
        parts = map(content_of, value) if chat else [value]
        if not all(any(_holds(turn.content, part) for turn in said) for part in parts):
            raise row.error(problem.format(name))


def prompt_in(row: Row, history: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    """Return the prompt of whole conversations; `UserError` for columns of prompts that say something else."""
    others = (*PROMPTS, *ADDED, *HISTORY)
    refuse_unsaid(row, others, history, f"column {{}} is no turn of the {where}: leave it out")
    return with_system(row, history)


def completion_of(row: Row, value: Any, what: str) -> str:
    """Return a completion, text or the one turn of the assistant; raises `Drop` where there is none."""
    if not is_list(value):
        return row.checked(value, what)
    found = turns(row, value, what)
    if [turn.role for turn in found] != ["assistant"]:
        raise Drop(f"{what} is not one turn")
    return found[0].content


def with_system(row: Row, conversation: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return a conversation after the row's system message, if there is one."""
    names = [name for name in SYSTEM if filled(row.values.get(name))]
    if not names:
        return conversation
    name, system = names[0], row.text(names[0])
    if other := next((other for other in names if row.values[other] != system), None):
        raise row.error(f"columns {name} and {other} hold different system messages: leave one of them out")
    if conversation[0].role != "system":
        return (Message("system", system), *conversation)
    if conversation[0].content != system:
        raise row.error(f"column {name} and the conversation's own system message differ: leave one of them out")
    return conversation


def turns(row: Row, value: Sequence[Any], what: str) -> tuple[Message, ...]:
    """Return a list of turns as messages; raises `Drop` for turns that cannot be stored, `UserError` for others."""
    if not value:
        raise Drop(f"{what} is empty")
    return tuple(turn(row, message, what) for message in value if not is_blank_system(message))


def turn(row: Row, value: Any, what: str) -> Message:
    """Return one {role, content} as a message; raises as `turns` does."""
    if not is_turn(value):
        raise row.error(f"expected a message with role and content in {what}, found {short(value)}")
    role_key, content_key = next(keys for keys in cells.TURNS if set(keys) <= value.keys())
    role, other = role_of(value), value.get("from")
    if filled(other) and cells.ROLES.get(str(other).lower()) != role:
        raise row.error(f"a turn in {what} has role {short(value[role_key])} and from {short(other)}: leave one out")
    if filled(other := value.get("value")) and other != value[content_key]:
        raise row.error(f"a turn in {what} has a content and another value: leave one of them out")
    if role is None:
        raise Drop(f"{what} has a turn of role {short(value[role_key])}")
    others = [key for key in value if key not in _PLAIN and snake(key) in NOT_TEXT_IN_TURNS]
    if used := first_filled(value, others):
        raise Drop(f"{what} has {used}, which a text has no place for")
    content, unread = cells.joined(value[content_key])
    if is_list(content) and not content:
        raise Drop(f"{what}'s content is empty")
    if unread is not None:
        raise Drop(f"{what} has {unread}, which a text has no place for")
    return Message(role, row.checked(content, f"{what}'s content"))


def is_blank_system(value: Any) -> bool:
    """Return whether a turn is a system message that says nothing, as chat front ends write without one."""
    return is_turn(value) and role_of(value) == "system" and not filled(content_of(value))


def is_weightless(value: Any) -> bool:
    """Return whether a turn is not to be learned, as OpenAI's files say it."""
    return isinstance(value, Mapping) and "weight" in value and value["weight"] == 0


def messages_of(row: Row, name: str) -> Sequence[Any]:
    """Return the turns of a column as they are written; raises `Drop` for none, `UserError` for what is no list."""
    value = row.value(name)
    if not filled(value):
        raise Drop(f"{name} is {'empty' if is_list(value) or isinstance(value, Mapping) else 'null'}")
    if not is_list(value):
        raise row.error(f"expected a list of messages with role and content in column {name}, found {short(value)}")
    return tuple(value)


def conversation(row: Row, name: str) -> tuple[tuple[Message, ...], str]:
    """Return the history and the assistant's last turn of a column of conversations; raises as `turns` does."""
    value = messages_of(row, name)
    *history, last = turns(row, value, name)
    if is_weightless(value[-1]):
        raise Drop(f"{name} ends with a turn of weight 0, which is not to be learned")
    if last.role != "assistant":
        raise Drop(f"{name} does not end with the assistant's turn")
    if wrong := unanswerable(history, name):
        raise wrong
    return tuple(history), last.content


def after_history(row: Row, said: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return turns after those of a column `history`, once where they begin with them, or it ends with them."""
    earlier = _history(row)
    if said[: len(earlier)] == earlier:
        return said
    return earlier if earlier[-len(said) :] == said else (*earlier, *said)


def unanswerable(history: Sequence[Message], what: str) -> Drop | None:
    """Return why a history is no prompt, None where the next turn is the assistant's."""
    answerable = history and history[-1].role != "assistant"
    return None if answerable else Drop(f"{what} has an assistant's turn that answers no other turn")


def _continued(row: Row, value: Any) -> str:
    """Return a plain prompt with what its added columns hold, unless it holds that already."""
    for name in ADDED:
        more = row.values.get(name)
        if not filled(more) or more is value:
            continue
        text = row.checked(more, name)
        if not filled(value):
            value = text
        elif isinstance(value, str) and not _holds(value, text):
            value = f"{value}\n{text}"
    return row.checked(value, "prompt")


def _holds(text: str, part: Any) -> bool:
    """Return whether a prompt holds another text in lines of its own, as templates write it."""
    return isinstance(part, str) and f"\n{part.strip()}\n" in f"\n{text.strip()}\n"


def _history(row: Row) -> tuple[Message, ...]:
    """Return the earlier turns of a column `history`."""
    name = first_filled(row.values, HISTORY)
    return turns(row, row.listed(name) or (), name) if name else ()
