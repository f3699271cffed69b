"""Choosing a file of rows: upload one, take a kept data set, or name a path on this machine."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from nicegui import ui
from nicegui.events import UploadEventArguments, ValueChangeEventArguments

from dspyui.domain.uploads import UploadInfo
from dspyui.errors import DSPyUIError
from dspyui.ui import formats
from dspyui.ui.background import off_loop
from dspyui.ui.components.data_preview import format_label
from dspyui.ui.components.form import Form
from dspyui.ui.elements import Region, box, control, labelled, marked, problem, sentence, tag

ENDINGS: Final = ".csv,.tsv,.json,.jsonl,.ndjson,.parquet"


class ChosenFile(Protocol):
    """The part of the draft that says which file was chosen."""

    path: str
    upload: str
    upload_name: str


class FilePicker:
    """Writes what was chosen into the draft, and then calls `changed`; `mark` goes before the controls' marks."""

    def __init__(
        self,
        form: Form,
        chosen: ChosenFile,
        changed: Callable[[], None],
        *,
        mark: str = "",
        kept: Sequence[UploadInfo] = (),
    ) -> None:
        self._form = form
        self._text = form.text
        self._chosen = chosen
        self._changed = changed
        self._mark = mark
        # Why the last upload was refused.
        self._refused = ""
        self.kept = kept
        self._select: ui.select | None = None
        self._region = Region(self._draw)

    def draw(self) -> None:
        """Draw it anew, after the draft's data was replaced or other data sets are kept."""
        self._region.draw()

    def _draw(self) -> None:
        text, chosen = self._text, self._chosen
        limit = self._form.services.settings.max_upload_mb
        upload = ui.upload(
            label=text("ui.data.upload", limit=limit),
            auto_upload=True,
            max_file_size=limit * 1024**2,
            on_upload=self._uploaded,
            on_rejected=lambda: self._refuse(text("ui.data.rejected", limit=limit)),
        )
        marked(upload.props(f"accept={ENDINGS} flat"), f"{self._mark}upload")
        self._said = Region(self._draw_said)
        with box("d-cols"):
            if self.kept:
                self._draw_kept()
            with labelled(text("ui.data.path"), text("ui.data.path_help")):
                path = ui.input(value=chosen.path, placeholder="data/reviews.csv", on_change=self._typed)
                control(path, text("ui.data.path"), f"{self._mark}data-path").props("spellcheck=false")

    def _draw_said(self) -> None:
        """What became of the last upload, and which data set is chosen."""
        text, chosen = self._text, self._chosen
        if self._refused:
            problem(text, self._refused, mark=f"{self._mark}upload-problem")
        if chosen.upload:
            shown = chosen.upload_name or self._name_of(chosen.upload) or formats.fingerprint(chosen.upload)
            told = text("ui.data.uploaded", name=shown)
            info = next((kept for kept in self.kept if kept.digest == chosen.upload), None)
            if self._mark and info is not None and info.rows is not None:
                # The main file is shown as a whole elsewhere.
                rows = text("ui.data.rows_of", rows=formats.count(info.rows))
                told = " · ".join((told, rows, format_label(info.format, info.encoding)))
            marked(tag("p", told, "d-note"), f"{self._mark}chosen")

    def _draw_kept(self) -> None:
        options = {info.digest: kept_label(info) for info in self.kept}
        value = self._chosen.upload if self._chosen.upload in options else None
        with labelled(self._text("ui.data.kept"), self._text("ui.data.kept_help")):
            self._select = ui.select(options, value=value, on_change=self._picked, clearable=True)
            control(self._select, self._text("ui.data.kept"), f"{self._mark}kept")

    def _name_of(self, digest: str) -> str:
        return next((info.name for info in self.kept if info.digest == digest), "")

    def _set(self, *, path: str = "", upload: str = "", name: str = "") -> None:
        chosen = self._chosen
        chosen.path, chosen.upload, chosen.upload_name = path, upload, name
        self._changed()

    def _typed(self, event: ValueChangeEventArguments) -> None:
        # Drawing all anew would take the path's input away under the hands of who types.
        self._refused = ""
        self._set(path=event.value or "")
        self._said.draw()
        if self._select is not None:
            self._select.set_value(None)

    def _picked(self, event: ValueChangeEventArguments) -> None:
        digest = event.value or ""
        if digest == self._chosen.upload or (not digest and self._chosen.path):
            return
        self._refused = ""
        self._set(upload=digest, name=self._name_of(digest))
        self.draw()

    def _refuse(self, why: str) -> None:
        """Say why beside the upload, which is empty again; what was chosen before is let go, lest it be compiled."""
        self._refused = why
        self._set()
        self.draw()

    async def _uploaded(self, event: UploadEventArguments) -> None:
        content = await event.file.read()
        services = self._form.services
        try:
            info, _table = await off_loop(services.data.keep_upload, event.file.name, content)
        except DSPyUIError as exc:
            self._refuse(sentence(exc, self._text))
            return
        self.kept = [info, *(other for other in self.kept if other.digest != info.digest)]
        self._refused = ""
        self._set(upload=info.digest, name=info.name)
        self.draw()


def kept_label(info: UploadInfo) -> str:
    """A kept data set in a list to choose from: two may have the same name."""
    rows = "" if info.rows is None else f" · {formats.count(info.rows)}"
    return f"{info.name}{rows} · {info.at[:10]} · {info.digest[:6]}"
