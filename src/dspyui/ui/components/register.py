"""The dialog that registers a job's program, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from nicegui import ui
from nicegui.context import context

from dspyui.domain.intervals import UNPROVEN, Word
from dspyui.domain.registry import STAGES, ModelVersion, Stage, check_model_name
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.ui.background import off_loop
from dspyui.ui.elements import (
    Region,
    box,
    button,
    control,
    dialog,
    dialog_actions,
    labelled,
    link,
    marked,
    problem,
    sentence,
    tag,
)
from dspyui.ui.visitor import who


@dataclass(slots=True)
class _Asked:
    name: str
    description: str = ""
    stage: Stage = "None"
    confirm: str = ""
    why: str = ""


class Registration:
    """Registers one job's program; `open` shows how that stands, as often as it is asked.

    The work does not belong to the dialog: closing that stops nothing, opening it again begins nothing anew, and what
    came of it is told on the page when the dialog is closed by then.
    """

    def __init__(
        self, services: Services, text: Text, job_id: str, name: str, gained: Callable[[], Word | None]
    ) -> None:
        """`gained` says what may be said of the difference that the compile made, once it has ended."""
        self._services = services
        self._text = text
        self._job_id = job_id
        self._gained = gained
        self._client = context.client
        self._asked = _Asked(name=name)
        self._is_busy = False
        self._problem = ""
        # The gate before Production wants the model's name typed.
        self._needs_confirmation = False
        self._version: ModelVersion | None = None
        self._was_seen = False
        self._dialog: ui.dialog | None = None
        self._region: Region | None = None

    def open(self) -> None:
        """Show the dialog: name and rule, description, stage; then the version that was made."""
        if self._was_seen:
            # Registered, seen, and asked for again: under another name it is another version.
            self._version, self._was_seen = None, False
        if self._dialog is not None and not self._dialog.is_deleted:
            self._dialog.delete()
        with dialog() as self._dialog:
            self._region = Region(self._draw, "d-stack-16")

    @property
    def _is_open(self) -> bool:
        return self._dialog is not None and not self._dialog.is_deleted and bool(self._dialog.value)

    def _draw(self) -> None:
        if self._version is not None:
            self._draw_done(self._version)
        elif self._is_busy:
            self._draw_busy()
        else:
            self._draw_form()

    def _draw_form(self) -> None:
        text, asked = self._text, self._asked
        tag("h2", text("ui.register.title"))
        with labelled(text("ui.register.name"), text("ui.register.rule")):
            self._name = ui.input(validation=self._name_problem).bind_value(asked, "name")
            control(self._name, text("ui.register.name"), "register-name")
        with labelled(text("ui.register.description")):
            area = ui.textarea().bind_value(asked, "description")
            control(area, text("ui.register.description"), "register-description").props("autogrow rows=2")
        with labelled(text("ui.register.stage")):
            options = {stage: text(f"stage.{stage}") for stage in STAGES if stage != "Archived"}
            stages = ui.select(options).bind_value(asked, "stage")
            control(stages, text("ui.register.stage"), "register-stage")
            note = marked(tag("p", text("ui.register.stage_help"), "d-note"), "register-stage-note")
            # Without a stage no other version loses its own.
            note.bind_visibility_from(asked, "stage", _is_stage)
        self._draw_why()
        if self._problem:
            problem(text, self._problem, mark="register-problem")
        if self._needs_confirmation:
            self._draw_confirm()
        self._draw_actions(text("ui.register.confirm"))

    def _draw_confirm(self) -> None:
        asked, label = self._asked, self._text("ui.stage.confirm", name=self._asked.name)
        with labelled(label) as field:
            control(ui.input().bind_value(asked, "confirm"), label, "register-gate-confirm")
        field.bind_visibility_from(asked, "stage", lambda stage: stage == "Production")

    def _draw_why(self) -> None:
        text, asked, word = self._text, self._asked, self._gained()
        if word in UNPROVEN:
            said = text("ui.register.unproven", word=text(f"ui.result.{word}"))
            warning = marked(tag("p", said, "d-warning"), "register-unproven")
            warning.bind_visibility_from(asked, "stage", _is_stage)
        with labelled(text("ui.register.why"), text("ui.register.why_help")) as field:
            why = ui.input().bind_value(asked, "why").props("maxlength=2000")
            control(why, text("ui.register.why"), "register-why")
        field.bind_visibility_from(asked, "stage", _is_stage)

    def _draw_actions(self, label: str) -> None:
        if self._dialog is not None:
            dialog_actions(self._text, self._dialog, label, self._register, mark="register")

    def _draw_busy(self) -> None:
        text = self._text
        tag("h2", text("ui.register.title"))
        with marked(box("d-row").props("role=status"), "register-busy"):
            ui.spinner(size="sm").props("aria-hidden=true")
            tag("p", text("ui.register.busy"), "d-grow")
        self._draw_close()

    def _draw_close(self) -> None:
        if self._dialog is not None:
            with box("d-actions"):
                button(self._text("ui.common.close"), self._dialog.close, mark="register-close")

    def _name_problem(self, value: str | None) -> str | None:
        try:
            check_model_name(value or "")
        except DSPyUIError as exc:
            return sentence(exc, self._text)
        return None

    async def _register(self) -> None:
        if self._is_busy:
            # A double click: the second version would be refused, and hide that the first was made.
            return
        if not self._name.validate():
            # The reason stands at the field.
            self._name.run_method("focus")
            return
        self._is_busy, self._problem = True, ""
        asked = self._asked
        call = partial(
            self._services.register.register_job,
            self._job_id,
            name=asked.name,
            who=who(),
            description=asked.description,
            stage=asked.stage,
            confirm=asked.confirm,
            why=asked.why,
        )
        self._redraw()
        try:
            self._version = await off_loop(call)
        except DSPyUIError as exc:
            self._problem = sentence(exc, self._text)
            self._needs_confirmation = exc.code == "gate.confirm"
        finally:
            self._is_busy = False
        self._tell()

    def _redraw(self) -> None:
        if self._region is not None and self._is_open:
            self._region.draw()

    def _tell(self) -> None:
        """In the dialog while it is open, else as a notice on the page; on no page when that is gone."""
        if self._is_open:
            self._redraw()
            return
        if self._client.is_deleted:
            return
        said = self._done_words(self._version) if self._version else self._failed_words()
        with self._client.content:
            ui.notify(
                said,
                type="positive" if self._version else "negative",
                multi_line=True,
                timeout=10000,
                close_button=self._text("ui.common.close"),
            )

    def _done_words(self, version: ModelVersion) -> str:
        text = self._text
        stage = text(f"stage.{version.stage}")
        said = text("ui.register.version", name=version.name, version=version.version, stage=stage)
        return text("ui.register.told", version=said)

    def _failed_words(self) -> str:
        return self._text("ui.register.failed", name=self._asked.name, problem=self._problem)

    def _draw_done(self, version: ModelVersion) -> None:
        text = self._text
        self._was_seen = True
        tag("h2", text("ui.register.done"))
        stage = text(f"stage.{version.stage}")
        said = text("ui.register.version", name=version.name, version=version.version, stage=stage)
        marked(tag("p", said, "d-break"), "registered")
        with box("d-stack"):
            link(text("ui.register.open"), version_address(version), mark="registered-link")
            link(text("ui.common.in_mlflow"), version.url, mark="registered-mlflow", outside=True)
        self._draw_close()


def _is_stage(stage: Stage) -> bool:
    return stage != "None"


def version_address(version: ModelVersion) -> str:
    """The page of a version. A name may hold anything a path may not."""
    return f"/models/{quote(version.name, safe='')}/{version.version}"
