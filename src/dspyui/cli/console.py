"""What a command says, and where: its answer on stdout, all else on stderr."""

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from dspyui.cli.stop import Stopped
from dspyui.domain.base import Notice
from dspyui.errors import BadRequestError, DSPyUIError, said
from dspyui.i18n import Language, Text

_CONSENT: Final = frozenset({"y", "yes", "是"})


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

    def warn(self, notices: Iterable[Notice]) -> list[dict[str, str]]:
        """Say on stderr what is to be known, and return the same for the document: `code` and `message` of each."""
        told = [{"code": notice.key, "message": notice.sentence(self.language)} for notice in notices]
        for warning in told:
            self.note(warning["message"])
        return told

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on only with somebody's consent: `--yes`, or the answer on a terminal. It never waits elsewhere.

        Raises BadRequestError where nobody can be asked, Stopped when the answer is any other than yes.
        """
        if yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise BadRequestError("cli.yes_needed", question=question)
        print(self.text("cli.confirm", question=question), end=" ", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().casefold() not in _CONSENT:
            raise Stopped

    def sentence(self, exc: DSPyUIError) -> str:
        """The error's sentence; where that would lead to a page, the command line's own."""
        own = f"cli.instead.{exc.code}"
        if self.text.has(own):
            # What another version wrote may have fewer values.
            with suppress(KeyError):
                return self.text(own, **said(exc.values, self.language))
        return exc.text(self.language)

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
            exc.code, self.sentence(exc), exc.exit_code, {"status": status, **(document or {})}
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
