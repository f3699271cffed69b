"""MLflow's filter language."""

import unicodedata


def containing(text: str) -> str:
    """A pattern for ILIKE: the text anywhere in what is looked at."""
    # The language has no escapes. `_` stands for any one character, so it stands for those that would end the text, be
    # wildcards themselves, or that a database refuses.
    kept = ("_" if c in "'\"`\\%" or unicodedata.category(c) == "Cc" else c for c in text.strip())
    return f"'%{''.join(kept)}%'"
