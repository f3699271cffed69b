"""`dspyui data`: the data sets that are kept."""

import json
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Final

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.layout import width
from dspyui.cli.session import load_settings, opened_quietly
from dspyui.domain.uploads import UploadInfo
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services import Services
from dspyui.services.data import HEAD_ROWS, SHORT_DIGEST
from dspyui.ui.formats import count, size

_MEGABYTE: Final = 1024**2


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the commands."""
    for add_one in (_add_list, _add_show, _add_add, _add_rename, _add_delete):
        add_one(app, flags, cls)


def _data_argument(flags: Flags) -> Any:
    return typer.Argument(..., metavar="DATA", help=flags.text("cli.data.data"))


def _add_list(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("list", cls=cls, help=flags.text("cli.data.list"))
    def list_(as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            kept = services.uploads.search()
        said = tuple(map(_line, kept)) or (console.text("cli.data.none"),)
        console.answer({"data": [info.model_dump(mode="json") for info in kept]}, said)
        return 0


def _line(info: UploadInfo) -> str:
    cells = ((info.digest[:SHORT_DIGEST], SHORT_DIGEST), (_rows(info), 9), (size(info.size), 8))
    return "  ".join([*(cell + " " * (room - width(cell)) for cell, room in cells), info.name])


def _rows(info: UploadInfo) -> str:
    return "–" if info.rows is None else count(info.rows)


def _add_show(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    data_argument, json_flag, lang_flag = _data_argument(flags), flags.json, flags.lang

    @app.command("show", cls=cls, help=flags.text("cli.data.show"))
    def show(asked: str = data_argument, as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            info = services.data.named(asked)
            head = list(services.data.kept_table(info).rows[:HEAD_ROWS])
            uses = services.data.uses(services.job_store, services.batches.upload).get(info.digest, 0)
            path = services.uploads.path(info.digest)
        answer = {**info.model_dump(mode="json"), "path": path, "jobs": uses, "head": head}
        said = (*_about(console, info), console.text("cli.data.uses", jobs=uses), *map(_row, head))
        console.answer(answer, said)
        return 0


def _row(row: dict[str, Any]) -> str:
    # Half an emoji is valid in JSON, and no terminal shows it.
    return json.dumps(row, ensure_ascii=False).encode(errors="replace").decode()


def _about(console: Console, info: UploadInfo) -> tuple[str, ...]:
    about = console.text(
        "cli.data.about_one",
        rows=_rows(info),
        columns=", ".join(info.columns) or "–",
        format=info.format or "–",
        size=size(info.size),
    )
    return (info.name, about, console.text("cli.data.digest", digest=info.digest))


def _add_add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    file_argument = typer.Argument(..., metavar="FILE", help=flags.text("cli.data.file"))
    name_option = typer.Option(None, "--name", metavar="NAME", help=flags.text("cli.data.as_name"))
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("add", cls=cls, help=flags.text("cli.data.add"))
    def add_(
        file: Path = file_argument,
        name: str | None = name_option,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            info = keep(services, file, name)
        console.answer(info.model_dump(mode="json"), _about(console, info))
        return 0


def keep(services: Services, file: Path, name: str | None) -> UploadInfo:
    """Keep a file as a data set, under its own name or another one.

    Raises NotFoundError, and BadRequestError for what is no data file or is too large.
    """
    if name is not None and not name.strip():
        raise BadRequestError("upload.name")
    content = content_of(file, services.settings.max_upload_mb)
    info, _table = services.data.keep_upload(file.name, content)
    return info if name is None else services.uploads.rename(info.digest, name)


def content_of(file: Path, limit: int) -> bytes:
    """The bytes of an ordinary file of at most so many megabytes. Raises NotFoundError, BadRequestError."""
    path = str(file)
    try:
        found = file.stat()
        if S_ISDIR(found.st_mode):
            raise BadRequestError("file.folder", path=path)
        if not S_ISREG(found.st_mode):
            raise BadRequestError("file.special", path=path)
        if found.st_size > limit * _MEGABYTE:
            megabytes = -(-found.st_size // _MEGABYTE)
            raise BadRequestError("file.large", name=file.name, size=megabytes, limit=limit)
        return file.read_bytes()
    except PermissionError as exc:
        raise BadRequestError("file.forbidden", path=path) from exc
    except OSError as exc:
        raise NotFoundError("file.missing", path=path) from exc


def _add_rename(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    data_argument, json_flag, lang_flag = _data_argument(flags), flags.json, flags.lang
    name_argument = typer.Argument(..., metavar="NAME", help=flags.text("cli.data.name"))

    @app.command("rename", cls=cls, help=flags.text("cli.data.rename"))
    def rename(
        asked: str = data_argument,
        name: str = name_argument,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            info = services.uploads.rename(services.data.named(asked).digest, name)
        console.answer(info.model_dump(mode="json"), _about(console, info))
        return 0


def _add_delete(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    data_argument, json_flag, lang_flag, yes_flag = _data_argument(flags), flags.json, flags.lang, flags.yes

    @app.command("delete", cls=cls, help=flags.text("cli.data.delete"))
    def delete(
        asked: str = data_argument,
        yes: bool = yes_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(load_settings(console)) as services:
            info = services.data.named(asked)
            console.confirm(_question(console, services, info), yes=yes)
            services.uploads.delete(info.digest)
        said = console.text("cli.data.deleted", name=info.name)
        console.answer({"deleted": info.digest, "name": info.name}, (said,))
        return 0


def _question(console: Console, services: Services, info: UploadInfo) -> str:
    text = console.text
    said = [text("ui.datasets.delete_body", name=info.name, rows=_rows(info))]
    if uses := services.data.uses(services.job_store, services.batches.upload).get(info.digest, 0):
        said.append(text("ui.datasets.delete_used", jobs=count(uses)))
    return text.in_a_row(said)
