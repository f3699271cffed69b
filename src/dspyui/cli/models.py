"""`dspyui models`: the registry of MLflow by commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.register import checked_stage
from dspyui.cli.session import load_settings, opened_for_mlflow
from dspyui.domain.registry import PAGE_MODELS, STAGES, ModelQuery, ModelVersion, RegisteredModel
from dspyui.errors import BadRequestError
from dspyui.services import Services
from dspyui.services.models import ListedVersion, ModelDetail, reasons

_AUDIT: Final = "dspyui.audit."


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the commands."""
    for one in (_add_list, _add_show, _add_promote, _add_rollback, _add_alias, _add_describe, _add_delete):
        one(app, flags, cls)


@contextmanager
def _opened(console: Console, *, mlflow: bool) -> Iterator[Services]:
    with opened_for_mlflow(load_settings(console, mlflow=mlflow)) as services:
        yield services


def _who() -> str:
    from dspyui.bootstrap import system_user

    return system_user()


def _name(flags: Flags) -> Any:
    return typer.Argument(..., metavar="NAME", help=flags.text("cli.models.name"))


def _version(flags: Flags, *, required: bool) -> Any:
    key = "version" if required else "version_or_model"
    return typer.Argument(... if required else None, metavar="VERSION", help=flags.text(f"cli.models.{key}"))


def _why(flags: Flags) -> Any:
    return typer.Option(..., "--why", metavar="TEXT", help=flags.text("cli.models.why"))


def _add_list(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    text = flags.text
    search_option = typer.Option("", "--name", metavar="TEXT", help=text("cli.models.search"))
    size_option = typer.Option(PAGE_MODELS, "--size", metavar="N", help=text("cli.models.size"))
    page_option = typer.Option(None, "--page", metavar="TOKEN", help=text("cli.models.page"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("list", cls=cls, help=text("cli.models.list"))
    def list_(
        name: str = search_option,
        size: int = size_option,
        page: str | None = page_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        _check_size(size)
        with _opened(console, mlflow=mlflow) as services:
            found = services.models.page(ModelQuery(name=name, size=size), page)
        lines = [_model_line(console, model) for model in found.models] or [console.text("cli.models.none")]
        if found.next_token:
            lines.append(console.text("cli.models.more", token=found.next_token))
        document = {"models": [model_document(m) for m in found.models], "next_token": found.next_token}
        console.answer(document, tuple(lines))
        return 0


def _check_size(size: int) -> None:
    if not 1 <= size <= 1000:
        raise BadRequestError("cli.models_page", value=size)


def _model_line(console: Console, model: RegisteredModel) -> str:
    numbers = {
        key: "–" if version is None else str(version.version)
        for key, version in (
            ("newest", model.newest), ("staging", model.staging), ("production", model.production),
        )
    }  # fmt: skip
    return console.text("cli.models.row", name=model.name, **numbers)


def _add_show(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    text = flags.text
    name_argument, version_argument = _name(flags), _version(flags, required=False)
    size_option = typer.Option(PAGE_MODELS, "--size", metavar="N", help=text("cli.models.size"))
    page_option = typer.Option(None, "--page", metavar="TOKEN", help=text("cli.models.page"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("show", cls=cls, help=text("cli.models.show"))
    def show(
        name: str = name_argument,
        version: int | None = version_argument,
        size: int = size_option,
        page: str | None = page_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        _check_size(size)
        with _opened(console, mlflow=mlflow) as services:
            if version is not None:
                found = services.models.get(name, version)
                console.answer(version_document(found), _version_lines(console, found))
                return 0
            detail = services.models.detail(name, page, size=size)
        console.answer(_detail_document(console, detail), _detail_lines(console, detail))
        return 0


def _detail_document(console: Console, detail: ModelDetail) -> dict[str, Any]:
    return {
        "model": model_document(detail.model),
        "versions": [
            {**version_document(listed.version), "unloadable": _unloadable(console, listed)}
            for listed in detail.versions
        ],
        "next_token": detail.next_token,
    }


def _unloadable(console: Console, listed: ListedVersion) -> str | None:
    return listed.unloadable.sentence(console.language) if listed.unloadable else None


def _detail_lines(console: Console, detail: ModelDetail) -> tuple[str, ...]:
    lines = [_model_line(console, detail.model)]
    for listed in detail.versions:
        lines.append(_version_line(console, listed.version))
        if why := _unloadable(console, listed):
            lines.append(f"  {why}")
    if detail.next_token:
        lines.append(console.text("cli.models.more", token=detail.next_token))
    return tuple(lines)


def _version_line(console: Console, version: ModelVersion) -> str:
    return console.text(
        "cli.models.version_row",
        version=version.version,
        stage=version.stage,
        score=version.tags.get("dspyui.evaluation_score", "–"),
        aliases="".join(f" @{alias}" for alias in version.aliases),
    )


def _version_lines(console: Console, version: ModelVersion) -> tuple[str, ...]:
    lines = [_version_line(console, version)]
    for change in version.history:
        said = console.text(
            "cli.models.history",
            at=f"{change.at:%Y-%m-%d %H:%M:%S}Z",
            who=change.who,
            before=change.from_stage,
            after=change.to_stage,
            why=" ".join(reasons(change, console.text)) or "–",
        )
        lines.append(f"  {said}")
    return (*lines, version.url)


def _add_promote(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    text = flags.text
    name_argument, version_argument = _name(flags), _version(flags, required=True)
    stage_option = typer.Option(
        "Production", "--stage", metavar="|".join(STAGES), help=text("cli.models.stage")
    )
    why_option = _why(flags)
    confirm_option = typer.Option("", "--confirm", metavar="NAME", help=text("cli.models.confirm"))
    from_option = typer.Option(None, "--from", metavar="VERSION", help=text("cli.models.over"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("promote", cls=cls, help=text("cli.models.promote"))
    def promote(  # noqa: PLR0913, PLR0917 - one parameter for each option
        name: str = name_argument,
        version: int = version_argument,
        stage: str = stage_option,
        why: str = why_option,
        confirm: str = confirm_option,
        holder: int | None = from_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        to = checked_stage(stage)
        with _opened(console, mlflow=mlflow) as services:
            moved = services.models.move(
                name, version, to, who=_who(), why=why, confirm=confirm, holder=holder
            )
        _tell_moved(console, moved)
        return 0


def _tell_moved(console: Console, moved: ModelVersion) -> None:
    said = console.text("cli.models.moved", name=moved.name, version=moved.version, stage=moved.stage)
    console.answer(version_document(moved), (said, moved.url))


def _add_rollback(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    name_argument, why_option = _name(flags), _why(flags)
    from_option = typer.Option(None, "--from", metavar="VERSION", help=flags.text("cli.models.holder"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("rollback", cls=cls, help=flags.text("cli.models.rollback"))
    def rollback(
        name: str = name_argument,
        why: str = why_option,
        holder: int | None = from_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with _opened(console, mlflow=mlflow) as services:
            moved = services.models.roll_back(name, who=_who(), why=why, holder=holder)
        _tell_moved(console, moved)
        return 0


def _add_alias(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    text = flags.text
    name_argument = _name(flags)
    alias_argument = typer.Argument(..., metavar="ALIAS", help=text("cli.models.alias_name"))
    version_argument = typer.Argument(None, metavar="VERSION", help=text("cli.models.version"))
    remove_option = typer.Option(False, "--remove", help=text("cli.models.remove"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("alias", cls=cls, help=text("cli.models.alias"))
    def alias_(
        name: str = name_argument,
        alias: str = alias_argument,
        version: int | None = version_argument,
        remove: bool = remove_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        if (version is None) != remove:
            raise BadRequestError("cli.models_alias")
        with _opened(console, mlflow=mlflow) as services:
            if version is None:
                services.models.delete_alias(name, alias)
                said = console.text("cli.models.unaliased", name=name, alias=alias)
            else:
                services.models.set_alias(name, alias, version)
                said = console.text("cli.models.aliased", name=name, alias=alias, version=version)
        console.answer({"name": name, "alias": alias, "version": version}, (said,))
        return 0


def _add_describe(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    text = flags.text
    name_argument, version_argument = _name(flags), _version(flags, required=False)
    description_option = typer.Option(
        None, "--description", metavar="TEXT", help=text("cli.models.description")
    )
    tag_option = typer.Option([], "--tag", metavar="NAME=VALUE", help=text("cli.models.tag"))
    untag_option = typer.Option([], "--untag", metavar="NAME", help=text("cli.models.untag"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("describe", cls=cls, help=text("cli.models.describe"))
    def describe(  # noqa: PLR0913, PLR0917 - one parameter for each option
        name: str = name_argument,
        version: int | None = version_argument,
        description: str | None = description_option,
        tag: list[str] = tag_option,
        untag: list[str] = untag_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        tags: dict[str, str | None] = {**_tags(tag), **dict.fromkeys(untag)}
        if description is None and not tags:
            raise BadRequestError("cli.models_describe")
        with _opened(console, mlflow=mlflow) as services:
            services.models.change(name, version, description, tags)
        changed = {"name": name, "version": version, "description": description, "tags": tags}
        console.answer(changed, (console.text("cli.models.described"),))
        return 0


def _tags(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise BadRequestError("cli.models_tag", value=each[:100])
        found[name.strip()] = value
    return found


def _add_delete(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    name_argument, version_argument = _name(flags), _version(flags, required=False)
    json_flag, lang_flag, mlflow_flag, yes_flag = flags.json, flags.lang, flags.mlflow, flags.yes

    @app.command("delete", cls=cls, help=flags.text("cli.models.delete"))
    def delete(
        name: str = name_argument,
        version: int | None = version_argument,
        yes: bool = yes_flag,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        key = "model" if version is None else "version"
        console.confirm(console.text(f"ui.{key}.delete_body", name=name, version=version), yes=yes)
        with _opened(console, mlflow=mlflow) as services:
            if version is None:
                services.models.delete_model(name)
            else:
                services.models.delete_version(name, version)
        said = console.text(f"cli.models.deleted_{key}", name=name, version=version)
        console.answer({"deleted": name, "version": version}, (said,))
        return 0


def version_document(version: ModelVersion) -> dict[str, Any]:
    """A version for programs."""
    return {
        **version.model_dump(mode="json", exclude={"tags", "unreadable_history"}),
        "changed_outside": version.is_changed_outside,
        "tags": {name: value for name, value in version.tags.items() if not name.startswith(_AUDIT)},
    }


def model_document(model: RegisteredModel) -> dict[str, Any]:
    """A model for programs; of its versions the numbers."""
    numbers = {
        key: None if version is None else version.version
        for key, version in (
            ("newest", model.newest), ("staging", model.staging), ("production", model.production),
        )
    }  # fmt: skip
    same = {"name", "description", "tags", "url", "updated_at", "aliases"}
    return {**model.model_dump(mode="json", include=same), **numbers}
