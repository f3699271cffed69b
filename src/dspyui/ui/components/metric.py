"""How an answer is scored: the metric, its parameters, the fields it looks at and their weights."""

from functools import partial
from typing import Any

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from dspyui.domain.metrics import METRICS
from dspyui.ui.components.form import Bounds, Form, metric_inputs, number_input
from dspyui.ui.elements import Region, box, card, control, help_link, labelled, marked, tag


def metric_card(form: Form) -> None:
    """The card about the metric; its lower part is drawn anew for another metric and for other fields."""
    text, draft = form.text, form.draft
    with card(text("ui.metric.title"), note=text("ui.metric.lead"), mark="metric-card") as aside:
        with aside:
            help_link(text, "metrics")
        with box("d-cols"), labelled(text("ui.metric.kind")):
            options = {kind: text(f"metric.{kind}.label") for kind in METRICS}
            select = ui.select(options, value=draft.metric)
            control(select, text("ui.metric.kind"), "metric")
        params = Region(partial(_params, form))
        fields = Region(partial(_fields, form))
        form.on_shape.append(fields.draw)
        form.on_names.append(fields.draw)
        with ui.expansion(text("ui.metric.settings")).classes("d-field") as settings, box("d-grid"):
            _settings(form)
        marked(settings, "metric-settings")

    def choose() -> None:
        draft.metric = select.value
        form.touch()
        params.draw()
        fields.draw()

    select.on_value_change(choose)


def _params(form: Form) -> None:
    draft = form.draft
    kind = draft.metric
    marked(tag("p", form.text(f"metric.{kind}.help"), "d-note"), "metric-help")
    values = draft.own_metric_params()
    if kind == "custom":
        _own_metrics(form, values)
    else:
        metric_inputs(form, kind, values, "metric")


def _own_metrics(form: Form, values: dict[str, Any]) -> None:
    """The person's own metrics by name; the rest of the form says what is wrong with one that is not there."""
    text, metrics = form.text, form.services.metrics
    if not metrics.allows_code:
        marked(tag("p", text("ui.metric.custom_forbidden"), "d-warning"), "metric-forbidden")
        return
    names = list(metrics.names())
    if not names:
        marked(tag("p", text("ui.metric.no_custom"), "d-hint"), "metric-none")
        return
    label = text("metric.custom.param.name.label")
    with box("d-cols"), labelled(label, text("metric.custom.param.name.help")):
        chosen = values.get("name")
        select = ui.select(
            names, value=chosen if chosen in names else None, on_change=partial(form.set_item, values, "name")
        )
        control(select, label, "metric-name")


def _fields(form: Form) -> None:
    draft, text = form.draft, form.text
    if METRICS[draft.metric].score is None:
        return
    if len(draft.outputs) < 2:
        # One field is always what is scored.
        draft.metric_fields = [made.key for made in draft.outputs]
        return
    tag("span", text("ui.metric.weights"), "d-label")
    with box("d-weights"):
        for index, made in enumerate(draft.outputs):
            label = made.name or text("ui.fields.unnamed")
            tick = ui.checkbox(label, value=made.key in draft.metric_fields)
            tick.on_value_change(partial(_tick, form, made.key))
            marked(tick, f"metric-field-{index}")
            weight = ui.number(
                value=draft.metric_weights.get(made.key, 1),
                min=0,
                step=0.5,
                on_change=partial(form.set_item, draft.metric_weights, made.key),
            )
            control(weight, text("ui.metric.weight", name=label), f"metric-weight-{index}")
    tag("p", text("ui.metric.weights_help"), "d-note")


def _tick(form: Form, key: str, event: ValueChangeEventArguments) -> None:
    kept = [other for other in form.draft.metric_fields if other != key]
    form.draft.metric_fields = [*kept, key] if event.value else kept
    form.touch()


def _settings(form: Form) -> None:
    text, draft = form.text, form.draft
    number_input(
        form, draft, "repeats", text("ui.metric.repeats"), "repeats",
        bounds=Bounds(low=1, high=20), note=text("ui.metric.repeats_help"),
    )  # fmt: skip
    number_input(
        form, draft, "max_errors", text("ui.metric.max_errors"), "max-errors",
        bounds=Bounds(low=0), note=text("ui.metric.max_errors_help"),
    )  # fmt: skip
