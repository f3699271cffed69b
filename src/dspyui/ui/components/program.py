"""The program: its name, its instructions, its module and the module's parameters."""

from functools import partial

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from dspyui.domain.metrics import METRICS
from dspyui.domain.programs import MODULES
from dspyui.ui.components.form import Form, folded_parameter_inputs, metric_inputs, text_input
from dspyui.ui.elements import Region, box, card, control, labelled, marked, tag


def program_card(form: Form) -> None:
    """The card about the program; its lower part is drawn anew for another module."""
    text, draft = form.text, form.draft
    with card(text("ui.program.title"), mark="program"):
        with box("d-cols"):
            name = text_input(
                form,
                draft,
                "name",
                text("ui.program.name"),
                "program-name",
                note=text("ui.program.name_help"),
            )
            with labelled(text("ui.program.module")):
                options = {kind: info.label for kind, info in MODULES.items()}
                select = ui.select(options, value=draft.module)
                control(select, text("ui.program.module"), "module")
                note = tag("p", text(f"module.{draft.module}.help"), "d-note").style("margin-top: var(--s4)")
        with labelled(text("ui.program.instructions"), text("ui.program.instructions_help")):
            area = ui.textarea(
                value=draft.instructions, on_change=partial(form.set_attribute, draft, "instructions")
            )
            control(area, text("ui.program.instructions"), "instructions").props("autogrow rows=2")
        region = Region(partial(_params, form))
        form.on_shape.append(region.draw)
        form.on_names.append(region.draw)

    # Fields that come from a file may bring a name along.
    form.on_shape.append(partial(_show_name, form, name))

    def choose() -> None:
        draft.module = select.value
        note.text = text(f"module.{draft.module}.help")
        form.touch()
        region.draw()

    select.on_value_change(choose)


def _show_name(form: Form, name: ui.input) -> None:
    name.value = form.draft.name


def _params(form: Form) -> None:
    kind = form.draft.module
    info = MODULES[kind]
    folded_parameter_inputs(form, f"module.{kind}", info.parameters, form.draft.own_module_params(), "module")
    if info.rewards:
        _reward(form)


def _reward(form: Form) -> None:
    """The metric that the module tries to please, of those that need no expected value."""
    text, reward = form.text, form.draft.reward
    with box("d-cols"), labelled(text("ui.program.reward"), text("ui.program.reward_help")):
        options = {
            kind: text(f"metric.{kind}.label") for kind, info in METRICS.items() if not info.needs_expected
        }
        select = ui.select(options, value=reward.metric)
        control(select, text("ui.program.reward"), "reward")
    region = Region(partial(_reward_params, form))

    def choose() -> None:
        reward.metric = select.value
        form.touch()
        region.draw()

    select.on_value_change(choose)


def _reward_params(form: Form) -> None:
    reward = form.draft.reward
    marked(tag("p", form.text(f"metric.{reward.metric}.help"), "d-note"), "reward-help")
    metric_inputs(form, reward.metric, reward.own_params(), "reward")
    if METRICS[reward.metric].score is None or len(form.draft.outputs) < 2:
        return
    with box("d-row"):
        for index, made in enumerate(form.draft.outputs):
            # No field chosen means all of them.
            chosen = not reward.fields or made.key in reward.fields
            tick = ui.checkbox(made.name or form.text("ui.fields.unnamed"), value=chosen)
            tick.on_value_change(partial(_tick, form, made.key))
            marked(tick, f"reward-field-{index}")


def _tick(form: Form, key: str, event: ValueChangeEventArguments) -> None:
    reward, everything = form.draft.reward, [made.key for made in form.draft.outputs]
    chosen = [other for other in reward.fields or everything if other != key]
    chosen = [*chosen, key] if event.value else chosen
    reward.fields = [] if set(chosen) == set(everything) else chosen
    form.touch()
