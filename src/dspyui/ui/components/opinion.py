"""A call's trace, and what a person says of it: thumbs, a comment, the output as it should have been."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from nicegui import ui

from dspyui.domain.engine import PredictOutcome
from dspyui.domain.feedback import CallTrace, Feedback
from dspyui.domain.signatures import FieldSpec
from dspyui.errors import BadRequestError, DSPyUIError, UnavailableError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.ui.background import off_loop
from dspyui.ui.components.row_form import RowForm
from dspyui.ui.elements import Region, box, button, control, labelled, link, marked, problem, sentence, tag
from dspyui.ui.visitor import who

LOOK_SECONDS: Final = 0.5


class Opinion:
    """Where the trace is, followed until MLflow has it; and the form that keeps an opinion with it."""

    def __init__(
        self,
        services: Services,
        text: Text,
        outcome: PredictOutcome,
        fields: Sequence[FieldSpec],
        *,
        mark: str,
    ) -> None:
        self._services = services
        self._text = text
        self._outcome = outcome
        self._fields = fields
        self._mark = mark
        self._id = outcome.trace_id or ""
        self._trace: CallTrace | None = None
        self._trace_problem = ""
        self._held = Feedback()
        self._comment = ""
        self._problem: DSPyUIError | None = None
        self._is_busy = self._is_looking = False
        self._correction: RowForm | None = None
        # Whether the form of the correction was changed since it was last stored.
        self._is_correcting = False
        self._shows_unsaved = False
        self._trace_line = Region(self._draw_trace)
        if not self._id:
            return
        self._thumbs = Region(self._draw_thumbs)
        self._more = self._draw_more()
        self._is_correcting = False  # filling the form in was no correction
        self._said = Region(self._draw_said)
        self._timer = ui.timer(LOOK_SECONDS, self._look)

    # The trace.

    def _draw_trace(self) -> None:
        text, mark = self._text, f"{self._mark}-trace"
        with marked(box("d-note").props("role=status"), mark):
            if not self._id:
                is_off = not self._services.settings.mlflow_enabled
                tag("span", text("ui.opinion.off" if is_off else "ui.opinion.no_traces"))
            elif self._trace_problem:
                tag("span", self._trace_problem)
            elif self._trace is None or self._trace.status == "waiting":
                is_ready = self._services.tracking.state().status == "ready"
                tag("span", text("ui.opinion.sending" if is_ready else "ui.opinion.waiting"))
            elif self._trace.status == "refused":
                tag("span", text("ui.opinion.refused"))
            elif self._trace.url:
                link(text("ui.opinion.open"), self._trace.url, mark=f"{mark}-link", outside=True)

    async def _look(self) -> None:
        if self._is_looking:
            return
        self._is_looking = True
        try:
            self._trace, self._trace_problem = await off_loop(self._services.feedback.trace, self._id), ""
        except UnavailableError as exc:
            self._trace_problem = sentence(exc, self._text)
        except DSPyUIError as exc:
            self._trace_problem = sentence(exc, self._text)
            self._timer.deactivate()
        finally:
            self._is_looking = False
        if self._trace_line.is_gone:
            return
        if self._trace is not None and self._trace.status != "waiting" and not self._trace_problem:
            self._timer.deactivate()
        self._trace_line.draw()

    # The opinion.

    def _draw_thumbs(self) -> None:
        text = self._text
        with box("d-row").props(f'role=group aria-label="{text("ui.opinion.title")}"'):
            for is_up, icon, key in ((True, "thumb_up", "up"), (False, "thumb_down", "down")):
                is_chosen = self._held.thumbs_up is is_up
                made = button(
                    text(f"ui.opinion.{key}"),
                    partial(self._press, is_up),
                    mark=f"{self._mark}-{key}",
                    kind="primary" if is_chosen else "plain",
                    icon=icon,
                    label_hidden=True,
                )
                made.props["aria-pressed"] = "true" if is_chosen else "false"
                made.set_enabled(not self._is_busy)

    def _draw_more(self) -> ui.expansion:
        text = self._text
        with marked(ui.expansion(text("ui.opinion.more")), f"{self._mark}-more") as more:
            with labelled(text("ui.opinion.comment"), text("ui.opinion.comment_help")):
                made = ui.textarea(on_change=self._typed).props("autogrow rows=1")
                control(made, text("ui.opinion.comment"), f"{self._mark}-comment")
            # Without an answer there is nothing to correct.
            if self._outcome.fault is None:
                marked(tag("p", text("ui.opinion.correct_lead"), "d-note"), f"{self._mark}-correct")
                answered = self._outcome.outputs
                self._correction = RowForm(
                    text, self._fields, answered, mark=f"{self._mark}-correct", on_change=self._corrects
                )
            with box("d-row"):
                button(text("ui.opinion.save"), self._save, mark=f"{self._mark}-save", icon="check")
        return more

    @property
    def _is_unsaved(self) -> bool:
        return self._is_correcting or self._comment.strip() != self._held.comment

    def _draw_said(self) -> None:
        text = self._text
        with box("d-stack").props("aria-live=polite"):
            if self._problem is not None:
                problem(text, sentence(self._problem, text), mark=f"{self._mark}-opinion-problem")
            elif self._is_unsaved:
                marked(tag("p", text("ui.opinion.unsaved"), "d-note"), f"{self._mark}-unsaved")
            elif not self._held.is_empty:
                said = text("ui.opinion.stored", what=", ".join(self._stored_parts()))
                marked(tag("p", said, "d-note"), f"{self._mark}-stored")

    def _stored_parts(self) -> Iterator[str]:
        text, held = self._text, self._held
        if held.thumbs_up is not None:
            yield text("ui.opinion.up" if held.thumbs_up else "ui.opinion.down")
        if held.comment:
            yield text("ui.opinion.comment")
        if held.correction:
            yield text("ui.opinion.correction")

    def _typed(self, event: Any) -> None:
        self._comment = event.value or ""
        self._show_unsaved()

    def _corrects(self) -> None:
        self._is_correcting = True
        if self._correction is not None:
            self._show_unsaved()

    def _show_unsaved(self) -> None:
        """What is typed is not what is stored; drawn when that changes, not at every key."""
        if self._is_unsaved != self._shows_unsaved:
            self._shows_unsaved = self._is_unsaved
            self._said.draw()

    async def _press(self, is_up: bool) -> None:
        if not is_up:
            # Who finds an answer wrong may know the right one.
            self._more.open()
        await self._give(Feedback(thumbs_up=is_up, comment=self._comment.strip()))

    async def _save(self) -> None:
        """The comment, with the thumb that was pressed; the correction, when a field was changed."""
        correction = self._held.correction
        if self._correction is not None and (changed := self._correction.changed):
            row = self._correction.read(may_be_empty=True)
            if row is None:
                return
            # What was left alone stays as the model gave it, also where the form cannot show it exactly.
            kept = {name: value for name, value in self._outcome.outputs.items() if name not in changed}
            correction = row | kept
        try:
            given = Feedback(
                thumbs_up=self._held.thumbs_up, comment=self._comment.strip(), correction=correction
            )
            if given.is_empty:
                raise BadRequestError("feedback.unchanged")
        except DSPyUIError as exc:
            self._tell(exc)
            return
        was_correcting, self._is_correcting = self._is_correcting, False
        if not await self._give(given):
            self._is_correcting = was_correcting
            return
        with self._more:
            ui.notify(self._text("ui.opinion.saved"), type="positive")

    async def _give(self, given: Feedback) -> bool:
        """Whether it is stored, and the page still there."""
        if self._is_busy:
            return False
        self._is_busy = True
        user = who()  # while what was pressed is still there
        self._thumbs.draw()
        found: DSPyUIError | None = None
        try:
            self._held = await off_loop(partial(self._services.feedback.give, self._id, given, who=user))
        except DSPyUIError as exc:
            found = exc
        finally:
            self._is_busy = False
        if self._thumbs.is_gone:
            return False
        self._thumbs.draw()
        self._tell(found)
        return found is None

    def _tell(self, error: DSPyUIError | None) -> None:
        self._problem = error
        self._shows_unsaved = self._is_unsaved
        self._said.draw()
