"""The first page: say what the program takes and gives, on which data, and compile it."""

from functools import partial
from typing import Final

from nicegui import ui

from dspyui.domain.lms import LOCAL_MODEL
from dspyui.services import Services
from dspyui.services.examples import EXAMPLES
from dspyui.ui.components.data import DataPanel
from dspyui.ui.components.fields import fields_editor
from dspyui.ui.components.form import Form
from dspyui.ui.components.form_menu import form_menu, start_anew
from dspyui.ui.components.lm import bundled_is_there, lm_panel, price_words
from dspyui.ui.components.metric import metric_card
from dspyui.ui.components.optimizer import optimizer_card
from dspyui.ui.components.program import program_card
from dspyui.ui.components.rail import Rail
from dspyui.ui.elements import Region, beside, box, button, marked, tag
from dspyui.ui.form_start import Asked, choose_data, first_draft, keep_draft
from dspyui.ui.frame import framed
from dspyui.ui.visitor import find_visitor

# How soon after a change the form is checked, in seconds.
CHECK_SECONDS: Final = 0.4


async def compile_page(services: Services, asked: Asked) -> None:
    """The form, as the address asks for it or as it was left."""
    # Read first: with the frame's timers the first answer goes out at the next wait, finished or not.
    text = find_visitor(services.settings).text
    draft, notice = await first_draft(services, text, asked)
    if asked.data:
        notice = await choose_data(services, text, draft, asked.data)
    with framed(services, "compile") as page:
        form = Form(services, page.visitor, draft)
        if notice:
            _notice(form, notice, asked)
        if asked.start == "empty":
            region = Region(partial(_paid_notice, form))
            form.on_model.append(region.draw)
        if asked != Asked():
            # From here on the form is the visitor's own: a reload must not throw away what is typed.
            keep_draft(draft, is_changed=False)
            ui.navigate.history.replace("/")
        with box("d-form"):
            with box("d-stack-16"):
                program_card(form)
                fields_editor(form)
                data = DataPanel(form)
                optimizer_card(form)
                metric_card(form)
                lm_panel(form)
            with box("d-stack-16 d-rail", "aside"):
                rail = Rail(form, data)
        with page.actions:
            form_menu(form)
            compile_button = button(
                page.text("ui.compile.start"), rail.start, mark="compile", kind="primary", icon="bolt"
            )
            rail.button = compile_button
        ui.timer(CHECK_SECONDS, rail.look)


def _notice(form: Form, notice: str, asked: Asked) -> None:
    """What the form was filled in with; a newcomer finds the other ways to begin beside it."""
    text = form.text
    with box("d-hint d-row"):
        marked(tag("p", notice, "d-grow"), "form-notice")
        if asked.job or asked.run or asked.data:
            return
        current = next((name for name in EXAMPLES if notice == text(f"example.{name}.lead")), asked.start)
        with beside(text("ui.compile.begin")):
            for name in (*EXAMPLES, "empty"):
                made = button(
                    text(f"example.{name}.label"), partial(start_anew, form, name), mark=f"begin-{name}"
                )
                if name == current:
                    made.props("aria-current=true")


def _paid_notice(form: Form) -> None:
    """An empty form begins with a provider's model when its key is set: nobody is to pay for it unawares."""
    text, task = form.text, form.draft.task
    if not task.is_hosted:
        return
    with marked(box("d-warning d-row").props("role=status"), "paid-notice"):
        said = [text("ui.compile.begins_paid", model=task.model), price_words(form.services, text, task)]
        tag("p", text.in_a_row(said), "d-grow")
        if bundled_is_there(form.services):
            button(
                text("ui.lm.use_bundled"),
                lambda: form.choose_model(LOCAL_MODEL),
                mark="paid-use-bundled",
                icon="computer",
            )
