"""Short instructions whose answers a program can check, in the spirit of IFEval (arXiv 2311.07911).

The check is read from the prompt itself, so any stored row can be scored again. Every check also asks for a complete
answer: one that ends as a sentence does and is not long. So an answer that was cut at the longest length fails, though
nothing but its text is looked at (of 3,425 accepted ones in the dataset eleven were cut nevertheless).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.task import LanguageTask

_SHORT = 20
"""Words of a short answer, and of a few words, at most."""
_LONGEST = 28
"""Words of a complete answer, at most: one that ends by itself within the longest completion rarely has more."""
_END = re.compile(r"[.!?][\"'”’)*]*$")
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])[\"'”’)*]*\s+")
_TURN = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", re.DOTALL)

_NOUNS = (
    *("river", "bridge", "library", "bicycle", "garden", "mountain", "kitchen", "train", "window", "market"),
    *("apple", "lamp", "forest", "hospital", "piano", "ship", "castle", "clock", "pencil", "village"),
    *("teacher", "farmer", "doctor", "baker", "painter", "sailor", "judge", "pilot", "nurse", "singer"),
    *("horse", "spider", "eagle", "whale", "rabbit", "snake", "elephant", "frog", "wolf", "cow"),
    *("chair", "door", "mirror", "blanket", "bottle", "basket", "hammer", "ladder", "rope", "candle"),
    *("cloud", "island", "desert", "lake", "valley", "cave", "beach", "volcano", "field", "storm"),
    *("letter", "book", "map", "song", "poem", "photo", "newspaper", "diary", "ticket", "flag"),
    *("cake", "soup", "sandwich", "egg", "tomato", "potato", "lemon", "carrot", "pie", "biscuit"),
)
_ADJECTIVES = ("new", "old", "small", "famous", "quiet", "strange")
_THINGS = tuple(f"{adjective} {noun}" for adjective, noun in product(_ADJECTIVES, _NOUNS))
_WORDS = ("people", "never", "light", "together", "water", "small")
_QUESTIONS = (
    "What is a {} for?",
    "Why do people like a {}?",
    "Where would you find a {}?",
    "What does a {} look like?",
    "How would you explain a {} to a child?",
    "What should one know about a {}?",
)
_YES_OR_NO = (
    "Is a {} bigger than a cat?",
    "Can a {} be blue?",
    "Would you find a {} in a school?",
    "Can a child carry a {}?",
    "Is a {} older than the moon?",
    "Do people need a {} every day?",
)


@dataclass(frozen=True)
class Instruction:
    """One kind of instruction: its prompts, the pattern that recognises them, and the check of a complete answer."""

    prompts: tuple[str, ...]
    pattern: re.Pattern[str]
    check: Callable[[str, re.Match[str]], bool]
    """(answer, match of the pattern) -> whether the answer follows the instruction."""


def reward(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return 1 where the completion does what its prompt asks, else 0; `UserError` for another prompt."""
    return [float(fulfils(*pair)) for pair in zip(prompts, completions, strict=True)]


def render(instruction: str) -> str:
    """Return the prompt for one user turn: SmolLM2's own chat template, which a test compares with this."""
    return (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
    )


def fulfils(prompt: str, completion: str) -> bool:
    """Return whether a completion is a complete answer that does what the prompt's last user turn asks.

    Raises `UserError` for a prompt with none of these instructions.
    """
    turn = (_TURN.findall(prompt) or [prompt])[-1].strip()
    answer = completion.strip()
    for kind in KINDS.values():
        if match := kind.pattern.fullmatch(turn):
            return bool(_END.search(answer)) and _words(answer) <= _LONGEST and kind.check(answer, match)
    raise UserError(f"language/instructions cannot check an answer to {turn[:80]!r}: it is none of its instructions")


def _about(questions: Sequence[str]) -> Iterator[str]:
    return (question.replace("a {}", _a(noun)) for question, noun in product(questions, _NOUNS))


def _a(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _words(answer: str) -> int:
    return len(answer.split())


def _sentences(answer: str) -> int:
    return len(_BETWEEN_SENTENCES.split(answer))


KINDS = {
    "short": Instruction(
        tuple(f"Answer in one short sentence: {question}" for question in _about(_QUESTIONS)),
        re.compile(r"Answer in one short sentence: .+"),
        lambda answer, _: _sentences(answer) == 1 and _words(answer) <= _SHORT,
    ),
    "word": Instruction(
        tuple(
            f'Write a sentence about {_a(noun)} that contains the word "{word}".'
            for noun, word in product(_NOUNS, _WORDS)
        ),
        re.compile(r'Write a sentence about .+ that contains the word "(\w+)"\.'),
        lambda answer, match: _sentences(answer) == 1 and bool(re.search(rf"\b{match[1]}\b", answer, re.IGNORECASE)),
    ),
    "one": Instruction(
        tuple(f"Describe {_a(thing)} in one sentence of at most twenty words." for thing in _THINGS),
        re.compile(r"Describe .+ in one sentence of at most twenty words\."),
        lambda answer, _: _sentences(answer) == 1 and _words(answer) <= _SHORT,
    ),
    "few": Instruction(
        tuple(f"Say something about {_a(thing)} in a few words." for thing in _THINGS),
        re.compile(r"Say something about .+ in a few words\."),
        lambda answer, _: _words(answer) <= _SHORT,
    ),
    "yes-or-no": Instruction(
        tuple(f"Answer with yes or no: {question}" for question in _about(_YES_OR_NO)),
        re.compile(r"Answer with yes or no: .+"),
        lambda answer, _: bool(re.match(r"\W*(yes|no)\b", answer, re.IGNORECASE)),
    ),
}
"""The kinds of instructions by name; all have equally many prompts."""

TASK = LanguageTask(
    "language/instructions",
    reward,
    lambda: [render(text) for kind in KINDS.values() for text in kind.prompts],
    tokens=40,
)
"""Do what the instruction says, in SmolLM2's chat template."""
