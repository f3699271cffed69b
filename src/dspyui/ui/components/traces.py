"""The traces of a Run or a version: filtered and paged by MLflow, each with a link to MLflow's own page."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from nicegui import ui
from nicegui.context import context

from dspyui.domain.trace_list import (
    ASSESSMENT_KINDS,
    MAX_TRACE_FILTER,
    TRACE_PHASES,
    TRACE_STATES,
    ListedTrace,
    TraceAssessment,
    TracePage,
    TraceQuery,
)
from dspyui.ui import formats
from dspyui.ui.background import Loaded
from dspyui.ui.components.pager import draw_turns
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import (
    Region,
    Tone,
    beside,
    box,
    button,
    card,
    chip,
    control,
    folding,
    link,
    link_button,
    marked,
    tag,
    time_of,
)
from dspyui.ui.frame import Page
from dspyui.ui.trace_views import readable, said_in_short, trace_parameters, trace_query, verdict

Owner = Literal["run", "version"]
ReadTraces = Callable[[TraceQuery, str | None], TracePage]
TRACE_TONES: Final[dict[str, Tone]] = {"OK": "good", "ERROR": "bad", "IN_PROGRESS": "accent"}
_TONES: Final[dict[bool | None, Tone]] = {True: "good", False: "bad", None: ""}
# A longer assessment is text to be read, not a label.
MAX_CHIP: Final = 40
_ADDRESS: Final = """const to = new URL(location.href);
for (const [name, value] of Object.entries(%s))
  value === null ? to.searchParams.delete(name) : to.searchParams.set(name, value);
history.replaceState(history.state, '', to)"""


class TracesCard:
    """Filters, a page of the list, and the buttons that turn it. `read` asks for a page; it runs in a thread."""

    def __init__(self, page: Page, owner: Owner, read: ReadTraces) -> None:
        self._page = page
        self._text = page.text
        self._owner: Owner = owner
        self._ask_for = read
        request = context.client.request
        self._query = trace_query(request.query_params if request is not None else {})
        # What each page is asked with: the first with nothing, each other with what the one before it told.
        self._tokens: list[str | None] = [None]
        self._at = 0
        text = page.text
        with card(text("ui.traces.title"), note=text(f"ui.traces.lead_{owner}"), mark="traces") as aside:
            with aside:
                button(
                    text("ui.traces.refresh"),
                    self._reload,
                    mark="traces-refresh",
                    kind="quiet",
                    icon="refresh",
                    label_hidden=True,
                )
            self._filters = Region(self._draw_filters, "d-row d-filters")
            self._loaded = Loaded(text, self._read, self._draw, framed=False)

    # Reading.

    def _read(self) -> TracePage:
        """In a thread; when something else was asked for meanwhile, that is read instead."""
        while True:
            asked = (self._query, self._tokens[self._at])
            found = self._ask_for(*asked)
            if asked == (self._query, self._tokens[self._at]):
                return found

    async def _reload(self) -> None:
        await self._loaded.reload()

    async def _ask(self, **changes: Any) -> None:
        """Look for something else; the address follows, so that the view can be shared."""
        named = bool(self._query.assessment)
        self._query = self._query.model_copy(update=changes)
        # In this order: a thread may just be reading.
        self._at = 0
        del self._tokens[1:]
        ui.run_javascript(_ADDRESS % json.dumps(trace_parameters(self._query)))
        if bool(self._query.assessment) != named:
            self._value.set_enabled(not named)
        await self._loaded.reload()

    async def _ask_all(self) -> None:
        everything = {name: value for name, value in TraceQuery() if name != "size"}
        self._query = self._query.model_copy(update=everything)
        self._filters.draw()
        await self._ask()

    async def _turn(self, step: int) -> None:
        # The buttons of a page that is just being left can be clicked once more.
        self._at = min(max(self._at + step, 0), len(self._tokens) - 1)
        await self._loaded.reload()

    # The filters.

    def _draw_filters(self) -> None:
        text, query = self._text, self._query
        states = {
            "": text("ui.traces.any_state"),
            **{state: text(f"trace_state.{state}") for state in TRACE_STATES},
        }
        chosen = ui.select(states, value=query.status or "")
        control(chosen, text("ui.traces.state"), "traces-status").on_value_change(
            lambda event: self._ask(status=event.value or None)
        )
        if self._owner == "run":
            self._draw_phases()
        self._words("text", text("ui.traces.text"))
        self._number("min_ms", text("ui.traces.min_ms"))
        self._number("min_tokens", text("ui.traces.min_tokens"))
        with beside(text("ui.traces.by_assessment")):
            kinds = {kind: text(f"ui.traces.{kind}") for kind in ASSESSMENT_KINDS}
            kind = ui.select(kinds, value=query.assessed)
            control(kind, text("ui.traces.assessed"), "traces-assessed").on_value_change(
                lambda event: self._ask(assessed=event.value)
            )
            name = self._words("assessment", text("ui.traces.assessment"))
            name.props["title"] = text("ui.traces.assessment_help")
            self._value = self._words("value", text("ui.traces.value"))
            self._value.set_enabled(bool(query.assessment))

    def _draw_phases(self) -> None:
        text = self._text
        names = {phase: text(f"trace_phase.{phase}") for phase in TRACE_PHASES}
        chosen = ui.select({"": text("ui.traces.any_phase"), **names}, value=self._query.phase or "")
        control(chosen, text("ui.traces.phase"), "traces-phase").on_value_change(
            lambda event: self._ask(phase=event.value or None)
        )

    def _words(self, name: str, label: str) -> ui.input:
        made = ui.input(value=getattr(self._query, name), placeholder=label)
        control(made, label, f"traces-{name}")
        made.props(f"debounce=300 clearable maxlength={MAX_TRACE_FILTER}")

        async def changed(value: str | None) -> None:
            asked: dict[str, Any] = {name: (value or "")[:MAX_TRACE_FILTER]}
            if name == "assessment" and not asked[name].strip():
                # A value says nothing without the name of what has it.
                asked |= {"assessment": "", "value": ""}
                self._value.set_value("")
            await self._ask(**asked)

        made.on_value_change(lambda event: changed(event.value))
        return made

    def _number(self, name: str, label: str) -> None:
        made = ui.number(value=getattr(self._query, name) or None, min=0, precision=0, placeholder=label)
        control(made, label, f"traces-{name}").props("debounce=300 clearable")
        made.on_value_change(lambda event: self._ask(**{name: max(0, int(event.value or 0))}))

    # The list.

    def _draw(self, found: TracePage) -> None:
        if found.next_token is not None and self._at + 1 == len(self._tokens):
            self._tokens.append(found.next_token)
        if self._query.min_tokens:
            marked(tag("p", self._text("ui.traces.tokens_note"), "d-note"), "traces-note")
        if not found.traces and self._at == 0:
            self._draw_none()
            return
        self._draw_table(found)
        self._draw_pager(found)

    def _draw_none(self) -> None:
        text = self._text
        if self._query.is_filtered:
            with marked(box("d-empty"), "traces-no-fit"):
                tag("p", text("ui.traces.none_fit"))
                button(text("ui.traces.show_all"), self._ask_all, mark="traces-all")
            return
        with marked(box("d-empty"), "traces-empty"):
            tag("p", text(f"ui.traces.empty_{self._owner}"))
            if self._owner == "version":
                link_button(text("ui.traces.to_batch"), "/batch", mark="traces-batch", icon="playlist_play")
            else:
                link_button(text("ui.traces.to_waiting"), "/settings", mark="traces-waiting", icon="outbox")

    def _draw_table(self, found: TracePage) -> None:
        text = self._text
        has_phase, has_score = (
            any(trace.phase for trace in found.traces),
            any(trace.score is not None for trace in found.traces),
        )
        table = Table(
            [
                Column(text("ui.traces.call")),
                *([Column(text("ui.traces.phase"))] if has_phase else []),
                *([Column(text("ui.traces.score"), number=True)] if has_score else []),
                Column(text("ui.traces.inputs")),
                Column(text("ui.traces.outputs")),
                Column(text("ui.traces.tokens_cost"), number=True),
                Column(text("ui.traces.latency"), number=True),
                Column(text("ui.traces.assessments")),
            ],
            pairs=True,
        )
        for trace in found.traces:
            with table.row():
                table.cell(partial(self._call, trace))
                if has_phase:
                    table.cell(self._phase(trace))
                if has_score:
                    table.cell(formats.score(trace.score))
                table.cell(partial(folding, readable(trace.inputs) or "–"))
                table.cell(partial(self._outputs, trace))
                table.cell(partial(self._spent, trace))
                seconds = None if trace.latency_ms is None else trace.latency_ms / 1000
                table.cell(self._latency(seconds))
                table.cell(partial(self._assessments, trace) if trace.assessments else "–")

    def _call(self, trace: ListedTrace) -> None:
        text = self._text
        key = f"trace_state.{trace.state}"
        said = text(key) if text.has(key) else trace.state
        chip(said, TRACE_TONES.get(trace.state, ""), mark=f"state-{trace.trace_id}")
        with box("d-note"):
            time_of(trace.started_at, self._page.visitor)
        with box("d-note"):
            mark = f"trace-{trace.trace_id}"
            shown = link(text("ui.traces.open"), trace.url, mark=mark, outside=True)
            shown.props["title"] = text("ui.common.in_mlflow")

    def _phase(self, trace: ListedTrace) -> str:
        """Of a later version's compile it may be a step that is not known here."""
        key = f"trace_phase.{trace.phase}"
        return self._text(key) if self._text.has(key) else trace.phase or "–"

    def _outputs(self, trace: ListedTrace) -> None:
        folding(readable(trace.outputs) or "–")
        if trace.expected:
            with box("d-note"):
                tag("div", self._text("ui.traces.expected"))
                folding(readable(trace.expected))

    def _spent(self, trace: ListedTrace) -> None:
        shown = tag("div", "–" if trace.total_tokens is None else formats.count(trace.total_tokens))
        if trace.input_tokens is not None and trace.output_tokens is not None:
            counts = {"input": trace.input_tokens, "output": trace.output_tokens}
            shown.props["title"] = self._text("ui.traces.in_and_out", **counts)
        if trace.cost is not None:
            tag("div", formats.cost(trace.cost), "d-note")

    def _latency(self, seconds: float | None) -> str:
        if seconds is not None and seconds < 1:
            return self._text("ui.traces.milliseconds", count=round(seconds * 1000))
        return formats.duration(seconds, self._text)

    def _assessments(self, trace: ListedTrace) -> None:
        for number, said in enumerate(trace.assessments):
            with marked(box(), f"assessment-{trace.trace_id}-{number}"):
                self._assessment(said)

    def _assessment(self, said: TraceAssessment) -> None:
        text = self._text
        value = text("ui.traces.failed", problem=said.error) if said.error else said_in_short(said)
        label = text(f"ui.traces.said_{said.kind}", name=said.name, value=value)
        who = " ".join(part for part in (said.source, said.source_id) if part)
        if len(label) <= MAX_CHIP:
            chip(label, _TONES[verdict(said)]).props["title"] = who
        else:
            folding(label).props["title"] = who
        if said.rationale:
            with box("d-note"):
                folding(said.rationale)

    def _draw_pager(self, found: TracePage) -> None:
        draw_turns(
            self._text,
            self._at * self._query.size + 1,
            len(found.traces),
            self._turn,
            has_more=found.next_token is not None,
            noun="traces",
            mark="traces",
        )
