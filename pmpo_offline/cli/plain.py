"""Output where not every character can be shown: β becomes beta, ≥ becomes >=, lines of tables become dashes."""

from __future__ import annotations

import codecs

HANDLER = "pmpo_offline.plain"
"""The name under which `codecs` knows it as an error handler."""
_PLAIN = {
    **{"α": "alpha", "β": "beta", "λ": "lambda", "μ": "mu", "σ": "sigma", "τ": "tau", "π": "pi", "−": "-", "–": "-"},
    **{"—": "-", "≥": ">=", "≤": "<=", "≠": "!=", "×": "x", "±": "+-", "→": "->", "…": "...", "·": ".", "∞": "inf"},
    **{"½": "1/2", "²": "2", "³": "3", "’": "'", "‘": "'", "“": '"', "”": '"', "■": "#", "□": ".", "█": "#"},
}


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement for what cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    if "\u2500" <= character <= "\u257f":  # lines of tables and bars
        return "-"
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()


codecs.register_error(HANDLER, _replace)
