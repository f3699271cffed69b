"""Try up to four programs side by side on one input, and say what their answers are worth."""

import asyncio
from collections.abc import Sequence
from functools import partial
from threading import Event
from typing import Any, Final

from nicegui import ui
from nicegui.context import context

from dspyui.domain.batches import BatchModel
from dspyui.domain.engine import MAX_SECONDS
from dspyui.domain.signatures import Row
from dspyui.errors import DSPyUIError
from dspyui.services import Services
from dspyui.services.predict import Caller
from dspyui.services.sample_rows import SampleRows
from dspyui.ui.background import off_loop
from dspyui.ui.bench import MOST_PROGRAMS, Bench, Chosen, differing, matches
from dspyui.ui.components.lane import Lane
from dspyui.ui.components.program_chooser import ProgramChooser
from dspyui.ui.components.row_form import RowForm
from dspyui.ui.components.row_stepper import RowStepper
from dspyui.ui.elements import (
    box,
    button,
    card,
    control,
    help_link,
    labelled,
    marked,
    problem,
    sentence,
    skeleton,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.visitor import who

STOP_SECONDS: Final = 120
# Of a row in an address; Python itself gives up on numbers of thousands of digits.
_MOST_DIGITS: Final = 9


def test_page(services: Services, models: Sequence[str], data: str, row: str) -> None:
    """The page; `models` are those the address names, `data` and `row` (from 1) the row that stands in the form."""
    number = int(row) if row.isdecimal() and len(row) <= _MOST_DIGITS else 0
    with framed(services, "test") as page:
        _Test(page, models, data, max(number - 1, 0))


class _Test:
    """Programs, the row, the answers."""

    def __init__(self, page: Page, models: Sequence[str], data: str, row: int) -> None:
        self._page = page
        self._services = page.services
        self._text = page.text
        self._bench = Bench()
        self._lanes: list[Lane] = []
        self._count = 0
        self._form: RowForm | None = None
        self._rows: RowStepper | None = None
        self._expected: Row | None = None
        self._shown_expected: Row | None = None
        self._stop_seconds: float | None = STOP_SECONDS
        self._cancelled: Event | None = None
        context.client.on_delete(self._stop)
        with page.actions:
            help_link(page.text, "test")
            self._run_button = self._draw_run("test-run")
            self._stop_button = button(self._text("ui.test.stop"), self._stop, mark="test-stop", icon="stop")
        with card(
            self._text("ui.test.programs"), note=self._text("ui.test.programs_lead"), mark="test-programs"
        ):
            self._chooser = ProgramChooser(page, self._choose)
            self._said = box("d-stack").props("aria-live=polite")
        self._input = box("d-stack-16")
        self._answers = marked(box("d-answers"), "test-answers")
        self._show_buttons()
        if models:
            with self._input:
                skeleton(3)
            ui.timer(0.01, partial(self._start, tuple(models), data, row), once=True)
        ui.timer(0.01, self._warm, once=True)

    async def _warm(self) -> None:
        await off_loop(self._services.predict.warm)

    # Programs.

    async def _start(self, models: Sequence[str], data: str, row: int) -> None:
        """What the address asked for."""
        self._input.clear()
        for model in models[:MOST_PROGRAMS]:
            await self._choose(model)
        if data and self._rows is not None:
            await self._rows.choose(data, row)

    async def _choose(self, asked: str | BatchModel) -> None:
        if self._cancelled is not None:
            return
        if isinstance(asked, BatchModel):
            self._add(Chosen(model=asked))
            return
        try:
            model = await off_loop(self._find, asked)
        except DSPyUIError as exc:
            self._tell(exc, asked)
            return
        self._add(Chosen(model=model, asked=asked))

    def _find(self, asked: str) -> BatchModel:
        return self._services.predict.find(asked, from_network=True)

    def _add(self, chosen: Chosen) -> None:
        if self._answers.is_deleted:
            return
        try:
            self._bench.add(chosen)
        except DSPyUIError as exc:
            self._tell(exc)
            return
        self._said.clear()
        self._count += 1
        with self._answers:
            self._lanes.append(Lane(self._page, chosen, f"lane-{self._count}", self._remove))
        if self._form is None:
            self._draw_input(chosen)
        self._programs_changed()

    def _remove(self, lane: Lane) -> None:
        self._bench.programs.remove(lane.chosen)
        self._lanes.remove(lane)
        lane.card.delete()
        if not self._lanes:
            self._input.clear()
            self._form = self._rows = self._expected = None
        self._programs_changed()
        self._show_answers()

    def _programs_changed(self) -> None:
        self._show_buttons()
        self._keep_address()
        if self._rows is not None:
            samples = self._samples()
            self._rows.offer(samples.sources([chosen.model for chosen in self._bench.programs]))

    def _tell(self, error: DSPyUIError, asked: str = "") -> None:
        self._said.clear()
        with self._said:
            retry = partial(self._choose, asked) if asked else None
            problem(self._text, sentence(error, self._text), retry=retry, mark="test-problem")

    def _keep_address(self) -> None:
        rows = self._rows
        address = self._bench.address(rows.key, rows.index) if rows else self._bench.address()
        # What was clicked may have been drawn anew since, and with it the place that NiceGUI knows the client by.
        with self._answers:
            ui.navigate.history.replace(address)

    # The row.

    def _samples(self) -> SampleRows:
        services = self._services
        return SampleRows(services.data, services.uploads, services.runs, services.job_store)

    def _draw_input(self, chosen: Chosen) -> None:
        text = self._text
        with self._input, card(text("ui.test.input"), mark="test-input"):
            self._rows = RowStepper(text, self._samples(), chosen.signature, self._show_row)
            self._form = RowForm(text, chosen.signature.inputs, mark="input")
            with labelled(text("ui.test.seconds"), text("ui.test.seconds_help")):
                made = ui.number(
                    value=STOP_SECONDS, min=1, max=MAX_SECONDS, precision=0, on_change=self._set_seconds
                )
                control(made, text("ui.test.seconds"), "test-seconds")
            # On a phone the one at the top is far away by now.
            with box("d-row"):
                self._draw_run("test-run-here").bind_visibility_from(self._run_button)

    def _draw_run(self, mark: str) -> ui.button:
        return button(self._text("ui.try.run"), self._run, mark=mark, kind="primary", icon="play_arrow")

    def _set_seconds(self, event: Any) -> None:
        self._stop_seconds = event.value

    def _show_row(self, row: Row | None) -> None:
        """A row of a table: its inputs in the form, its outputs beside the answers to come."""
        self._stop()
        for lane in self._lanes:
            lane.clear()
        self._expected = row
        if row is not None and self._form is not None:
            self._form.fill(row)
        self._keep_address()

    # The answers.

    async def _run(self) -> None:
        if self._cancelled is not None:
            return
        if not self._lanes:
            await self._chooser.add()
        if self._form is None:
            return
        row = self._form.read()
        if row is None:
            return
        cancelled = self._cancelled = Event()
        self._show_buttons()
        caller = Caller(who=who(), source="test")
        seconds = min(max(self._stop_seconds or STOP_SECONDS, 1), MAX_SECONDS)
        self._shown_expected = self._expected_of(row)

        async def ask(lane: Lane) -> None:
            await lane.ask(row, caller, seconds=seconds, cancelled=cancelled)
            if not self._answers.is_deleted:
                self._show_answers()

        try:
            await asyncio.gather(*map(ask, self._lanes))
        finally:
            self._cancelled = None
        if not self._answers.is_deleted:
            self._show_buttons()

    def _expected_of(self, row: Row) -> Row | None:
        """The outputs of the table's row, as long as its inputs are still what is asked."""
        if self._expected is None:
            return None
        inputs = self._bench.programs[0].signature.inputs
        is_same = all(matches(field, row[field.name], self._expected.get(field.name)) for field in inputs)
        return self._expected if is_same else None

    def _show_answers(self) -> None:
        differs = differing([lane.outcome for lane in self._lanes])
        for lane in self._lanes:
            lane.show(differs, self._shown_expected)

    def _stop(self) -> None:
        if self._cancelled is not None:
            self._cancelled.set()

    def _show_buttons(self) -> None:
        is_asking = self._cancelled is not None
        self._chooser.set_enabled(not is_asking)
        self._run_button.set_visibility(not is_asking)
        self._stop_button.set_visibility(is_asking)
