"""The prompts before and after: what changed between them, and both side by side."""

from collections.abc import Sequence
from functools import partial
from typing import Final, Literal, get_args

from dspyui.domain.compiles import ChatMessage, CompileResult, prompt_text
from dspyui.i18n import Text
from dspyui.ui.elements import Region, box, button, card, copy_button, marked, tag
from dspyui.ui.prompt_diff import DiffLine, LineKind, diff_prompts

View = Literal["changes", "both"]
_SIGNS: Final[dict[LineKind, str]] = {"added": "+", "removed": "−", "same": " ", "folded": "⋯"}


class PromptsCard:
    """The prompt of the first test row as it was sent, before and after."""

    def __init__(self, text: Text, result: CompileResult) -> None:
        self._text = text
        self._before, self._after = result.baseline.prompt, result.optimised.prompt
        self._view: View = "changes" if self._before != self._after else "both"
        with card(text("ui.prompt.title"), note=text("ui.prompt.lead"), mark="prompts"):
            self._region = Region(self._draw)

    def _draw(self) -> None:
        with box("d-row").props(f'role=group aria-label="{self._text("ui.prompt.view")}"'):
            for name in get_args(View):
                made = button(
                    self._text(f"ui.prompt.{name}"),
                    partial(self._choose, name),
                    mark=f"prompt-view-{name}",
                    kind="plain" if name == self._view else "quiet",
                )
                made.props["aria-pressed"] = "true" if name == self._view else "false"
        if self._view == "changes":
            self._draw_changes()
        else:
            self._draw_both()

    def _choose(self, view: View) -> None:
        self._view = view
        self._region.draw()

    def _draw_changes(self) -> None:
        if self._before == self._after:
            tag("p", self._text("ui.prompt.unchanged"), "d-soft")
            return
        names = self._text("ui.rows.before"), self._text("ui.rows.after")
        draw_diff(self._text, self._before, self._after, names)

    def _draw_both(self) -> None:
        text = self._text
        with box("d-cols"):
            for name, prompt in (("before", self._before), ("after", self._after)):
                with box("d-stack"):
                    with box("d-card-head"):
                        tag("h3", text(f"ui.prompt.{name}", count=len(prompt)))
                        copy_button(text, prompt_text(prompt), mark=f"copy-prompt-{name}")
                    with marked(box("d-prompt").props("tabindex=0"), f"prompt-{name}"):
                        for message in prompt:
                            _message(text, message)


def _message(text: Text, message: ChatMessage) -> None:
    with box("d-message"):
        key = f"ui.prompt.role_{message.role}"
        tag("span", text(key) if text.has(key) else message.role, "who")
        tag("div", message.content, "said")


def draw_diff(
    text: Text, before: Sequence[ChatMessage], after: Sequence[ChatMessage], names: tuple[str, str]
) -> None:
    """What changed from one prompt to the other, line by line; `names` say whose lines have which sign."""
    legend = text("ui.prompt.legend", before=names[0], after=names[1])
    marked(tag("p", legend, "d-note"), "prompt-legend")
    with marked(box("d-diff").props("tabindex=0"), "prompt-diff"):
        for line in diff_prompts(before, after):
            _draw_line(text, line)


def _draw_line(text: Text, line: DiffLine) -> None:
    said = text("ui.prompt.folded", count=line.count) if line.kind == "folded" else line.text
    with box(f"d-diff-line {line.kind}"):
        sign = tag("span", _SIGNS[line.kind], "sign")
        if line.kind in {"added", "removed"}:
            # Read out, the sign alone would say nothing.
            sign.props["role"] = "img"
            sign.props["aria-label"] = text(f"ui.prompt.{line.kind}")
        tag("span", said, "said")
