"""The compile form's menu: begin anew, load something into it, save it as a file."""

from functools import partial
from urllib.parse import quote

from nicegui import ui
from nicegui.events import UploadEventArguments

from dspyui.errors import DSPyUIError
from dspyui.services.documents import dump_spec
from dspyui.services.examples import EXAMPLES
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.components.form import Form
from dspyui.ui.elements import (
    box,
    button,
    confirmed,
    control,
    dialog,
    labelled,
    marked,
    problem,
    sentence,
    tag,
)
from dspyui.ui.form_start import leave_draft, loaded_draft, said, was_changed


def form_menu(form: Form) -> None:
    """The button that opens it."""
    text = form.text
    with button(text("ui.compile.more"), mark="more", icon="more_horiz"), ui.menu():
        for mark, key, action in (
            *(
                (f"start-{name}", f"example.{name}.start", partial(start_anew, form, name))
                for name in (*EXAMPLES, "empty")
            ),
            ("load-spec", "ui.compile.load", partial(_load_dialog, form)),
            ("save-spec", "ui.compile.save", partial(_save, form)),
        ):
            marked(ui.menu_item(text(key), action), mark)


async def start_anew(form: Form, name: str) -> None:
    """Fill the form in with an example, or with nothing; ask first when the visitor's own work goes."""
    text = form.text
    if (form.revision or was_changed()) and not await confirmed(
        text,
        text("ui.compile.anew_title"),
        text("ui.compile.anew_body", start=text(f"example.{name}.start")),
        text("ui.compile.anew_yes"),
    ):
        return
    ui.navigate.to(f"/?start={name}")


def _save(form: Form) -> None:
    try:
        spec = form.draft.to_spec()
    except DSPyUIError as exc:
        notify_error(exc, form.text)
        return
    ui.download.content(dump_spec(spec), "compile.yaml", "application/yaml")


def _load_dialog(form: Form) -> None:
    text = form.text
    with dialog() as made:
        tag("h2", text("ui.compile.load"))
        tag("p", text("ui.compile.load_help"), "d-note")
        shown = box("d-stack")
        upload = ui.upload(
            label=text("ui.compile.spec_file"),
            auto_upload=True,
            max_file_size=form.services.settings.max_upload_mb * 1024**2,
            on_upload=partial(_load, form, shown),
        )
        marked(upload.props("accept=.yaml,.yml,.json flat"), "spec-upload")
        with labelled(text("ui.compile.run_id")), box("d-row"):
            wanted = control(ui.input(), text("ui.compile.run_id"), "load-run-id").classes("d-grow")
            opens = button(text("ui.compile.load_run"), lambda: _open_run(wanted.value), mark="load-run")
            opens.bind_enabled_from(wanted, "value", bool)
        with box("d-actions"):
            button(text("ui.common.close"), made.close, mark="load-close")


def _open_run(run_id: str | None) -> None:
    if run_id and run_id.strip():
        ui.navigate.to(f"/?run={quote(run_id.strip(), safe='')}")


async def _load(form: Form, shown: ui.element, event: UploadEventArguments) -> None:
    try:
        loaded = await off_loop(form.services.reuse.file, await event.file.read())
        draft = await off_loop(loaded_draft, form.services, loaded)
    except DSPyUIError as exc:
        event.sender.run_method("reset")
        shown.clear()
        with shown:
            problem(form.text, sentence(exc, form.text), mark="load-problem")
        return
    leave_draft(draft, said(loaded, form.text))
    ui.navigate.to("/")
