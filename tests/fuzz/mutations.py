"""Damage to the content of a file, from a seed: flipped bits, parts cut, repeated or moved, wrong numbers and texts."""

from __future__ import annotations

from random import Random

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**36, 2**63 - 1, 2**64 - 1, 2_000_000_000)
WORDS = (
    *(
        b"",
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
        b"-1",
        b"0",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"9" * 400,
        b"9" * 5_000,
        b"2147483648",
    ),
    *(b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"\r\n", b'"', b",", b"[" * 2_000, b'{"a":' * 2_000, b"../../etc/passwd"),
    *(b"\xce\xb2", b"A" * 70_000, b"%s%n", b"'", b"\\u0000", b"\\ud800"),
)


def mutated(content: bytes, seed: str) -> bytes:
    """Return `content` with one to four kinds of damage, a function of the seed."""
    rng, changed = Random(seed), bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if not changed:
            return bytes(changed)
        rng.choice(_DAMAGES)(changed, rng)
    return bytes(changed)


def _bits(content: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 6))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _bytes(content: bytearray, rng: Random) -> None:
    start = rng.randrange(len(content))
    for place in range(start, min(len(content), start + rng.choice((1, 2, 4, 8, 64)))):
        content[place] = rng.choice((0, 255, rng.randrange(256)))


def _number(content: bytearray, rng: Random) -> None:
    width = rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) % 256**width
    start = rng.randrange(len(content)) // width * width
    content[start : start + width] = value.to_bytes(width, rng.choice(("little", "little", "big")))


def _cut(content: bytearray, rng: Random) -> None:
    start = rng.randrange(len(content))
    stop = len(content) if rng.random() < 0.4 else min(len(content), start + rng.choice((1, 4, 100, 5_000)))
    del content[start:stop]


def _repeated(content: bytearray, rng: Random) -> None:
    start, place = rng.randrange(len(content)), rng.randrange(len(content))
    content[place:place] = content[start : start + rng.choice((1, 8, 64, 1024))]


def _moved(content: bytearray, rng: Random) -> None:
    start, place, width = rng.randrange(len(content)), rng.randrange(len(content)), rng.choice((4, 8, 32, 512))
    part = content[start : start + width]
    content[place : place + len(part)] = part


def _word(content: bytearray, rng: Random) -> None:
    word, start = rng.choice(WORDS), rng.randrange(len(content))
    content[start : start + rng.choice((0, 1, len(word)))] = word


def _value(content: bytearray, rng: Random) -> None:
    """Put a word in place of what stands between two delimiters of a text."""
    stops = [place for place in range(len(content)) if content[place] in b':,[]{}=\n"']
    if len(stops) > 1:
        index = rng.randrange(len(stops) - 1)
        content[stops[index] + 1 : stops[index + 1]] = rng.choice(WORDS)


_DAMAGES = (_bits, _bits, _bytes, _number, _number, _cut, _repeated, _moved, _word, _value)
