"""`dspyui register`: make a model version of a Run's, or a job's, program."""

from typing import Any

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import load_settings, opened_for_mlflow
from dspyui.domain.intervals import UNPROVEN
from dspyui.domain.registry import STAGES, ModelVersion, Stage, check_model_name
from dspyui.errors import BadRequestError
from dspyui.settings import Settings


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text
    run_option = typer.Option(None, "--run", metavar="ID", help=text("cli.register.run"))
    job_option = typer.Option(None, "--job", metavar="ID", help=text("cli.register.job"))
    name_option = typer.Option(..., "--name", metavar="NAME", help=text("cli.register.name"))
    description_option = typer.Option(
        "", "--description", metavar="TEXT", help=text("cli.register.description")
    )
    stage_option = typer.Option("None", "--stage", metavar="|".join(STAGES), help=text("cli.register.stage"))
    why_option = typer.Option("", "--why", metavar="TEXT", help=text("cli.register.why"))
    confirm_option = typer.Option("", "--confirm", metavar="NAME", help=text("cli.models.confirm"))
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("register", cls=cls, help=text("cli.register.about"))
    def register(  # noqa: PLR0913, PLR0917 - one parameter for each option
        run_id: str | None = run_option,
        job_id: str | None = job_option,
        name: str = name_option,
        description: str = description_option,
        stage: str = stage_option,
        why: str = why_option,
        confirm: str = confirm_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        asked = {
            "name": check_model_name(name),
            "description": description,
            "stage": checked_stage(stage),
            "why": why,
            "confirm": confirm,
        }
        if (run_id is None) == (job_id is None):
            raise BadRequestError("cli.register_source")
        version = run(
            load_settings(console, mlflow=mlflow),
            run_id=run_id,
            job_id=job_id,
            asked=asked,
        )
        if version.stage != "None" and (word := version.tags.get("dspyui.verdict")) in UNPROVEN:
            console.note(console.text("ui.register.unproven", word=console.text(f"ui.result.{word}")))
        console.answer(document(version), lines(console, version))
        return 0


def checked_stage(stage: str) -> Stage:
    """The stage by its name, in any case. Raises BadRequestError."""
    by_name: dict[str, Stage] = {known.lower(): known for known in STAGES}
    if stage.lower() not in by_name:
        raise BadRequestError("cli.stage", value=stage, known=", ".join(STAGES))
    return by_name[stage.lower()]


def run(settings: Settings, *, run_id: str | None, job_id: str | None, asked: dict[str, Any]) -> ModelVersion:
    """Register by Run or by job. Raises what RegisterService raises."""
    from dspyui.bootstrap import system_user

    with opened_for_mlflow(settings) as services:
        if run_id is not None:
            return services.register.register_run(run_id, who=system_user(), **asked)
        return services.register.register_job(job_id or "", who=system_user(), **asked)


def document(version: ModelVersion) -> dict[str, Any]:
    """The answer for programs."""
    return {
        "name": version.name,
        "version": version.version,
        "stage": version.stage,
        "model_uri": version.model_uri,
        "url": version.url,
        "run_id": version.run_id,
    }


def lines(console: Console, version: ModelVersion) -> tuple[str, ...]:
    """The answer for people."""
    said = console.text(
        "cli.register.done",
        name=version.name,
        version=version.version,
        stage=version.stage,
        uri=version.model_uri,
    )
    return (said, version.url)
