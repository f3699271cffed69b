"""How rows get into training, validation and test: by shares, by a column, or by files of their own."""

from collections.abc import Callable, Sequence
from typing import Final

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from dspyui.domain.columns import guess_split_column
from dspyui.domain.splits import SPLITS, SplitName
from dspyui.domain.uploads import UploadInfo
from dspyui.ui.components.file_picker import FilePicker
from dspyui.ui.components.form import Bounds, Form, number_input
from dspyui.ui.drafts import Dealing
from dspyui.ui.elements import Region, box, control, labelled, marked, tag

DEALINGS: Final[tuple[Dealing, ...]] = ("shares", "column", "files")


class SplitPanel:
    """The controls of the split. `changed` is called when the grid has to be drawn anew."""

    def __init__(self, form: Form, changed: Callable[[], None]) -> None:
        self._form = form
        self._text = form.text
        self._changed = changed
        self._columns: Sequence[str] = ()
        self._kept: Sequence[UploadInfo] = ()
        self._region = Region(self._draw, "d-stack-16")

    def show(self, *, columns: Sequence[str] | None = None, kept: Sequence[UploadInfo] | None = None) -> None:
        """Offer these columns and data sets from now on."""
        if columns is not None:
            self._columns = columns
        if kept is not None:
            self._kept = kept
        self._region.draw()

    def draw(self) -> None:
        """Draw it anew."""
        self._region.draw()

    def _draw(self) -> None:
        text, data = self._text, self._form.draft.data
        options = {name: text(f"ui.data.by_{name}") for name in DEALINGS}
        radio = ui.radio(options, value=data.dealing, on_change=self._deal).props("inline dense")
        radio.props["aria-label"] = text("ui.data.split")
        marked(radio, "split-dealing")
        tag("p", text(f"ui.data.by_{data.dealing}_help"), "d-note")
        if data.dealing == "column":
            self._draw_column()
        if data.dealing == "files":
            self._draw_files()
        if data.dealing != "column":
            self._draw_shares()
        if data.dealing != "shares":
            tick = ui.checkbox(
                text("ui.data.allow_shared"),
                value=data.allow_shared,
                on_change=lambda event: self._form.set_attribute(data, "allow_shared", event),
            )
            marked(tick, "allow-shared")

    def _deal(self, event: ValueChangeEventArguments) -> None:
        data = self._form.draft.data
        data.dealing = event.value
        if data.dealing == "column" and data.source != "rows" and data.split_column not in self._columns:
            data.split_column = guess_split_column(self._columns) or ""
        self._form.touch()
        self._region.draw()
        self._changed()

    def _draw_column(self) -> None:
        text, data = self._text, self._form.draft.data
        if data.source == "rows":
            # The grid has a column for it.
            return
        options = list(self._columns)
        value = data.split_column if data.split_column in options else None
        with box("d-cols"), labelled(text("ui.data.split_column")):
            select = ui.select(
                options,
                value=value,
                on_change=lambda event: self._form.set_attribute(data, "split_column", event),
            )
            control(select, text("ui.data.split_column"), "split-column")

    def _draw_files(self) -> None:
        data = self._form.draft.data
        for name, chosen in (("validation", data.validation_file), ("test", data.test_file)):
            with box("d-stack"):
                tag("h3", self._text(f"ui.data.{name}_file"))
                FilePicker(self._form, chosen, self._chosen, mark=f"{name}-", kept=self._kept)

    def _chosen(self) -> None:
        self._form.touch()
        self._shares.draw()

    def _draw_shares(self) -> None:
        self._shares = Region(self._draw_numbers, "d-grid")

    def _draw_numbers(self) -> None:
        text, data = self._text, self._form.draft.data
        for name in self._dealt():
            number_input(
                self._form,
                data,
                name,
                text(f"split.{name}"),
                f"split-{name}",
                bounds=Bounds(step=0.05, low=0),
                note=text(f"ui.data.{name}_help"),
            )
        number_input(
            self._form,
            data,
            "seed",
            text("ui.data.seed"),
            "split-seed",
            bounds=Bounds(low=0),
            note=text("ui.data.seed_help"),
        )

    def _dealt(self) -> list[SplitName]:
        """The splits that get a share: those without a file of their own, if there are two of them."""
        data = self._form.draft.data
        if data.dealing == "shares":
            return list(SPLITS)
        taken = {"validation": data.validation_file.document(), "test": data.test_file.document()}
        left: list[SplitName] = []
        for name in SPLITS:
            if not taken.get(name):
                left.append(name)  # noqa: PERF401 - a comprehension loses the literals' type
        return left if len(left) > 1 else []
