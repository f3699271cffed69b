"""What changed between two prompts, line by line. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

from dspyui.domain.compiles import ChatMessage

LineKind = Literal["same", "added", "removed", "folded"]
# So many unchanged lines stay on each side of a change; the others are folded into one line that counts them.
CONTEXT = 2


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of the one prompt, the other, or both. A `folded` one stands for `count` unchanged lines."""

    kind: LineKind
    text: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class _Line:
    """Equal lines are only the same when they are said in the same role."""

    role: str
    text: str


def diff_prompts(before: Sequence[ChatMessage], after: Sequence[ChatMessage]) -> list[DiffLine]:
    """The lines of both prompts in their order; each message begins with a line `[role]`.

    Whole messages are matched first, so that an inserted demonstration is shown as one piece.
    """
    found: list[DiffLine] = []
    for operation, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        old, new = _lines(before[i1:i2]), _lines(after[j1:j2])
        found += [DiffLine("same", line.text) for line in new] if operation == "equal" else _diff(old, new)
    return _folded(found)


def _diff(old: Sequence[_Line], new: Sequence[_Line]) -> Iterator[DiffLine]:
    for operation, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            yield from (DiffLine("same", line.text) for line in new[j1:j2])
            continue
        yield from (DiffLine("removed", line.text) for line in old[i1:i2])
        yield from (DiffLine("added", line.text) for line in new[j1:j2])


def _lines(prompt: Sequence[ChatMessage]) -> list[_Line]:
    return [line for message in prompt for line in _lines_of(message)]


def _lines_of(message: ChatMessage) -> Iterator[_Line]:
    yield _Line(message.role, f"[{message.role}]")
    for text in message.content.splitlines():
        yield _Line(message.role, text)


def _folded(lines: Sequence[DiffLine]) -> list[DiffLine]:
    """Long runs of unchanged lines as one line, but for those beside a change."""
    runs = [(same, list(run)) for same, run in groupby(lines, key=lambda line: line.kind == "same")]
    found: list[DiffLine] = []
    for index, (same, run) in enumerate(runs):
        head = CONTEXT if index > 0 else 0
        tail = CONTEXT if index < len(runs) - 1 else 0
        hidden = len(run) - head - tail
        if same and hidden > 1:
            run[head : head + hidden] = [DiffLine("folded", count=hidden)]
        found += run
    return found
