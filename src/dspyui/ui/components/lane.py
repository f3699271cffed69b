"""One program on the Test page: it waits, it is asked, it has answered or failed; and what people say of its answer."""

import time
from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Final

from nicegui import ui

from dspyui.domain.engine import CallPhase, Patience, PredictOutcome
from dspyui.domain.signatures import Row
from dspyui.errors import CancelledError, DSPyUIError, FailedError
from dspyui.services.predict import Caller
from dspyui.ui import formats
from dspyui.ui.background import patiently
from dspyui.ui.bench import Chosen, title_of
from dspyui.ui.components.answer import draw_answer, draw_taken
from dspyui.ui.components.opinion import Opinion
from dspyui.ui.elements import Region, box, button, marked, problem, sentence, tag
from dspyui.ui.frame import Page

LOOK_SECONDS: Final = 0.25


class Lane:
    """A card of its own; `mark` names it and what stands in it."""

    def __init__(self, page: Page, chosen: Chosen, mark: str, remove: Callable[["Lane"], None]) -> None:
        self._page = page
        self._text = page.text
        self.chosen = chosen
        self._mark = mark
        self._phase: CallPhase = "queued"
        self._began: float | None = None
        self._error: DSPyUIError | None = None
        self._expected: Row | None = None
        self.outcome: PredictOutcome | None = None
        with marked(box("d-card", "section"), mark) as self.card:
            self.card.props["aria-label"] = title_of(chosen.model)
            with box("d-card-head"):
                with box("d-grow"):
                    tag("h2", title_of(chosen.model), "d-break")
                    tag("p", f"{chosen.model.uri} · {chosen.model.program.lm.model}", "d-note")
                self._remove = button(
                    self._text("ui.test.remove"),
                    partial(remove, self),
                    mark=f"{mark}-remove",
                    kind="quiet",
                    icon="close",
                    label_hidden=True,
                )
            self._state = Region(self._draw_state)
            self._answer = box("d-stack")
            self._opinion = box("d-stack")
        # In a part that is never drawn anew.
        with self.card:
            self._timer = ui.timer(LOOK_SECONDS, self._tick, active=False)

    async def ask(self, row: Row, caller: Caller, *, seconds: float, cancelled: Event) -> None:
        """Ask the program; what came of it stands in the card afterwards."""
        self.clear()
        self._began = time.monotonic()
        self._remove.disable()
        self._state.draw()
        self._timer.activate()
        patience = Patience(seconds=seconds, cancelled=cancelled, on_phase=self._set_phase)
        call = partial(
            self._page.services.predict.ask, self.chosen.model, row, caller=caller, patience=patience
        )
        try:
            self.outcome = await patiently(call)
        except DSPyUIError as exc:
            self._error = exc
        finally:
            self._began = None
        if self.card.is_deleted:
            return
        self._timer.deactivate()
        self._remove.enable()
        self._state.draw()
        self._draw_opinion()

    def clear(self) -> None:
        """Take the answer away: it is another row's."""
        self.outcome = self._error = None
        self._phase = "queued"
        self._state.draw()
        self._answer.clear()
        self._opinion.clear()

    def show(self, differing: frozenset[str], expected: Row | None) -> None:
        """The answer, beside what the others answered and what was expected."""
        self._answer.clear()
        outcome = self.outcome
        if outcome is None:
            return
        with self._answer:
            if outcome.fault is not None:
                draw_taken(self._text, outcome, mark=f"{self._mark}-answer")
                return
            draw_answer(
                self._text,
                outcome,
                self.chosen.signature.outputs,
                mark=f"{self._mark}-answer",
                expected=expected,
                differing=differing,
            )

    def _set_phase(self, phase: CallPhase) -> None:
        self._phase = phase  # from the thread that asks; the timer shows it

    def _tick(self) -> None:
        self._state.draw()

    def _draw_state(self) -> None:
        text = self._text
        if self._began is not None:
            with marked(box("d-row").props("role=status"), f"{self._mark}-asking"):
                ui.spinner(size="sm").props("aria-hidden=true")
                seconds = formats.duration(time.monotonic() - self._began, text)
                tag("span", text(f"ui.test.phase_{self._phase}"))
                tag("span", seconds, "d-note")
            return
        error = self._error
        if isinstance(error, CancelledError):
            marked(tag("p", text("ui.test.stopped"), "d-warning"), f"{self._mark}-stopped")
        elif error is not None:
            problem(text, sentence(error, text), mark=f"{self._mark}-problem")
        elif self.outcome is None:
            tag("p", text("ui.test.no_answer"), "d-note")
        elif (fault := self.outcome.fault) is not None:
            said = sentence(FailedError(fault.code, **fault.values), text)
            problem(text, said, mark=f"{self._mark}-problem")

    def _draw_opinion(self) -> None:
        if self.outcome is None:
            return
        with self._opinion:
            Opinion(
                self._page.services, self._text, self.outcome, self.chosen.signature.outputs, mark=self._mark
            )
