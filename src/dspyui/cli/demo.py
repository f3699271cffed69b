"""`dspyui demo`: the whole way on the bundled model, with the rows that come with the program."""

from typing import Any

import typer
from typer.core import TyperCommand

from dspyui.cli.compile import lines, wait_for_record, watch
from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.register import document as version_document
from dspyui.cli.register import lines as version_lines
from dspyui.cli.session import load_settings, opened
from dspyui.errors import DSPyUIError
from dspyui.services import Services
from dspyui.services.demo import DemoOutcome, DemoService, check_done
from dspyui.services.summary import CompileSummary, summarise
from dspyui.settings import Settings


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the command."""
    text = flags.text
    seed_option = typer.Option(
        0, "--seed", metavar="N", min=0, max=2**32 - 1, help=text("cli.demo.seed"), show_default=False
    )
    json_flag, lang_flag, mlflow_flag = flags.json, flags.lang, flags.mlflow

    @app.command("demo", cls=cls, help=text("cli.demo.about"))
    def demo(
        seed: int = seed_option,
        mlflow: bool = mlflow_flag,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        return run(console, seed, load_settings(console, mlflow=mlflow))


def run(console: Console, seed: int, settings: Settings) -> int:
    """Run the demo and answer. Returns the exit code."""
    from dspyui.bootstrap import system_user
    from dspyui.services.examples import DEMO_INPUT, demo_spec

    who = system_user()
    with opened(settings) as app:
        services = app.services
        demo = DemoService(services.jobs, services.register, services.predict, services.tracking)
        job = watch(console, services, demo.start(demo_spec(seed=seed), who=who))
        try:
            check_done(job)
            wait_for_record(console, services, job.id)
            outcome = demo.finish(job.id, DEMO_INPUT, who=who)
        except DSPyUIError as exc:
            return console.failure(exc, _summary(services, job.id).model_dump(mode="json"))
        summary = _summary(services, job.id)
    console.answer(document(summary, outcome), (*lines(console, summary), *outcome_lines(console, outcome)))
    return 0


def _summary(services: Services, job_id: str) -> CompileSummary:
    return summarise(services.jobs.view(job_id), services.programs)


def document(summary: CompileSummary, outcome: DemoOutcome) -> dict[str, Any]:
    """The compile's keys, the version's, and what it answered."""
    return {
        **summary.model_dump(mode="json"),
        **version_document(outcome.version),
        "inputs": outcome.inputs,
        "prediction": outcome.prediction,
    }


def outcome_lines(console: Console, outcome: DemoOutcome) -> tuple[str, ...]:
    """The version and its answer, for people."""
    shown = {"inputs": outcome.inputs, "prediction": outcome.prediction}
    said = [
        console.text(
            f"cli.demo.{key}", values=", ".join(f"{name}: {value}" for name, value in values.items())
        )
        for key, values in shown.items()
    ]
    return (*version_lines(console, outcome.version), *said)
