"""The editor of a signature's fields: rows to add, remove and put in order."""

from functools import partial
from typing import get_args

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from dspyui.domain.signatures import FieldType
from dspyui.ui.components.form import Form
from dspyui.ui.draft_problems import rename_problem
from dspyui.ui.drafts import FieldDraft, Role
from dspyui.ui.elements import Region, box, button, card, control, sentence, tag


def fields_editor(form: Form) -> Region:
    """Both sides of the signature; gives the region, to be redrawn when fields come from elsewhere."""
    with card(form.text("ui.fields.title"), note=form.text("ui.fields.lead"), mark="fields"):
        region = Region(partial(_sides, form), "d-stack-16")
    form.on_shape.append(region.draw)
    return region


def _sides(form: Form) -> None:
    for role in get_args(Role):
        with box("d-stack"):
            tag("h3", form.text(f"ui.fields.{role}"))
            for index, made in enumerate(form.draft.side(role)):
                _field_row(form, role, made, f"{role}-{index}")
            with box("d-row"):
                button(
                    form.text(f"ui.fields.add_{role}"),
                    partial(_add, form, role),
                    mark=f"add-{role}",
                    kind="quiet",
                    icon="add",
                )


def _field_row(form: Form, role: Role, made: FieldDraft, mark: str) -> None:
    text = form.text
    with box("d-fieldrow"):
        name = ui.input(
            value=made.name,
            placeholder=text("ui.fields.name"),
            validation=partial(_name_problem, form, made),
        )
        name.on_value_change(partial(_rename, form, made))
        control(name, text("ui.fields.name"), f"{mark}-name").props(
            "maxlength=80 autocapitalize=off spellcheck=false"
        )
        kind = ui.select(
            {option: text(f"field_type.{option}") for option in get_args(FieldType)},
            value=made.type,
            on_change=partial(_set_type, form, made),
        )
        control(kind, text("ui.fields.type"), f"{mark}-type")
        description = ui.input(
            value=made.description,
            placeholder=text("ui.fields.description"),
            on_change=partial(form.set_attribute, made, "description"),
        )
        control(description, text("ui.fields.description"), f"{mark}-description").classes("d-desc")
        _tools(form, role, made, mark)
        if made.type == "choice":
            choices = ui.input(
                value=made.choices,
                placeholder=text("ui.fields.choices_hint"),
                on_change=partial(form.set_attribute, made, "choices"),
            )
            control(choices, text("ui.fields.choices"), f"{mark}-choices").classes("d-choices")


def _tools(form: Form, role: Role, made: FieldDraft, mark: str) -> None:
    text = form.text
    side = form.draft.side(role)
    with box("d-row d-tools").style("gap: 0; flex-wrap: nowrap"):
        for step, icon, name in ((-1, "arrow_upward", "up"), (1, "arrow_downward", "down")):
            shift = button(
                text(f"ui.fields.{name}"),
                partial(_move, form, role, made, step),
                mark=f"{mark}-{name}",
                kind="quiet",
                icon=icon,
                label_hidden=True,
            )
            at_end = side[0] is made if step < 0 else side[-1] is made
            shift.set_enabled(not at_end)
        button(
            text("ui.fields.remove"),
            partial(_remove, form, role, made),
            mark=f"{mark}-remove",
            kind="quiet",
            icon="close",
            label_hidden=True,
        )


def _name_problem(form: Form, made: FieldDraft, value: str | None) -> str | None:
    made.name = value or ""
    error = rename_problem(form.draft, made)
    return sentence(error, form.text) if error else None


def _rename(form: Form, made: FieldDraft, event: ValueChangeEventArguments) -> None:
    made.name = event.value or ""
    form.touch_names()


def _set_type(form: Form, made: FieldDraft, event: ValueChangeEventArguments) -> None:
    made.type = event.value
    form.touch_shape()


def _add(form: Form, role: Role) -> None:
    made = form.draft.new_field()
    form.draft.side(role).append(made)
    if role == "outputs":
        form.draft.metric_fields.append(made.key)
    form.touch_shape()


def _remove(form: Form, role: Role, made: FieldDraft) -> None:
    form.draft.remove_field(role, made)
    form.touch_shape()


def _move(form: Form, role: Role, made: FieldDraft, step: int) -> None:
    form.draft.move_field(role, made, step)
    form.touch_shape()
