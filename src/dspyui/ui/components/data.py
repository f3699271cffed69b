"""Where the rows come from: a file, or the grid; how they are split; and what came of reading them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, TypeVar

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from dspyui.domain.columns import guess_split_column
from dspyui.domain.datasets import DataSpec
from dspyui.domain.signatures import SignatureSpec
from dspyui.domain.tables import RawTable
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.services.data import DataPreview, glance
from dspyui.services.documents import part_of
from dspyui.ui import formats
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.components.column_map import ColumnMap
from dspyui.ui.components.data_preview import draw_glance, draw_preview
from dspyui.ui.components.data_split import SplitPanel
from dspyui.ui.components.file_picker import FilePicker
from dspyui.ui.components.form import Form
from dspyui.ui.components.grid import GRID_LIMIT, RowGrid
from dspyui.ui.draft_problems import OPEN_CODES, problems
from dspyui.ui.draft_sources import cells_of, field_columns, fields_from_columns
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    control,
    dialog,
    dialog_actions,
    help_link,
    labelled,
    marked,
    problem,
    sentence,
    tag,
)

# A file that takes longer to read is said to be read, in seconds.
PATIENCE: Final = 0.5
P = ParamSpec("P")
T = TypeVar("T")


class DataPanel:
    """The card about data. `check` reads the rows as a compile would, and shows what it found."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._text = form.text
        self._preview: DataPreview | None = None
        self._error: DSPyUIError | None = None
        self._table: RawTable | None = None
        self._columns: tuple[str, ...] = ()
        # Rows of the file that stand twice, where no preview tells them.
        self._duplicates: int | None = None
        # Of the last preview: where its rows came from, and the digests of the files.
        self._seen: tuple[tuple[object, ...], tuple[str, ...]] | None = None
        self._reading = False
        # What the file's part shows.
        self._glanced: object = None
        with card(self._text("ui.data.title"), note=self._text("ui.data.lead"), mark="data") as aside:
            with aside:
                help_link(self._text, "data")
            self._sources()
            self._glance = Region(self._draw_glance, "d-stack-16")
            self._map = ColumnMap(form)
            with ui.expansion(self._text("ui.data.split")).classes("d-field") as split:
                self.split = SplitPanel(form, self.grid.draw)
            split.set_value(form.draft.data.dealing != "shares")
            marked(split, "split")
            self._found = Region(self._draw_found)
        ui.timer(0.01, self._read_kept, once=True)

    # Where they come from.

    def _sources(self) -> None:
        data = self._form.draft.data
        shown = "rows" if data.source == "rows" else "file"
        with ui.tabs().props("align=left dense no-caps") as self._tabs:
            for name in ("rows", "file"):
                marked(ui.tab(name, label=self._text(f"ui.data.tab_{name}")), f"data-tab-{name}")
        self._tabs.set_value(shown)
        with ui.tab_panels(self._tabs, value=shown).props("keep-alive").classes("d-field"):
            with ui.tab_panel("rows"):
                self.grid = RowGrid(self._form)
                with box("d-row"):
                    button(
                        self._text("ui.data.save_rows"),
                        self._save_dialog,
                        mark="save-rows",
                        kind="quiet",
                        icon="save",
                    )
            with ui.tab_panel("file"):
                self._file = FilePicker(self._form, data, self._chosen)
                self._tools = Region(self._draw_tools, "d-row")
        self._tabs.on_value_change(self._turn)

    async def _read_kept(self) -> None:
        """The data sets to choose from. One that cannot be listed is no reason to leave the form."""
        try:
            kept = await off_loop(self._form.services.uploads.search)
        except OSError as exc:
            notify_error(exc, self._text)
            return
        if kept:
            self._file.kept = kept
            self._file.draw()
            self.split.show(kept=kept)

    def _turn(self, event: ValueChangeEventArguments) -> None:
        data = self._form.draft.data
        if event.value == "rows":
            data.source = "rows"
        else:
            data.source = "path" if data.path and not data.upload else "upload"
        self._form.touch()
        self.grid.draw()
        self.split.draw()

    def _chosen(self) -> None:
        """Another file: its columns are not those of the one before."""
        data = self._form.draft.data
        data.source = "path" if data.path else "upload"
        data.columns.clear()
        self._columns = ()
        self._table, self._preview, self._error = None, None, None
        self._tools.draw()
        self._draw()
        self.split.show(columns=(), kept=self._file.kept)
        self._form.touch()

    def _draw_tools(self) -> None:
        if not self._columns or self._form.draft.data.source == "rows":
            return
        button(self._text("ui.data.to_fields"), self._to_fields, mark="columns-to-fields", icon="view_column")
        button(self._text("ui.data.to_grid"), self._to_grid, mark="file-to-grid", icon="edit")

    def _to_fields(self) -> None:
        data = self._form.draft.data
        if data.dealing == "shares" and (column := guess_split_column(self._columns)):
            data.dealing, data.split_column = "column", column
            self.split.draw()
        columns = field_columns(self._form.draft, self._columns)
        if len(columns) > 2:
            self._ask_outputs(columns)
        else:
            self._make_fields(columns[-1:])

    def _ask_outputs(self, columns: list[str]) -> None:
        """Which columns hold what is expected; the last one, if nothing else is said."""
        text = self._text
        with dialog() as made:
            tag("h2", text("ui.data.to_fields"))
            with labelled(text("ui.data.outputs"), text("ui.data.outputs_help")):
                chosen = ui.select(columns, multiple=True, value=columns[-1:]).props("use-chips")
                control(chosen, text("ui.data.outputs"), "output-columns")

            def take() -> None:
                if not 0 < len(chosen.value) < len(columns):
                    chosen.error = text("ui.data.outputs_wrong")
                    return
                made.close()
                self._make_fields(chosen.value)

            dialog_actions(text, made, text("ui.data.to_fields"), take, mark="outputs")

    def _make_fields(self, outputs: Sequence[str]) -> None:
        draft = self._form.draft
        fields_from_columns(draft, self._columns, outputs)
        self._form.touch_shape()
        # Their cards are further up, mostly out of sight.
        inputs, expected = (
            ", ".join(field.name for field in fields) for fields in (draft.inputs, draft.outputs)
        )
        ui.notify(self._text("ui.data.fields_made", inputs=inputs, outputs=expected), type="positive")

    async def _to_grid(self) -> None:
        form = self._form
        try:
            spec = self._data_spec()
            table = await off_loop(form.services.data.table, spec)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        if len(table.rows) > GRID_LIMIT:
            ui.notify(self._text("ui.data.too_long", limit=GRID_LIMIT, rows=len(table.rows)), type="warning")
            return
        form.draft.data.rows = cells_of(
            form.draft, table.rows, columns=spec.columns, split_column=spec.split_column
        )
        self._tabs.set_value("rows")

    # Typed rows become a data set of their own.

    def _save_dialog(self) -> None:
        text, draft = self._text, self._form.draft
        with dialog() as made:
            tag("h2", text("ui.data.save_rows"))
            tag("p", text("ui.data.save_rows_help"), "d-note")
            with labelled(text("ui.data.name")):
                name = control(ui.input(value=draft.name), text("ui.data.name"), "rows-name")
            with box("d-actions"):
                button(text("ui.common.cancel"), made.close, mark="save-rows-cancel")
                button(
                    text("ui.data.save"),
                    lambda: self._save_rows(name.value or "", made),
                    mark="save-rows-confirm",
                    kind="primary",
                )

    async def _save_rows(self, name: str, opened: ui.dialog) -> None:
        services, rows = self._form.services, self._form.draft.row_documents()
        try:
            info = await off_loop(services.data.keep_rows, name, rows)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        opened.close()
        ui.notify(self._text("ui.data.saved", name=info.name, rows=formats.count(len(rows))), type="positive")
        await self._read_kept()

    # What came of it.

    def _data_spec(self) -> DataSpec:
        return part_of(DataSpec, self._form.draft.data_document())

    async def check(self) -> DSPyUIError | None:
        """Read and split the rows as a compile would. The error, if there is one, is shown here and returned.

        A file that was written to since it was shown is such an error, once: its new rows are shown, and count from
        then on.
        """
        draft, service = self._form.draft, self._form.services.data
        self._preview, self._error, self._duplicates = None, None, None
        table = await self._look_at_file()
        if self._error is None and not any(found.place in {"fields", "data"} for found in problems(draft)):
            try:
                signature = part_of(SignatureSpec, draft.signature_document())
                spec = self._data_spec()
                self._preview = await self._patiently(service.preview, signature, spec)
                self._error = self._changed_since(spec, self._preview)
            except DSPyUIError as exc:
                self._error = exc
        if self._preview is None and table is not None:
            self._duplicates = await self._patiently(service.duplicates, table)
        self._draw()
        return self._error

    def _draw(self) -> None:
        self._map.show(self._columns)
        preview = self._preview
        shown = (
            id(self._table),
            self._form.draft.data.source,
            self._duplicates if preview is None else preview.duplicates,
            preview is None,
            str(self._error),
        )
        if shown != self._glanced:
            # Drawn anew at every change of something else, it would fold what somebody has unfolded.
            self._glanced = shown
            self._glance.draw()
        self._found.draw()

    def _changed_since(self, spec: DataSpec, preview: DataPreview) -> DSPyUIError | None:
        """The error of files that are no longer those whose rows were shown."""
        sources = (spec.path, spec.upload, spec.validation, spec.test)
        before, self._seen = self._seen, (sources, preview.files)
        if before is None or before[0] != sources or before[1] == preview.files:
            return None
        return BadRequestError("data.changed", rows=preview.rows)

    async def _patiently(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Wait for the call; if that takes long, say so meanwhile."""
        working = asyncio.ensure_future(off_loop(call, *args, **kwargs))
        done, _ = await asyncio.wait({working}, timeout=PATIENCE)
        if not done:
            self._reading = True
            self._found.draw()
        try:
            return await working
        finally:
            self._reading = False

    async def _look_at_file(self) -> RawTable | None:
        """The file that is chosen, as it is; why it cannot be read is the error."""
        data = self._form.draft.data
        table: RawTable | None = None
        given = data.upload if data.source == "upload" else data.path.strip()
        if data.source != "rows" and given:
            try:
                source = part_of(DataSpec, {data.source: given})
                table = await self._patiently(self._form.services.data.table, source)
            except DSPyUIError as exc:
                self._error = exc
        self._table = table
        columns = table.columns if table is not None else ()
        if columns != self._columns:
            self._columns = columns
            self._tools.draw()
            self.split.show(columns=columns)
        return table

    @property
    def seen(self) -> str | None:
        """The fingerprint of the rows that are shown; a compile is not to start on others."""
        return self._preview.fingerprint if self._preview is not None else None

    @property
    def preview(self) -> DataPreview | None:
        """What the last check found; None when it failed."""
        return self._preview

    def _draw_glance(self) -> None:
        text, error = self._text, self._error
        if self._table is not None and self._form.draft.data.source != "rows":
            preview = self._preview
            duplicates = self._duplicates if preview is None else preview.duplicates
            draw_glance(text, glance(self._table), duplicates=duplicates)
        if error is None or error.code in OPEN_CODES:
            return
        if self._preview is not None:
            marked(tag("p", sentence(error, text), "d-warning").props("role=status"), "data-changed")
            return
        problem(text, sentence(error, text), mark="data-problem")

    def _draw_found(self) -> None:
        text = self._text
        if self._reading:
            with marked(box("d-row").props("aria-busy=true role=status"), "data-reading"):
                ui.spinner(size="sm").props("aria-hidden=true")
                tag("span", text("ui.data.reading"), "d-note")
        elif self._preview is not None:
            draw_preview(text, self._preview)
