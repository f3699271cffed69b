"""Options that several commands take, in the words of one language."""

from dataclasses import dataclass
from typing import Any

import typer

from dspyui.cli.console import Console
from dspyui.errors import BadRequestError
from dspyui.i18n import LANGUAGES, Language, Text, language_of


@dataclass(frozen=True, slots=True)
class Flags:
    """Typer's options are default values of a command's parameters; these are shared by all commands."""

    language: Language

    @property
    def text(self) -> Text:
        """The words for help texts."""
        return Text(self.language)

    @property
    def json(self) -> Any:
        """`--json`."""
        return typer.Option(False, "--json", help=self.text("cli.flag.json"))

    @property
    def lang(self) -> Any:
        """`--lang`."""
        return typer.Option(None, "--lang", metavar="|".join(LANGUAGES), help=self.text("cli.flag.lang"))

    @property
    def mlflow(self) -> Any:
        """`--mlflow`."""
        return typer.Option(False, "--mlflow", help=self.text("cli.flag.mlflow"))

    @property
    def yes(self) -> Any:
        """`--yes`."""
        return typer.Option(False, "--yes", "-y", help=self.text("cli.flag.yes"))

    def console(self, *, as_json: bool, lang: str | None) -> Console:
        """The voice a command was asked to speak with. Raises BadRequestError for an unknown language."""
        return Console(checked_language(lang) or self.language, as_json)


def checked_language(lang: str | None) -> Language | None:
    """Raises BadRequestError for a language that is not ours."""
    if lang is None:
        return None
    if found := language_of(lang):
        return found
    raise BadRequestError("cli.language", value=lang, known=", ".join(LANGUAGES))
