"""What can be done to a job from its page and from the list: rename it, note on it, delete it."""

from collections.abc import Callable
from functools import partial

from nicegui import ui

from dspyui.domain.jobs import MAX_NOTE, MAX_TITLE, Job, check_note, check_title
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.elements import (
    box,
    confirmed,
    control,
    dialog,
    dialog_actions,
    labelled,
    problem,
    sentence,
    tag,
)


async def delete_job(services: Services, text: Text, job: Job) -> bool:
    """Ask once, in words that name what is lost, and delete; tells whether it was done."""
    try:
        record = await off_loop(services.jobs.record, job.id)
        said = [text("ui.jobs.delete_body", title=job.title, job=job.id)]
        if record.status == "pending" and record.run_id is None:
            said.append(text("ui.jobs.delete_lost"))
        elif record.status == "pending":
            said.append(text("ui.jobs.delete_half", run_id=record.run_id))
        body = text.in_a_row(said)
        if not await confirmed(text, text("ui.jobs.delete_title"), body, text("ui.jobs.delete_yes")):
            return False
        await off_loop(partial(services.jobs.delete, job.id, even_unsent=record.status == "pending"))
    except DSPyUIError as exc:
        notify_error(exc, text)
        return False
    return True


class DescribeDialog:
    """Opens at once: title and note of a job. The page is read again when they are kept."""

    def __init__(self, services: Services, text: Text, job: Job) -> None:
        self._services = services
        self._text = text
        self._job = job
        with dialog() as self._dialog:
            tag("h2", text("ui.job.edit_title"))
            tag("p", text("ui.job.edit_lead"), "d-note")
            with labelled(text("ui.job.title")):
                made = ui.input(value=job.title, validation=partial(self._problem, check_title))
                self._title = control(made, text("ui.job.title"), "job-title").props(f"maxlength={MAX_TITLE}")
            with labelled(text("ui.job.note"), text("ui.job.note_help")):
                area = ui.textarea(value=job.note or "", validation=partial(self._problem, check_note))
                self._note = control(area, text("ui.job.note"), "job-note").props(
                    f"autogrow rows=3 maxlength={MAX_NOTE}"
                )
            self._shown = box("d-stack").props("aria-live=polite")
            dialog_actions(text, self._dialog, text("ui.job.save"), self._save, mark="describe")

    def _problem(self, check: Callable[[str], str], value: str | None) -> str | None:
        try:
            check(value or "")
        except DSPyUIError as exc:
            return sentence(exc, self._text)
        return None

    async def _save(self) -> None:
        title, note = self._title.value or "", self._note.value or ""
        try:
            await off_loop(partial(self._services.jobs.describe, self._job.id, title=title, note=note))
        except DSPyUIError as exc:
            self._shown.clear()
            with self._shown:
                problem(self._text, sentence(exc, self._text), mark="describe-problem")
            return
        ui.navigate.reload()
