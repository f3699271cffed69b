"""A form of the fields of a signature: the widget that each type wants, and what a person put into it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nicegui import ui
from nicegui.elements.mixins.validation_element import ValidationElement
from nicegui.elements.mixins.value_element import ValueElement

from dspyui.domain.signatures import FieldSpec, FieldType, Row, parse_value, type_label
from dspyui.errors import BadRequestError
from dspyui.i18n import Text
from dspyui.ui.elements import Tag, box, control, labelled, marked, sentence, tag

# With more choices than this, typing finds one sooner than reading does.
_FEW_CHOICES: Final = 8
Changed = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class _Widget:
    """How a type is filled in: what draws it, a value as the widget holds it, and what it holds as a value."""

    draw: Callable[[Text, FieldSpec, Changed], ValueElement[Any]]
    shown: Callable[[FieldSpec, Any], Any]
    given: Callable[[Any], Any] = lambda value: value
    help: str = ""


class RowForm:
    """Inputs for one row; `mark` begins the marks of its widgets."""

    def __init__(
        self,
        text: Text,
        fields: Sequence[FieldSpec],
        row: Row | None = None,
        *,
        mark: str,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_change` is called whenever a widget holds something else."""
        self._text = text
        self._on_change = on_change
        self._fields = tuple(fields)
        self._values: dict[str, Any] = {}
        self._filled: dict[str, Any] = {}
        self._controls: dict[str, ValueElement[Any]] = {}
        self._notes: dict[str, Tag] = {}
        # Empty values that came with a row: nobody has forgotten them.
        self._given_empty: set[str] = set()
        with box("d-stack"):
            for field in self._fields:
                self._draw(field, mark)
        if row:
            self.fill(row)

    def _draw(self, field: FieldSpec, mark: str) -> None:
        label = field.name if field.type == "str" else f"{field.name} ({type_label(field)})"
        widget = WIDGETS[field.type]
        notes = [field.description, self._text(widget.help) if widget.help else ""]
        with labelled(label, self._text.in_a_row([note for note in notes if note])):
            made = widget.draw(self._text, field, partial(self._changed, field.name))
            self._controls[field.name] = control(made, label, f"{mark}-{field.name}")
            if not isinstance(made, ValidationElement):
                note = tag("p", "", "d-wrong").props("role=alert")
                self._notes[field.name] = marked(note, f"{mark}-{field.name}-problem")

    def _changed(self, name: str, event: Any) -> None:
        self._values[name] = event.value
        self._given_empty.discard(name)
        self._say(name, None)
        self._on_change()

    def fill(self, row: Row) -> None:
        """Show the values of a row; one that does not fit its field is told there."""
        for field in self._fields:
            value = row.get(field.name)
            shown = WIDGETS[field.type].shown(field, value)
            self._controls[field.name].value = shown
            self._values[field.name] = shown
            if shown == "" and value is not None:
                self._given_empty.add(field.name)
            if value is not None and (problem := self._problem(field, value)):
                self._say(field.name, problem)
        self._filled = dict(self._values)

    @property
    def changed(self) -> frozenset[str]:
        """The fields that hold something else than what was filled in."""
        names = (field.name for field in self._fields)
        return frozenset(name for name in names if self._values.get(name) != self._filled.get(name))

    def read(self, *, may_be_empty: bool = False) -> Row | None:
        """The row in its fields' types; None once it is told at each field what is missing or wrong.

        A program may be asked with an empty text; a person who leaves a field empty has forgotten it, unless the
        empty text came with a row or `may_be_empty`. An empty list is a value.
        """
        found: Row = {}
        wrong: list[str] = []
        for field in self._fields:
            value = WIDGETS[field.type].given(self._values.get(field.name))
            is_empty = value is None or (isinstance(value, str) and not value.strip())
            if is_empty and not (field.type == "str" and (may_be_empty or field.name in self._given_empty)):
                problem: str | None = self._text("ui.try.missing")
            else:
                value = "" if value is None else value
                problem = self._problem(field, value)
            if problem:
                self._say(field.name, problem)
                wrong.append(field.name)
            else:
                found[field.name] = parse_value(field, value, where=field.name)
        if wrong:
            self._controls[wrong[0]].run_method("focus")
        return None if wrong else found

    def _problem(self, field: FieldSpec, value: Any) -> str | None:
        try:
            parse_value(field, value, where=self._text("ui.try.here"))
        except BadRequestError as exc:
            return sentence(exc, self._text)
        return None

    def _say(self, name: str, problem: str | None) -> None:
        made = self._controls[name]
        if isinstance(made, ValidationElement):
            made.error = problem
        else:
            self._notes[name].set_text(problem or "")


def shown_value(value: Any) -> str:
    """A value as text: a text is itself, everything else is JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# The widgets.


def _text_area(_text: Text, _field: FieldSpec, changed: Changed) -> ValueElement[Any]:
    return ui.textarea(on_change=changed).props("autogrow rows=1")


def _number(step: str, mode: str, _text: Text, _field: FieldSpec, changed: Changed) -> ValueElement[Any]:
    # Not `ui.number`, which gives a float: a whole number beyond 2**53 would become another one in silence.
    return ui.input(on_change=changed).props(f"type=number step={step} inputmode={mode}")


def _yes_or_no(text: Text, _field: FieldSpec, changed: Changed) -> ValueElement[Any]:
    options = {True: text("ui.common.yes"), False: text("ui.common.no")}
    return ui.radio(options, on_change=changed).props("inline")


def _choice(_text: Text, field: FieldSpec, changed: Changed) -> ValueElement[Any]:
    has_many = len(field.choices) > _FEW_CHOICES
    return ui.select(list(field.choices), with_input=has_many, on_change=changed)


def _as_text(_field: FieldSpec, value: Any) -> str:
    return "" if value is None else shown_value(value)


def _as_typed(field: FieldSpec, value: Any) -> Any:
    """The value in its type; what does not fit is no choice at all."""
    try:
        return None if value is None else parse_value(field, value, where="")
    except BadRequestError:
        return None


def _as_lines(field: FieldSpec, value: Any) -> str:
    """An item a line; as JSON where a line could not say it."""
    items = _as_typed(field, value)
    if not isinstance(items, list):
        return _as_text(field, value)
    is_plain = all(item.strip() and "\n" not in item for item in items) and not (
        items and items[0].startswith("[")
    )
    return "\n".join(items) if is_plain else json.dumps(items, ensure_ascii=False)


def _from_lines(value: Any) -> Any:
    text = str(value or "").strip()
    return text if text.startswith("[") else [line.strip() for line in text.splitlines() if line.strip()]


WIDGETS: Final[Mapping[FieldType, _Widget]] = {
    "str": _Widget(_text_area, _as_text),
    "int": _Widget(partial(_number, "1", "numeric"), _as_text),
    "float": _Widget(partial(_number, "any", "decimal"), _as_text),
    "bool": _Widget(_yes_or_no, _as_typed),
    "list[str]": _Widget(_text_area, _as_lines, _from_lines, "ui.try.list_help"),
    "choice": _Widget(_choice, _as_typed),
}
