"""The catalogue of every word the program says, in Chinese and in English.

One TOML file a language lies in `locales/`; keys are dotted (`compile.start`), values are `str.format`
templates. A key that is missing is a bug that tests find, so looking one up raises. English nouns follow their
number: `{calls} {calls:n|call|calls}`.
"""

import os
import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

Language = Literal["zh_CN", "en_US"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
DEFAULT_LANGUAGE: Language = "zh_CN"

_LOCALES = Path(__file__).parent / "locales"


@cache
def catalogue(language: Language) -> Mapping[str, str]:
    """Every key of one language, flattened to dotted names."""
    with (_LOCALES / f"{language}.toml").open("rb") as file:
        return _flatten(tomllib.load(file))


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class _Numbered(string.Formatter):
    """`str.format`, and `{count:n|call|calls}`, which is the first word for one and the second for any other number."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """One value as its template asks for it."""
        if not format_spec.startswith("n|"):
            return super().format_field(value, format_spec)
        _, one, others = format_spec.split("|")
        return one if str(value) == "1" else others


_FORMATTER = _Numbered()


@dataclass(frozen=True, slots=True)
class Text:
    """Says things in one language: `text("compile.start")`, `text("data.rows", count=3)`."""

    language: Language

    def __call__(self, key: str, /, **values: object) -> str:
        """Return the words for `key`. Raises KeyError for an unknown key or a missing value."""
        return _FORMATTER.vformat(catalogue(self.language)[key], (), values)

    def in_a_row(self, sentences: Iterable[str]) -> str:
        """Sentences one after the other; in Chinese no space stands between them."""
        return ("" if self.language == "zh_CN" else " ").join(sentences)

    def has(self, key: str) -> bool:
        """Whether the catalogue knows the key."""
        return key in catalogue(self.language)


def language_of(tag: str | None) -> Language | None:
    """Map a language tag or an Accept-Language header to one of ours: `zh*` is Chinese, `en*` English.

    Quality values are obeyed (RFC 9110 §12.5.4); None when nothing in it is ours.
    """
    ranked: list[tuple[float, int, Language]] = []
    for position, part in enumerate((tag or "").split(",")):
        name, _, quality = part.replace(" ", "").partition(";q=")
        primary = name.strip().lower().replace("_", "-").split("-")[0]
        language: Language | None = {"zh": "zh_CN", "en": "en_US"}.get(primary)  # type: ignore[assignment]
        weight = _quality(quality)
        if language and weight > 0:
            ranked.append((-weight, position, language))
    return min(ranked)[2] if ranked else None


def _quality(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0


def system_language(environ: Mapping[str, str] | None = None) -> Language:
    """The terminal's language, for the command line: from LC_ALL, LC_MESSAGES, LANG; English when unsaid."""
    variables = os.environ if environ is None else environ
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if found := language_of(variables.get(name, "").split(".")[0]):
            return found
    return "en_US"
