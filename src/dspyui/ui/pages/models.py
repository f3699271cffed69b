"""Registered models and their versions; without tracking, the programs kept in the data folder."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby

from dspyui.domain.registry import ModelVersion, Stage
from dspyui.domain.storage import KeptProgram
from dspyui.services import Services
from dspyui.ui import formats
from dspyui.ui.background import Loaded
from dspyui.ui.components.register import version_address
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import Tone, card, chip, empty, link, link_button, tag, time_of
from dspyui.ui.frame import Page, framed

STAGE_TONES: dict[Stage, Tone] = {"None": "", "Staging": "warn", "Production": "good", "Archived": ""}


def models_page(services: Services) -> None:
    """Models from MLflow, or kept programs."""
    with framed(services, "models") as page:
        if services.settings.mlflow_enabled:
            Loaded(page.text, services.registry.search_versions, partial(_draw_models, page))
        else:
            tag("p", page.text("ui.models.off"), "d-hint")
            Loaded(page.text, services.programs.search, partial(_draw_programs, page))


def _draw_models(page: Page, versions: Sequence[ModelVersion]) -> None:
    text = page.text
    if not versions:
        with empty("inventory_2", text("ui.models.empty"), text("ui.models.empty_lead")):
            link_button(text("ui.job.all"), "/jobs", mark="to-jobs", kind="primary", icon="list_alt")
        return
    newest = {version.name: position for position, version in reversed(list(enumerate(versions)))}
    ordered = sorted(versions, key=lambda version: (newest[version.name], -version.version))
    for name, group in groupby(ordered, key=lambda version: version.name):
        with card(name, mark="model"):
            _versions_table(page, list(group))


def _versions_table(page: Page, versions: list[ModelVersion]) -> None:
    text = page.text
    table = Table(
        [
            Column(text("ui.models.version")),
            Column(text("ui.models.stage")),
            Column(text("ui.job.optimised"), number=True),
            Column(text("ui.result.difference"), number=True),
            Column(text("ui.jobs.when")),
            Column(text("ui.models.description")),
        ]
    )
    for version in versions:
        with table.row():
            label = text("ui.models.number", version=version.version)
            mark = f"version-{version.version}"
            table.cell(partial(link, label, version_address(version), mark=mark))
            table.cell(partial(chip, text(f"stage.{version.stage}"), STAGE_TONES[version.stage]))
            table.cell(_tagged_score(version, "evaluation_score"))
            gained = number_in(version.tags, "dspyui.score_improvement")
            table.cell("–" if gained is None else formats.signed(gained))
            table.cell(partial(time_of, version.created_at, page.visitor))
            table.cell(version.description or "–")


def number_in(tags: Mapping[str, str], name: str) -> float | None:
    """A tag that holds a number; None when there is none, or something else in it."""
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return None


def _tagged_score(version: ModelVersion, name: str) -> str:
    return formats.score(number_in(version.tags, f"dspyui.{name}"))


def _draw_programs(page: Page, programs: Sequence[KeptProgram]) -> None:
    text = page.text
    if not programs:
        with empty("inventory_2", text("ui.models.no_programs"), text("ui.models.no_programs_lead")):
            link_button(text("ui.jobs.new"), "/", mark="first-compile", kind="primary", icon="bolt")
        return
    with card(text("ui.models.programs"), mark="programs"):
        table = Table([Column(text("ui.program.name")), Column(text("ui.jobs.when")), Column("")])
        for program in programs:
            with table.row():
                table.cell(partial(link, program.name, f"/jobs/{program.job_id}"))
                table.cell(partial(time_of, program.at, page.visitor))
                address = f"/api/jobs/{program.job_id}/program"
                table.cell(
                    partial(
                        link_button,
                        text("ui.download.program"),
                        address,
                        mark=f"download-{program.job_id}",
                        kind="quiet",
                        icon="download",
                    )
                )
