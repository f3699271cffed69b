"""Kept data sets: all of them, and one with its first rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

from nicegui import ui
from nicegui.events import UploadEventArguments

from dspyui.domain.tables import RawTable
from dspyui.domain.uploads import UploadInfo
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.components.data_preview import format_label, head_table, named_columns
from dspyui.ui.components.file_picker import ENDINGS
from dspyui.ui.components.pager import Pager
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    code,
    confirmed,
    control,
    dialog,
    dialog_actions,
    empty,
    fact,
    facts,
    labelled,
    link,
    link_button,
    marked,
    problem,
    sentence,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed

PAGE_ROWS: Final = 25
HEAD_ROWS: Final = 20


@dataclass(frozen=True, slots=True)
class _Kept:
    sets: Sequence[UploadInfo]
    uses: Mapping[str, int]
    free: int


@dataclass(frozen=True, slots=True)
class _One:
    """A data set with its rows, or, when they cannot be read, with the reason and the lines where that shows."""

    info: UploadInfo
    uses: int
    table: RawTable | None
    error: DSPyUIError | None = None
    lines: Sequence[tuple[int, str]] = ()


def datasets_page(services: Services) -> None:
    """The list."""
    with framed(services, "datasets") as page:
        with page.actions:
            button(
                page.text("ui.datasets.upload"),
                partial(_upload_dialog, page),
                mark="upload-data",
                kind="primary",
                icon="upload",
            )
        Loaded(page.text, partial(_read_all, services), partial(_SetList, page))


def _read_all(services: Services) -> _Kept:
    return _Kept(
        services.uploads.search(),
        services.data.uses(services.job_store, services.batches.upload),
        services.folder.free(),
    )


class _SetList:
    """The kept data sets, a page at a time."""

    def __init__(self, page: Page, kept: _Kept) -> None:
        self._page = page
        self._kept = kept
        self._pager = Pager(PAGE_ROWS)
        self._region = Region(self._draw)

    async def _reload(self) -> None:
        self._kept = await off_loop(_read_all, self._page.services)
        self._region.draw()

    def _turn(self) -> None:
        self._region.draw()

    def _draw(self) -> None:
        text, sets = self._page.text, self._kept.sets
        if not sets:
            with marked(
                empty("dataset", text("ui.datasets.empty"), text("ui.datasets.empty_lead")), "no-data"
            ):
                button(
                    text("ui.datasets.upload"),
                    partial(_upload_dialog, self._page),
                    mark="first-upload",
                    kind="primary",
                    icon="upload",
                )
            return
        with card(mark="datasets"):
            table = Table(
                [
                    Column(text("ui.datasets.name")),
                    Column(text("ui.datasets.rows"), number=True),
                    Column(text("ui.datasets.columns")),
                    Column(text("ui.datasets.size"), number=True),
                    Column(text("ui.datasets.when")),
                    Column(text("ui.datasets.used"), number=True),
                    Column(""),
                ],
                pairs=True,
            )
            first, last = self._pager.bounds(len(sets))
            for info in sets[first:last]:
                self._row(table, info)
            taken = text(
                "ui.datasets.taken",
                count=formats.count(len(sets)),
                size=formats.size(sum(info.size for info in sets)),
                free=formats.size(self._kept.free),
            )
            with box("d-row"):
                marked(tag("p", taken, "d-note d-grow"), "datasets-disk")
                self._pager.draw(text, len(sets), self._turn, mark="datasets", noun="datasets")

    def _row(self, table: Table, info: UploadInfo) -> None:
        page = self._page
        with table.row() as row:
            marked(row, f"data-{info.digest[:8]}")
            table.cell(partial(link, info.name, f"/data/{info.digest}", mark=f"open-{info.digest[:8]}"))
            table.cell("–" if info.rows is None else formats.count(info.rows))
            table.cell(named_columns(page.text, info.columns) or "–")
            table.cell(formats.size(info.size))
            table.cell(partial(time_of, datetime.fromisoformat(info.at), page.visitor))
            table.cell(formats.count(self._kept.uses.get(info.digest, 0)))
            table.cell(partial(self._actions, info), tools=True)

    def _actions(self, info: UploadInfo) -> None:
        short = info.digest[:8]
        with box("d-row").style("flex-wrap: nowrap"):
            use_button(self._page, info)
            button(
                self._page.text("ui.common.delete"),
                partial(self._delete, info),
                mark=f"delete-{short}",
                kind="quiet",
                icon="delete_outline",
                label_hidden=True,
            )

    async def _delete(self, info: UploadInfo) -> None:
        if await delete_after_asking(self._page, info):
            await self._reload()


def use_button(page: Page, info: UploadInfo) -> None:
    """Opens the compile form with the data set chosen."""
    link_button(
        page.text("ui.datasets.use"),
        f"/?data={info.digest}",
        mark=f"use-{info.digest[:8]}",
        kind="quiet",
        icon="bolt",
    )


async def delete_after_asking(page: Page, info: UploadInfo) -> bool:
    """Say which jobs would miss it, ask once, then delete. Tells whether it is gone."""
    text = page.text
    # Counted now: jobs may have started since the page was read.
    services = page.services
    counted = await off_loop(services.data.uses, services.job_store, services.batches.upload)
    uses = counted.get(info.digest, 0)
    rows = "–" if info.rows is None else formats.count(info.rows)
    body = text("ui.datasets.delete_body", name=info.name, rows=rows)
    if uses:
        body = text.in_a_row((body, text("ui.datasets.delete_used", jobs=formats.count(uses))))
    if not await confirmed(text, text("ui.datasets.delete_title"), body, text("ui.common.delete")):
        return False
    try:
        await off_loop(services.uploads.delete, info.digest)
    except DSPyUIError as exc:
        notify_error(exc, text)
        return False
    return True


def _upload_dialog(page: Page) -> None:
    text, limit = page.text, page.services.settings.max_upload_mb
    with dialog() as made:
        tag("h2", text("ui.datasets.upload"))
        shown = box("d-stack")
        upload = ui.upload(
            label=text("ui.data.upload", limit=limit),
            auto_upload=True,
            max_file_size=limit * 1024**2,
            on_upload=partial(_upload, page, shown),
            on_rejected=lambda: _say(page, shown, text("ui.data.rejected", limit=limit)),
        )
        marked(upload.props(f"accept={ENDINGS} flat"), "data-upload")
        with box("d-actions"):
            button(text("ui.common.close"), made.close, mark="upload-close")


async def _upload(page: Page, shown: ui.element, event: UploadEventArguments) -> None:
    content = await event.file.read()
    try:
        info, _table = await off_loop(page.services.data.keep_upload, event.file.name, content)
    except DSPyUIError as exc:
        event.sender.run_method("reset")
        _say(page, shown, sentence(exc, page.text))
        return
    ui.navigate.to(f"/data/{info.digest}")


def _say(page: Page, shown: ui.element, said: str) -> None:
    shown.clear()
    with shown:
        problem(page.text, said, mark="upload-problem")


# One data set.


def dataset_page(services: Services, digest: str) -> None:
    """What is known of a data set, and its first rows."""
    with framed(services, "datasets") as page:
        with page.actions:
            link_button(page.text("ui.datasets.all"), "/data", mark="all-data", icon="list")
        Loaded(page.text, partial(_read_one, services, digest), partial(_draw_one, page))


def _read_one(services: Services, digest: str) -> _One:
    info = services.uploads.get(digest)
    uses = services.data.uses(services.job_store, services.batches.upload).get(digest, 0)
    try:
        return _One(info, uses, services.data.kept_table(info))
    except BadRequestError as exc:
        # A batch passes over rows that are broken, and so such a file may have been kept.
        line = exc.values.get("line")
        lines = services.data.raw_lines(info, near=line if isinstance(line, int) else 1)
        return _One(info, uses, None, exc, lines)


def _draw_one(page: Page, one: _One) -> None:
    text, info, table = page.text, one.info, one.table
    with card(info.name, mark="dataset") as aside:
        with aside:
            use_button(page, info)
            button(
                text("ui.datasets.rename"),
                partial(_rename_dialog, page, info),
                mark="rename",
                icon="edit",
                kind="quiet",
            )
            link_button(
                text("ui.datasets.download"),
                f"/api/data/{info.digest}/file",
                mark="download-data",
                icon="download",
                kind="quiet",
            )
            button(
                text("ui.common.delete"),
                partial(_delete_one, page, one),
                mark="delete-data",
                icon="delete_outline",
                kind="quiet",
            )
        with facts():
            if table is not None:
                fact(text("ui.datasets.rows"), formats.count(len(table.rows)))
                fact(text("ui.datasets.columns"), named_columns(text, table.columns))
                fact(text("ui.datasets.format"), format_label(table.format, table.encoding))
            fact(text("ui.datasets.size"), formats.size(info.size))
            tag("span", text("ui.datasets.when"), "k")
            with box("v"):
                time_of(datetime.fromisoformat(info.at), page.visitor)
            fact(text("ui.datasets.used"), formats.count(one.uses))
            fact(text("ui.datasets.digest"), info.digest)
    if table is not None:
        shown = list(islice(table.rows, HEAD_ROWS))
        with card(text("ui.datasets.preview", count=len(shown)), mark="dataset-rows"):
            head_table(text, shown, table.columns)
    elif one.error is not None:
        _draw_broken(text, one.error, one.lines)


def _draw_broken(text: Text, error: DSPyUIError, lines: Sequence[tuple[int, str]]) -> None:
    problem(text, sentence(error, text), mark="dataset-problem")
    tag("p", text("ui.datasets.broken_lead"), "d-note")
    if lines:
        with card(text("ui.datasets.lines"), mark="dataset-lines"):
            code("\n".join(f"{number}: {line}" for number, line in lines))


async def _delete_one(page: Page, one: _One) -> None:
    if await delete_after_asking(page, one.info):
        ui.navigate.to("/data")


def _rename_dialog(page: Page, info: UploadInfo) -> None:
    text = page.text
    with dialog() as made:
        tag("h2", text("ui.datasets.rename"))
        with labelled(text("ui.datasets.name")):
            name = control(ui.input(value=info.name), text("ui.datasets.name"), "new-name")
        dialog_actions(
            text,
            made,
            text("ui.datasets.rename"),
            lambda: _rename(page, info.digest, name.value or "", made),
            mark="rename",
        )


async def _rename(page: Page, digest: str, name: str, opened: ui.dialog) -> None:
    try:
        await off_loop(page.services.uploads.rename, digest, name)
    except DSPyUIError as exc:
        notify_error(exc, page.text)
        return
    opened.close()
    ui.navigate.to(f"/data/{digest}")
