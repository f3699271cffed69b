"""What the parts of the compile form share: the draft, and who must be told when it changes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nicegui import ui

from dspyui.domain.base import ParameterInfo
from dspyui.domain.metrics import METRICS, MetricKind
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.ui.drafts import CompileDraft
from dspyui.ui.elements import box, control, labelled, marked
from dspyui.ui.visitor import Visitor


@dataclass(slots=True)
class Form:
    """The draft on one open page. `revision` grows with every change.

    `on_names` are told when a field was renamed, `on_shape` when fields came, went or changed their type too,
    `on_model` when the task's model became another. `choose_model` makes it another from elsewhere in the form.
    """

    services: Services
    visitor: Visitor
    draft: CompileDraft
    revision: int = 0
    on_names: list[Callable[[], None]] = field(default_factory=list)
    on_shape: list[Callable[[], None]] = field(default_factory=list)
    on_model: list[Callable[[], None]] = field(default_factory=list)
    choose_model: Callable[[str], None] = lambda _model: None

    @property
    def text(self) -> Text:
        """The words, in the visitor's language."""
        return self.visitor.text

    def touch(self, _event: object = None) -> None:
        """Something changed."""
        self.revision += 1

    def touch_names(self) -> None:
        """A field was renamed."""
        self.touch()
        for told in self.on_names:
            told()

    def touch_shape(self) -> None:
        """Fields came, went, moved or changed their type."""
        self.touch()
        for told in self.on_shape:
            told()

    def set_item(self, place: dict[str, Any], name: str, event: Any) -> None:
        """A control's new value goes into a dictionary."""
        place[name] = event.value
        self.touch()

    def set_attribute(self, place: object, name: str, event: Any) -> None:
        """A control's new value goes into an attribute; text that was cleared is empty, not None."""
        value = event.value
        setattr(place, name, "" if value is None and isinstance(getattr(place, name), str) else value)
        self.touch()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number may be, and how far one press of an arrow goes."""

    low: float | None = None
    high: float | None = None
    step: float = 1


def text_input(
    form: Form, place: object, name: str, label: str, mark: str, *, note: str = "", placeholder: str = ""
) -> ui.input:
    """A line of text bound to an attribute of the draft."""
    with labelled(label, note):
        made = ui.input(
            value=getattr(place, name),
            placeholder=placeholder or None,
            on_change=partial(form.set_attribute, place, name),
        )
        return control(made, label, mark)


def number_input(
    form: Form,
    place: object,
    name: str,
    label: str,
    mark: str,
    *,
    note: str = "",
    bounds: Bounds | None = None,
) -> ui.number:
    """A number bound to an attribute of the draft; empty is None."""
    limits = bounds or Bounds()
    with labelled(label, note):
        made = ui.number(
            value=getattr(place, name),
            step=limits.step,
            min=limits.low,
            max=limits.high,
            on_change=partial(form.set_attribute, place, name),
        )
        return control(made, label, mark)


def parameter_inputs(
    form: Form, owner: str, infos: tuple[ParameterInfo, ...], values: dict[str, Any], mark: str
) -> None:
    """A control for each parameter of an optimizer or a metric, drawn from its table."""
    for info in infos:
        text = form.text
        label = text(f"{owner}.param.{info.name}.label")
        note = text(f"{owner}.param.{info.name}.help")
        _parameter_input(form, owner, info, values, label=label, note=note, mark=f"{mark}-{info.name}")


def metric_inputs(form: Form, kind: MetricKind, values: dict[str, Any], mark: str) -> None:
    """A control for each parameter of a metric; long texts take the whole width."""
    infos, owner = METRICS[kind].parameters, f"metric.{kind}"
    parameter_inputs(form, owner, tuple(info for info in infos if info.type == "text"), values, mark)
    with box("d-grid"):
        parameter_inputs(form, owner, tuple(info for info in infos if info.type != "text"), values, mark)


def folded_parameter_inputs(
    form: Form,
    owner: str,
    infos: tuple[ParameterInfo, ...],
    values: dict[str, Any],
    mark: str,
    *,
    more: Callable[[], None] | None = None,
) -> None:
    """A control for each parameter, the advanced ones folded away; `more` draws what stands beside the others."""
    advanced = tuple(info for info in infos if info.advanced)
    plain = tuple(info for info in infos if not info.advanced)
    if plain or more:
        with box("d-grid"):
            parameter_inputs(form, owner, plain, values, mark)
            if more:
                more()
    if advanced:
        with ui.expansion(form.text("ui.common.advanced")).classes("d-field") as folded, box("d-grid"):
            parameter_inputs(form, owner, advanced, values, mark)
        marked(folded, f"{mark}-advanced")


def _parameter_input(
    form: Form,
    owner: str,
    info: ParameterInfo,
    values: dict[str, Any],
    *,
    label: str,
    note: str,
    mark: str,
) -> None:
    value = values.get(info.name, info.default)
    on_change = partial(form.set_item, values, info.name)
    if info.type == "bool":
        with labelled("", note):
            switch = ui.switch(label, value=bool(value), on_change=on_change)
            switch.mark(mark)
            switch.props["data-testid"] = mark
        return
    with labelled(label, note):
        control(_value_input(form, owner, info, value, on_change), label, mark)


def _value_input(
    form: Form, owner: str, info: ParameterInfo, value: Any, on_change: Callable[[Any], None]
) -> ui.element:
    unset = form.text("ui.common.unset") if info.optional else None
    match info.type:
        case "choice":
            options = {choice: form.text(f"{owner}.param.{info.name}.{choice}") for choice in info.choices}
            made = ui.select(options, value=value, on_change=on_change, label=unset, clearable=info.optional)
            return made.classes("d-unset")
        case "text":
            return ui.textarea(value=value, placeholder=unset, on_change=on_change).props("autogrow rows=2")
        case "str":
            return ui.input(value=value, placeholder=unset, on_change=on_change)
        case _:
            return ui.number(
                value=value,
                step=1 if info.type == "int" else 0.05,
                min=info.minimum,
                max=info.maximum,
                placeholder=unset,
                on_change=on_change,
            )
