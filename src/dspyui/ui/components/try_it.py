"""Try a program on one row: a form of its inputs, and what came back."""

import json
from collections.abc import Callable
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.validation_element import ValidationElement

from dspyui.domain.compiles import prompt_text
from dspyui.domain.engine import PredictOutcome
from dspyui.domain.signatures import FieldSpec, Row, SignatureSpec, type_label
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.background import off_loop
from dspyui.ui.elements import (
    box,
    button,
    card,
    code,
    control,
    fact,
    facts,
    labelled,
    marked,
    problem,
    sentence,
    tag,
)


class TryCard:
    """`predict` is a service call that takes the inputs and gives the outcome."""

    def __init__(
        self,
        text: Text,
        signature: SignatureSpec,
        predict: Callable[[Row], PredictOutcome],
        example: Row | None = None,
    ) -> None:
        self._text = text
        self._signature = signature
        self._predict = predict
        self._controls: dict[str, ValidationElement[Any]] = {}
        self._values: dict[str, Any] = {name: _shown(value) for name, value in (example or {}).items()}
        with card(text("ui.try.title"), note=text("ui.try.lead"), mark="try"):
            with box("d-stack"):
                for made in signature.inputs:
                    self._input(made)
            with box("d-row"):
                self._button = button(text("ui.try.run"), self._run, mark="try-run", icon="play_arrow")
            self._answer = box("d-stack").props("aria-live=polite")

    def _input(self, made: FieldSpec) -> None:
        value = self._values.get(made.name)

        def keep(event: Any) -> None:
            self._values[made.name] = event.value

        label = made.name if made.type == "str" else f"{made.name} ({type_label(made)})"
        with labelled(label, made.description):
            if made.type in {"choice", "bool"}:
                options = list(made.choices) or ["true", "false"]
                shown = ui.select(options, value=value, on_change=keep)
            else:
                shown = ui.textarea(value=value or "", on_change=keep).props("autogrow rows=1")
            self._controls[made.name] = control(shown, label, f"try-{made.name}")

    def _ask_for_missing(self) -> bool:
        """Say at each field that nothing stands in it yet; whether there was one.

        A program may be asked with an empty text; a person who leaves a field empty has forgotten it. An empty
        list is a value.
        """
        missing = [
            made.name
            for made in self._signature.inputs
            if made.type != "list[str]" and not str(self._values.get(made.name) or "").strip()
        ]
        for name in missing:
            # Typing takes it away again.
            self._controls[name].error = self._text("ui.try.missing")
        if missing:
            self._controls[missing[0]].run_method("focus")
        return bool(missing)

    async def _run(self) -> None:
        if self._ask_for_missing():
            return
        self._button.props("loading")
        self._answer.clear()
        try:
            outcome = await off_loop(self._predict, dict(self._values))
        except DSPyUIError as exc:
            with self._answer:
                problem(self._text, sentence(exc, self._text), mark="try-problem")
            return
        finally:
            self._button.props(remove="loading")
        with self._answer:
            self._show(outcome)

    def _show(self, outcome: PredictOutcome) -> None:
        text = self._text
        with marked(box("d-hint"), "try-answer"), facts():
            for name, value in outcome.outputs.items():
                fact(name, _shown(value))
        took = text(
            "ui.try.took",
            seconds=formats.duration(outcome.seconds, text),
            calls=outcome.usage.lm_calls,
            tokens=formats.count(outcome.usage.total_tokens),
        )
        tag("p", took, "d-note")
        with ui.expansion(text("ui.try.prompt")):
            code(prompt_text(outcome.prompt))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
