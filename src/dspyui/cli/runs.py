"""`dspyui runs`: the Runs of the experiment by commands, as the Runs page lists and opens them."""

from typing import Any, get_args

import typer
from typer.core import TyperCommand

from dspyui.api.run_models import RunItem, RunResponse
from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import load_settings, opened_for_mlflow
from dspyui.domain.run_list import PAGE_RUNS, SORTS, RunQuery
from dspyui.domain.runs import RUN_KINDS, RunInfo, RunStatus
from dspyui.services.documents import part_of
from dspyui.services.runs import ListedRun, RunDetail

STATES: tuple[RunStatus, ...] = get_args(RunStatus)


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the commands."""
    _add_list(app, flags, cls)
    _add_show(app, flags, cls)


def _add_list(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    text = flags.text

    def option(name: str, meta: str, default: Any = None, **values: str) -> Any:
        help_ = text(f"cli.runs.{name}", **values)
        return typer.Option(default, f"--{name}", metavar=meta, help=help_, show_default=False)

    kind_option = option("kind", "|".join(RUN_KINDS))
    state_option = option("state", "STATE", known=", ".join(STATES))
    name_option, program_option, lm_option = (option(name, "TEXT", "") for name in ("name", "program", "lm"))
    sort_option = option("sort", "VALUE", "started", known=", ".join(SORTS))
    size_option = option("size", "N", PAGE_RUNS)
    page_option = option("page", "TOKEN")
    up_option = typer.Option(False, "--up", help=text("cli.runs.up"))
    deleted_option = typer.Option(False, "--deleted", help=text("cli.runs.deleted"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("list", cls=cls, help=text("cli.runs.list"))
    def list_(  # noqa: PLR0913, PLR0917 - one parameter for each option
        kind: str | None = kind_option,
        state: str | None = state_option,
        name: str = name_option,
        program: str = program_option,
        lm: str = lm_option,
        sort: str = sort_option,
        up: bool = up_option,
        size: int = size_option,
        page: str | None = page_option,
        deleted: bool = deleted_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        asked = {"name": name, "program": program, "lm": lm, "sort": sort, "size": size, "deleted": deleted}
        query = part_of(RunQuery, {**asked, "kind": kind, "state": state, "descending": not up})
        with opened_for_mlflow(load_settings(console, mlflow=mlflow)) as services:
            found = services.run_list.page(query, page)
        lines = [_line(console, run) for run in found.runs] or [console.text("cli.runs.none")]
        if found.next_token:
            lines.append(console.text("cli.models.more", token=found.next_token))
        runs = [RunItem.of(run).model_dump(mode="json") for run in found.runs]
        console.answer({"runs": runs, "next_page_token": found.next_token}, tuple(lines))
        return 0


def _add_show(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    run_argument = typer.Argument(..., metavar="RUN_ID", help=flags.text("cli.runs.run_id"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("show", cls=cls, help=flags.text("cli.runs.show"))
    def show(
        run_id: str = run_argument,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_for_mlflow(load_settings(console, mlflow=mlflow)) as services:
            found = services.run_list.detail(run_id)
        document = RunResponse.of(found, console.language).model_dump(mode="json")
        console.answer(document, _lines(console, found))
        return 0


def _line(console: Console, run: ListedRun | RunDetail) -> str:
    info = run.info
    return console.text(
        "cli.runs.row",
        run_id=info.run_id,
        name=info.name,
        kind=console.text(f"ui.runs.kind_{info.kind}") if info.kind else "–",
        state=info.status,
        score=_score(info),
        versions="".join(f" {made.name}/{made.version}" for made in run.registrations),
    )


def _score(info: RunInfo) -> str:
    found = info.metrics.get("score" if info.kind == "batch" else "evaluation_score")
    return "–" if found is None else f"{found:.2f}"


def _lines(console: Console, found: RunDetail) -> tuple[str, ...]:
    info = found.info
    figures = [f"{name}: {value:.6g}" for name, value in sorted(info.metrics.items())]
    params = [f"{name}: {' '.join(value.split())}" for name, value in sorted(info.params.items())]
    notices = [notice.sentence(console.language) for notice in found.notices]
    return (_line(console, found), *notices, *params, *figures, info.url)
