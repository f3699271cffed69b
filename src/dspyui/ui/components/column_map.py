"""Which column a field is taken from, where the file has none of the field's name."""

from collections.abc import Mapping, Sequence
from functools import partial

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from dspyui.domain.columns import propose_columns
from dspyui.ui.components.form import Form
from dspyui.ui.drafts import CompileDraft, FieldDraft
from dspyui.ui.elements import Region, box, button, control, labelled, marked, tag


class ColumnMap:
    """Offers the file's columns for each field that has none of its own name, and proposes some of them.

    A proposal is only taken over when somebody says so.
    """

    def __init__(self, form: Form) -> None:
        self._form = form
        self._columns: Sequence[str] = ()
        self._shown: object = None
        self._region = Region(self._draw)

    def show(self, columns: Sequence[str]) -> None:
        """Offer these columns."""
        self._columns = columns
        mapped = self._form.draft.data.columns
        wanted = [(made.key, made.name, mapped.get(made.key)) for made in self._fields()]
        shown = (wanted, tuple(columns), self._proposed())
        if shown != self._shown:
            self._shown = shown
            self._region.draw()

    def _fields(self) -> list[FieldDraft]:
        if not self._columns or self._form.draft.data.source == "rows":
            return []
        mapped = self._form.draft.data.columns
        return [
            made
            for made in self._form.draft.all_fields()
            if made.name and (made.name not in self._columns or mapped.get(made.key))
        ]

    def _proposed(self) -> Mapping[str, str]:
        return proposed_columns(self._form.draft, self._columns) if self._fields() else {}

    def _draw(self) -> None:
        text, fields = self._form.text, self._fields()
        if not fields:
            return
        with marked(box("d-stack"), "column-map"):
            tag("h3", text("ui.data.map"))
            self._draw_open()
            with box("d-grid"):
                for made in fields:
                    self._select(made)

    def _draw_open(self) -> None:
        """Which fields still have no column, and what they may be taken from."""
        text, draft = self._form.text, self._form.draft
        lacking = open_fields(draft, self._columns)
        if not lacking:
            tag("p", text("ui.data.map_help"), "d-note")
            return
        proposed, names = self._proposed(), {made.key: made.name for made in lacking}
        with marked(box("d-hint d-stack").props("role=status"), "column-proposal"):
            tag("p", text("ui.data.map_lacking", fields=", ".join(names.values())))
            if not proposed:
                return
            tag("p", text("ui.data.map_proposed"))
            with box(name="ul"):
                for key, column in proposed.items():
                    tag("li", f"{names[key]} ← {column}")
            with box("d-row"):
                button(text("ui.data.map_accept"), self._accept, mark="accept-columns", icon="check")

    def _select(self, made: FieldDraft) -> None:
        value = self._form.draft.data.columns.get(made.key)
        with labelled(made.name):
            select = ui.select(
                list(self._columns),
                value=value if value in self._columns else None,
                clearable=True,
                on_change=partial(self._map, made),
            )
            control(select, self._form.text("ui.data.map_one", field=made.name), f"map-{made.key}")

    def _map(self, made: FieldDraft, event: ValueChangeEventArguments) -> None:
        self._form.draft.data.columns[made.key] = event.value or ""
        self._form.touch()

    def _accept(self) -> None:
        self._form.draft.data.columns.update(self._proposed())
        self._form.touch()
        self.show(self._columns)


def open_fields(draft: CompileDraft, columns: Sequence[str]) -> list[FieldDraft]:
    """The fields that no column is there for."""
    mapped = draft.data.columns
    return [
        made
        for made in draft.all_fields()
        if made.name and (mapped.get(made.key) or made.name) not in columns
    ]


def proposed_columns(draft: CompileDraft, columns: Sequence[str]) -> Mapping[str, str]:
    """A column for each field without one, by the field's key; none that another field or the split has."""
    lacking = open_fields(draft, columns)
    data = draft.data
    taken = {data.columns.get(made.key) or made.name for made in draft.all_fields()}
    if data.dealing == "column":
        taken.add(data.split_column)
    found = propose_columns(
        [made.name for made in lacking], [column for column in columns if column not in taken]
    )
    return {made.key: found[made.name] for made in lacking if made.name in found}
