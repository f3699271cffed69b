"""The card on a version's page that moves it from stage to stage: why, what the gate says, one click."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from nicegui import ui

from dspyui.domain.promotions import GateReport
from dspyui.domain.registry import STAGES, ModelVersion, Stage
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.elements import box, button, card, chip, control, help_link, labelled, marked, tag
from dspyui.ui.model_views import GATE_TONES, STAGE_TONES
from dspyui.ui.visitor import who

OnMoved = Callable[[], Awaitable[None]]
# The order in which a version goes through them; the main one of the next steps stands out.
_NEXT: dict[Stage, Stage] = {"None": "Staging", "Staging": "Production", "Archived": "Staging"}


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What can be done next: what the gate says, and what a rollback would put back."""

    gate: GateReport | None
    rollback: int | None


class StageCard:
    """Draws itself; `on_moved` is called when a version has moved, and draws the page anew."""

    def __init__(self, services: Services, text: Text, version: ModelVersion, on_moved: OnMoved) -> None:
        self._services = services
        self._text = text
        self._version = version
        self._on_moved = on_moved
        self._buttons: dict[str, ui.button] = {}
        self._confirm: ui.input | None = None
        self._is_busy = False
        with card(text("ui.stage.title"), note=text("ui.stage.lead"), mark="stage-card") as aside:
            with aside:
                help_link(text, "versions")
                chip(text(f"stage.{version.stage}"), STAGE_TONES[version.stage], mark="stage")
            self._draw_outside()
            with labelled(text("ui.stage.why"), text("ui.stage.why_help")):
                self._why = control(ui.input(), text("ui.stage.why"), "stage-why").props("maxlength=2000")
            Loaded(text, self._read, self._draw_ahead, lines=2)

    def _draw_outside(self) -> None:
        if self._version.is_changed_outside:
            stage = self._text(f"stage.{self._version.mlflow_stage}")
            aliases = ", ".join(self._version.aliases) or "–"
            said = self._text("ui.stage.outside", stage=stage, aliases=aliases)
            marked(tag("p", said, "d-warning"), "changed-outside")

    def _read(self) -> _Ahead:
        version, models = self._version, self._services.models
        if version.stage == "Production":
            return _Ahead(gate=None, rollback=models.rollback_target(version.name))
        return _Ahead(gate=models.gate(version.name, version.version), rollback=None)

    def _draw_ahead(self, ahead: _Ahead) -> None:
        text, version = self._text, self._version
        if ahead.gate is not None:
            self._draw_gate(ahead.gate)
        elif version.stage != "Production":
            marked(tag("p", text("ui.stage.gate_off"), "d-note"), "gate-off")
        with box("d-row"):
            for stage in STAGES:
                if stage != version.stage or version.is_changed_outside:
                    self._draw_button(stage, ahead.gate)
            if ahead.rollback is not None:
                self._buttons["rollback"] = button(
                    text("ui.stage.roll_back", version=ahead.rollback),
                    self._roll_back,
                    mark="roll-back",
                    icon="undo",
                )

    def _draw_gate(self, gate: GateReport) -> None:
        text = self._text
        with marked(box("d-stack"), "gate"):
            with box("d-row"):
                tag("span", text("ui.stage.gate"), "d-label")
                chip(text(f"ui.stage.word_{gate.word}"), GATE_TONES[gate.word], mark="gate-word")
            marked(tag("p", gate.result.sentence(text.language), "d-break"), "gate-result")
            if gate.is_refused:
                marked(tag("p", text("ui.stage.refused"), "d-note"), "gate-refused")
            if gate.needs_confirmation:
                label = text("ui.stage.confirm", name=gate.name)
                with labelled(label):
                    self._confirm = control(ui.input(), label, "gate-confirm")

    def _draw_button(self, stage: Stage, gate: GateReport | None) -> None:
        made = button(
            self._text(f"ui.stage.to_{stage}"),
            partial(self._move, stage, gate),
            mark=f"to-{stage.lower()}",
            kind="primary" if stage == _NEXT.get(self._version.stage) else "plain",
        )
        if stage == "Production" and gate is not None and gate.is_refused:
            made.set_enabled(False)
        self._buttons[stage] = made

    async def _move(self, stage: Stage, gate: GateReport | None) -> None:
        version = self._version
        confirm = self._confirm.value or "" if self._confirm is not None else ""
        call = partial(
            self._services.models.move,
            version.name,
            version.version,
            stage,
            who=who(),
            why=self._why.value or "",
            confirm=confirm,
            # What the gate says here was said against this one; somebody may have promoted another meanwhile.
            holder=None if gate is None else gate.holder or 0,
        )
        await self._do(call, self._buttons[stage])

    async def _roll_back(self) -> None:
        version = self._version
        call = partial(
            self._services.models.roll_back,
            version.name,
            who=who(),
            why=self._why.value or "",
            holder=version.version,
        )
        await self._do(call, self._buttons["rollback"])

    async def _do(self, call: partial[ModelVersion], pressed: ui.button) -> None:
        if self._is_busy:
            return
        self._is_busy = True
        pressed.props("loading")
        try:
            moved = await off_loop(call)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            if exc.code == "registry.no_why":
                self._why.run_method("focus")
            return
        finally:
            self._is_busy = False
            pressed.props(remove="loading")
        stage = self._text(f"stage.{moved.stage}")
        said = self._text("ui.register.version", name=moved.name, version=moved.version, stage=stage)
        ui.notify(said, type="positive")
        await self._on_moved()
