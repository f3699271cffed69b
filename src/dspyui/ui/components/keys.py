"""Whose keys are there, and typing one in. A key goes from the field to the server's memory and never comes back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Final

from nicegui import ui
from nicegui.context import context
from pydantic import SecretStr

from dspyui.domain.lms import LMSpec
from dspyui.domain.providers import OWN_SERVER_KEY, PROVIDERS, KeyState
from dspyui.errors import CancelledError, DSPyUIError
from dspyui.i18n import Text
from dspyui.services.lms import LMService, ProviderState
from dspyui.ui import formats
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import (
    Region,
    Tone,
    box,
    button,
    card,
    chip,
    control,
    help_link,
    labelled,
    marked,
    problem,
    tag,
)

_OTHER: Final = "other"
_TONES: Final[Mapping[KeyState, tuple[Tone, str]]] = {
    "typed": ("accent", "edit"),
    "environment": ("good", "check"),
    "unset": ("", "remove"),
}


@dataclass(frozen=True, slots=True)
class _Row:
    """A variable, what it is for, where its value comes from, and a model to test it with (empty: none is known)."""

    label: str
    variable: str
    state: KeyState
    model: str = ""


class KeysCard:
    """The card about keys."""

    def __init__(self, service: LMService, text: Text) -> None:
        self._service = service
        self._text = text
        # The tests under way, by variable. Leaving the page ends them.
        self._testing: dict[str, Event] = {}
        context.client.on_delete(self._stop_all)
        with card(text("ui.keys.title"), note=text("ui.keys.lead"), mark="keys") as aside:
            with aside:
                help_link(text, "models")
            self._rows = Region(self._draw_rows)
            _KeyForm(service, text, self._rows.draw)

    def _draw_rows(self) -> None:
        text, found = self._text, self._service.providers()
        rows = [*(_row(state) for state in found if state.state != "unset"), *self._others(found)]
        if not rows:
            marked(tag("p", text("ui.keys.none"), "d-note"), "no-keys")
        else:
            self._draw_table(rows)
        missing = [state for state in found if state.state == "unset"]
        if missing:
            without = ui.expansion(text("ui.keys.without", count=len(missing))).classes("d-field")
            with marked(without, "keys-without"), box("d-facts"):
                for state in missing:
                    tag("span", state.provider.label, "k")
                    tag("span", " / ".join(state.provider.key_variables), "v d-break")

    def _others(self, found: Sequence[ProviderState]) -> list[_Row]:
        """Keys that belong to no provider of the table: of one's own server, and whatever was typed in."""
        shown = {state.variable for state in found if state.state != "unset"}
        names = dict.fromkeys([OWN_SERVER_KEY, *self._service.typed()])
        own, other = self._text("ui.keys.own_server"), self._text("ui.keys.other")
        rows = [
            _Row(own if name == OWN_SERVER_KEY else other, name, self._service.key_state(name))
            for name in names
            if name not in shown
        ]
        return [row for row in rows if row.state != "unset"]

    def _draw_table(self, rows: list[_Row]) -> None:
        text = self._text
        table = Table(
            [
                Column(text("ui.keys.provider")),
                Column(text("ui.keys.variable")),
                Column(text("ui.keys.state")),
                Column(text("ui.keys.tested")),
                Column(""),
            ]
        )
        for row in rows:
            with table.row() as line:
                marked(line, f"key-{row.variable}")
                table.cell(row.label)
                table.cell(row.variable)
                tone, icon = _TONES[row.state]
                table.cell(partial(chip, text(f"lm.key.{row.state}"), tone, icon=icon))
                table.cell(partial(self._draw_tested, row))
                table.cell(partial(self._draw_actions, row), tools=True)
        for row in rows:
            self._draw_failure(row)

    def _draw_tested(self, row: _Row) -> None:
        text, test = self._text, self._service.key_test(row.variable)
        mark = f"key-tested-{row.variable}"
        if row.variable in self._testing:
            with marked(box("d-row").props("role=status"), mark):
                ui.spinner(size="sm").props("aria-hidden=true")
                tag("span", text("ui.keys.testing", model=row.model), "d-note")
        elif test is None:
            chip(text("ui.keys.untested"), icon="help_outline", mark=mark)
        elif test.problem is None:
            seconds = formats.duration(test.seconds, text)
            chip(text("ui.keys.works", seconds=seconds), "good", icon="check", mark=mark)
        elif test.is_refused:
            chip(text("ui.keys.fails"), "bad", icon="error", mark=mark)
        else:
            chip(text("ui.keys.undecided"), "warn", icon="help_outline", mark=mark)

    def _draw_failure(self, row: _Row) -> None:
        text, test = self._text, self._service.key_test(row.variable)
        if test is None or test.problem is None or row.variable in self._testing:
            return
        said = text(
            "ui.keys.failed",
            variable=row.variable,
            model=test.model,
            problem=test.problem.sentence(text.language),
        )
        problem(text, said, mark=f"key-problem-{row.variable}")

    def _draw_actions(self, row: _Row) -> None:
        text, variable = self._text, row.variable
        if variable in self._testing:
            button(
                text("ui.keys.test_stop"),
                self._testing[variable].set,
                mark=f"stop-key-{variable}",
                kind="quiet",
                icon="stop",
            )
            return
        if row.model:
            button(text("ui.keys.test"), partial(self._test, row), mark=f"test-key-{variable}", icon="bolt")
        else:
            tag("span", text("ui.keys.no_model"), "d-note")
        if row.state == "typed":
            button(
                self._text("ui.keys.clear"),
                partial(self._clear, row.variable),
                mark=f"clear-key-{row.variable}",
                kind="quiet",
                icon="delete_outline",
            )

    async def _test(self, row: _Row) -> None:
        """One call to the provider's first model; the service keeps what came of it."""
        if row.variable in self._testing:
            return
        cancelled = self._testing[row.variable] = Event()
        self._rows.draw()
        try:
            lm = LMSpec(model=row.model, api_key_env=row.variable)
            await off_loop(self._service.test, lm, cancelled)
        except CancelledError:
            pass
        except DSPyUIError as exc:
            if self._service.key_test(row.variable) is None and not self._rows.is_gone:
                notify_error(exc, self._text)
        finally:
            del self._testing[row.variable]
        if not self._rows.is_gone:
            self._rows.draw()

    def _stop_all(self) -> None:
        for cancelled in self._testing.values():
            cancelled.set()

    def _clear(self, variable: str) -> None:
        self._service.clear_key(variable)
        # Before the rows are drawn anew: the button, in whose place the message would be made, goes with them.
        ui.notify(self._text("ui.keys.cleared", variable=variable))
        self._rows.draw()


def _row(state: ProviderState) -> _Row:
    models = state.provider.models
    return _Row(state.provider.label, state.variable, state.state, models[0] if models else "")


class _KeyForm:
    """A provider, a key, and a button."""

    def __init__(self, service: LMService, text: Text, changed: Callable[[], None]) -> None:
        self._service = service
        self._text = text
        self._changed = changed
        options = {
            provider.key_variables[0]: f"{provider.label} ({provider.key_variables[0]})"
            for provider in PROVIDERS.values()
        }
        options[OWN_SERVER_KEY] = f"{text('ui.keys.own_server')} ({OWN_SERVER_KEY})"
        options[_OTHER] = text("ui.keys.other")
        with box("d-grid d-roomy"):
            with labelled(text("ui.keys.provider")):
                self._provider = ui.select(options, value=next(iter(options)))
                control(self._provider, text("ui.keys.provider"), "key-provider")
            with labelled(text("ui.keys.variable")) as self._variable_box:
                self._variable = ui.input(placeholder="MY_SERVER_KEY")
                control(self._variable, text("ui.keys.variable"), "key-variable")
            with labelled(text("ui.keys.key"), text("ui.keys.key_help")):
                self._key = ui.input(password=True).on("keydown.enter", self._set)
                control(self._key, text("ui.keys.key"), "key-value").props(
                    "autocomplete=off spellcheck=false"
                )
        self._variable_box.bind_visibility_from(self._provider, "value", value=_OTHER)
        with box("d-row"):
            button(text("ui.keys.set"), self._set, mark="key-set", kind="primary", icon="key")

    def _set(self) -> None:
        asked = self._provider.value
        variable = str(self._variable.value or "").strip() if asked == _OTHER else str(asked)
        key, self._key.value = SecretStr(str(self._key.value or "")), ""
        try:
            self._service.set_key(variable, key)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        self._changed()
        ui.notify(self._text("ui.keys.kept", variable=variable), type="positive")
