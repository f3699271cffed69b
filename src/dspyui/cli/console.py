"""What a command says, and where: its answer on stdout, all else on stderr."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspyui.errors import DSPyUIError
from dspyui.i18n import Language, Text


@dataclass(frozen=True, slots=True)
class Console:
    """One command's voice. With `as_json` the last line on stdout is one JSON object, else lines for people."""

    language: Language
    as_json: bool

    @property
    def text(self) -> Text:
        """The words in the command's language."""
        return Text(self.language)

    def note(self, line: str) -> None:
        """A line on stderr."""
        print(line, file=sys.stderr, flush=True)

    def answer(self, document: Mapping[str, Any], lines: tuple[str, ...]) -> None:
        """The command's answer: the document, or the lines when a person reads them."""
        if self.as_json:
            _print_json(document)
            return
        for line in lines:
            print(line, flush=True)

    def failure(self, exc: DSPyUIError, document: Mapping[str, Any] | None = None) -> int:
        """Say the error on stderr, and with `as_json` on stdout beside what is known. Returns the exit code."""
        status = "cancelled" if exc.exit_code == 130 else "failed"
        return self.problem(
            exc.code, exc.text(self.language), exc.exit_code, {"status": status, **(document or {})}
        )

    def problem(self, code: str, message: str, exit_code: int, document: Mapping[str, Any]) -> int:
        """The same for an error that has its words already."""
        self.note(self.text("cli.error", message=message))
        if self.as_json:
            _print_json({**document, "error": {"code": code, "message": message}})
        return exit_code


def _print_json(document: Mapping[str, Any]) -> None:
    """As it reads best; escaped where stdout's encoding, or a file name's broken character, leaves no choice."""
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document)
    print(line, flush=True)
