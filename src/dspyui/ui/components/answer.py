"""What a program answered: its outputs, how it came to them, what was sent, and what that took."""

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from dspyui.domain.compiles import prompt_text
from dspyui.domain.engine import PredictOutcome
from dspyui.domain.signatures import FieldSpec, Row
from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.bench import matches
from dspyui.ui.components.row_form import shown_value
from dspyui.ui.elements import box, chip, code, copy_button, facts, folding, marked, tag


def draw_answer(
    text: Text,
    outcome: PredictOutcome,
    fields: Sequence[FieldSpec],
    *,
    mark: str,
    expected: Row | None = None,
    differing: frozenset[str] = frozenset(),
) -> None:
    """The outputs, beside what was `expected` where that is known; `differing` are those others answered otherwise."""
    names = {field.name for field in fields}
    with marked(box("d-hint"), mark), facts():
        for field in fields:
            tag("span", field.name, "k")
            with box("v"):
                folding(shown_value(outcome.outputs.get(field.name)))
                with box("d-row"):
                    if field.name in differing:
                        chip(
                            text("ui.answer.differs"),
                            "warn",
                            icon="difference",
                            mark=f"{mark}-differs-{field.name}",
                        )
                    if expected is not None and field.name in expected:
                        _draw_expected(
                            text, field, outcome.outputs.get(field.name), expected[field.name], mark
                        )
    reasons = {name: value for name, value in outcome.outputs.items() if name not in names}
    if reasons:
        with marked(ui.expansion(text("ui.answer.reasoning"), value=True), f"{mark}-reasoning"):
            for value in reasons.values():
                folding(shown_value(value))
    draw_taken(text, outcome, mark=mark)


def _draw_expected(text: Text, field: FieldSpec, value: Any, expected: Any, mark: str) -> None:
    same = matches(field, value, expected)
    word, tone, icon = ("as_expected", "good", "check") if same else ("not_expected", "bad", "close")
    chip(text(f"ui.answer.{word}"), tone, icon=icon, mark=f"{mark}-expected-{field.name}")  # type: ignore[arg-type]
    if not same:
        tag("span", text("ui.answer.expected", value=shown_value(expected)), "d-note")


def draw_taken(text: Text, outcome: PredictOutcome, *, mark: str) -> None:
    """Time, calls, tokens and cost; the prompt, folded."""
    used = outcome.usage
    said = [
        text(
            "ui.try.took",
            seconds=formats.duration(outcome.seconds, text),
            calls=used.lm_calls,
            tokens=formats.count(used.total_tokens),
        )
    ]
    said.append(text("ui.answer.no_cost") if used.cost is None else formats.cost(used.cost))
    if used.lm_cache_hits:
        said.append(text("ui.answer.cached", hits=used.lm_cache_hits))
    marked(tag("p", " · ".join(said), "d-note"), f"{mark}-took")
    if outcome.prompt:
        with marked(ui.expansion(text("ui.try.prompt")), f"{mark}-prompt"):
            copy_button(text, prompt_text(outcome.prompt), mark=f"{mark}-copy-prompt")
            code(prompt_text(outcome.prompt))
