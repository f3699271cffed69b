"""Beside the compile form: what will be compiled, in short, and what still keeps it from being compiled."""

from functools import partial
from typing import Final

from nicegui import ui

from dspyui.domain.estimates import Estimate
from dspyui.domain.lms import LMRoles
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.domain.programs import MODULES
from dspyui.errors import DSPyUIError
from dspyui.services.documents import part_of
from dspyui.services.estimates import estimate
from dspyui.ui import formats
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.components.data import DataPanel
from dspyui.ui.components.form import Form
from dspyui.ui.components.optimizer import rows_problem, size_warnings
from dspyui.ui.draft_problems import Problem, problems
from dspyui.ui.elements import Region, box, button, card, fact, facts, marked, sentence, tag
from dspyui.ui.form_start import keep_draft
from dspyui.ui.visitor import who

_SHOW_PROBLEM: Final = """
document.querySelector('[data-testid=form-problem-0]')?.scrollIntoView({block: 'center', behavior: 'smooth'})"""


class Rail:
    """What will be compiled, in short, and what still keeps it from being compiled."""

    def __init__(self, form: Form, data: DataPanel) -> None:
        self._form = form
        self._data = data
        self._seen = -1
        self._busy = False
        self._starting = False
        self._problems: list[Problem] = []
        self._estimate: Estimate | None = None
        self.button: ui.button | None = None
        with card(form.text("ui.compile.summary"), mark="summary"):
            self._region = Region(self._draw, "d-stack")
            # The form is long: at its end, or beside it, the main action is at hand.
            button(
                form.text("ui.compile.start"), self.start, mark="compile-here", kind="primary", icon="bolt"
            )

    async def look(self) -> None:
        """Check the form when it has changed since the last look, and keep it for the next visit."""
        if self._busy or self._seen == self._form.revision:
            return
        self._busy = True
        try:
            await self._check()
        finally:
            self._busy = False

    async def _check(self) -> None:
        self._seen = self._form.revision
        found = problems(self._form.draft)
        error = await self._data.check()
        if error is not None:
            # The whole request is wrong for the same reason; said once, at its place.
            found = [other for other in found if other.error.code != error.code]
            # In red it stands where the data is shown.
            found.append(Problem.of("data", error, is_open=True))
        if self._data.preview and not found:
            unfit = rows_problem(self._form.draft, self._data.preview.split_sizes)
            found += [Problem.of("optimizer", unfit)] if unfit else []
        self._estimate = None if found else self._reckoned()
        self._problems = [*found, *self._missing_keys(found)]
        self._region.draw()
        if self._seen > 0:
            keep_draft(self._form.draft, is_changed=True)

    def _reckoned(self) -> Estimate | None:
        """What the compile will ask of models; a missing key does not change it."""
        preview = self._data.preview
        if preview is None:
            return None
        try:
            return estimate(self._form.draft.to_spec(), preview, self._form.services.lms)
        except DSPyUIError:
            # What is wrong is among the problems.
            return None

    def _missing_keys(self, found: list[Problem]) -> list[Problem]:
        """A key that the job would miss, when the language models are otherwise as they should be."""
        if any(other.place == "lm" for other in found):
            return []
        try:
            self._form.services.jobs.check_keys(part_of(LMRoles, self._form.draft.lms_document()))
        except DSPyUIError as exc:
            return [Problem.of("lm", exc)]
        return []

    def _draw(self) -> None:
        text, draft = self._form.text, self._form.draft
        with facts():
            fact(text("ui.program.module"), MODULES[draft.module].label)
            fact(
                text("ui.optimizer.kind"),
                text("optimizer.none.label")
                if draft.optimizer == "none"
                else OPTIMIZERS[draft.optimizer].label,
            )
            fact(text("ui.lm.title"), draft.task.document()["model"] or "–")
            if preview := self._data.preview:
                sizes = " / ".join(formats.count(size) for size in preview.split_sizes.values())
                fact(text("ui.compile.rows"), formats.count(preview.rows))
                fact(text("ui.compile.sizes"), sizes)
        if self._estimate is not None:
            self._draw_estimate(self._estimate)
        if self._data.preview and not self._problems:
            size_warnings(self._form, self._data.preview.split_sizes)
        for index, found in enumerate(self._problems):
            said = text(
                "ui.compile.problem",
                place=text(f"ui.place.{found.place}"),
                problem=sentence(found.error, text),
            )
            tone = "d-hint" if found.is_open else "d-problem"
            with marked(box(tone).props("role=status"), f"form-problem-{index}"):
                tag("div", said)
        if not self._problems and self._seen >= 0:
            marked(tag("p", text("ui.compile.ready"), "d-note"), "form-ready")

    def _draw_estimate(self, found: Estimate) -> None:
        text, asked = self._form.text, found.asked
        with marked(box("d-stack"), "estimate"):
            with facts():
                fact(text("ui.compile.calls"), text("ui.compile.at_most", count=formats.count(asked.calls)))
                fact(
                    text("ui.compile.tokens"),
                    text("ui.compile.about", count=formats.about(asked.total_tokens)),
                )
                fact(text("ui.compile.cost"), self._cost(found.cost))
            tag("p", text("ui.compile.estimate_help"), "d-note")

    def _cost(self, cost: float | None) -> str:
        text = self._form.text
        if cost is None:
            return text("ui.compile.cost_unknown")
        if cost == 0:
            return text("ui.compile.cost_none")
        return text("ui.compile.cost_at_most", cost=formats.cost(cost))

    async def start(self) -> None:
        """Check once more, then queue the job and go to its page; a double click queues one job."""
        if self._starting:
            return
        self._starting = True
        try:
            await self._start()
        finally:
            self._starting = False

    async def _start(self) -> None:
        form, text = self._form, self._form.text
        await self._check()
        if self._problems:
            # It stands in the summary, which on a phone is far away; a toast would say it once more, over the button.
            ui.run_javascript(_SHOW_PROBLEM)
            return
        if self.button is not None:
            self.button.props("loading")
        try:
            spec = form.draft.to_spec()
            job = await off_loop(partial(form.services.jobs.submit, spec, who=who(), seen=self._data.seen))
        except DSPyUIError as exc:
            notify_error(exc, text)
            if self.button is not None:
                self.button.props(remove="loading")
            return
        # The button goes on turning until the job's page is there.
        ui.navigate.to(f"/jobs/{job.id}")
